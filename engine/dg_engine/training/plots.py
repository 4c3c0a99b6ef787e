"""The losses of a run as a picture."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dg_engine.training.run_state import read_metrics

# Updates over which a training loss is averaged: single batches differ by half a nat.
_SMOOTH = 50


def plot_losses(run: Path, target: Path) -> None:
    """Draw training and validation losses (nats per token) over minutes of training into a PNG."""
    lines = read_metrics(run)
    figure, axes = plt.subplots(figsize=(9, 5))
    steps = [line for line in lines if "loss" in line]
    _curve(axes, steps, "causal", "causal (encoder)")
    _curve(axes, [line for line in steps if line["stage"] != "causal"], "denoising", "denoising (decoder)")
    checks = [{"elapsed": line["elapsed"], **line["validation"]} for line in lines if "validation" in line]
    for key in sorted({key for check in checks for key in check if key != "elapsed"}):
        points = [(check["elapsed"] / 60, check[key]) for check in checks]
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, linestyle="--", label=f"validation {key}")
    for earlier, later in pairwise(steps):
        if earlier["stage"] != later["stage"]:
            axes.axvline(later["elapsed"] / 60, color="grey", linewidth=0.8)
            axes.text(later["elapsed"] / 60, axes.get_ylim()[1], f" {later['stage']}", va="top", color="grey")
    axes.set(xlabel="minutes of training", ylabel="nats per token", title="Loss")
    axes.grid(alpha=0.3)
    if steps:
        axes.legend(fontsize="small")
    save(figure, target)


def save(figure: Figure, target: Path) -> None:
    """Write a picture beside its place and rename it, and forget it."""
    partial = target.with_suffix(".partial.png")
    figure.savefig(partial, dpi=120, bbox_inches="tight")
    plt.close(figure)
    partial.replace(target)


def _curve(axes: Axes, steps: list[dict[str, Any]], key: str, label: str) -> None:
    minutes = [step["elapsed"] / 60 for step in steps]
    values = [step[key] for step in steps]
    if not values:
        return
    smooth = [sum(values[max(0, i - _SMOOTH + 1) : i + 1]) / min(i + 1, _SMOOTH) for i in range(len(values))]
    axes.plot(minutes, smooth, label=label)
