"""`dg-engine train`."""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import click
import torch

from dg_engine.errors import EngineError
from dg_engine.hardware import can_compile, device_here, fastest_dtype
from dg_engine.options import SEED, THREADS, Number
from dg_engine.tokenizer import Tokenizer
from dg_engine.training import trainer
from dg_engine.training.ahead import Ahead
from dg_engine.training.alone import alone_in
from dg_engine.training.batches import Batcher
from dg_engine.training.card import keep_measured, keep_recipe, write_card
from dg_engine.training.corpus import write_json
from dg_engine.training.encoded import MIN_TOKENS
from dg_engine.training.plan import UPDATES, Pace, Plan, keep_plan, layouts, paced, read_plan, with_settings
from dg_engine.training.plots import plot_losses
from dg_engine.training.prepare import Prepared, load_prepared
from dg_engine.training.shapes import GENERATION, SHAPES, Shape
from dg_engine.training.spans import Vocabulary
from dg_engine.training.stopping import asked_to_stop
from dg_engine.training.throughput import matrix_rate
from dg_engine.training.watching import watched

_WORK = Path(".work")
_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.option("--corpus", "corpus_", type=_FOLDER, default=_WORK / "corpus", show_default=True)
@click.option(
    "--run", "run_", type=_FOLDER, default=_WORK / "runs" / "small", show_default=True, help="Resumed if begun."
)
@click.option("--shape", type=click.Choice(list(SHAPES)), default="small", show_default=True, help="Of the network.")
@click.option("--device", help="cpu, cuda; default: a GPU if there is one.")
@click.option("--minutes", type=Number(min=0, min_open=True), default=85.0, show_default=True)
@click.option("--slice", "slice_", type=Number(min=0, min_open=True), help="Minutes after which to stop for now.")
@click.option("--chunks", type=click.IntRange(1), help="Documents' chunks in a batch; default: the shape's.")
@click.option(
    "--context", type=click.IntRange(1), help="Tokens of a chunk, and before the cursor in use; default: the shape's."
)
@click.option(
    "--accumulate",
    type=click.IntRange(1),
    help=f"Batches in an update; default: so many that there are {UPDATES:,} updates, by the speed found at the start.",
)
@click.option("--threads", type=THREADS, default=1, show_default=True)
@click.option(
    "--workers", type=click.IntRange(0), default=0, show_default=True, help="Processes that make batches ahead."
)
@click.option(
    "--mode",
    type=click.Choice(["compiled", "eager"]),
    default="compiled",
    show_default=True,
    help="Compiled is three times as fast.",
)
@click.option(
    "--clock",
    type=click.Choice(["wall", "processor"]),
    default="wall",
    show_default=True,
    help="What --minutes counts: processor time, of all threads together, is fair to a run that shares its machine.",
)
@click.option(
    "--init",
    "start",
    type=_FOLDER,
    help="Begin with the weights of this checkpoint; one narrower than --shape is widened.",
)
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Any number of the plan: schedule.causal_until=0.2."
)
@click.option("--seed", type=SEED, default=0, show_default=True)
def train(
    corpus_: Path,
    run_: Path,
    shape: str,
    device: str | None,
    minutes: float,
    slice_: float | None,
    chunks: int | None,
    context: int | None,
    accumulate: int | None,
    threads: int,
    workers: int,
    mode: str,
    clock: str,
    start: Path | None,
    settings: tuple[str, ...],
    seed: int,
) -> None:
    """Train a model for so many minutes.

    Killed at any moment, stopped by --slice or behind an update by Ctrl-C, the same command continues it.
    """
    torch.set_num_threads(threads)
    prepared = _prepared(corpus_)
    chosen = SHAPES[shape].with_context(context)
    config = replace(chosen.config, vocab_size=prepared.tokenizer.vocab_size)
    batches = layouts(chunks or chosen.chunks, chosen.encoder_tokens)
    plan = with_settings(Plan(seconds=minutes * 60, layouts=batches, seed=seed), settings)
    if start is not None:
        _refuse_another_vocabulary(start, prepared.tokenizer, corpus_)
    vocabulary = Vocabulary.of(prepared.tokenizer)
    batcher = Batcher(prepared.train, vocabulary, config, seed)
    # Locked behind the fork: a killed run's folder must not wait for its workers.
    with Ahead(batcher, workers) as ahead, alone_in(run_):
        if start is not None:
            keep_recipe(start, run_)
        where = device_here(device)
        if mode == "compiled" and not can_compile(where):
            raise EngineError("there is no C++ compiler to compile with: install g++, or give --mode eager")
        model = trainer.new_model(config, seed, fastest_dtype(where), start).to(where)
        seconds = time.perf_counter if clock == "wall" else time.process_time
        training = trainer.Trainer(model, ahead, prepared.validation, vocabulary, plan, run_, seconds, prepared.digest)
        _refuse_another_stream(training)
        rate = matrix_rate(model.device, fastest_dtype(where))
        click.echo(f"{where}: matrix products reach {rate / 1e9:,.0f} GFLOP/s here on all threads together")
        pace = _warm_up(training, run_, compiled=mode == "compiled")
        plan = training.plan = with_settings(_decided(training, pace, accumulate), settings)
        keep_plan(plan, run_)
        export = partial(_export, training, chosen, corpus_, run_)
        until = min(plan.seconds, training.elapsed + slice_ * 60) if slice_ else plan.seconds
        with asked_to_stop() as asked:
            click.echo(pace.forecast(plan, partial(batcher.epochs, layout=plan.layouts.causal)))
            watched(lambda report: training.run(report, export, until, asked), plan.seconds, training.elapsed, rate)
    click.echo(f"{training.update} updates, {training.tokens:,} tokens; the model is in {run_ / 'model'}")
    if training.elapsed < plan.seconds:
        click.echo(
            f"{(plan.seconds - training.elapsed) / 60:.1f} of {minutes:g} minutes are left; the same command goes on"
        )
    if asked():
        sys.exit(128 + asked())


def _prepared(corpus_: Path) -> Prepared:
    prepared = load_prepared(corpus_)
    for split, data, advice in (
        ("train", prepared.train, "more sources"),
        ("validation", prepared.validation, "--validation NAME"),
    ):
        if not len(data):
            raise EngineError(
                f"{corpus_}: has no file of at least {MIN_TOKENS} tokens in the split {split}; "
                f"run `dg-engine corpus build` with {advice}"
            )
    return prepared


def _refuse_another_vocabulary(start: Path, tokenizer: Tokenizer, corpus_: Path) -> None:
    """What the weights at `start` know of a token holds for no other token of its number."""
    if Tokenizer.load(start).backend.to_str() != tokenizer.backend.to_str():
        raise EngineError(
            f"{corpus_}: has another vocabulary than {start}, which --init begins with; build one with "
            f"`dg-engine corpus build --tokenizer {start}`"
        )


def _begun(training: trainer.Trainer) -> Plan | None:
    """The plan of the sittings before; None where this is the first."""
    return read_plan(training.directory) if training.update else None


def _refuse_another_stream(training: trainer.Trainer) -> None:
    """A run's place in its data is the number of its next batch, which holds for no other seed or size."""
    begun = _begun(training)
    if begun is None:
        return
    for option, found, asked in (
        ("--seed", begun.seed, training.plan.seed),
        ("--chunks", begun.layouts.usual.chunks, training.plan.layouts.usual.chunks),
        ("--context", begun.layouts.usual.encoder_tokens, training.plan.layouts.usual.encoder_tokens),
    ):
        if found != asked:
            raise EngineError(
                f"{training.directory}: the run was begun with {option} {found}, not {asked}: go on with that, or "
                "choose another --run"
            )


def _warm_up(training: trainer.Trainer, run_: Path, *, compiled: bool) -> Pace:
    if compiled:
        # Compiled code is kept with the run, so that the next sitting begins at once.
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str((run_ / "compiled").absolute()))
        # Grouped by kind of layer, of batch, and with or without gradient: more variants than the default of eight.
        torch._dynamo.config.recompile_limit = 64
        training.loss.compile()
    started = time.perf_counter()
    pace = training.warm_up()
    if compiled:
        click.echo(f"compiled in {time.perf_counter() - started:.0f} s; training from update {training.update}")
    return pace


def _decided(training: trainer.Trainer, pace: Pace, accumulate: int | None) -> Plan:
    """The plan with what its first sitting found; later ones may find another speed, and go on as that did."""
    begun = _begun(training)
    if begun is None:
        return paced(training.plan, pace, accumulate)
    return replace(training.plan, accumulate=accumulate or begun.accumulate, average_decay=begun.average_decay)


def _export(training: trainer.Trainer, shape: Shape, corpus_: Path, run_: Path) -> None:
    """A whole checkpoint directory of the weights so far, the plot and the model card."""
    target = run_ / "model"
    keep_measured(target)
    training.export(target)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(corpus_ / name, target / name)
    infill = shape.infill(training.plan.schedule.objective)
    for name, value in (("generation_config.json", GENERATION), ("infill_config.json", infill)):
        write_json(target / name, value)
    plot_losses(run_, run_ / "loss.png")
    shutil.copyfile(run_ / "loss.png", target / "loss.png")
    write_card(target, corpus_, run_)
