"""`dg-engine finetune`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import click
import torch
from rich.console import Console

from dg_engine import adapters, checkpoint, hub, paths
from dg_engine.engine import Engine
from dg_engine.errors import EngineError
from dg_engine.hardware import can_compile, device_here, fastest_dtype
from dg_engine.model import DiffusionGemma
from dg_engine.options import SEED, THREADS, Number
from dg_engine.settings import read_infill_config
from dg_engine.tokenizer import Tokenizer
from dg_engine.training import finetune_run
from dg_engine.training.alone import alone_in
from dg_engine.training.corpus import write_json
from dg_engine.training.finetune import FineTuning, Learner, Plan
from dg_engine.training.finetune_report import Result, show, summary
from dg_engine.training.low_rank import LowRank, LowRankOptimiser
from dg_engine.training.optimiser import Optimiser, Rates
from dg_engine.training.plan import layouts
from dg_engine.training.repository import Repository, read_repository
from dg_engine.training.spans import Vocabulary
from dg_engine.training.watching import watched

RESULT_FILE = "finetune.json"
ALL_WEIGHTS = Rates(matrices=0.006, embedding=0.004, vectors=0.002)
"""A fifth of what a model is trained with from scratch."""
COMPILED_FROM_MINUTES = 10.0
"""With canvases compilation takes two minutes and makes training two to three times as fast; without, half a minute for
a third more."""

_COPIED = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "infill_config.json")
_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--minutes", type=Number(min=0, min_open=True), default=15.0, show_default=True, help="To train.")
@click.option("--model", default="", help="Name or directory of a checkpoint; default: the shipped one.")
@click.option(
    "--out", type=_FOLDER, help="Where the adapter goes; default: with your data, a place for each repository."
)
@click.option("--rank", type=click.IntRange(1), default=LowRank().rank, show_default=True, help="Of the adapter.")
@click.option(
    "--alpha",
    type=Number(min=0, min_open=True),
    help="The adapter counts alpha / rank times; default: twice the rank.",
)
@click.option("--full", is_flag=True, help="Learn all weights; the result is a whole checkpoint, not an adapter.")
@click.option("--diffusion", is_flag=True, help="Learn diffusion even where it is not what the model answers by.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Files to leave unread. May be repeated.")
@click.option(
    "--cases", type=click.IntRange(1), default=200, show_default=True, help="To measure on, before and after."
)
@click.option("--chunks", type=click.IntRange(1), default=4, show_default=True, help="Chunks of 512 tokens in a batch.")
@click.option("--device", help="cpu, cuda, cuda:1; default: a GPU if there is one.")
@click.option("--threads", type=THREADS, help="CPU threads; default: one less than there are cores.")
@click.option("--seed", type=SEED, default=0, show_default=True)
def finetune(
    directory: Path,
    minutes: float,
    model: str,
    out: Path | None,
    rank: int,
    alpha: float | None,
    full: bool,  # noqa: FBT001  (click passes options by their names)
    diffusion: bool,  # noqa: FBT001
    exclude: tuple[str, ...],
    cases: int,
    chunks: int,
    device: str | None,
    threads: int | None,
    seed: int,
) -> None:
    """Teach a model the code in DIRECTORY, and measure on files of it that are held out what that is worth.

    Stopped at any moment, the same command continues. What git ignores, what .dglspignore names and what looks like a
    secret is not read; nothing leaves this machine.
    """
    torch.set_num_threads(threads or max(1, (os.cpu_count() or 1) - 1))
    base = hub.resolve(model).resolve()
    tuning = _Tuning(
        base=base,
        target=(out or paths.adapter_directory(directory, full=full)).resolve(),
        device=device_here(device),
        options=finetune_run.Options(
            repository=str(directory.resolve()),
            model=str(base),
            weights=adapters.fingerprint(base),
            rank=0 if full else rank,
            alpha=2.0 * rank if alpha is None else alpha,
            diffusion=diffusion,
            exclude=exclude,
            cases=cases,
            seed=seed,
        ),
    )
    with alone_in(tuning.target):
        material = tuning.material(lambda: read_repository(directory, exclude))
        train, held_out = material.train, material.held_out
        click.echo(f"{len(train)} files with {train.total_tokens:,} tokens to learn from, {len(held_out)} held out")
        before = finetune_run.measured_before(tuning.run_directory, lambda: tuning.measure(material, tuned=False))
        shapes = layouts(chunks)
        plan = Plan.of(read_infill_config(base), shapes, seconds=minutes * 60, seed=seed, diffusion=diffusion)
        loop = tuning.loop(material, plan)
        if minutes >= COMPILED_FROM_MINUTES and can_compile(tuning.device):
            torch._dynamo.config.recompile_limit = 64
            loop.loss.compile()
            click.echo("the first updates take a minute or two: they are compiled")
        try:
            watched(loop.run, loop.plan.seconds, loop.elapsed)
        except KeyboardInterrupt:
            click.echo(f"stopped after {loop.elapsed / 60:.1f} minutes; the same command continues")
            sys.exit(130)
        after = tuning.measure(material, tuned=True) if loop.kept else None
        tuning.finish(Result(loop.checks, loop.best, before, after))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tuning:
    """One fine-tuning: from what, to where, and how.

    Raises:
        EngineError: it would write over the model that it reads, or a path cannot be noted.
    """

    base: Path
    target: Path
    device: str
    options: finetune_run.Options

    def __post_init__(self) -> None:
        if self.is_full and self.target == self.base:
            raise EngineError(
                f"{self.target}: is the model that is learnt from, and must stay whole until the end; "
                "give another --out"
            )
        for path in (self.options.repository, self.options.model):
            if not _is_unicode(path):
                raise EngineError(f"{path!a}: is no path that can be written in UTF-8; rename it")

    @property
    def run_directory(self) -> Path:
        return self.target / finetune_run.DIRECTORY

    @property
    def is_full(self) -> bool:
        return not self.options.rank

    def material(self, read: Callable[[], Repository]) -> finetune_run.Material:
        header = read_infill_config(self.base).file_header
        return finetune_run.open_run(self.run_directory, self.options, read, Tokenizer.load(self.base), header=header)

    def measure(self, material: finetune_run.Material, *, tuned: bool) -> finetune_run.Measured:
        """By what is on disk, as it will be used."""
        model = self.target if tuned and self.is_full else self.base
        adapter = self.target if tuned and not self.is_full else None
        engine = Engine.load(model, adapter=adapter, device=self.device)
        return finetune_run.measure(engine, material.documents, self.options.cases)

    def loop(self, material: finetune_run.Material, plan: Plan) -> FineTuning:
        model = checkpoint.load(self.base, dtype=fastest_dtype(self.device), device=self.device)
        learner, keep = self._all_weights(model) if self.is_full else self._low_rank(model)
        vocabulary = Vocabulary.of(Tokenizer.load(self.base))
        train, held_out = material.train, material.held_out
        return FineTuning(model, learner, train, held_out, vocabulary, plan, self.run_directory, keep)

    def finish(self, result: Result) -> None:
        """Say what it was worth, and remove what only a run that goes on needs."""
        if result.after is not None:
            write_json(self.target / RESULT_FILE, summary(result))
        shutil.rmtree(self.run_directory)
        show(result, self.target, Console(markup=False), full=self.is_full)

    def _low_rank(self, model: DiffusionGemma) -> tuple[Learner, Callable[[], None]]:
        plan = replace(LowRank(), rank=self.options.rank, alpha=self.options.alpha)
        learner = LowRankOptimiser(model, plan, self.options.seed)
        return learner, lambda: adapters.save(learner.adapter, self.target, self.base)

    def _all_weights(self, model: DiffusionGemma) -> tuple[Learner, Callable[[], None]]:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("router" not in name)
        return Optimiser(model, ALL_WEIGHTS), lambda: _keep_whole(model, self.base, self.target)


def _is_unicode(path: str) -> bool:
    """Of bytes that are no UTF-8 Python makes characters that cannot be written as it."""
    return path.encode("utf-8", "replace").decode() == path


def _keep_whole(model: DiffusionGemma, base: Path, target: Path) -> None:
    """A checkpoint directory that needs nothing of the one it came from."""
    target.mkdir(parents=True, exist_ok=True)
    for name in _COPIED:
        if (base / name).exists():
            shutil.copyfile(base / name, target / name)
    checkpoint.save(model, target)
