"""A run as people see it: a progress bar on a terminal, a line a minute anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from dg_engine.training import trainer

Report = Callable[[trainer.Progress], None]


def watched(run: Callable[[Report], None], seconds: float, elapsed: float, matrix_rate: float | None = None) -> None:
    """Run with a view of it.

    Args:
        run: trains, and tells what it is given of every update.
        seconds: how long it will take altogether.
        elapsed: how much of that is spent already.
        matrix_rate: FLOP/s of matrix products alone, to which the run's own are compared.
    """
    console = Console()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[losses]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("train", total=seconds, losses="")
        bar.update(task, completed=elapsed)
        shown = elapsed

        def report(progress: trainer.Progress) -> None:
            nonlocal shown
            losses = " ".join(f"{name} {float(value):.3f}" for name, value in progress.losses._asdict().items())
            line = f"{losses} {_speed(progress.speed, matrix_rate)}"
            bar.update(task, completed=progress.elapsed, description=progress.stage, losses=line)
            if not console.is_terminal and progress.elapsed - shown >= 60:
                shown = progress.elapsed
                sys.stdout.write(f"{progress.elapsed / 60:6.1f} min  {progress.stage:7} {progress.update:6} {line}\n")
                sys.stdout.flush()

        run(report)


def _speed(speed: trainer.Speed, matrix_rate: float | None) -> str:
    share = f" {speed.flops / matrix_rate:.0%} of matrix rate" if matrix_rate else ""
    return f"{speed.tokens:,.0f} tokens/s{share}"
