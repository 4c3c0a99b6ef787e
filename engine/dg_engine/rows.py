"""Holes to fill as the tensors of a step of fixed shapes, and what such a step reports in the words of `infill`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dg_engine.canvas import Belief
from dg_engine.infill import Filling, Hole, next_length
from dg_engine.model import DiffusionGemma
from dg_engine.policies import Denoising, StableAndConfident
from dg_engine.prefix_cache import PrefixCache
from dg_engine.static_canvas import REASONS, Rules, Shape, State
from dg_kernels import random_numbers, signed

CANVAS_BUCKETS = (64, 128, 256)
"""Lengths of canvases; every one has its own graphs."""
SHORTEST_PREFIX = 1024
"""Places for a prefix: this, or so many times four that it fits."""
MOST_SLOTS = 1024
"""Of all canvases behind one prefix that are refined in one pass: for so many the released model leaves 0.5 GB of
probabilities, and its arithmetic takes an H200 about as long as reading its weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One hole to fill."""

    cache: PrefixCache
    """The encoded prefix, a batch of one."""
    suffix: Tensor
    """[S] pinned token ids behind the hole."""
    hole: Hole
    plan: Denoising
    seed: int


def canvas_bucket(row: Row) -> int | None:
    """The shortest canvas that holds the hole at its longest, or the longest canvas; None if the hole does not fit."""
    pinned = len(row.suffix)
    if row.hole.initial + pinned > CANVAS_BUCKETS[-1]:
        return None
    return next((slots for slots in CANVAS_BUCKETS if slots >= row.hole.longest + pinned), CANVAS_BUCKETS[-1])


def can_choose(rows: Sequence[Row], count: int) -> bool:
    """Whether `DeviceLoop.fill_chosen` takes these rows when so many go on."""
    buckets = [canvas_bucket(row) for row in rows]
    return all(slots is not None and slots * min(count, len(rows)) <= MOST_SLOTS for slots in buckets)


def tried_slots(holes: Sequence[int], suffix: int) -> int:
    """Of how many slots the vocabulary is asked at once where holes of these lengths are tried (`fill_chosen`)."""
    longest = max(holes)
    canvas = next((slots for slots in CANVAS_BUCKETS if slots >= longest + suffix), CANVAS_BUCKETS[-1])
    return asked_slots(canvas, longest) * min(len(holes), MOST_SLOTS // canvas)


def prefix_places(tokens: int) -> int:
    """Places in which a prefix of so many tokens lies."""
    places = SHORTEST_PREFIX
    while places < tokens:
        places *= 4
    return places


def asked_slots(canvas: int, hole: int) -> int:
    """Of how many slots of a canvas the vocabulary is asked, of which a hole has so many: half of them, or all."""
    return canvas // 2 if hole <= canvas // 2 else canvas


def shape_of(rows: Sequence[Row]) -> Shape:
    """What their step is for: the shortest canvas for all, and one prefix if it is the same and they fit behind it.

    Raises:
        ValueError: there is no row, or one that no canvas holds.
    """
    buckets = [canvas_bucket(row) for row in rows]
    if not rows or None in buckets:
        raise ValueError(f"a batch needs rows, and in each hole and suffix together at most {CANVAS_BUCKETS[-1]} slots")
    canvas = max(slots for slots in buckets if slots is not None)
    shared = len(rows) * canvas <= MOST_SLOTS and all(row.cache is rows[0].cache for row in rows)
    prefix = prefix_places(max(row.cache.length for row in rows))
    hole = asked_slots(canvas, max(max(row.hole.initial, _longest(row, canvas)) for row in rows))
    return Shape(len(rows), canvas, hole, prefix, 1 if shared else len(rows))


def prefixes_of(shape: Shape, rows: Sequence[Row]) -> list[PrefixCache]:
    """Those that such a step stands behind."""
    return [row.cache for row in rows[: shape.prefixes]]


def rules_of(model: DiffusionGemma, shape: Shape, rows: Sequence[Row]) -> Rules:
    """What the rows are told, on the model's device."""

    def each(numbers: list[int] | list[float], dtype: torch.dtype = torch.long) -> Tensor:
        return torch.tensor(numbers, dtype=dtype, device=model.device)

    plans, holes = [row.plan for row in rows], [row.hole for row in rows]
    stopping = [plan.stopping if isinstance(plan.stopping, StableAndConfident) else None for plan in plans]
    prefix = each([row.cache.length for row in rows])
    positions = prefix[:, None] + torch.arange(shape.canvas, device=model.device)
    return Rules(
        seed=each([signed(row.seed) for row in rows]),
        prefix=prefix,
        suffix=each([len(row.suffix) for row in rows]),
        angles=model.angles(positions),
        longer=torch.tensor([_longer(row, shape.canvas) for row in rows], device=model.device),
        ends=torch.stack([hole.ends for hole in holes]),
        allowed=_allowed(model, holes),
        mask=torch.tensor([_masks(hole, number, len(rows)) for number, hole in enumerate(holes)], device=model.device),
        filler=each([hole.filler for hole in holes]),
        filler_bias=each([hole.filler_bias for hole in holes], torch.float32),
        steps=each([plan.max_denoising_steps for plan in plans]),
        t_min=each([plan.temperature.t_min for plan in plans], torch.float64),
        t_max=each([plan.temperature.t_max for plan in plans], torch.float64),
        entropy_bound=each([plan.acceptance.entropy_bound for plan in plans], torch.float32),
        stability=each([rule.stability_threshold if rule else 0 for rule in stopping]),
        # No mean is below minus infinity: that is `NeverStop`.
        confidence=each([rule.confidence_threshold if rule else -torch.inf for rule in stopping], torch.float64),
    )


def _allowed(model: DiffusionGemma, holes: Sequence[Hole]) -> Tensor:
    """[2 B, V] as `Rules.allowed`."""
    anything = torch.ones(model.config.vocab_size, dtype=torch.bool, device=model.device)
    others = [anything if hole.banned is None else ~hole.banned for hole in holes]
    firsts = [
        mask if hole.first_allowed is None else mask & hole.first_allowed
        for hole, mask in zip(holes, others, strict=True)
    ]
    return torch.stack((*firsts, *others))


def _masks(hole: Hole, row: int, rows: int) -> tuple[int, int]:
    """As in `Rules.mask`."""
    others = -1 if hole.banned is None else rows + row
    return (others if hole.first_allowed is None else row), others


def _longer(row: Row, canvas: int) -> tuple[int, ...]:
    return _next_lengths(_longest(row, canvas), canvas)


def _longest(row: Row, canvas: int) -> int:
    """Slots to which its hole may grow there."""
    return min(row.hole.longest, canvas - len(row.suffix))


@functools.lru_cache(maxsize=256)
def _next_lengths(longest: int, canvas: int) -> tuple[int, ...]:
    return tuple(max(length, next_length(length, longest)) for length in range(canvas + 1))


def first_state(model: DiffusionGemma, shape: Shape, rows: Sequence[Row]) -> State:
    """The rows' canvases before their first step: a draft, noise, pinned tokens and padding."""
    seeds = torch.tensor([signed(row.seed) for row in rows], device=model.device)
    _, tokens = random_numbers(seeds, torch.full_like(seeds, -1), shape.canvas, model.config.vocab_size)
    signal = torch.zeros_like(model.embed(tokens))
    for number, row in enumerate(rows):
        pinned = slice(row.hole.initial, row.hole.initial + len(row.suffix))
        tokens[number, pinned] = row.suffix
        tokens[number, pinned.stop :] = 0
        if row.hole.pinned_signal:
            signal[number, pinned] = model.embed(row.suffix)
        if row.hole.draft:
            drafted = slice(0, len(row.hole.draft))
            tokens[number, drafted] = torch.tensor(row.hole.draft, device=model.device)
            signal[number, drafted] = model.embed(tokens[number, drafted])
    count = torch.zeros_like(seeds)
    return State(
        tokens=tokens,
        signal=signal,
        hole=torch.tensor([row.hole.initial for row in rows], device=model.device),
        step=count,
        judged=torch.full_like(tokens, -1),
        unchanged=count.clone(),
        reason=count.clone(),
        report=torch.zeros(shape.batch, 4 + 4 * shape.canvas, device=model.device),
    )


def filling_of(report: Tensor) -> Filling:
    """What `State.report` says of one row, in the words of `infill`."""
    head, slots = report[:4].long().tolist(), report[4:].clone().view(4, -1)
    reason, step, end, hole = head
    draft, accepted, confidence, entropy = slots[:, :hole]
    belief = Belief(draft.long(), confidence, entropy, accepted.bool())
    return Filling(belief, end, step, REASONS[reason])
