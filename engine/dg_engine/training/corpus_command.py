"""`dg-engine corpus`."""

from __future__ import annotations

from pathlib import Path

import click

from dg_engine.training.prepare import prepare
from dg_engine.training.small_model import SMALL

_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.option(
    "--directory", type=_FOLDER, default=Path(".work/corpus"), show_default=True, help="Where everything goes."
)
@click.option("--vocabulary", type=click.IntRange(512, 65_536), default=SMALL.vocab_size, show_default=True)
@click.option(
    "--benchmark",
    "benchmarks",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    help="HumanEval-Infilling file (*.jsonl.gz) whose solutions must not be in the training data. May be repeated.",
)
def corpus(directory: Path, vocabulary: int, benchmarks: tuple[Path, ...]) -> None:
    """Fetch permissively licensed projects and make a training corpus of them. What is there is not made again."""
    manifest = prepare(directory, vocabulary, benchmarks, lambda line: click.echo(line))
    click.echo(f"{sum(record.files for record in manifest.projects):,} files of {len(manifest.projects)} projects")
