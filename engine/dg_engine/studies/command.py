"""`dg-engine study`."""

from __future__ import annotations

from pathlib import Path
from typing import cast, get_args

import click

from dg_engine.evaluation.cases import ALL
from dg_engine.options import Number
from dg_engine.studies.report import Result, losses_table, plot_scaling, quality_table, read_results
from dg_engine.studies.running import Study
from dg_engine.studies.variants import STUDIES, Name
from dg_engine.training.card import STUDY_FILE, wrapped

_WORK = Path(".work")
_FOLDER = click.Path(path_type=Path, file_okay=False)

_ABOUT: dict[Name, str] = {
    "scaling": "Three sizes, each trained for the same processor time.",
    "ablations": "Runs that differ in one choice each. The first four begin with nothing; the others learn all losses "
    "for five ninths of the time with the weights of the run `causal`.",
}


@click.command()
@click.argument("name", type=click.Choice(get_args(Name)))
@click.option("--corpus", "corpus_", type=_FOLDER, default=_WORK / "corpus", show_default=True)
@click.option(
    "--directory",
    type=_FOLDER,
    default=_WORK / "studies",
    show_default=True,
    help="The runs; those that are there are not made again.",
)
@click.option(
    "--minutes",
    type=Number(min=0, min_open=True),
    default=18.0,
    show_default=True,
    help="Of processor time for each run that begins with nothing.",
)
@click.option("--cases", type=click.IntRange(1), default=40, show_default=True, help="Validation holes of every kind.")
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="Runs at once, of one thread each.")
@click.option("--output", type=_FOLDER, help="Where the tables and the plot go; default: --directory.")
def study(
    name: str, corpus_: Path, directory: Path, minutes: float, cases: int, jobs: int, output: Path | None
) -> None:
    """Train small models that differ in one choice each, measure them, and put them side by side.

    Killed at any moment, the same command continues.
    """
    chosen = cast("Name", name)
    made = Study(variants=STUDIES[chosen], directory=directory, corpus=corpus_, minutes=minutes, cases=cases, jobs=jobs)
    made.run(click.echo)
    target = output or directory
    target.mkdir(parents=True, exist_ok=True)
    text = _written(chosen, made, read_results(made), target)
    (target / STUDY_FILE.format(name)).write_text(text, encoding="utf-8")
    click.echo(text)


def _written(name: Name, made: Study, results: list[Result], target: Path) -> str:
    found, picture = results[0].found, f"study-{name}.png"
    if name == "scaling":
        plot_scaling(results, target / picture)
    holes = found.groups[ALL]
    command = f"dg-engine study {name} --minutes {made.minutes:g} --cases {made.cases} --jobs {made.jobs}"
    about = f"""
{_ABOUT[name]} A run from nothing has {made.minutes:g} minutes of processor time ({found.machine}): `{command}`.
"""
    answers = f"""
Answers to {holes.cases} holes in {holes.projects} validation projects, in percent with 95 % intervals. The milliseconds
are of a machine that did other work too:
"""
    parts = [
        f"# Study: {name}",
        wrapped(about),
        "Losses on the same validation documents with the same noise, nats per token; filler counts 0.3 in all:",
        losses_table(results),
        wrapped(answers),
        quality_table(results),
        *([f"![validation losses over time]({picture})"] if name == "scaling" else []),
    ]
    return "\n\n".join(parts) + "\n"
