"""`dg-engine bench`: how long infills take here, and what the same weights take from left to right, in one run.

The holes are cut out of Python's own standard library, so that the figures can be had anywhere without data.
"""

from __future__ import annotations

import math
import platform
import random
import statistics
import sysconfig
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import click
import msgspec
import torch
from click.core import ParameterSource
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dg_engine.api import Decoding, Draft, Extent, Infill, InfillRequest
from dg_engine.cli import DEFAULT_THREADS, load_engine
from dg_engine.copying import continuation
from dg_engine.engine import Engine
from dg_engine.hardware import device_here, peak_bytes
from dg_engine.options import THREADS, dtype_option

MODULES = (
    "argparse",
    "configparser",
    "csv",
    "dataclasses",
    "fractions",
    "heapq",
    "inspect",
    "shlex",
    "textwrap",
    "zipfile",
)
CONTEXT = 2400
"""Characters before the cursor that the language server sends."""
TYPED = 6
"""Characters typed since the prefix was last encoded, in the warm measurements."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A hole cut out of a file."""

    prefix: str
    suffix: str
    extent: Extent


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured infill."""

    answer: Infill
    milliseconds: float
    step_milliseconds: tuple[float, ...]
    prefill_tokens: int


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    extent: Extent
    prefix: str
    decoding: Decoding
    samples: tuple[Sample, ...]

    def quantile(self, share: float) -> float:
        """Milliseconds that this share of the infills takes at most."""
        ordered = sorted(sample.milliseconds for sample in self.samples)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    @property
    def step_milliseconds(self) -> float:
        """Median time of a denoising step, or of a token from left to right."""
        times = [ms for sample in self.samples for ms in sample.step_milliseconds]
        return statistics.median(times) if times else 0.0

    def mean(self, field: str) -> float:
        """Mean of a numeric field of the answers."""
        return statistics.fmean(getattr(sample.answer, field) for sample in self.samples)


_FULL_SIZE_ALONE = ("format_", "shape", "against", "out", "fresh")
_CHECKPOINTS_ALONE = ("model", "dtype", "holes", "steps")


@click.command()
@click.option("--model", default="", help="Checkpoint directory; default: the model that comes with the package.")
@click.option("--device", help="cpu, cuda; default: a GPU if there is one.")
@dtype_option
@click.option("--threads", type=THREADS, help="CPU threads; default: 1.")
@click.option("--holes", type=click.IntRange(2), default=40, show_default=True, help="Holes of each kind.")
@click.option("--steps", type=click.IntRange(1), help="max_denoising_steps; default: the model's own.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--full-size", is_flag=True, help="Random weights of the released model's shape, made on the device.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["bf16", "fp8", "nvfp4", "int4"]),
    default="bf16",
    help="Of the experts, with --full-size; beside packed experts attention and dense MLPs are in FP8.",
)
@click.option(
    "--shape",
    type=click.Choice(["released", "tiny"]),
    default="released",
    help="With --full-size; tiny ones run on any CPU.",
)
@click.option(
    "--against",
    type=click.Choice(["eager", "compiled"]),
    multiple=True,
    help="With --full-size: transformers' generate too, over the same weights. May be repeated.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="With --full-size: a directory for Markdown, JSON and a roofline plot; what is there is not measured again.",
)
@click.option("--fresh", is_flag=True, help="With --full-size: measure also what is in --out already.")
@click.pass_context
def bench(
    context: click.Context,
    model: str,
    device: str | None,
    dtype: str | None,
    threads: int | None,
    holes: int,
    steps: int | None,
    format_: str,
    shape: str,
    against: tuple[str, ...],
    out: Path | None,
    *,
    as_json: bool,
    full_size: bool,
    fresh: bool,
) -> None:
    """Measure one-line and block infills, warm and cold, against causal decoding with the same weights.

    With --full-size: steps, prefill, whole blocks, memory and kernels of the released model's shape, from random
    weights.
    """

    _refuse_strangers(context, full_size=full_size)
    if full_size:
        from dg_engine.full_size.command import run

        if against and format_ != "bf16":
            raise click.UsageError("--against is for --format bf16: transformers is measured over the same weights")
        torch.set_num_threads(threads or DEFAULT_THREADS)
        if not run(shape, format_, device_here(device), against, out, fresh=fresh, as_json=as_json):
            context.exit(1)
        return
    started = time.perf_counter()
    engine = load_engine(model, device=device, threads=threads, dtype=dtype)
    load_seconds = time.perf_counter() - started
    engine.warm_up()
    rows = list(measure(engine, holes, steps, quiet=as_json))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report(engine, rows, load_seconds))).decode())
    else:
        show(engine, rows, load_seconds)


def _refuse_strangers(context: click.Context, *, full_size: bool) -> None:
    """An option that this kind of measurement would not read."""
    given = (name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE)
    for name in given:
        if name in (_CHECKPOINTS_ALONE if full_size else _FULL_SIZE_ALONE):
            option = name.rstrip("_")
            raise click.UsageError(f"--{option} is for measurements {'without' if full_size else 'with'} --full-size")


def measure(engine: Engine, holes: int, steps: int | None, *, quiet: bool = True) -> Iterator[Row]:
    """Fill the same holes under every condition; conditions take turns, so that a busy moment hits all alike."""
    conditions: list[tuple[str, Decoding]] = [("warm", "diffusion"), ("cold", "diffusion"), ("warm", "causal")]
    for extent in ("line", "block"):
        own = engine.config.decoding if extent == "line" else engine.config.block_decoding
        conditions += [("warm", own)] if ("warm", own) not in conditions else []
        gaps = list(cut_gaps(holes, extent))
        samples: dict[tuple[str, Decoding], list[Sample]] = {condition: [] for condition in conditions}
        for gap in track(gaps, f"{extent} holes", console=Console(stderr=True), transient=True, disable=quiet):
            for condition in conditions:
                samples[condition].append(_sample(engine, gap, *condition, steps))
        for condition in conditions:
            yield Row(extent, *condition, tuple(samples[condition]))


def cut_gaps(count: int, extent: Extent) -> Iterator[Gap]:
    """Rests of lines, or two to five whole lines, out of the standard library; always the same ones."""
    chosen = random.Random(0)  # noqa: S311
    sources = [Path(sysconfig.get_path("stdlib"), f"{name}.py").read_text(encoding="utf-8") for name in MODULES]
    while count:
        lines = chosen.choice(sources).splitlines(keepends=True)
        first = chosen.randrange(40, len(lines) - 10)
        taken = 1 if extent == "line" else chosen.randint(2, 5)
        text = "".join(lines[first : first + taken])
        indentation = len(text) - len(text.lstrip())
        if not text.strip() or text.lstrip().startswith("#") or "\n\n" in text or len(text.strip()) < 8:
            continue
        start = chosen.randint(indentation, max(indentation, len(text) - 8)) if extent == "line" else indentation
        before, after = "".join(lines[:first]) + text[:start], "\n" + "".join(lines[first + taken :])
        yield Gap(before[-CONTEXT:].partition("\n")[2], after[: CONTEXT // 2], extent)
        count -= 1


def _sample(engine: Engine, gap: Gap, prefix: str, decoding: Decoding, steps: int | None) -> Sample:
    request = InfillRequest(
        prefix=gap.prefix,
        suffix=gap.suffix,
        extent=gap.extent,
        document="bench" if prefix == "warm" else "",
        decoding=decoding,
        max_denoising_steps=steps,
        path="bench/module.py",
        copied=continuation(gap.prefix, gap.suffix),
    )
    if prefix == "warm":
        _run(
            engine,
            msgspec.structs.replace(request, prefix=gap.prefix[:-TYPED], max_denoising_steps=1, max_new_tokens=1),
        )
    return _run(engine, request)


def _run(engine: Engine, request: InfillRequest) -> Sample:
    started = time.perf_counter()
    *drafts, answer = engine.infill(request)
    took = (time.perf_counter() - started) * 1000
    assert isinstance(answer, Infill)  # noqa: S101  (the last item always is one)
    times = [draft.milliseconds for draft in drafts if isinstance(draft, Draft) and draft.step]
    steps = tuple(after - before for before, after in pairwise(times))
    return Sample(answer, took, steps, answer.prefix_tokens - answer.cached_tokens)


def report(engine: Engine, rows: Iterable[Row], load_seconds: float) -> dict[str, object]:
    """The figures as plain data."""
    return {
        "machine": machine(),
        "model": msgspec.to_builtins(engine.info),
        "load_seconds": round(load_seconds, 2),
        "peak_megabytes": peak_megabytes(),
        "rows": [
            {
                "extent": row.extent,
                "prefix": row.prefix,
                "decoding": row.decoding,
                "p50_ms": round(row.quantile(0.5), 1),
                "p95_ms": round(row.quantile(0.95), 1),
                "ms_per_step": round(row.step_milliseconds, 2),
                "steps": round(row.mean("steps"), 1),
                "tokens": round(row.mean("tokens"), 1),
                "prefill_tokens": round(statistics.fmean(sample.prefill_tokens for sample in row.samples), 1),
            }
            for row in rows
        ],
    }


def show(engine: Engine, rows: list[Row], load_seconds: float) -> None:
    """The figures as a table for people."""
    console, info = Console(), engine.info
    console.print(f"{machine()}; {info.name}, {info.parameters / 1e6:.1f} M parameters, {info.dtype} on {info.device}")
    table = Table("hole", "prefix", "decoding")
    for heading in ("p50 ms", "p95 ms", "ms/step", "steps", "tokens", "encoded"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.extent,
            row.prefix,
            row.decoding,
            f"{row.quantile(0.5):.0f}",
            f"{row.quantile(0.95):.0f}",
            f"{row.step_milliseconds:.1f}",
            f"{row.mean('steps'):.1f}",
            f"{row.mean('tokens'):.1f}",
            f"{statistics.fmean(sample.prefill_tokens for sample in row.samples):.0f}",
        )
    console.print(table)
    console.print(
        f"{len(rows[0].samples)} holes of each kind; a causal step is one token; 'encoded' is prefix tokens not in the "
        f"cache. Loaded in {load_seconds:.1f} s, peak memory {peak_megabytes()} MB."
    )


def machine() -> str:
    """What this is measured on, in one line."""
    names = (line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name"))
    cpu = next(names, platform.processor() or platform.machine())
    return f"{cpu}, {torch.get_num_threads()} threads, torch {torch.__version__}, Python {platform.python_version()}"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def peak_megabytes() -> int:
    """The most memory this process ever held."""
    return peak_bytes(torch.device("cpu")) // 1_000_000
