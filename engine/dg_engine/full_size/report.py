"""What was measured: for people as Markdown and a roofline plot; for programs the report itself is JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from dg_engine.formats.inspection import bytes_text
from dg_engine.full_size.results import (
    BlockTime,
    Ceilings,
    InfillTime,
    KernelTime,
    Memory,
    PrefixTime,
    Report,
    StepTime,
    TheirBlocks,
    TheirStep,
)
from dg_kernels.bench import HEADINGS, Timing, rates_text
from dg_kernels.cases import HEAD_PRODUCT

_WRONG = "its window is overrun: wrong results"


def markdown(report: Report) -> Iterator[str]:
    """What there is of the tables, line by line, and what is missing of them."""
    commit = f", commit {report.commit}" if report.commit else ""
    device = "" if report.device == "CPU" else f"{report.device}; "
    yield f"{device}{report.machine}; {report.shape} shape, experts in {report.format}"
    yield f"sources {report.sources}{commit}"
    for ceilings in report.all(Ceilings):
        yield rates_text(ceilings.rates)
    for memory in report.all(Memory):
        yield (
            f"weights {bytes_text(memory.weights_bytes)}, most memory after the warm-up with a prefix of "
            f"{memory.prefix} {bytes_text(memory.allocated_bytes)}, reserved {bytes_text(memory.reserved_bytes)}"
        )
    for infill in report.all(InfillTime):
        how = f"of {infill.hole} tokens" if infill.lengths == 1 else f"of {infill.lengths} lengths up to {infill.hole}"
        yield (
            f"an infill {how} in a canvas of {infill.canvas}, {infill.steps} steps, behind an encoded "
            f"prefix of {infill.prefix}: {infill.ms:.1f} ms"
        )
    timings = [one.timing for one in report.all(KernelTime)]
    yield from _beyond_product(timings)
    yield from _own_tables(report)
    yield from _table(HEADINGS, (timing.cells() for timing in timings))
    yield from _their_tables(report)
    yield from _table(("failed", "why"), ((name, _one_line(why)) for name, why in report.failures.items()))


def _own_tables(report: Report) -> Iterator[str]:
    yield from _table(
        ("canvas", "prefix", "ms per step", "floor ms", "share of the floor", "most memory"),
        (
            (s.canvas, s.prefix, f"{s.ms:.2f}", f"{s.floor_ms:.2f}", _share(s), bytes_text(s.allocated_bytes))
            for s in sorted(report.all(StepTime), key=lambda one: (one.prefix, one.canvas))
        ),
    )
    yield from _table(
        ("prefix", "prefill ms", "first draft ms"),
        (
            (one.prefix, f"{one.prefill_ms:.1f}", f"{one.first_draft_ms:.1f}")
            for one in sorted(report.all(PrefixTime), key=lambda one: one.prefix)
        ),
    )
    yield from _table(
        ("block", "prefix", "steps", "ms", "tokens per second"),
        (
            (one.canvas, one.prefix, one.steps, f"{one.ms:.1f}", f"{one.tokens_per_second:.0f}")
            for one in sorted(report.all(BlockTime), key=lambda one: (one.prefix, one.steps))
        ),
    )


def _their_tables(report: Report) -> Iterator[str]:
    """Beside what this engine takes for the same, where that was measured."""
    yield from _their_steps(report)
    yield from _their_blocks(report)


def _their_steps(report: Report) -> Iterator[str]:
    steps = {(one.canvas, one.prefix): one for one in report.all(StepTime)}
    rows = []
    for one in sorted(report.all(TheirStep), key=lambda one: (one.mode, one.prefix, one.canvas)):
        own = steps.get((one.canvas, one.prefix))
        times = ("", "", "") if own is None else (f"{own.ms:.2f}", f"{one.ms / own.ms:.1f}", _bytes(own))
        rows.append((one.mode, one.canvas, one.prefix, f"{one.ms:.2f}", *times[:2], _bytes(one), times[2], _mark(one)))
    headings = ("transformers", "canvas", "prefix", "ms per step", "this engine, ms", "times as fast")
    yield from _table((*headings, "most memory", "this engine's", ""), rows)


def _their_blocks(report: Report) -> Iterator[str]:
    blocks = {(one.canvas, one.prefix, one.steps): one for one in report.all(BlockTime)}
    rows = []
    for several in sorted(report.all(TheirBlocks), key=lambda one: one.mode):
        for theirs in several.blocks:
            ours = blocks.get((theirs.canvas, theirs.prefix, theirs.steps))
            ratio = ("", "") if ours is None else (f"{ours.tokens_per_second:.0f}", f"{theirs.ms / ours.ms:.1f}")
            rate = f"{theirs.tokens_per_second:.0f}"
            rows.append((several.mode, theirs.canvas, theirs.prefix, theirs.steps, rate, *ratio, _mark(several)))
    headings = ("transformers", "block", "prefix", "steps", "tokens per second", "this engine's")
    yield from _table((*headings, "times as fast", ""), rows)


def _bytes(one: StepTime | TheirStep) -> str:
    return bytes_text(one.allocated_bytes)


def _mark(one: TheirStep | TheirBlocks) -> str:
    return "" if one.right else _WRONG


def _share(step: StepTime) -> str:
    return f"{100 * step.floor_ms / step.ms:.0f} %"


def _one_line(text: str) -> str:
    return " ".join(text.replace("|", "/").split())


def _beyond_product(timings: Sequence[Timing]) -> Iterator[str]:
    """What the statistics take, which are made in the pass that multiplies."""
    taken = {timing.name: timing.seconds for timing in timings}
    if {"vocabulary_head", HEAD_PRODUCT} <= taken.keys():
        beyond = taken["vocabulary_head"] - taken[HEAD_PRODUCT]
        yield f"the vocabulary head takes {1e3 * beyond:.3f} ms beyond its product"


def _table(headings: Sequence[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    """Nothing where there are no rows."""
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    if lines:
        yield ""
        yield f"| {' | '.join(headings)} |"
        yield "|---" * len(headings) + "|"
        yield from lines


def roofline(report: Report, path: Path) -> None:
    """Plot operations a second over operations a byte: the two rates, and every kernel below them.

    Raises:
        ImportError: there is no matplotlib.
    """
    from matplotlib.figure import Figure

    timings = [one.timing for one in report.all(KernelTime)]
    for ceilings in report.all(Ceilings):
        bytes_rate, flops_rate = ceilings.rates.bytes, ceilings.rates.flops
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    intensities = [timing.cost.flops / timing.cost.bytes for timing in timings if timing.cost.flops]
    ridge = flops_rate / bytes_rate
    ends = [min(*intensities, ridge) / 2, ridge, max(*intensities, ridge) * 2]
    axes.plot(ends, [min(x * bytes_rate, flops_rate) / 1e12 for x in ends], color="black", label="measured rates")
    for timing in timings:
        if timing.cost.flops:
            reached = timing.cost.flops / timing.seconds / 1e12
            axes.plot(timing.cost.flops / timing.cost.bytes, reached, "o", label=timing.name)
    axes.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="TFLOP/s")
    axes.set_title(f"{report.shape} shape, experts in {report.format}")
    axes.legend(fontsize="xx-small")
    partial = path.with_suffix(".partial")
    figure.savefig(partial, format="png", dpi=120)
    partial.replace(path)
