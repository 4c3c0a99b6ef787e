"""`dg-engine corpus`: build a corpus, and show what one holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bar

from dg_engine.tokenizer import Tokenizer
from dg_engine.training.alone import alone_in
from dg_engine.training.corpus import project_file, read_manifest
from dg_engine.training.gathering import Gathered, Progress, Report
from dg_engine.training.manifest_tables import dropped_table, project_table, refused_table, split_table
from dg_engine.training.mixture import read_shares
from dg_engine.training.prepare import Recipe, prepare
from dg_engine.training.projects import Split
from dg_engine.training.selection import MAX_PROJECT_BYTES
from dg_engine.training.shapes import SHAPES
from dg_engine.training.sources import DEFAULT, Splits, read_sources

_FOLDER = click.Path(path_type=Path, file_okay=False)
_DIRECTORY = Path(".work/corpus")
_WIDE = 200
_SPLIT_OPTIONS: dict[Split, str] = {"validation": "--validation", "held_out": "--held-out"}


@click.group()
def corpus() -> None:
    """Training data: permissively licensed source code, split by project, as tokens."""


@corpus.command()
@click.argument("sources", nargs=-1)
@click.option("--directory", type=_FOLDER, default=_DIRECTORY, show_default=True, help="Where everything goes.")
@click.option(
    "--vocabulary", type=click.IntRange(512, 65_536), default=SHAPES["small"].config.vocab_size, show_default=True
)
@click.option("--tokenizer", type=_FOLDER, help="Take the vocabulary of this checkpoint, to train it further.")
@click.option(
    "--share",
    "shares",
    metavar="LANGUAGE=WEIGHT",
    multiple=True,
    help="Of a language in the training data; default: Python alone. May be repeated.",
)
@click.option("--held-out", metavar="NAME", multiple=True, help="A project to judge models by. May be repeated.")
@click.option("--validation", metavar="NAME", multiple=True, help="A project to watch training by. May be repeated.")
@click.option(
    "--benchmark",
    "benchmarks",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    help="HumanEval, HumanEval-Infilling, MBPP or SAFIM (*.jsonl, *.jsonl.gz), whose solutions must not be in the "
    "training data. May be repeated.",
)
@click.option("--project-bytes", type=click.IntRange(1), default=MAX_PROJECT_BYTES, show_default=True, help="At most.")
def build(
    sources: tuple[str, ...],
    directory: Path,
    vocabulary: int,
    tokenizer: Path | None,
    shares: tuple[str, ...],
    held_out: tuple[str, ...],
    validation: tuple[str, ...],
    benchmarks: tuple[Path, ...],
    project_bytes: int,
) -> None:
    """Make a corpus of SOURCES; killed at any moment, the same command goes on.

    A source is a folder, an archive (wheel, sdist, zip, tar), installed:NAME, the name of a Python project in the
    package index, or the word default: the packages that the shipped model learnt from. No source means those too.
    """
    recipe = Recipe(
        sources=read_sources(sources or (DEFAULT,), Splits(validation=validation, held_out=held_out)),
        vocabulary=vocabulary,
        tokenizer=tokenizer,
        shares=read_shares(shares),
        benchmarks=benchmarks,
        max_project_bytes=project_bytes,
    )
    console = _console()
    with alone_in(directory), reporting(console) as report:
        manifest = prepare(directory, recipe, report)
    console.print(split_table(manifest))
    found = Tokenizer.load(directory).vocab_size
    if tokenizer is None and found < vocabulary:
        click.echo(f"the vocabulary has {found:,} tokens: the sources repeat too little for {vocabulary:,}")
    for split, option in _SPLIT_OPTIONS.items():
        if not manifest.of(split):
            click.echo(f"no project is in the split {split}: put one there with {option} NAME")


@corpus.command()
@click.argument("directory", type=_FOLDER, default=_DIRECTORY)
@click.option("--project", metavar="NAME", help="The files of this project that were left out, and why.")
def show(directory: Path, project: str | None) -> None:
    """Show what the corpus in DIRECTORY consists of."""
    manifest = read_manifest(directory)
    console = _console()
    if project is None:
        for table in (project_table(manifest), refused_table(manifest), split_table(manifest)):
            if table.row_count:
                console.print(table)
        return
    found = next((one for one in manifest.projects if one.name == project), None)
    if found is None:
        raise click.ClickException(f"{directory}: has no project {project}")
    record = project_file(directory, found.split, found.name, ".json")
    console.print(dropped_table(msgspec.json.decode(record.read_bytes(), type=Gathered).dropped))


def _console() -> Console:
    """As wide as the terminal, or wide enough for whatever reads it instead; what stands in brackets is text."""
    console = Console(markup=False)
    return console if console.is_terminal else Console(width=_WIDE, markup=False)


@contextmanager
def reporting(console: Console) -> Iterator[Report]:
    """A bar for each stage on a terminal, a line for each thing done anywhere else."""
    if not console.is_terminal:
        yield lambda progress: click.echo(f"{progress.stage} {progress.done}/{progress.total} {progress.note}")
        return
    note = TextColumn("{task.fields[note]}", markup=False)
    columns = TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), note
    with Bar(*columns, console=console) as bar:
        tasks: dict[str, TaskID] = {}

        def report(progress: Progress) -> None:
            if progress.stage not in tasks:
                tasks[progress.stage] = bar.add_task(progress.stage, total=progress.total, note="")
            bar.update(tasks[progress.stage], completed=progress.done, note=progress.note)

        yield report
