"""What `dg-engine bench --full-size` does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path

import click
import msgspec
import torch

from dg_engine.full_size import measure
from dg_engine.full_size.record import Record
from dg_engine.full_size.report import markdown, roofline
from dg_engine.full_size.results import Ceilings, KernelTime, Report, Result
from dg_engine.full_size.shapes import SHAPES
from dg_engine.full_size.theirs import their_blocks, their_step
from dg_engine.full_size.weights import BITS, random_model
from dg_engine.model import DiffusionGemma
from dg_kernels.bench import Rates, measured_rates, timing
from dg_kernels.cases import cases

CEILINGS = "rates of copying and of products"


def run(
    shape_name: str,
    format_: str,
    device: str,
    modes: tuple[str, ...],
    out: Path | None,
    *,
    fresh: bool,
    as_json: bool,
) -> bool:
    """Measure what has not been, print the figures and keep them in `out` if it is given.

    Returns:
        Whether nothing failed.

    Raises:
        EngineError: the device stopped answering.
    """
    where = torch.device(device)
    record = Record(shape_name, format_, where, out, fresh=fresh)
    tell = partial(click.echo, err=True)
    lab = Lab(shape_name, format_, where, record.report)
    record.run({CEILINGS: lab.ceilings}, tell)
    if record.report.all(Ceilings):
        record.run(dict(lab.stages(modes)), tell)
    if record.kept:
        tell(f"the report is {record.path('.md')}")
        if record.report.all(KernelTime):
            _plot(record, tell)
    report = record.report
    click.echo(msgspec.json.format(msgspec.json.encode(report)) if as_json else "\n".join(markdown(report)))
    return not report.failures


def _plot(record: Record, tell: Callable[[str], None]) -> None:
    try:
        roofline(record.report, record.path(".png"))
    except ImportError as error:
        tell(f"no roofline plot: {error}")


class Lab:
    """What is measured, and the model while it is there.

    Args:
        shape_name: one of SHAPES.
        format_: one of `weights.BITS`.
        device: cpu or cuda.
        report: has the ceilings when stages run.
    """

    def __init__(self, shape_name: str, format_: str, device: torch.device, report: Report) -> None:
        self._shape, self._toy = SHAPES[shape_name], shape_name == "tiny"
        self._format, self._device, self._report = format_, device, report
        self._model: DiffusionGemma | None = None

    @torch.inference_mode()
    def ceilings(self) -> Ceilings:
        """What the device reaches."""
        torch.manual_seed(0)
        return Ceilings(rates=measured_rates(self._device, toy=self._toy))

    def stages(self, modes: tuple[str, ...]) -> Iterator[tuple[str, Callable[[], Result]]]:
        """By name: memory, steps, prefixes, blocks, infills; transformers in some modes of `theirs.MODES`; kernels."""
        shape, longest = self._shape, max(self._shape.canvases)
        yield "memory after the warm-up", self._of_model(measure.memory, shape)
        for prefix, canvas in product(shape.prefixes, shape.canvases):
            more = shape.timed_steps, BITS[self._format], self._rates
            yield f"a step of {canvas} behind {prefix}", self._of_model(measure.step_time, canvas, prefix, *more)
        for prefix, steps in product(shape.block_prefixes, shape.block_steps):
            block = self._of_model(measure.block_time, longest, prefix, steps)
            yield f"a block of {steps} steps behind {prefix}", block
        for prefix in shape.prefixes:
            yield f"a prefix of {prefix}", self._of_model(measure.prefix_time, longest, prefix)
        for tried in (False, True):
            name = "an infill whose length is tried" if tried else "an infill of known length"
            yield name, self._of_model(partial(measure.infill_time, tried=tried), shape.infill_prefix)
        for mode in modes:
            yield from self._of_transformers(mode)
        for name in cases(shape.sizes, self._device):
            yield f"kernel: {name}", partial(self._kernel, name)

    def _of_transformers(self, mode: str) -> Iterator[tuple[str, Callable[[], Result]]]:
        """Compiled anew for every canvas and prefix, in minutes: shorter canvases behind the shortest prefix alone."""
        shape, longest = self._shape, max(self._shape.canvases)
        few = mode == "compiled"
        for prefix, canvas in product(shape.prefixes, reversed(shape.canvases)):
            if few and canvas < longest and prefix > min(shape.prefixes):
                continue
            step = self._of_model(partial(their_step, mode=mode), canvas=canvas, prefix=prefix, steps=shape.timed_steps)
            yield f"transformers, {mode}: a step of {canvas} behind {prefix}", step
        for prefix in [min(shape.block_prefixes)] if few else shape.block_prefixes:
            blocks = self._of_model(
                partial(their_blocks, mode=mode), canvas=longest, prefix=prefix, steps=shape.block_steps
            )
            yield f"transformers, {mode}: blocks behind {prefix}", blocks

    def _of_model(self, work: Callable[..., Result], *given: object, **more: object) -> Callable[[], Result]:
        def measured() -> Result:
            torch.manual_seed(0)
            if self._model is None:
                self._model = random_model(self._shape.config, self._format, self._device)
            return work(self._model, *given, **more)

        return measured

    @torch.inference_mode()
    def _kernel(self, name: str) -> KernelTime:
        """Without the model: some cards have no room for both."""
        self._model = None
        torch.manual_seed(0)
        case = cases(self._shape.sizes, self._device)[name]()
        return KernelTime(timing=timing(name, case, self._device, self._rates))

    @property
    def _rates(self) -> Rates:
        return self._report.all(Ceilings)[-1].rates
