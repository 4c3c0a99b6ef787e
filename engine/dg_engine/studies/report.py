"""What came of a study: a table, and for sizes a plot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from matplotlib import pyplot as plt

from dg_engine.evaluation.cases import ALL
from dg_engine.evaluation.report import Findings
from dg_engine.evaluation.summary import Figure, Figures
from dg_engine.studies.running import Study
from dg_engine.studies.variants import Variant
from dg_engine.training.card import table
from dg_engine.training.plots import save
from dg_engine.training.run_state import read_metrics

_LOSSES = {
    "causal": "causal",
    "infill": "infill",
    "denoising_1": "denoising, t = 1",
    "denoising_0.5": "t = 0.5",
    "denoising_0.25": "t = 0.25",
}


class Result(NamedTuple):
    """A run that was trained and measured."""

    variant: Variant
    lines: list[dict[str, Any]]
    """Of its metrics."""
    found: Findings

    @property
    def checks(self) -> list[tuple[float, dict[str, float]]]:
        """Minutes of training and the validation losses then."""
        return [(line["elapsed"] / 60, line["validation"]) for line in self.lines if "validation" in line]

    @property
    def figures(self) -> Mapping[str, Figures]:
        """Of every system, over the holes of all kinds."""
        return self.found.groups[ALL].systems

    @property
    def tokens(self) -> float:
        """That were passed over in training, padding among them."""
        steps = [line for line in self.lines if "loss" in line]
        before = [0.0, *(step["elapsed"] for step in steps[:-1])]
        each = zip(steps, before, strict=True)
        return sum(
            (float(step["tokens_per_second"]) * (step["elapsed"] - earlier) for step, earlier in each), start=0.0
        )


def read_results(study: Study) -> list[Result]:
    """The results of all runs of a study that was carried out."""
    return [
        Result(
            variant,
            read_metrics(study.directory / variant.name),
            msgspec.json.decode(study.findings(variant).read_bytes(), type=Findings),
        )
        for variant in study.variants
    ]


def losses_table(results: list[Result]) -> str:
    """Validation losses in nats per token, each with how much more it is than in the first run."""
    rows = []
    for one in results:
        last = one.checks[-1][1]
        cells = [f"{last[key]:.2f}" if key in last else "" for key in _LOSSES]
        rows.append([one.variant.name, one.variant.about, f"{one.tokens / 1e6:.1f} M", *cells])
    return table(["run", "what", "tokens", *_LOSSES.values()], rows)


def quality_table(results: list[Result]) -> str:
    """What the runs answer on validation holes, in percent, with 95 % intervals."""
    rows = []
    for one in results:
        unknown, given, fit = (one.figures[name] for name in ("diffusion", "diffusion-given", "causal-fit-alone"))
        rows.append(
            [
                one.variant.name,
                f"{one.found.model.parameters / 1e6:.1f} M",
                _percent(unknown["similarity"]),
                _number(unknown["length_error"]),
                _percent(unknown["empty"]),
                _percent(given["similarity"]),
                _percent(fit["exact"]),
                _percent(fit["similarity"]),
                f"{fit['p50_ms'].value:.0f}",
            ]
        )
    heads = ["run", "parameters", "diffusion: similarity", "length error, tokens", "empty"]
    heads += ["given length: similarity", "causal fit: exact", "similarity", "p50 ms"]
    return table(heads, rows)


def plot_scaling(results: list[Result], target: Path) -> None:
    """Validation losses of all runs against minutes of processor time."""
    shown = ("causal", "denoising_0.5")
    figure, all_axes = plt.subplots(1, len(shown), figsize=(12, 5))
    for axes, key in zip(all_axes, shown, strict=True):
        for one in results:
            points = [(minutes, losses[key]) for minutes, losses in one.checks]
            label = f"{one.variant.name}, {one.found.model.parameters / 1e6:.1f} M"
            axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=label)
        axes.set(xlabel="minutes of processor time", ylabel="nats per token", title=f"validation: {_LOSSES[key]}")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    save(figure, target)


def _percent(figure: Figure) -> str:
    return f"{100 * figure.value:.0f} ({100 * figure.low:.0f} to {100 * figure.high:.0f})"


def _number(figure: Figure) -> str:
    return f"{figure.value:.1f} ({figure.low:.1f} to {figure.high:.1f})"
