"""`dg-engine inspect`, `quantize` and `download`: what a checkpoint is, and another made of it."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dg_engine import hub
from dg_engine.formats.convert import quantise
from dg_engine.formats.inspection import description, inspect_checkpoint
from dg_engine.formats.schemes import SCHEMES
from dg_engine.hardware import best_device, known_device


@click.command()
@click.argument("model", default="")
@click.option("--context", type=click.IntRange(1), default=16_384, show_default=True, help="Tokens of prefix.")
@click.option("--canvas", type=click.IntRange(1), help="Slots; default: the model's own.")
@click.option("--device", help="cpu, cuda, cuda:1; default: a GPU if there is one.")
@click.option("--json", "as_json", is_flag=True, help="For programs: bytes and counts.")
def inspect(model: str, context: int, canvas: int | None, device: str | None, *, as_json: bool) -> None:
    """Say what the checkpoint MODEL consists of, and what memory a run takes, without loading it.

    MODEL is a directory or the name of a model in the hub's cache; without it, the model that comes with the package.
    """
    where = known_device(device or best_device()).type
    found = inspect_checkpoint(hub.resolve(model), where, context=context, canvas=canvas)
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    console = Console()
    for piece in description(found):
        console.print(piece, soft_wrap=isinstance(piece, str), highlight=False)


@click.command()
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--format", "format_", type=click.Choice(list(SCHEMES)), required=True, help="Of the experts.")
@click.option(
    "--projections", type=click.Choice(list(SCHEMES)), help="Of attention and dense MLPs; default: as they are."
)
def quantize(source: str, target: Path, format_: str, projections: str | None) -> None:
    """Write the checkpoint IN with fewer bits to the new directory OUT, in the layout of compressed-tensors.

    Embedding, router and self-conditioning always stay as they are.
    """
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("matrices and tensors")
        quantise(
            hub.resolve(source),
            target,
            format_,
            projections=projections,
            report=lambda done, of: bar.update(task, completed=done, total=of),
        )
    click.echo(target)


@click.command()
@click.argument("model", metavar="OWNER/NAME@COMMIT")
def download(model: str) -> None:
    """Fetch a model from the Hugging Face hub into its cache: safetensors and JSON files of one commit."""
    click.echo(hub.download(model))
