"""Outcomes as figures: means and quantiles with intervals, and the differences between systems."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec
import numpy as np

from dg_engine.evaluation.bootstrap import Array, Resamples
from dg_engine.evaluation.cases import ALL, CASE_KINDS, DRAWN_KINDS
from dg_engine.evaluation.harness import Outcome

METRICS: dict[str, Callable[[Outcome], float | None]] = {
    "passes": lambda one: one.scores.passes,
    "exact": lambda one: one.scores.exact,
    "similarity": lambda one: one.scores.similarity,
    "first_line": lambda one: one.scores.first_line,
    "parses": lambda one: one.scores.parses,
    "length_error": lambda one: one.scores.length_error,
    "empty": lambda one: one.scores.empty,
    "repeats_suffix": lambda one: one.scores.repeats_suffix,
    "steps": lambda one: one.steps,
    "tokens_per_step": lambda one: one.tokens / one.steps if one.steps else None,
}
"""What has a mean over cases; None where a case has no such thing."""

QUANTILES = {"p50_ms": 0.5, "p95_ms": 0.95}
COMPARED = ("passes", "exact", "similarity")
"""Metrics whose differences between systems are given."""


class Figure(NamedTuple):
    """A measured value with its 95 % interval."""

    value: float
    low: float
    high: float


Figures = dict[str, Figure]


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured on the cases of one kind."""

    cases: int
    projects: int
    systems: dict[str, Figures]
    """By the name of the system, then of the metric; a metric that no case has is left out."""
    differences: dict[str, Figures]
    """Of each other system to the first: positive where the first is better."""


def summarise(outcomes: Iterable[Outcome]) -> dict[str, Group]:
    """The figures by kind, and over all kinds that were drawn from projects.

    Args:
        outcomes: of every system on every case; those of several seeds are averaged case by case.
    """
    kinds: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        for kind in (ALL, outcome.kind) if outcome.kind in DRAWN_KINDS else (outcome.kind,):
            kinds.setdefault(kind, []).append(outcome)
    return {kind: _group(kinds[kind]) for kind in (ALL, *CASE_KINDS) if kind in kinds}


def _group(outcomes: list[Outcome]) -> Group:
    projects = {one.key.case: one.project for one in outcomes}
    systems: dict[str, dict[str, list[Outcome]]] = {}
    for one in outcomes:
        systems.setdefault(one.key.system, {}).setdefault(one.key.case, []).append(one)
    resamples = Resamples(list(projects.values()))
    # Every system in the same order of cases, so that position n is the same case in all of them.
    ordered = {name: [by_case[case] for case in projects] for name, by_case in systems.items()}
    first = next(iter(ordered))
    return Group(
        cases=len(projects),
        projects=len(set(projects.values())),
        systems={name: _figures(cases, resamples) for name, cases in ordered.items()},
        differences={
            name: _differences(ordered[first], cases, resamples) for name, cases in ordered.items() if name != first
        },
    )


def _figures(cases: list[list[Outcome]], resamples: Resamples) -> Figures:
    figures = _means({name: _values(of, cases) for name, of in METRICS.items()}, resamples)
    times = np.array([[one.milliseconds for one in seeds] for seeds in cases])
    values = np.quantile(times, list(QUANTILES.values()), method="inverted_cdf")
    intervals = resamples.quantiles(times, list(QUANTILES.values()))
    for name, value, interval in zip(QUANTILES, values, intervals, strict=True):
        figures[name] = Figure(float(value), *interval)
    return figures


def _differences(first: list[list[Outcome]], other: list[list[Outcome]], resamples: Resamples) -> Figures:
    pairs = {name: (_values(METRICS[name], first), _values(METRICS[name], other)) for name in COMPARED}
    return _means({name: mine - theirs for name, (mine, theirs) in pairs.items()}, resamples)


def _means(values: dict[str, Array], resamples: Resamples) -> Figures:
    """Those of which anything is known."""
    known = {name: of_cases for name, of_cases in values.items() if not np.isnan(of_cases).all()}
    return {name: Figure(float(np.nanmean(found)), *resamples.mean(found)) for name, found in known.items()}


def _values(of: Callable[[Outcome], float | None], cases: list[list[Outcome]]) -> Array:
    """[N] the mean over the seeds of each case; not a number where a case has no such thing."""
    rows = [[value for one in seeds if (value := of(one)) is not None] for seeds in cases]
    return np.array([sum(row) / len(row) if row else np.nan for row in rows])
