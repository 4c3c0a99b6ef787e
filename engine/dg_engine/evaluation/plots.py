"""The findings as pictures: quality against steps and milliseconds, and whether probabilities hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from dg_engine.evaluation.calibration import Reliability
from dg_engine.evaluation.cases import ALL
from dg_engine.evaluation.report import Findings
from dg_engine.evaluation.summary import Figure, Group
from dg_engine.evaluation.systems import LADDER, LADDER_STEPS
from dg_engine.training.plots import save

_SHOWN = {"exact": "exactly right %", "similarity": "edit similarity %"}


def plot(found: Findings, directory: Path) -> list[str]:
    """Draw what was measured into PNG files; those whose data are there.

    Returns:
        Their names.
    """
    group = found.groups.get(ALL) or next(iter(found.groups.values()))
    drawn = []
    if sum(one.name in group.systems for one in LADDER) > 1:
        drawn.append(_steps(group, directory / "evaluation-steps.png"))
    drawn.append(_times(group, directory / "evaluation-milliseconds.png"))
    if found.reliability is not None:
        drawn.append(_reliability(found.reliability, directory / "evaluation-reliability.png"))
    return drawn


def _steps(group: Group, target: Path) -> str:
    """Quality against the step budget."""
    figure, axes = plt.subplots(figsize=(9, 5))
    ladder = [
        (steps, group.systems[one.name])
        for steps, one in zip(LADDER_STEPS, LADDER, strict=True)
        if one.name in group.systems
    ]
    for name, label in _SHOWN.items():
        _points(axes, [float(steps) for steps, _ in ladder], [figures[name] for _, figures in ladder], label)
    axes.set(xlabel="max_denoising_steps", ylabel="%", title="Quality against steps", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    save(figure, target)
    return target.name


def _times(group: Group, target: Path) -> str:
    """Quality of every system against its median time; the ladder as a line."""
    figure, all_axes = plt.subplots(1, len(_SHOWN), figsize=(13, 5))
    ladder = [one.name for one in LADDER if one.name in group.systems]
    series = {"1 to 12 steps": ladder} if len(ladder) > 1 else {}
    series |= {name: [name] for name in group.systems if not series or name not in ladder}
    times = {name: figures["p50_ms"].value for name, figures in group.systems.items()}
    # Whole decades: between two of them a logarithmic axis has no readable tick.
    edges = np.log10((min(times.values()), max(times.values())))
    limits = 10 ** np.floor(edges[0]), 10 ** np.ceil(edges[1])
    for axes, (metric, label) in zip(all_axes, _SHOWN.items(), strict=True):
        for name, members in series.items():
            quality = [group.systems[one][metric] for one in members]
            _points(axes, [times[one] for one in members], quality, name)
        axes.set(xlabel="milliseconds, p50", ylabel=label, ylim=(0, None), xscale="log", xlim=limits)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3)
    all_axes[-1].legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle("Quality against time")
    save(figure, target)
    return target.name


def _reliability(found: Reliability, target: Path) -> str:
    """Share that is right against the probability of it."""
    figure, axes = plt.subplots(figsize=(6, 6))
    axes.plot((0, 1), (0, 1), color="grey", linewidth=0.8)
    predicted, correct = [one.predicted for one in found.bins], [one.correct for one in found.bins]
    axes.plot(predicted, correct, marker="o")
    for one in found.bins:
        axes.annotate(f"{one.heads:,}", (one.predicted, one.correct), textcoords="offset points", xytext=(6, -10))
    title = f"Reliability on other projects, expected calibration error {100 * found.expected_error:.1f} points"
    axes.set(xlabel="predicted probability of being right up to there", ylabel="share that is right", title=title)
    axes.grid(alpha=0.3)
    save(figure, target)
    return target.name


def _points(axes: Axes, x: Sequence[float], y: Sequence[Figure], label: str) -> None:
    """Percentages with their intervals."""
    values = [100 * one.value for one in y]
    # A mean may lie outside the middle of its resamples when there are few cases.
    below = [max(0.0, 100 * (one.value - one.low)) for one in y]
    above = [max(0.0, 100 * (one.high - one.value)) for one in y]
    axes.errorbar(x, values, yerr=(below, above), marker="o", markersize=4, capsize=3, label=label)
