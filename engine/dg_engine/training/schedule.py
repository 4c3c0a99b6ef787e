"""What to train at which moment of a run. Time is a fraction of the wall clock granted, so that a run ends when told.

Three stages: causal only, since every strong diffusion model of code began as a causal one (Stable-DiffCoder, arXiv
2601.15892); both objectives; and a finish at the noise levels and with the certainty that sampling wants.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from dg_engine.training.bounds import bounded
from dg_engine.training.objective import Objective

_FIRST_CORRUPTION = 0.3

Stage = Literal["causal", "joint", "finish"]


class Moment(NamedTuple):
    """The state of the schedule."""

    stage: Stage
    rate: float
    """Factor on all learning rates."""
    objective: Objective


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """Where the stages end, as fractions of the run, and how weights and rates move through them."""

    objective: Objective = field(default_factory=Objective)
    """What the stages start from."""
    causal_until: float = 0.3
    joint_until: float = 0.87
    warm_up: float = 0.02
    warm_down_from: float = 0.35
    """From here the learning rate falls linearly to zero at the end, and the weights are averaged."""
    corruption_ramp: float = 0.1
    """Of the denoising part: over it the largest corruption rises from 0.3 to the objective's."""
    own_noise_from: float = 0.4
    """Of the denoising part: from here on the model also sees its own mistakes."""
    own_noise_share: float = 0.3
    certainty_weight: float = 0.1
    last_causal_weight: float = 0.3

    def __post_init__(self) -> None:
        """Refuse stages out of order, and shares and weights that are none."""
        for name in ("warm_up", "corruption_ramp", "own_noise_from", "certainty_weight", "last_causal_weight"):
            bounded(name, getattr(self, name), least=0)
        bounded("own_noise_share", self.own_noise_share, least=0, most=1)
        if not 0 <= self.causal_until <= self.joint_until <= 1 or not 0 <= self.warm_down_from < 1:
            raise ValueError(f"stages out of order: {self}")

    def at(self, fraction: float) -> Moment:
        """The moment at a fraction of the run, 0 to 1."""
        if fraction < self.causal_until:
            return Moment("causal", self.rate(fraction), self.objective)
        if fraction < self.joint_until:
            return Moment("joint", self.rate(fraction), self._joint(fraction))
        finish = replace(
            self.objective,
            causal_weight=self.last_causal_weight,
            own_noise_share=self.own_noise_share,
            certainty_weight=self.certainty_weight,
            grid=(1.0, 0.75, 0.5, 0.25),
        )
        return Moment("finish", self.rate(fraction), finish)

    def rate(self, fraction: float) -> float:
        """Linear warm-up, constant, linear warm-down to zero."""
        warm = min(1.0, fraction / self.warm_up + 0.01) if self.warm_up else 1.0
        return min(warm, max(0.0, (1 - fraction) / (1 - self.warm_down_from)))

    def _joint(self, fraction: float) -> Objective:
        first, lowest = self.objective, min(_FIRST_CORRUPTION, self.objective.most_corruption)
        done = (fraction - self.causal_until) / (1 - self.causal_until)
        through = (fraction - self.causal_until) / max(1e-9, self.joint_until - self.causal_until)
        ramp = min(1.0, done / self.corruption_ramp) if self.corruption_ramp else 1.0
        return replace(
            first,
            causal_weight=first.causal_weight + (self.last_causal_weight - first.causal_weight) * through,
            most_corruption=lowest + (first.most_corruption - lowest) * ramp,
            own_noise_share=self.own_noise_share if done >= self.own_noise_from else first.own_noise_share,
        )
