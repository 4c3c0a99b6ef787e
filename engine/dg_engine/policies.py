"""The decisions of a denoising loop as small frozen values: how hot, what to accept, when to stop.

The defaults are those of DiffusionGemma's published `generation_config.json`; a checkpoint's own file replaces them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearTemperature:
    """Falls linearly from `t_max` before the first step to `t_min` after the last."""

    t_min: float = 0.4
    t_max: float = 0.8

    def __post_init__(self) -> None:
        """Refuse a schedule that is not positive or that rises."""
        if not 0 < self.t_min <= self.t_max:
            raise ValueError(f"0 < {self.t_min=} <= {self.t_max=} does not hold")

    def at(self, step: int, steps: int) -> float:
        """The temperature of step 0, 1, ... of `steps`: t_min + (t_max - t_min) (steps - step) / steps."""
        return self.t_min + (self.t_max - self.t_min) * (steps - step) / steps


@dataclass(frozen=True, kw_only=True, slots=True)
class EntropyBound:
    """Accepts the most certain tokens as long as together they are nearly independent (arXiv 2505.24857).

    In ascending order of entropy, token i is accepted while the entropies before it sum to at most `entropy_bound`
    nats: that sum bounds the mutual information which sampling them at once ignores. The first is always accepted.
    """

    entropy_bound: float = 0.1

    def __post_init__(self) -> None:
        """Refuse a negative bound."""
        if not self.entropy_bound >= 0:
            raise ValueError(f"{self.entropy_bound=} must be at least 0")

    def accept(self, entropy: Tensor) -> Tensor:
        """[F] entropies in nats to [F] booleans."""
        return within_bound(entropy, self.entropy_bound)


def within_bound(entropy: Tensor, bound: float | Tensor) -> Tensor:
    """`EntropyBound`'s choice in every row of entropies [..., F], in nats; a bound for each row is [..., 1]."""
    ascending, order = entropy.sort(stable=True)
    # A shifted sum, not a sum less its last term: (1e-9 + 1) - 1 is 0 in fp32 and would accept one token too many.
    before = torch.nn.functional.pad(ascending.cumsum(-1)[..., :-1], (1, 0))
    chosen = before <= bound
    return torch.empty_like(chosen).scatter_(-1, order, chosen)


@dataclass(frozen=True, kw_only=True, slots=True)
class StableAndConfident:
    """Stops when the draft was the same for `stability_threshold` more steps and its mean entropy is low."""

    stability_threshold: int = 1
    confidence_threshold: float = 0.005

    def __post_init__(self) -> None:
        """Refuse thresholds that could never or always stop."""
        if self.stability_threshold < 0 or not self.confidence_threshold > 0:
            raise ValueError(f"{self.stability_threshold=} must be at least 0, {self.confidence_threshold=} above 0")

    def met(self, unchanged: int, mean_entropy: float) -> bool:
        """Whether to stop, given for how many steps the draft has not changed and its mean entropy in nats."""
        return unchanged >= self.stability_threshold and mean_entropy < self.confidence_threshold


@dataclass(frozen=True, kw_only=True, slots=True)
class NeverStop:
    """Runs all steps."""

    def met(self, unchanged: int, mean_entropy: float) -> bool:
        """Never."""
        del unchanged, mean_entropy
        return False


@dataclass(frozen=True, kw_only=True, slots=True)
class Denoising:
    """Everything that a denoising loop is told."""

    max_denoising_steps: int = 48
    temperature: LinearTemperature = field(default_factory=LinearTemperature)
    acceptance: EntropyBound = field(default_factory=EntropyBound)
    stopping: StableAndConfident | NeverStop = field(default_factory=StableAndConfident)

    def __post_init__(self) -> None:
        """Refuse a loop without a step."""
        if self.max_denoising_steps < 1:
            raise ValueError(f"{self.max_denoising_steps=} must be at least 1")

    def told(self, max_denoising_steps: int | None, entropy_bound: float | None) -> Denoising:
        """The same with what a request asks for; None leaves it as it is."""
        steps = self.max_denoising_steps if max_denoising_steps is None else max_denoising_steps
        acceptance = self.acceptance if entropy_bound is None else EntropyBound(entropy_bound=entropy_bound)
        return replace(self, max_denoising_steps=steps, acceptance=acceptance)
