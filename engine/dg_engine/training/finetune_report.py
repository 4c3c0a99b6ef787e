"""What a fine-tuning was worth, in numbers for programs and in words for the user."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from dg_engine.evaluation.bootstrap import mean_interval
from dg_engine.training.finetune import Check
from dg_engine.training.finetune_run import Measured


class Result(NamedTuple):
    """The held-out files before and after."""

    checks: list[Check]
    best: Check
    before: Measured
    after: Measured | None
    """None where nothing was kept."""


def summary(result: Result) -> dict[str, Any]:
    """The result as JSON holds it; shares from 0 to 1."""
    return {
        "updates": result.best.update,
        "seconds": result.best.elapsed,
        "losses": {"before": result.checks[0].losses, "after": result.best.losses},
        "one_line": {"cases": len(result.before.exact), **{name: _compared(result, name) for name in _MEASURES}},
    }


_MEASURES = {"exact": "exactly right %", "similarity": "edit similarity %"}


def show(result: Result, target: Path, console: Console, *, full: bool) -> None:
    """Print the result, and what to do with it."""
    table = Table("held-out files", "before", "after", "difference (95 %)", box=None)
    for name, before in result.checks[0].losses.items():
        after = result.best.losses[name]
        table.add_row(f"{name} loss", f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}")
    for name, title in _MEASURES.items() if result.after else ():
        found = _compared(result, name)
        low, high = found["interval"]
        gain = f"{100 * found['gain']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
        table.add_row(f"rest of a line, {title}", f"{100 * found['before']:.1f}", f"{100 * found['after']:.1f}", gain)
    console.print(table)
    console.print(_advice(result, target, full=full), soft_wrap=True, highlight=False)


def _advice(result: Result, target: Path, *, full: bool) -> str:
    if result.after is None:
        return (
            "The held-out files were never better predicted than before, so nothing was kept. A larger repository, "
            "more minutes or a smaller --rank may help; without them the model is best left as it is."
        )
    what, setting = ("checkpoint", "model") if full else ("adapter", "adapter")
    use = f"Switch it on with the setting engine.{setting} = {target}; if it is on already, restart the engine."
    if not any(name.startswith("denoising") for name in result.best.losses):
        use += (
            " It learnt no diffusion, which is worse than before: keep `decoding` as it is, or learn with --diffusion."
        )
    if _compared(result, "exact")["gain"] <= 0:
        return (
            f"The {what} predicts the held-out files better, yet its one-line answers are no more often right: give it "
            f"more --minutes before you rely on it. It is in {target}. {use}"
        )
    return f"The {what} is in {target}. {use}"


def _compared(result: Result, name: str) -> dict[str, Any]:
    """Means before and after, and the mean difference on the same cases; files are resampled, then cases."""
    before: list[float] = getattr(result.before, name)
    after: list[float] = getattr(result.after, name)
    gains = [new - old for old, new in zip(before, after, strict=True)]
    interval = mean_interval(gains, result.before.paths)
    return {"before": mean(before), "after": mean(after), "gain": mean(gains), "interval": interval}
