"""Filling one hole of unknown length between an encoded prefix and a pinned suffix. Token ids only.

The hole starts long. A model trained with filler writes it behind its answer; filler that is certain is removed while
sampling, so that the suffix moves up to where it belongs (the delete-only form of DreamOn, arXiv 2602.01326), and a
hole that is full to its end grows. The answer ends at the first filler.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dg_engine.api import StopReason
from dg_engine.canvas import Belief, Canvas, Draws, TokenBias, denoise_step, denoise_together, new_canvas
from dg_engine.model import DiffusionGemma
from dg_engine.policies import Denoising, NeverStop, StableAndConfident
from dg_engine.prefix_cache import PrefixCache

HOLE_LENGTHS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hole:
    """What is known of the hole before it is filled."""

    initial: int
    """Slots at the start; more than the answer is likely to need."""
    longest: int
    """Slots to which a full hole may grow."""
    ends: Tensor
    """[V] booleans: tokens that end the answer; filler among them."""
    filler: int
    """The token of slots that hold nothing."""
    first_allowed: Tensor | None = None
    """[V] booleans: with what the answer may begin; None for anything."""
    banned: Tensor | None = None
    """[V] booleans: what stands in no slot; None for nothing."""
    filler_bias: float = 0.0
    """Nats added to the filler's logit: what the training loss, by weighing filler less, took from it."""
    pinned_signal: bool = True
    """Whether the checkpoint was trained to be told which slots are pinned."""
    draft: tuple[int, ...] = ()
    """Tokens with which its first slots begin, no more than it has; the others begin as noise."""
    typed: tuple[int, ...] = ()
    """Tokens of what the user typed of the answer: all of it where nothing is to be inserted."""


class Filling(NamedTuple):
    """The state after a step."""

    belief: Belief
    end: int
    """Tokens of the draft that are the answer: those before the first that ends it."""
    step: int
    stop_reason: StopReason | None
    """None while there is more to do."""
    gains: list[float] | None = None
    """The log-probability of each of the answer's tokens, in nats, where the length was found by it."""

    @property
    def tokens(self) -> list[int]:
        """The answer so far."""
        return self.belief.argmax[: self.end].tolist()


@dataclass(slots=True)
class Settling:
    """How the draft of a hole changes from step to step."""

    judged: list[int] | None = None
    """The draft up to what ends the answer, after the last step."""
    unchanged: int = 0
    """Steps since it changed."""

    def settled(self, belief: Belief, end: int, stopping: StableAndConfident | NeverStop) -> bool:
        """Whether to stop after one more step, by the draft up to what ends the answer."""
        judged = belief.argmax[: end + 1].tolist()
        self.unchanged = self.unchanged + 1 if judged == self.judged else 0
        self.judged = judged
        return stopping.met(self.unchanged, float(belief.entropy[: end + 1].mean()))


# A slot is spare when it stands this far behind the answer's end: room for the answer to change its mind.
SPARE = 2
# Filler is removed when its slots' mean entropy is below this (nats): shorter canvases are cheaper and better placed.
CERTAIN = 0.1
# Left of the first slot less confident than this, a draft that ran out of time may be shown.
CONFIDENT = 0.5


def fill(
    model: DiffusionGemma,
    cache: PrefixCache,
    suffix: Tensor,
    hole: Hole,
    plan: Denoising,
    draws: Draws,
    *,
    deadline: float | None = None,
) -> Iterator[Filling]:
    """Yield after each denoising step; the last state carries a stop reason.

    Args:
        model: the decoder.
        cache: the encoded prefix.
        suffix: [S] pinned token ids behind the hole.
        hole: lengths and what ends the answer.
        plan: steps, temperature, acceptance, stopping.
        draws: the randomness.
        deadline: `time.perf_counter()` seconds after which to stop with what is certain; at least one step is run.
    """
    canvas = new_canvas(model, hole.initial, suffix, draws, pinned_signal=hole.pinned_signal, draft=hole.draft)
    settling = Settling()
    for step in range(plan.max_denoising_steps):
        canvas, belief = denoise_step(
            model,
            cache,
            canvas,
            temperature=plan.temperature.at(step, plan.max_denoising_steps),
            acceptance=plan.acceptance,
            draws=draws,
            first_allowed=hole.first_allowed,
            banned=hole.banned,
            bias=TokenBias(hole.filler, hole.filler_bias) if hole.filler_bias else None,
        )
        end = answer_end(belief.argmax, hole.ends)
        settled = settling.settled(belief, end, plan.stopping)
        growing = step > 0 and end == len(belief.argmax) < hole.longest
        reason: StopReason | None = None
        if settled and not growing:
            reason = "converged"
        elif step + 1 == plan.max_denoising_steps:
            reason = "max_denoising_steps"
        state = Filling(belief, end, step + 1, reason)
        state = out_of_time(state) if is_past(deadline) else state
        yield state
        if state.stop_reason is not None:
            return
        if step > 0:
            canvas = resized(canvas, belief, end, hole, draws)


Choose = Callable[[Sequence[Filling]], Sequence[int]]
"""Told the states of holes after their first step, names those that go on, in the order in which they are told."""


def fill_chosen(
    model: DiffusionGemma,
    cache: PrefixCache,
    suffix: Tensor,
    holes: Sequence[Hole],
    plan: Denoising,
    draws: Sequence[Draws],
    choose: Choose,
    *,
    deadline: float | None = None,
) -> Iterator[tuple[Filling, ...]]:
    """Fill holes of fixed lengths over one prefix; after the first step only those that are chosen go on.

    Yield the states of these after each step, until all have a stop reason; one that has stays as it is.

    Args:
        model: the decoder.
        cache: the encoded prefix.
        suffix: [S] pinned token ids behind each hole.
        holes: they differ in their lengths alone, and none grows.
        plan: steps, temperature, acceptance, stopping.
        draws: the randomness of each.
        choose: which go on.
        deadline: as of `fill`.
    """
    canvases = [
        new_canvas(model, hole.initial, suffix, own, pinned_signal=hole.pinned_signal, draft=hole.draft)
        for hole, own in zip(holes, draws, strict=True)
    ]
    settlings, states = [Settling() for _ in holes], dict[int, Filling]()
    chosen: Sequence[int] = range(len(holes))
    for step in range(plan.max_denoising_steps):
        running = [number for number in chosen if number not in states or states[number].stop_reason is None]
        if not running:
            return
        refined = denoise_together(
            model,
            cache,
            [canvases[number] for number in running],
            temperature=plan.temperature.at(step, plan.max_denoising_steps),
            acceptance=plan.acceptance,
            draws=[draws[number] for number in running],
            first_allowed=holes[0].first_allowed,
            banned=holes[0].banned,
        )
        for number, (canvas, belief) in zip(running, refined, strict=True):
            canvases[number], end = canvas, answer_end(belief.argmax, holes[number].ends)
            spent: StopReason | None = "max_denoising_steps" if step + 1 == plan.max_denoising_steps else None
            settled = settlings[number].settled(belief, end, plan.stopping)
            states[number] = Filling(belief, end, step + 1, "converged" if settled else spent)
        if step == 0:
            chosen = choose([states[number] for number in running])
        if is_past(deadline):
            states |= {number: out_of_time(states[number]) for number in chosen}
        yield tuple(states[number] for number in chosen)


def answer_end(draft: Tensor, ends: Tensor) -> int:
    """How many tokens of the draft [F] stand before the first that ends the answer."""
    ending = ends[draft].nonzero()
    return int(ending[0]) if len(ending) else len(draft)


def next_length(length: int, longest: int) -> int:
    """The hole length after `length`, at most `longest`."""
    return min(next((larger for larger in HOLE_LENGTHS if larger > length), longest), longest)


def resized(canvas: Canvas, belief: Belief, end: int, hole: Hole, draws: Draws) -> Canvas:
    """The canvas grown by a bucket where the answer fills it, or without the filler of which the step was certain."""
    slots = len(belief.argmax)
    if end == slots:
        missing = next_length(slots, hole.longest) - slots
        return canvas.moved(torch.arange(slots), draws.noise(missing)) if missing else canvas
    spare_from = end + SPARE
    tail = belief.argmax[end:]
    removable = slots - spare_from >= SPARE and bool((tail == hole.filler).all())
    if removable and float(belief.entropy[end:].mean()) < CERTAIN:
        return canvas.moved(torch.arange(spare_from), canvas.tokens.new_empty(0))
    return canvas


def is_past(deadline: float | None) -> bool:
    """Whether that many `time.perf_counter()` seconds are over; None never is."""
    return deadline is not None and time.perf_counter() >= deadline


def out_of_time(state: Filling) -> Filling:
    """The state where there is no time for another step: what is not final is shown up to where it is certain."""
    if state.stop_reason == "converged":
        return state
    return state._replace(end=confident(state.belief, state.end), stop_reason="time_budget")


def confident(belief: Belief, end: int) -> int:
    """How many tokens of an answer that ran out of time may be shown: those left of the first doubtful one."""
    doubtful = (belief.confidence[:end] < CONFIDENT).nonzero()
    return int(doubtful[0]) if len(doubtful) else end
