"""Prefill, steps, first drafts and whole blocks of a random model, as the engine runs them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import msgspec
import torch
from torch import Tensor

from dg_engine.causal import Start
from dg_engine.device_loop import DeviceLoop
from dg_engine.full_size.floors import step_floor
from dg_engine.full_size.shapes import Shape
from dg_engine.full_size.weights import BITS
from dg_engine.hardware import peak_bytes
from dg_engine.infill import Hole
from dg_engine.lengths import ByFiller, Gap
from dg_engine.model import DiffusionGemma
from dg_engine.policies import Denoising, NeverStop
from dg_engine.prefix_cache import PrefixCache
from dg_engine.prefix_store import prefill_chunk
from dg_engine.probe import ByProbe
from dg_engine.rows import Row
from dg_engine.settings import RELEASED, LengthProbe
from dg_kernels.bench import Rates

_INFILL_HOLE, _INFILL_CANVAS, _INFILL_STEPS = 32, 64, 8
_INFILLS = 6
"""The first makes the canvas and is not counted."""


class PrefixTime(msgspec.Struct, frozen=True, kw_only=True):
    """What encoding a prefix takes."""

    prefix: int
    prefill_ms: float
    first_draft_ms: float
    """From the prefix's tokens to the first draft of the longest canvas."""


class StepTime(msgspec.Struct, frozen=True, kw_only=True):
    """What a denoising step takes."""

    canvas: int
    prefix: int
    ms: float
    """The median, from one draft to the next as the host sees them."""
    floor_ms: float


class BlockTime(msgspec.Struct, frozen=True, kw_only=True):
    """What a whole block takes: its steps, and its tokens encoded into the prefix cache."""

    steps: int
    ms: float
    tokens_per_second: float


class InfillTime(msgspec.Struct, frozen=True, kw_only=True):
    """What a whole infill takes whose prefix is encoded, as while somebody types."""

    prefix: int
    hole: int
    canvas: int
    steps: int
    lengths: int
    """That are tried, and the likeliest answer chosen; 1 where the length is known."""
    ms: float
    """The median."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """All that is measured of a model."""

    prefixes: list[PrefixTime]
    steps: list[StepTime]
    blocks: list[BlockTime]
    infills: list[InfillTime]
    weights_bytes: int
    memory_prefix: int
    memory_bytes: int
    """The most that was held with weights, such a prefix, a step of the longest canvas and a block whose length is
    tried."""
    peak_bytes: int
    """The most that was held at all."""


@torch.inference_mode()
def measure(model: DiffusionGemma, shape: Shape, format_: str, rates: Rates) -> Figures:
    """Measure a model; every shape is run once before it is timed."""
    prefixes, steps, blocks = list[PrefixTime](), list[StepTime](), list[BlockTime]()
    memory_bytes = _memory_bytes(model, shape)
    infills = [_infill_time(model, shape.infill_prefix, tried=tried) for tried in (False, True)]
    for prefix in shape.prefixes:
        loop = DeviceLoop(model)
        tokens = _tokens(model, prefix)
        cache = _encoded(model, tokens)
        for canvas in shape.canvases:
            floor = step_floor(shape.config, canvas, prefix, BITS[format_], rates)
            taken = statistics.median(_step_seconds(loop, model, cache, canvas, shape.timed_steps))
            steps.append(StepTime(canvas=canvas, prefix=prefix, ms=taken * 1e3, floor_ms=floor * 1e3))
        prefixes.append(_prefix_time(loop, model, tokens, shape))
        if prefix == shape.prefix:
            blocks = [_block_time(loop, model, cache, max(shape.canvases), count) for count in shape.block_steps]
    return Figures(
        prefixes=prefixes,
        steps=steps,
        blocks=blocks,
        infills=infills,
        weights_bytes=model.weight_bytes,
        memory_prefix=shape.memory_prefix,
        memory_bytes=memory_bytes,
        peak_bytes=peak_bytes(model.device),
    )


def _tokens(model: DiffusionGemma, count: int) -> Tensor:
    generator = torch.Generator(model.device).manual_seed(0)
    return torch.randint(model.config.vocab_size, (1, count), device=model.device, generator=generator)


def _encoded(model: DiffusionGemma, tokens: Tensor) -> PrefixCache:
    """In chunks, as the engine does it."""
    cache = model.empty_cache(1)
    for part in torch.split(tokens, prefill_chunk(model.device), dim=1):
        # The hidden state that predicts what follows is all that is read.
        cache = model.encode(part, cache, slice(-1, None)).cache
    return cache


def _memory_bytes(model: DiffusionGemma, shape: Shape) -> int:
    whole = _gap(model, shape.memory_prefix, max(shape.canvases), 0, 1)
    block = _gap(model, shape.memory_prefix, RELEASED.block_hole, RELEASED.suffix_tokens, 2)
    by_filler = ByFiller(model)
    for filling, gap in ((by_filler, whole), (_by_probe(model, by_filler), block)):
        for _ in filling.fill(replace(gap, start=whole.start)):
            pass
    return peak_bytes(model.device)


def _by_probe(model: DiffusionGemma, by_filler: ByFiller) -> ByProbe:
    banned = torch.zeros(model.config.vocab_size, dtype=torch.bool, device=model.device)
    return ByProbe(model, LengthProbe(), banned, by_filler)


def _gap(model: DiffusionGemma, prefix: int, hole: int, behind: int, steps: int) -> Gap:
    encoded = model.encode(_tokens(model, 1), _encoded(model, _tokens(model, prefix - 1)))
    row = _row(model, encoded.cache, hole, steps, _tokens(model, behind)[0])
    start = Start(encoded.hidden[0, -1:], encoded.cache)
    return Gap(start=start, suffix=row.suffix, hole=row.hole, plan=row.plan, seed=row.seed)


def _infill_time(model: DiffusionGemma, prefix: int, *, tried: bool) -> InfillTime:
    """Of a hole of known length, or of which lengths are tried, as of the released model.

    Half of the canvas is the longest hole, the other half what is behind it.
    """
    gap = _gap(model, prefix, _INFILL_HOLE, _INFILL_CANVAS - _INFILL_HOLE, _INFILL_STEPS)
    by_filler, taken = ByFiller(model), []
    filling = _by_probe(model, by_filler) if tried else by_filler
    for _ in range(_INFILLS):
        started = _now(model)
        for _ in filling.fill(gap):
            pass
        taken.append(_now(model) - started)
    return InfillTime(
        prefix=prefix,
        hole=_INFILL_HOLE,
        canvas=_INFILL_CANVAS,
        steps=_INFILL_STEPS,
        lengths=len(LengthProbe().up_to(_INFILL_HOLE)) if tried else 1,
        ms=statistics.median(taken[1:]) * 1e3,
    )


def _row(model: DiffusionGemma, cache: PrefixCache, hole: int, steps: int, suffix: Tensor | None = None) -> Row:
    nothing = torch.zeros(model.config.vocab_size, dtype=torch.bool, device=model.device)
    return Row(
        cache=cache,
        suffix=torch.zeros(0, dtype=torch.long, device=model.device) if suffix is None else suffix,
        hole=Hole(initial=hole, longest=hole, ends=nothing, filler=model.config.eos_token_id),
        plan=Denoising(max_denoising_steps=steps, stopping=NeverStop()),
        seed=0,
    )


def _step_seconds(
    loop: DeviceLoop, model: DiffusionGemma, cache: PrefixCache, canvas: int, steps: int
) -> Iterator[float]:
    for _ in loop.fill([_row(model, cache, canvas, 2)]):
        pass
    marks = [time.perf_counter() for _ in loop.fill([_row(model, cache, canvas, steps + 1)])]
    yield from (after - before for before, after in pairwise(marks))


def _prefix_time(loop: DeviceLoop, model: DiffusionGemma, tokens: Tensor, shape: Shape) -> PrefixTime:
    started = _now(model)
    cache = _encoded(model, tokens)
    encoded = _now(model)
    next(loop.fill([_row(model, cache, max(shape.canvases), 1)]))
    drafted = time.perf_counter()
    return PrefixTime(
        prefix=tokens.shape[1], prefill_ms=(encoded - started) * 1e3, first_draft_ms=(drafted - started) * 1e3
    )


def _block_time(loop: DeviceLoop, model: DiffusionGemma, cache: PrefixCache, canvas: int, steps: int) -> BlockTime:
    started = _now(model)
    *_, (last,) = loop.fill([_row(model, cache, canvas, steps)])
    model.encode(last.belief.argmax[None].to(model.device), cache, slice(-1, None))
    taken = _now(model) - started
    return BlockTime(steps=steps, ms=taken * 1e3, tokens_per_second=canvas / taken)


def _now(model: DiffusionGemma) -> float:
    """`time.perf_counter()` seconds when all that was launched is done."""
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()
