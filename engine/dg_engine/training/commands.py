"""`dg-engine train`."""

from __future__ import annotations

import math
import shutil
import time
from functools import partial
from pathlib import Path

import click
import msgspec
import torch

from dg_engine.hardware import fastest_dtype
from dg_engine.training import trainer
from dg_engine.training.card import write_card
from dg_engine.training.plan import Plan, layouts, with_settings
from dg_engine.training.plots import plot_losses
from dg_engine.training.prepare import load_prepared
from dg_engine.training.small_model import GENERATION, INFILL, SMALL
from dg_engine.training.spans import Vocabulary
from dg_engine.training.watching import watched

_WORK = Path(".work")
_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.option("--corpus", "corpus_", type=_FOLDER, default=_WORK / "corpus", show_default=True)
@click.option(
    "--run", "run_", type=_FOLDER, default=_WORK / "runs" / "small", show_default=True, help="Resumed if begun."
)
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=85.0, show_default=True)
@click.option("--chunks", type=click.IntRange(1), default=4, show_default=True, help="Chunks of 512 tokens in a batch.")
@click.option("--accumulate", type=click.IntRange(1), default=2, show_default=True, help="Batches in an update.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
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
@click.option("--init", "start", type=_FOLDER, help="Begin with the weights of this checkpoint, of the same shape.")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Any number of the plan: schedule.causal_until=0.2."
)
@click.option("--seed", type=int, default=0, show_default=True)
def train(
    corpus_: Path,
    run_: Path,
    minutes: float,
    chunks: int,
    accumulate: int,
    threads: int,
    mode: str,
    clock: str,
    start: Path | None,
    settings: tuple[str, ...],
    seed: int,
) -> None:
    """Train the small model for so many minutes. Killed at any moment, the same command continues it."""
    torch.set_num_threads(threads)
    prepared = load_prepared(corpus_)
    plan = with_settings(
        Plan(seconds=minutes * 60, layouts=layouts(chunks), accumulate=accumulate, seed=seed), settings
    )
    run_.mkdir(parents=True, exist_ok=True)
    (run_ / "plan.json").write_bytes(msgspec.json.format(msgspec.json.encode(plan)) + b"\n")
    model = trainer.new_model(SMALL, seed, fastest_dtype("cpu"), start)
    vocabulary = Vocabulary.of(prepared.tokenizer)
    seconds = time.perf_counter if clock == "wall" else time.process_time
    training = trainer.Trainer(model, prepared.train, prepared.validation, vocabulary, plan, run_, seconds)
    if mode == "compiled":
        # Grouped by kind of layer, of batch, and with or without gradient: more variants than the default of eight.
        torch._dynamo.config.recompile_limit = 64
        training.loss.compile()
        started = time.perf_counter()
        training.warm_up()
        click.echo(f"compiled in {time.perf_counter() - started:.0f} s; training from update {training.update}")
    export = partial(_export, training, corpus_, run_)
    watched(lambda report: training.run(report, export), plan.seconds, training.elapsed)
    click.echo(f"{training.update} updates, {training.tokens:,} tokens; the model is in {run_ / 'model'}")


def _export(training: trainer.Trainer, corpus_: Path, run_: Path) -> None:
    """A whole checkpoint directory of the weights so far, the plot and the model card."""
    target = run_ / "model"
    training.export(target)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(corpus_ / name, target / name)
    (target / "generation_config.json").write_bytes(msgspec.json.format(msgspec.json.encode(GENERATION)) + b"\n")
    bias = math.log(1 / training.plan.schedule.objective.filler_weight)
    infill = msgspec.structs.replace(INFILL, filler_bias=bias)
    (target / "infill_config.json").write_bytes(msgspec.json.format(msgspec.json.encode(infill)) + b"\n")
    plot_losses(run_, run_ / "loss.png")
    shutil.copyfile(run_ / "loss.png", target / "loss.png")
    write_card(target, corpus_, run_)
