"""`dg-engine evaluate`."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
import torch
from rich.progress import track

from dg_engine.engine import Engine
from dg_engine.errors import EngineError
from dg_engine.evaluation.cases import draw_cases
from dg_engine.evaluation.harness import SYSTEMS, run
from dg_engine.evaluation.humaneval import read_tasks
from dg_engine.evaluation.report import summarise, to_markdown
from dg_engine.training.card import REPORT_FILE
from dg_engine.training.corpus import documents, write_json

_FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)
_EXAMPLES = 12


@click.command()
@click.option("--model", type=_FOLDER, required=True, help="Checkpoint directory.")
@click.option("--corpus", "corpus_", type=_FOLDER, default=Path(".work/corpus"), show_default=True)
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), help="Default: the checkpoint directory.")
@click.option("--cases", type=click.IntRange(1), default=200, show_default=True, help="Of each of four kinds.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the choice of cases.")
@click.option(
    "--humaneval",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    multiple=True,
    help="A file of HumanEval-Infilling; its programs are run in a sandbox. May be given several times.",
)
@click.option("--humaneval-cases", type=click.IntRange(1), default=500, show_default=True, help="Of each such file.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
def evaluate(
    model: Path,
    corpus_: Path,
    output: Path | None,
    cases: int,
    seed: int,
    humaneval: tuple[Path, ...],
    humaneval_cases: int,
    threads: int,
) -> None:
    """Fill holes in held-out projects by diffusion and by the causal baseline; write a report in Markdown and JSON."""
    torch.set_num_threads(threads)
    engine = Engine.load(model)
    drawn = draw_cases(documents(corpus_, "held_out"), cases, seed)
    if not drawn:
        raise EngineError(f"{corpus_}: has no held-out files; run `dg-engine corpus` first")
    for file in humaneval:
        drawn += read_tasks(file, humaneval_cases, seed)
    total = len(drawn) * len(SYSTEMS)
    outcomes = list(track(run(engine, drawn), total=total, description="evaluate"))
    summary = summarise(outcomes)
    target = output or model
    target.mkdir(parents=True, exist_ok=True)
    shown = [one for one in outcomes if one.system == SYSTEMS[0].name]
    text = to_markdown(summary, engine.info, shown[:: max(1, len(shown) // _EXAMPLES)][:_EXAMPLES])
    (target / REPORT_FILE).write_text(text, encoding="utf-8")
    # The directory's name alone: a published report is no place for somebody's paths.
    info = msgspec.structs.replace(engine.info, path=model.name)
    write_json(target / "evaluation.json", {"model": info, "cases": len(drawn), "seed": seed, "results": summary})
    click.echo(text)
