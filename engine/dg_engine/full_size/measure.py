"""Prefill, steps, first drafts, whole blocks and memory of a random model, as the engine runs them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from itertools import pairwise, product

import torch
from torch import Tensor

from dg_engine.captures import can_capture
from dg_engine.device_loop import DeviceLoop
from dg_engine.full_size.floors import step_floor
from dg_engine.full_size.results import BlockTime, InfillTime, Memory, PrefixTime, StepTime
from dg_engine.full_size.shapes import Shape
from dg_engine.full_size.weights import Bits
from dg_engine.hardware import peak_bytes
from dg_engine.infill import Hole
from dg_engine.lengths import ByFiller, Gap
from dg_engine.model import DiffusionGemma
from dg_engine.policies import Denoising, NeverStop
from dg_engine.prefix_cache import PrefixCache
from dg_engine.prefix_store import Prefix, PrefixEncoder
from dg_engine.probe import ByProbe
from dg_engine.rows import SHORTEST_PREFIX, Row
from dg_engine.settings import RELEASED, LengthProbe
from dg_kernels.bench import Rates

_INFILL_HOLE, _INFILL_CANVAS, _INFILL_STEPS = 32, 64, 8
_INFILLS = 6
"""The first makes the canvas and is not counted."""
_SHORT = 16
"""Tokens of a prefix that is shorter than any document's."""


def forget_peak(device: torch.device) -> None:
    """What was held before and is free does not count; on a CPU it always does."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


@torch.inference_mode()
def memory(model: DiffusionGemma, shape: Shape) -> Memory:
    """Of an engine that has warmed up (`Engine.warm_up`), and of what one user then asks of it at most."""
    forget_peak(model.device)
    by_filler = ByFiller(model)
    by_probe = _by_probe(model, by_filler)
    encoder = PrefixEncoder(model, by_filler.device_loop)
    encoder.warm_up()
    usual = [_SHORT] if by_filler.device_loop is None else [_SHORT, SHORTEST_PREFIX + 1]
    for prefix, hole in product(usual, (RELEASED.line_hole, RELEASED.block_hole)):
        _drain(by_probe.fill(_gap(model, _encoded(model, encoder, prefix), hole, RELEASED.suffix_tokens, 2)))
    long = _encoded(model, encoder, shape.memory_prefix)
    _drain(by_filler.fill(_gap(model, long, max(shape.canvases), 0, 1)))
    _drain(by_probe.fill(_gap(model, long, RELEASED.block_hole, RELEASED.suffix_tokens, 2)))
    allocated = peak_bytes(model.device)
    on_cuda = model.device.type == "cuda"
    return Memory(
        prefix=shape.memory_prefix,
        weights_bytes=model.weight_bytes,
        allocated_bytes=allocated,
        reserved_bytes=torch.cuda.max_memory_reserved(model.device) if on_cuda else allocated,
    )


@torch.inference_mode()
def step_time(model: DiffusionGemma, canvas: int, prefix: int, steps: int, bits: Bits, rates: Rates) -> StepTime:
    """Of so many steps after the first, of which all shapes are run once before."""
    forget_peak(model.device)
    bench = _Bench(model)
    cache = bench.encoded(prefix).start.cache
    taken = statistics.median(bench.step_seconds(cache, canvas, steps))
    return StepTime(
        canvas=canvas,
        prefix=prefix,
        ms=taken * 1e3,
        floor_ms=step_floor(model.config, canvas, prefix, bits, rates) * 1e3,
        allocated_bytes=peak_bytes(model.device),
    )


@torch.inference_mode()
def prefix_time(model: DiffusionGemma, canvas: int, prefix: int) -> PrefixTime:
    """Of a prefix of which nothing is known, with a first draft of such a canvas."""
    bench = _Bench(model)
    bench.drafted(bench.encoded(prefix).start.cache, canvas)
    started = _now(model)
    cache = bench.encoded(prefix).start.cache
    encoded = _now(model)
    bench.drafted(cache, canvas)
    drafted = time.perf_counter()
    return PrefixTime(prefix=prefix, prefill_ms=(encoded - started) * 1e3, first_draft_ms=(drafted - started) * 1e3)


@torch.inference_mode()
def block_time(model: DiffusionGemma, canvas: int, prefix: int, steps: int) -> BlockTime:
    """Of the steps and of the canvas encoded behind the prefix, as `blocks.write_blocks` does both."""
    bench = _Bench(model)
    before = bench.encoded(prefix)
    bench.block(before, canvas, 2)
    started = _now(model)
    bench.block(before, canvas, steps)
    return BlockTime(canvas=canvas, prefix=prefix, steps=steps, ms=(_now(model) - started) * 1e3)


@torch.inference_mode()
def infill_time(model: DiffusionGemma, prefix: int, *, tried: bool) -> InfillTime:
    """Of a hole of known length, or of which lengths are tried, as of the released model.

    Half of the canvas is the longest hole, the other half what is behind it.
    """
    by_filler, taken = ByFiller(model), []
    encoded = _encoded(model, PrefixEncoder(model, by_filler.device_loop), prefix)
    gap = _gap(model, encoded, _INFILL_HOLE, _INFILL_CANVAS - _INFILL_HOLE, _INFILL_STEPS)
    filling = _by_probe(model, by_filler) if tried else by_filler
    for _ in range(_INFILLS):
        started = _now(model)
        _drain(filling.fill(gap))
        taken.append(_now(model) - started)
    return InfillTime(
        prefix=prefix,
        hole=_INFILL_HOLE,
        canvas=_INFILL_CANVAS,
        steps=_INFILL_STEPS,
        lengths=len(LengthProbe().up_to(_INFILL_HOLE)) if tried else 1,
        ms=statistics.median(taken[1:]) * 1e3,
    )


class _Bench:
    """A loop over canvases of fixed shapes, and what encodes in front of it."""

    def __init__(self, model: DiffusionGemma) -> None:
        self._model, self._loop = model, DeviceLoop(model)
        self._encoder = PrefixEncoder(model, self._loop if can_capture(model) else None)

    def encoded(self, prefix: int) -> Prefix:
        return _encoded(self._model, self._encoder, prefix)

    def drafted(self, cache: PrefixCache, canvas: int) -> None:
        next(self._loop.fill([_row(self._model, cache, canvas, 1)]))

    def step_seconds(self, cache: PrefixCache, canvas: int, steps: int) -> Iterator[float]:
        _drain(self._loop.fill([_row(self._model, cache, canvas, 2)]))
        marks = [time.perf_counter() for _ in self._loop.fill([_row(self._model, cache, canvas, steps + 1)])]
        yield from (after - before for before, after in pairwise(marks))

    def block(self, before: Prefix, canvas: int, steps: int) -> None:
        *_, (last,) = self._loop.fill([_row(self._model, before.start.cache, canvas, steps)])
        tokens = _tokens(self._model, before.tokens)[0].tolist() + last.belief.argmax.tolist()
        _drain(self._encoder.encode("", tokens, before))


def _encoded(model: DiffusionGemma, encoder: PrefixEncoder, prefix: int) -> Prefix:
    return encoder.whole("", _tokens(model, prefix)[0].tolist())


def _tokens(model: DiffusionGemma, count: int) -> Tensor:
    generator = torch.Generator(model.device).manual_seed(0)
    return torch.randint(model.config.vocab_size, (1, count), device=model.device, generator=generator)


def _by_probe(model: DiffusionGemma, by_filler: ByFiller) -> ByProbe:
    banned = torch.zeros(model.config.vocab_size, dtype=torch.bool, device=model.device)
    return ByProbe(model, LengthProbe(), banned, by_filler)


def _gap(model: DiffusionGemma, prefix: Prefix, hole: int, behind: int, steps: int) -> Gap:
    row = _row(model, prefix.start.cache, hole, steps, _tokens(model, behind)[0])
    return Gap(start=prefix.start, suffix=row.suffix, hole=row.hole, plan=row.plan, seed=row.seed)


def _row(model: DiffusionGemma, cache: PrefixCache, hole: int, steps: int, suffix: Tensor | None = None) -> Row:
    nothing = torch.zeros(model.config.vocab_size, dtype=torch.bool, device=model.device)
    return Row(
        cache=cache,
        suffix=torch.zeros(0, dtype=torch.long, device=model.device) if suffix is None else suffix,
        hole=Hole(initial=hole, longest=hole, ends=nothing, filler=model.config.eos_token_id),
        plan=Denoising(max_denoising_steps=steps, stopping=NeverStop()),
        seed=0,
    )


def _drain(items: Iterator[object]) -> None:
    for _ in items:
        pass


def _now(model: DiffusionGemma) -> float:
    """`time.perf_counter()` seconds when all that was launched is done."""
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()
