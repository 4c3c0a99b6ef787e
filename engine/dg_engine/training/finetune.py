"""The loop of a fine-tuning: bounded by the wall clock, resumable, and what it keeps is the best it has seen.

Best is by the losses on files that are held out. They are taken before the first update too, so that an adapter which
never beats the model as it was is never kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any, Protocol

import torch
from torch import Tensor

from dg_engine.model import DiffusionGemma
from dg_engine.settings import InfillConfig
from dg_engine.training.ahead import Ahead
from dg_engine.training.batches import Batcher, Layout
from dg_engine.training.encoded import EncodedSplit
from dg_engine.training.objective import Loss, Losses
from dg_engine.training.plan import Layouts
from dg_engine.training.run_state import load_state, save_state
from dg_engine.training.schedule import Schedule
from dg_engine.training.spans import Vocabulary
from dg_engine.training.trainer import Progress, accumulate
from dg_engine.training.validation import Validation


class Learner(Protocol):
    """What the loop asks of an optimiser; `Optimiser` learns all weights, `LowRankOptimiser` an adapter."""

    def step(self, scale: float) -> float:
        """Apply the gradients, and clear them."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Everything that a later step depends on."""
        ...

    def restore(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state`."""
        ...


BOTH_SIDES = Schedule(causal_until=0.0, joint_until=0.7, warm_down_from=0.2, corruption_ramp=0.0, own_noise_from=0.0)
"""A trained model needs no causal stage and no ramps, and fewer updates to warm down."""
CAUSAL_SIDE = Schedule(causal_until=1.0, joint_until=1.0, warm_down_from=0.2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How a fine-tuning goes."""

    seconds: float
    """Wall clock to spend from the first update on, checks and compilation among it."""
    layouts: Layouts
    accumulate: int = 1
    """Batches to an update."""
    schedule: Schedule = BOTH_SIDES
    seed: int = 0
    checks: int = 8
    """Looks at the held-out files, besides the one before the first update."""
    checked_batches: int = 2
    """Each goes through the model once, with canvases for every noise level: a look costs as much as four updates."""
    save_every: float = 30.0
    """Seconds between two states on disk, of which there is one after each look too."""

    @classmethod
    def of(
        cls, config: InfillConfig, layouts: Layouts, *, seconds: float, seed: int = 0, diffusion: bool = False
    ) -> Plan:
        """To make a checkpoint better at what it is asked for: where it only writes from left to right, it learns that.

        Args:
            config: of the checkpoint.
            layouts: those of training.
            seconds: to spend.
            seed: of the run.
            diffusion: whether it learns to denoise, too, even if it is not asked to by default.
        """
        if diffusion or "diffusion" in {config.decoding, config.block_decoding}:
            objective = replace(BOTH_SIDES.objective, pinned_signal=config.pinned_signal)
            return cls(seconds=seconds, layouts=layouts, schedule=replace(BOTH_SIDES, objective=objective), seed=seed)
        return cls(seconds=seconds, layouts=layouts, schedule=CAUSAL_SIDE, checked_batches=8, seed=seed)

    @property
    def checked(self) -> Layout:
        """The shape of the batches by which the model is judged: that with which it begins to learn."""
        return self.layouts.pick(self.schedule.at(0.0).stage, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """A look at the held-out files."""

    update: int
    elapsed: float
    losses: dict[str, float]
    """As `Validation` gives them, in nats per token."""

    @property
    def score(self) -> float:
        """What is to become small: the causal loss, and the mean over noise levels, which counts as much."""
        levels = [value for name, value in self.losses.items() if name != "causal"]
        return self.losses["causal"] + (mean(levels) if levels else 0.0)


class FineTuning:
    """One run over one model.

    Args:
        model: trained in place, in the type and on the device in which it is.
        learner: steps the model's weights.
        train: the data.
        held_out: looked at, not learnt from.
        vocabulary: of the tokenizer.
        plan: everything else.
        directory: where the state goes; a run that was begun there continues.
        keep: called when the model is better than ever; must leave what it keeps on disk when it returns.
        clock: seconds; a test's own makes a run reproducible.

    Raises:
        CheckpointError: the state in the directory is malformed.
    """

    def __init__(
        self,
        model: DiffusionGemma,
        learner: Learner,
        train: EncodedSplit,
        held_out: EncodedSplit,
        vocabulary: Vocabulary,
        plan: Plan,
        directory: Path,
        keep: Callable[[], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.plan, self._learner, self._directory, self._keep, self._clock = plan, learner, directory, keep, clock
        self.loss = Loss(model, torch.Generator().manual_seed(plan.seed))
        self._batches = Ahead(Batcher(train, vocabulary, model.config, plan.seed))
        self._validation = Validation(held_out, vocabulary, model.config, plan.checked, plan.checked_batches)
        self.update, self.elapsed = 0, 0.0
        self.checks: list[Check] = []
        self._restore()
        self._saved = self.elapsed

    @property
    def best(self) -> Check:
        """The check with the smallest score."""
        return min(self.checks, key=lambda check: check.score)

    @property
    def kept(self) -> bool:
        """Whether the model was ever better than before the first update."""
        return self.best.update > 0

    def run(self, report: Callable[[Progress], None], checked: Callable[[Check], None] = lambda check: None) -> None:
        """Train until the time is spent.

        Args:
            report: told of every update.
            checked: told of every look at the held-out files.
        """
        while not self.checks or self.elapsed < self.plan.seconds:
            if self.checks:
                report(self._step())
            if self._is_due():
                checked(self._check())
            if self.checks[-1].update == self.update or self.elapsed - self._saved >= self.plan.save_every:
                self._save()

    def _is_due(self) -> bool:
        last = self.checks[-1].elapsed if self.checks else float("-inf")
        return self.elapsed - last >= self.plan.seconds / self.plan.checks or self.elapsed >= self.plan.seconds

    def _check(self) -> Check:
        started = self._clock()
        pinned_signal = self.plan.schedule.objective.pinned_signal
        losses = self._validation.losses(self.loss, pinned_signal=pinned_signal)
        if self.update:
            self.elapsed += self._clock() - started
        check = Check(update=self.update, elapsed=self.elapsed, losses=losses)
        self.checks.append(check)
        if self.update and self.best is check:
            self._keep()
        return check

    def _step(self) -> Progress:
        started = self._clock()
        moment = self.plan.schedule.at(min(1.0, self.elapsed / self.plan.seconds))
        done = accumulate(self.loss, self._batches, self.plan.layouts, self.plan.accumulate, self.update, moment)
        self._learner.step(moment.rate)
        losses = Losses(*done.losses.cpu())
        seconds = self._clock() - started
        self.update += 1
        self.elapsed += seconds
        return Progress(self.update, self.elapsed, moment.stage, losses, done.speed(seconds))

    def _save(self) -> None:
        tensors = self._learner.state() | {"generator": self.loss.generator.get_state()}
        checks = [{"update": one.update, "elapsed": one.elapsed, "losses": one.losses} for one in self.checks]
        counters = {
            "update": self.update,
            "elapsed": self.elapsed,
            "checks": checks,
        }
        save_state(self._directory, tensors, counters)
        self._saved = self.elapsed

    def _restore(self) -> None:
        loaded = load_state(self._directory)
        if loaded is None:
            return
        tensors, counters = loaded
        self.loss.generator.set_state(tensors.pop("generator"))
        self._learner.restore(tensors)
        self.update, self.elapsed = counters["update"], counters["elapsed"]
        checks: list[dict[str, Any]] = counters["checks"]
        self.checks = [Check(**check) for check in checks]
