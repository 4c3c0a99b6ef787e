"""The uncertainty of means, quantiles and differences, by resampling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Interval = tuple[float, float]

_RESAMPLES = 1000


class Resamples:
    """Two-stage bootstrap (Davison and Hinkley, 1997, section 3.8): projects are drawn, then cases within each.

    Cases of one project are not independent: code of one house resembles itself. To draw cases alone would take a
    thousand of one project for a thousand opinions, and give intervals that are too narrow.

    The same resamples serve every system, so that a difference between two systems on the same cases is paired.
    """

    def __init__(self, projects: Sequence[str], seed: int = 0) -> None:
        """Draw the resamples of N cases, given the project of each."""
        rng = np.random.default_rng(seed)
        names, group = np.unique(list(projects), return_inverse=True)
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=_RESAMPLES)
        self._weights = np.zeros((_RESAMPLES, len(group)))  # [R, N] how often each case is in each resample
        for number in range(len(names)):
            members = np.flatnonzero(group == number)
            shares = np.full(len(members), 1 / len(members))
            self._weights[:, members] = rng.multinomial(drawn[:, number] * len(members), shares)

    def mean(self, values: Array) -> Interval:
        """The 95 % interval of the mean of [N] values; those that are not a number are left out."""
        known = ~np.isnan(values)
        weights = self._weights[:, known]
        total = weights.sum(axis=1)
        drawn = total > 0  # a resample may have missed all projects in which anything is known
        return _middle((weights[drawn] @ values[known]) / total[drawn])

    def quantiles(self, values: Array, shares: Sequence[float]) -> list[Interval]:
        """The 95 % intervals of quantiles of [N, K] values, K of each case."""
        order = values.ravel().argsort()
        ordered, found = values.ravel()[order], np.empty((_RESAMPLES, len(shares)))
        for number, weights in enumerate(self._weights):  # one at a time: all together are gigabytes
            running = np.repeat(weights, values.shape[1])[order].cumsum()
            found[number] = ordered[np.searchsorted(running, running[-1] * np.asarray(shares))]
        return [_middle(column) for column in found.T]


def mean_interval(values: Sequence[float], projects: Sequence[str], seed: int = 0) -> Interval:
    """The 95 % interval of a mean, given the project of each value."""
    return Resamples(projects, seed).mean(np.asarray(values, dtype=float))


def _middle(found: Array) -> Interval:
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)
