"""`dg-engine inspect`, `quantize` and `download`: what a checkpoint is, and others made of it."""

from __future__ import annotations

import click

from dg_engine import hub


@click.command()
@click.argument("model", metavar="OWNER/NAME@COMMIT")
def download(model: str) -> None:
    """Fetch a model from the Hugging Face hub into its cache: safetensors and JSON files of one commit."""
    click.echo(hub.download(model))
