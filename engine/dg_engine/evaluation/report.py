"""Outcomes as tables: for people in Markdown, for programs in JSON."""

from __future__ import annotations

from math import isnan
from statistics import mean, quantiles
from typing import Any

from dg_engine.api import ModelInfo
from dg_engine.evaluation.cases import CASE_KINDS, DRAWN_KINDS
from dg_engine.evaluation.harness import Outcome
from dg_engine.evaluation.metrics import Scores, interval
from dg_engine.training.card import table

# Characters of an answer that is shown as an example.
_SHOWN = 100

_HEADER = (
    "system",
    "passes tests %",
    "exact %",
    "95 %",
    "edit similarity %",
    "first line %",
    "parses %",
    "length error",
    "empty %",
    "repeats suffix %",
    "steps",
    "p50 ms",
    "p95 ms",
)


def summarise(outcomes: list[Outcome]) -> dict[str, Any]:
    """Means with intervals, by kind of case and system, and over all kinds that were drawn from projects."""
    groups: dict[str, dict[str, list[Outcome]]] = {}
    for outcome in outcomes:
        for kind in ("all", outcome.kind) if outcome.kind in DRAWN_KINDS else (outcome.kind,):
            groups.setdefault(kind, {}).setdefault(outcome.system, []).append(outcome)
    return {
        kind: {system: _summary(found) for system, found in groups[kind].items()}
        for kind in ("all", *CASE_KINDS)
        if kind in groups
    }


def to_markdown(summary: dict[str, Any], info: ModelInfo, examples: list[Outcome]) -> str:
    """A section for the model card: a table per kind of case, then a few answers as they came."""
    cases = next(iter(summary["all"].values()))["cases"]
    about = (
        f"{cases:,} holes in projects that were not trained on; {info.name}, {info.parameters:,} parameters, "
        f"{info.dtype} on {info.device}, at most {info.max_denoising_steps} steps, entropy bound {info.entropy_bound}. "
        "The length of the answer is unknown unless a row says otherwise. "
        "`causal` decodes the same weights from left to right and does not see the suffix. "
        "Intervals by bootstrap; times with an encoded prefix."
    )
    parts = ["# Infill on held-out projects", "", about]
    for kind, systems in summary.items():
        rows = [[name, *_row(values)] for name, values in systems.items()]
        parts += ["", f"#### {kind} ({next(iter(systems.values()))['cases']:,} cases)", "", table(_HEADER, rows)]
    parts += ["", "#### Some answers as they came", "", *map(_example, examples)]
    return "\n".join(parts) + "\n"


def _summary(outcomes: list[Outcome]) -> dict[str, Any]:
    values: dict[str, Any] = {"cases": len(outcomes)}
    for name in Scores._fields:
        each = [value for outcome in outcomes if not isnan(value := getattr(outcome.scores, name))]
        if each:
            values[name] = mean(each)
            values[f"{name}_interval"] = interval(each)
    times = sorted(outcome.milliseconds for outcome in outcomes)
    percentiles = quantiles(times, n=20, method="inclusive") if len(times) > 1 else times * 19
    values |= {
        "steps": mean(outcome.steps for outcome in outcomes),
        "p50_ms": percentiles[9],
        "p95_ms": percentiles[18],
    }
    return values


def _row(values: dict[str, Any]) -> list[str]:
    low, high = values["exact_interval"]
    passes = f"{100 * values['passes']:.1f}" if "passes" in values else ""
    return [
        passes,
        f"{100 * values['exact']:.1f}",
        f"{100 * low:.1f} to {100 * high:.1f}",
        *(f"{100 * values[name]:.1f}" for name in ("similarity", "first_line", "parses")),
        f"{values['length_error']:.1f}",
        *(f"{100 * values[name]:.1f}" for name in ("empty", "repeats_suffix")),
        *(f"{values[name]:.1f}" for name in ("steps", "p50_ms", "p95_ms")),
    ]


def _example(outcome: Outcome) -> str:
    return f"- {outcome.project}, {outcome.kind}: wanted `{_short(outcome.truth)}`, got `{_short(outcome.answer)}`"


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
