"""`dg-engine generate`: long text behind a prompt, as the model was built to write it."""

from __future__ import annotations

from typing import TextIO

import click

from dg_engine.api import Block, GenerateRequest
from dg_engine.cli import load_engine
from dg_engine.options import SEED, THREADS, Number


@click.command()
@click.argument("prompt", type=click.File(encoding="utf-8"), default="-")
@click.option("--chat", is_flag=True, help="The prompt is a message to be answered, not text to be continued.")
@click.option("--model", default="", help="Checkpoint directory, or OWNER/NAME; default: the model that ships.")
@click.option("--adapter", default="", help="Directory of an adapter for this model.")
@click.option("--max-new-tokens", type=click.IntRange(1), default=1024, show_default=True)
@click.option("--max-denoising-steps", type=click.IntRange(1), help="For each block; default: the model's own.")
@click.option("--entropy-bound", type=Number(0), help="Nats; default: the model's own.")
@click.option("--time-budget", type=Number(0), help="Seconds after which to stop with what is certain.")
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--device", help="cpu, cuda, cuda:1; default: a GPU if there is one.")
@click.option("--threads", type=THREADS, help="CPU threads; default: 1.")
def generate(
    prompt: TextIO,
    *,
    chat: bool,
    model: str,
    adapter: str,
    max_new_tokens: int,
    max_denoising_steps: int | None,
    entropy_bound: float | None,
    time_budget: float | None,
    seed: int,
    device: str | None,
    threads: int | None,
) -> None:
    """Write behind the text in the file PROMPT, or behind the standard input; print each block when it is done."""
    try:
        text = prompt.read()
    except UnicodeDecodeError as error:
        raise click.UsageError(f"the prompt is not UTF-8: {error}") from error
    if not text.strip():
        raise click.UsageError("the prompt is empty: give a file, or text on the standard input")
    request = GenerateRequest(
        prompt=text,
        chat=chat,
        max_new_tokens=max_new_tokens,
        max_denoising_steps=max_denoising_steps,
        entropy_bound=entropy_bound,
        time_budget_ms=None if time_budget is None else 1000 * time_budget,
        seed=seed,
    )
    engine = load_engine(model, adapter, device=device, threads=threads)
    blocks = list[Block]()
    for item in engine.generate(request):
        if isinstance(item, Block):
            blocks.append(item)
            click.echo(item.text, nl=False)
    click.echo()
    tokens, steps = sum(block.tokens for block in blocks), sum(block.steps for block in blocks)
    last = blocks[-1]
    figures = f"tokens: {tokens}, blocks: {len(blocks)}, steps: {steps}, seconds: {last.milliseconds / 1000:.1f}"
    click.echo(f"{figures}, end: {last.stop_reason}", err=True)
