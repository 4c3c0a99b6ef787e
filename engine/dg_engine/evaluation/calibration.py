"""From log-probabilities to the probability that an answer is right up to a place where it may be cut, and how far
such probabilities are to be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from dg_engine.evaluation.bootstrap import Array
from dg_engine.evaluation.harness import Outcome
from dg_engine.settings import Calibration, log_odds

BINS = 10

# A weak Gaussian prior on the standardised weights: without it, data that a line separates have no finite fit.
_PRIOR = 1e-2
_ITERATIONS = 50


class Evidence(NamedTuple):
    """N heads of answers."""

    features: Array
    """[N, 2] mean log-probability, in nats, and log-odds of all tokens together."""
    correct: NDArray[np.bool_]
    """[N] what was missing begins so."""
    projects: tuple[str, ...]
    """[N]."""

    def of(self, chosen: NDArray[np.bool_]) -> Evidence:
        """Some of them."""
        projects = tuple(project for project, taken in zip(self.projects, chosen, strict=True) if taken)
        return Evidence(self.features[chosen], self.correct[chosen], projects)


class Bin(NamedTuple):
    """The heads whose probability lies in one tenth of the scale."""

    low: float
    high: float
    heads: int
    predicted: float
    """Mean probability."""
    correct: float
    """Share that is right."""


class Reliability(msgspec.Struct, frozen=True, kw_only=True):
    """How well probabilities hold, on projects that they were not fitted to."""

    bins: tuple[Bin, ...]
    """Those that are not empty."""
    expected_error: float
    """Expected calibration error (Guo et al., arXiv 1706.04599): mean distance of predicted and true shares."""
    heads: int


def evidence(outcomes: Sequence[Outcome]) -> Evidence:
    """What one system's outcomes say; answers that were not scored say nothing."""
    scored = [(one, head) for one in outcomes for head in one.heads]
    features = [(head.score, log_odds(head)) for _, head in scored]
    correct = np.array([_begins(one.truth, one.answer, head.characters) for one, head in scored], dtype=bool)
    return Evidence(np.array(features, dtype=float).reshape(-1, 2), correct, tuple(one.project for one, _ in scored))


def _begins(truth: str, answer: str, characters: int) -> bool:
    """Whether the truth begins with so much of an answer, and its lines end where those of the answer do.

    Blanks at the ends of lines are no difference.
    """
    wanted, found = ([line.rstrip() for line in text.split("\n")] for text in (truth, answer[:characters]))
    *lines, last = found
    there = wanted[len(lines)] if len(wanted) > len(lines) else ""
    is_inside = answer[characters : characters + 1] not in ("", "\n")
    return wanted[: len(lines)] == lines and (there.startswith(last) if is_inside else there == last)


def fit(found: Evidence) -> Calibration | None:
    """The likeliest calibration, by Newton's method; None where all heads are right, or none is."""
    if not found.correct.any() or found.correct.all():
        return None
    centre, scale = found.features.mean(axis=0), found.features.std(axis=0) + 1e-9
    inputs = np.column_stack((np.ones(len(found.features)), (found.features - centre) / scale))
    prior = np.diag((0.0, _PRIOR, _PRIOR))
    weights = np.zeros(3)
    for _ in range(_ITERATIONS):
        probability = _sigmoid(inputs @ weights)
        gradient = inputs.T @ (found.correct - probability) - prior @ weights
        curvature = (inputs * (probability * (1 - probability))[:, None]).T @ inputs + prior
        change = np.linalg.solve(curvature, gradient)
        weights = weights + change
        if np.abs(change).max() < 1e-9:
            break
    mean, odds = weights[1:] / scale
    return Calibration(bias=float(weights[0] - centre @ (mean, odds)), mean=float(mean), odds=float(odds))


def probabilities(calibration: Calibration, features: Array) -> Array:
    """[N] probabilities of being right for [N, 2] features."""
    return _sigmoid(calibration.bias + features @ (calibration.mean, calibration.odds))


def reliability(found: Evidence) -> Reliability | None:
    """Fit on one half of the projects and judge on the other, both ways; None where a half cannot be fitted."""
    names = sorted(set(found.projects))
    first = np.isin(found.projects, names[::2])
    halves = [(fit(found.of(~judged)), judged) for judged in (first, ~first)]
    predicted = np.zeros(len(found.correct))
    for calibration, judged in halves:
        if calibration is None:
            return None
        predicted[judged] = probabilities(calibration, found.features[judged])
    return judge(predicted, found.correct)


def judged(found: Evidence, known: Calibration) -> Reliability | None:
    """How well a calibration that was fitted to other projects holds; None without heads."""
    return judge(probabilities(known, found.features), found.correct) if len(found.correct) else None


def judge(predicted: Array, correct: NDArray[np.bool_]) -> Reliability:
    """Put [N] probabilities and [N] truths side by side, by tenths."""
    number = np.minimum((predicted * BINS).astype(int), BINS - 1)
    bins = tuple(
        Bin(k / BINS, (k + 1) / BINS, int(inside.sum()), float(predicted[inside].mean()), float(correct[inside].mean()))
        for k in range(BINS)
        if (inside := number == k).any()
    )
    error = sum(one.heads * abs(one.predicted - one.correct) for one in bins) / len(correct)
    return Reliability(bins=bins, expected_error=error, heads=len(correct))


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-np.clip(x, -60, 60)))
