"""What was measured: for people as Markdown and a roofline plot, for programs as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from dg_engine.formats.inspection import bytes_text
from dg_engine.full_size.measure import Figures
from dg_engine.full_size.theirs import Theirs
from dg_kernels.bench import HEAD_PRODUCT, HEADINGS, Rates, Timing, rates_text


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    machine: str
    shape: str
    format: str
    rates: Rates
    ours: Figures
    kernels: list[Timing]
    theirs: list[Theirs]


def markdown(report: Report) -> Iterator[str]:
    """The tables, line by line."""
    ours = report.ours
    yield f"{report.machine}; {report.shape} shape, experts in {report.format}"
    yield rates_text(report.rates)
    yield (
        f"weights {bytes_text(ours.weights_bytes)}, most memory with a prefix of {ours.memory_prefix} "
        f"{bytes_text(ours.memory_bytes)}, in all {bytes_text(ours.peak_bytes)}"
    )
    for infill in ours.infills:
        how = f"of {infill.hole} tokens" if infill.lengths == 1 else f"of {infill.lengths} lengths up to {infill.hole}"
        yield (
            f"an infill {how} in a canvas of {infill.canvas}, {infill.steps} steps, behind an encoded "
            f"prefix of {infill.prefix}: {infill.ms:.1f} ms"
        )
    yield f"the vocabulary head takes {1e3 * _beyond_product(report.kernels):.3f} ms beyond its product"
    yield from _table(
        ("canvas", "prefix", "ms per step", "floor ms", "share of the floor"),
        (
            (s.canvas, s.prefix, f"{s.ms:.2f}", f"{s.floor_ms:.2f}", f"{100 * s.floor_ms / s.ms:.0f} %")
            for s in ours.steps
        ),
    )
    yield from _table(
        ("prefix", "prefill ms", "first draft ms"),
        ((one.prefix, f"{one.prefill_ms:.1f}", f"{one.first_draft_ms:.1f}") for one in ours.prefixes),
    )
    yield from _table(
        ("steps in a block", "ms", "tokens per second"),
        ((block.steps, f"{block.ms:.1f}", f"{block.tokens_per_second:.0f}") for block in ours.blocks),
    )
    yield from _table(HEADINGS, (timing.cells() for timing in report.kernels))
    if report.theirs:
        yield from _table(
            ("transformers", "prefix", "ms per step", "this engine, ms", "times as fast"),
            (
                (
                    one.mode,
                    one.prefix,
                    f"{one.ms:.2f}",
                    f"{_ours(ours, one.prefix):.2f}",
                    f"{one.ms / _ours(ours, one.prefix):.1f}",
                )
                for one in report.theirs
            ),
        )


def write(report: Report, directory: Path) -> None:
    """Markdown, JSON and a PNG, named by shape and format, each beside its place and renamed."""
    directory.mkdir(parents=True, exist_ok=True)
    stem = f"{report.shape}-{report.format}"
    _replace(directory / f"{stem}.md", "\n".join(markdown(report)).encode() + b"\n")
    _replace(directory / f"{stem}.json", msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    _roofline(report, directory / f"{stem}.png")


def _ours(figures: Figures, prefix: int) -> float:
    longest = max(step.canvas for step in figures.steps)
    return next(step.ms for step in figures.steps if (step.canvas, step.prefix) == (longest, prefix))


def _beyond_product(kernels: Sequence[Timing]) -> float:
    """Seconds of the statistics, which are made in the pass that multiplies."""
    taken = {timing.name: timing.seconds for timing in kernels}
    return taken["vocabulary_head"] - taken[HEAD_PRODUCT]


def _table(headings: Sequence[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    yield ""
    yield f"| {' | '.join(headings)} |"
    yield "|---" * len(headings) + "|"
    yield from (f"| {' | '.join(map(str, row))} |" for row in rows)


def _roofline(report: Report, path: Path) -> None:
    """Operations a second over operations a byte: the two rates, and every kernel below them."""
    from matplotlib.figure import Figure

    bytes_rate, flops_rate = report.rates.bytes, report.rates.flops
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    intensities = [timing.cost.flops / timing.cost.bytes for timing in report.kernels]
    ridge = flops_rate / bytes_rate
    ends = [min(*intensities, ridge) / 2, ridge, max(*intensities, ridge) * 2]
    axes.plot(ends, [min(x * bytes_rate, flops_rate) / 1e12 for x in ends], color="black", label="measured rates")
    for intensity, timing in zip(intensities, report.kernels, strict=True):
        axes.plot(intensity, timing.cost.flops / timing.seconds / 1e12, "o", label=timing.name)
    axes.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="TFLOP/s")
    axes.set_title(f"{report.shape} shape, experts in {report.format}")
    axes.legend(fontsize="small")
    partial = path.with_suffix(".partial")
    figure.savefig(partial, format="png", dpi=120)
    partial.replace(path)


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(path)
