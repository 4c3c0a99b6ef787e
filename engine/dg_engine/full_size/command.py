"""What `dg-engine bench --full-size` does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import msgspec
import torch

from dg_engine.bench import machine
from dg_engine.full_size.measure import measure
from dg_engine.full_size.report import Report, markdown, write
from dg_engine.full_size.shapes import SHAPES
from dg_engine.full_size.theirs import Theirs, measure_theirs
from dg_engine.full_size.weights import random_model
from dg_kernels.bench import measured_rates, timings


def run(shape_name: str, format_: str, device: str, modes: tuple[str, ...], out: Path | None, *, as_json: bool) -> None:
    """Measure, print the figures and keep them in `out` if it is given."""
    report = measured(shape_name, format_, device, modes, lambda what: click.echo(what, err=True))
    if out is not None:
        write(report, out)
    click.echo(msgspec.json.format(msgspec.json.encode(report)) if as_json else "\n".join(markdown(report)))


def measured(shape_name: str, format_: str, device: str, modes: tuple[str, ...], say: Callable[[str], None]) -> Report:
    """Measure a shape in a format on a device, and transformers in some modes on the same weights.

    Args:
        shape_name: one of SHAPES.
        format_: one of `weights.BITS`.
        device: cpu or cuda, with a number or without.
        modes: of `theirs.MODES`.
        say: told what is being measured.
    """
    where, shape = torch.device(device), SHAPES[shape_name]
    torch.manual_seed(0)
    say("copying and multiplying matrices")
    with torch.inference_mode():
        rates = measured_rates(where, toy=shape_name == "tiny")
        say("the kernels")
        kernels = list(timings(shape.sizes, where, rates))
    say("making the model")
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats(where)
    model = random_model(shape.config, format_, where)
    say("prefixes, steps and blocks")
    ours = measure(model, shape, format_, rates)
    theirs = list[Theirs]()
    for mode in modes:
        say(f"transformers, {mode}")
        theirs += measure_theirs(model, shape, mode)
    return Report(
        machine=f"{torch.cuda.get_device_name(where)}; {machine()}" if where.type == "cuda" else machine(),
        shape=shape_name,
        format=format_,
        rates=rates,
        ours=ours,
        kernels=kernels,
        theirs=theirs,
    )
