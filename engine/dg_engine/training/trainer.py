"""The training loop: resumable, bounded by the wall clock, watched through metrics, a plot and a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dg_engine import checkpoint
from dg_engine.config import ModelConfig
from dg_engine.errors import CheckpointError
from dg_engine.model import DiffusionGemma
from dg_engine.training.ahead import Ahead
from dg_engine.training.batches import Layout
from dg_engine.training.encoded import EncodedSplit
from dg_engine.training.objective import Loss, Losses, Objective
from dg_engine.training.optimiser import Optimiser
from dg_engine.training.plan import Layouts, Pace, Plan
from dg_engine.training.run_state import STATE_FILE, Metrics, load_state, save_state
from dg_engine.training.schedule import Moment, Stage
from dg_engine.training.spans import Vocabulary
from dg_engine.training.throughput import training_flops
from dg_engine.training.validation import Validation
from dg_engine.training.widening import widened


class Speed(NamedTuple):
    """Of an update."""

    tokens: float
    """A second; padding among them."""
    flops: float
    """A second, in matrix products."""


class Progress(NamedTuple):
    """One update, as it is reported."""

    update: int
    elapsed: float
    """Seconds of training, all resumed parts together."""
    stage: Stage
    losses: Losses
    speed: Speed


class Done(NamedTuple):
    """The gradients' side of an update."""

    losses: Tensor
    """The means of `Losses`, in its order."""
    tokens: int
    flops: float

    def speed(self, seconds: float) -> Speed:
        """Of an update that took so long."""
        return Speed(self.tokens / seconds, self.flops / seconds) if seconds else Speed(0.0, 0.0)


def accumulate(loss: Loss, batches: Ahead, layouts: Layouts, count: int, update: int, moment: Moment) -> Done:
    """Add up in the model the gradients of an update's so many batches."""
    losses, tokens, flops = torch.zeros(len(Losses._fields), device=loss.model.device), 0, 0.0
    for number in range(update * count, (update + 1) * count):
        batch = batches.batch(number, partial(layouts.pick, moment.stage))
        found = loss(batch, moment.objective)
        (found.total / count).backward()  # type: ignore[no-untyped-call]
        losses += torch.stack([value.detach().float() for value in found]) / count
        tokens += batch.tokens
        flops += training_flops(loss.model.config, batch, moment.objective)
    return Done(losses, tokens, flops)


Saved = Callable[[], None]

# What a state holds besides the optimiser's.
_AVERAGE, _GENERATOR = "average.", "generator"


class Trainer:
    """One run over one model.

    Args:
        model: its parameters are trained in place, in the type and on the device in which they are.
        batches: the data.
        validation: watched, not trained on.
        vocabulary: of the tokenizer.
        plan: everything else.
        directory: where state and metrics go; a run that was begun there continues.
        clock: seconds; a test's own makes a run reproducible.
        tokenizer: a digest of it, under which a run goes on.

    Raises:
        CheckpointError: the state in the directory is malformed, or of a model of another shape or vocabulary.
    """

    def __init__(
        self,
        model: DiffusionGemma,
        batches: Ahead,
        validation: EncodedSplit,
        vocabulary: Vocabulary,
        plan: Plan,
        directory: Path,
        clock: Callable[[], float] = time.perf_counter,
        tokenizer: str = "",
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._tokenizer = tokenizer
        self.model, self.plan, self.directory, self._clock = model, plan, directory, clock
        self.loss = Loss(model, torch.Generator().manual_seed(plan.seed))
        self._batches = batches
        self._optimiser = Optimiser(model, plan.rates)
        self._validation = Validation(validation, vocabulary, model.config, plan.layouts.usual, batches=4)
        self._average: dict[str, Tensor] = {}
        self.update, self.elapsed, self.tokens = 0, 0.0, 0
        self._restore()
        self._metrics = Metrics(directory, self.update)
        self._saved = self._validated = self.elapsed

    def warm_up(self) -> Pace:
        """Run every kind of batch twice and forget it: the first run may compile, the second is timed."""
        layouts, state = self.plan.layouts, self.loss.generator.get_state()
        kinds = [
            Objective(conditioned_share=0.0),
            Objective(conditioned_share=1.0),
            self.plan.schedule.at(1.0).objective,
        ]
        seconds = {layout: fmean(self._timed(layout, kind) for kind in kinds) for layout in layouts.kinds}
        tokens = {layout: self._batches.made(0, layout).tokens for layout in layouts.kinds}
        self.model.zero_grad(set_to_none=True)
        self.loss.generator.set_state(state)
        return Pace(
            causal=seconds[layouts.causal],
            joint=layouts.joint_mean(seconds),
            causal_tokens=tokens[layouts.causal],
            joint_tokens=round(layouts.joint_mean(tokens)),
        )

    def _timed(self, layout: Layout, objective: Objective) -> float:
        """Seconds that a batch takes the second time, forward and back."""
        took = 0.0
        for _ in range(2):
            started = self._clock()
            losses = self.loss(self._batches.made(0, layout), objective)
            losses.total.backward()  # type: ignore[no-untyped-call]
            losses.total.item()  # which waits for a GPU
            took = self._clock() - started
        return took

    def run(
        self,
        report: Callable[[Progress], None],
        saved: Saved = lambda: None,
        until: float | None = None,
        asked_to_stop: Callable[[], int] = lambda: 0,
    ) -> None:
        """Train until the time is spent.

        Args:
            report: told of every update.
            saved: called whenever the state was written; the averaged weights may be exported then.
            until: seconds of training after which to stop for now; None is the plan's end.
            asked_to_stop: whether to stop behind the present update.
        """
        end = self.plan.seconds if until is None else until
        stops = self.elapsed >= end
        if stops:
            saved()  # killed, or failed, between the last state and what is made from it
        while not stops:
            report(self._step())
            stops = self.elapsed >= end or bool(asked_to_stop())
            if self.elapsed - self._validated >= self.plan.validate_every or self.elapsed >= end:
                self._validated = self.elapsed
                self._metrics.add({"update": self.update, "elapsed": self.elapsed, "validation": self.validate()})
            if self.elapsed - self._saved >= self.plan.save_every or stops:
                self._saved = self.elapsed
                self.save()
                saved()

    def validate(self) -> dict[str, float]:
        """Validation losses of the weights that would be exported now."""
        self._load(self._average or self._optimiser.masters)
        found = self._validation.losses(self.loss, pinned_signal=self.plan.schedule.objective.pinned_signal)
        self._load(self._optimiser.masters)
        return found

    def export(self, directory: Path, dtype: torch.dtype = torch.bfloat16) -> None:
        """Write config and averaged weights in Hugging Face layout."""
        model = DiffusionGemma(self.model.config).to(self.model.device, dtype)
        model.load_state_dict(self.model.state_dict())
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_((self._average or self._optimiser.masters)[name])
        checkpoint.save(model, directory)

    def save(self) -> None:
        """Write the state, from which a run continues exactly."""
        tensors = self._optimiser.state() | {f"{_AVERAGE}{name}": value for name, value in self._average.items()}
        tensors[_GENERATOR] = self.loss.generator.get_state()
        counters = {"update": self.update, "elapsed": self.elapsed, "tokens": self.tokens, "tokenizer": self._tokenizer}
        save_state(self.directory, tensors, counters)

    def _restore(self) -> None:
        loaded = load_state(self.directory)
        if loaded is None:
            return
        tensors, counters = loaded
        self._refuse_another_shape(tensors)
        # A state that was written before this was kept does not tell.
        self._refuse_another_vocabulary(counters.get("tokenizer", self._tokenizer))
        self._optimiser.restore(tensors)
        self._average = {
            name.removeprefix(_AVERAGE): value.to(self.model.device)
            for name, value in tensors.items()
            if name.startswith(_AVERAGE)
        }
        self.loss.generator.set_state(tensors[_GENERATOR])
        self.update, self.elapsed, self.tokens = counters["update"], counters["elapsed"], counters["tokens"]

    def _refuse_another_shape(self, tensors: dict[str, Tensor]) -> None:
        loaded = {name: value for name, value in tensors.items() if not name.startswith((_AVERAGE, _GENERATOR))}
        expected, found = _shapes(self._optimiser.state()), _shapes(loaded)
        for name in sorted(expected.keys() | found.keys()):
            here, there = expected.get(name, "none"), found.get(name, "none")
            if here != there:
                raise CheckpointError(
                    f"{self.directory / STATE_FILE}: {name}: expected {here}, found {there}; the run was begun with "
                    "another --shape or vocabulary: go on with those, or choose another --run"
                )

    def _refuse_another_vocabulary(self, tokenizer: str) -> None:
        if tokenizer != self._tokenizer:
            raise CheckpointError(
                f"{self.directory / STATE_FILE}: the run was begun with another vocabulary of the same size: go on "
                f"with its corpus, build this one with `dg-engine corpus build --tokenizer {self.directory / 'model'}`,"
                " or choose another --run"
            )

    def _step(self) -> Progress:
        started = self._clock()
        moment = self.plan.schedule.at(self.elapsed / self.plan.seconds)
        done = accumulate(self.loss, self._batches, self.plan.layouts, self.plan.accumulate, self.update, moment)
        norm = self._optimiser.step(moment.rate)
        self._fold_in()
        losses = Losses(*done.losses.cpu())
        seconds = self._clock() - started
        self.update += 1
        self.elapsed += seconds
        self.tokens += done.tokens
        progress = Progress(self.update, self.elapsed, moment.stage, losses, done.speed(seconds))
        self._metrics.add(self._line(progress, moment, norm))
        return progress

    def _fold_in(self) -> None:
        """Take the new weights into the average, which follows them closely at first."""
        if self.elapsed / self.plan.seconds < self.plan.schedule.warm_down_from:
            return
        if not self._average:
            self._average = {name: value.clone() for name, value in self._optimiser.masters.items()}
        for name, value in self._optimiser.masters.items():
            self._average[name].lerp_(value, 1 - self.plan.average_decay)

    @torch.no_grad()
    def _load(self, weights: dict[str, Tensor]) -> None:
        for name, parameter in self.model.named_parameters():
            parameter.copy_(weights[name])

    @staticmethod
    def _line(progress: Progress, moment: Moment, norm: float) -> dict[str, Any]:
        return {
            "update": progress.update,
            "elapsed": round(progress.elapsed, 3),
            "stage": progress.stage,
            "loss": float(progress.losses.total),
            "causal": float(progress.losses.causal),
            "denoising": float(progress.losses.denoising),
            "rate": moment.rate,
            "gradient_norm": norm,
            "tokens_per_second": round(progress.speed.tokens, 1),
            "flops": round(progress.speed.flops),
        }


def _shapes(tensors: dict[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in tensors.items()}


def new_model(config: ModelConfig, seed: int, dtype: torch.dtype, start: Path | None = None) -> DiffusionGemma:
    """A model to be trained: the checkpoint at `start`, widened if that is narrower, or freshly drawn.

    Of what is drawn, every projection into the residual stream is zero.

    A router with one expert has nothing to learn: its softmax is 1, and a norm follows its scale. It is left out of the
    gradient, which also spares the compiler an atomic sum into one bf16 number that it cannot vectorise on two threads.

    Raises:
        CheckpointError: the checkpoint cannot be read, or its shape cannot be widened to `config`.
    """
    generator = torch.Generator().manual_seed(seed)
    if start is None:
        model = DiffusionGemma(config)
        checkpoint.initialise(model, generator)
    else:
        model = checkpoint.load(start, dtype=torch.float32)
        if model.config != config:
            try:
                model = widened(model, config, generator)
            except ValueError as error:
                raise CheckpointError(
                    f"{start}/config.json: cannot be widened to the model to be trained: {error}"
                ) from error
        model.train().requires_grad_()
    if config.num_experts == 1:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("router" not in name)
    return model.to(dtype)
