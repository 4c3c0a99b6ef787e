"""How sure a model is of a hole of so many slots, whatever it holds: what its length probe divides by.

At places cut out of projects not trained on, every length is tried that the probe tries, whatever stood there, and
B(L) of CAL (arXiv 2602.00476) is fitted to the means.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import fmean

import torch
from torch import Tensor

from dg_engine.engine import Engine
from dg_engine.errors import EngineError
from dg_engine.evaluation.cases import Case
from dg_engine.evaluation.systems import System
from dg_engine.settings import LengthBias, LengthProbe

_LEAST_LENGTHS, _LEAST_PLACES = 5, 20
"""Of a curve of five numbers, and of a mean."""
_ASKED = System(name="length-bias", about="")
_GUESSES = ((1.0, 1.0, 0.5, 0.05, 0.2), (0.1, 0.5, 0.1, 0.01, 0.5))
"""a to e from which the search begins: CAL's order of magnitude, and a curve that hardly falls."""


def mean_sureness(engine: Engine, cases: Iterable[Case], probe: LengthProbe) -> dict[int, float]:
    """Of each length the mean over the places where it was tried.

    Raises:
        EngineError: the places are too few to say.
    """
    found, places = defaultdict[int, list[float]](list), 0
    longest = probe.lengths[-1]
    for case in cases:
        request = _ASKED.request(case, 1)
        places += 1
        for length, sure in engine.sureness_of_lengths(request, longest).items():
            found[length].append(sure)
    if places < _LEAST_PLACES:
        raise EngineError(f"{places} places are too few to learn from; {_LEAST_PLACES} would do")
    return {length: fmean(values) for length, values in sorted(found.items())}


def fit(means: Mapping[int, float]) -> LengthBias:
    """The curve nearest to the means, by the squares of the relative errors: the probe divides by it.

    Raises:
        EngineError: there are fewer lengths than the curve has numbers.
    """
    if len(means) < _LEAST_LENGTHS:
        raise EngineError(f"{len(means)} lengths are too few for a curve; {_LEAST_LENGTHS} would do")
    lengths = torch.tensor(list(means), dtype=torch.float64)
    found = torch.tensor(list(means.values()), dtype=torch.float64)
    tried = [_nearest(lengths, found, guess) for guess in _GUESSES]
    best = min(tried, key=lambda one: float(_missed(one, lengths, found)))
    a, b, c, d, e = (float(f"{number:.4g}") for number in best.exp().tolist())
    return LengthBias(a=a, b=b, c=c, d=d, e=e)


def _nearest(lengths: Tensor, found: Tensor, guess: tuple[float, ...]) -> Tensor:
    """The logarithms of a to e, from the guess on downhill."""
    logs = torch.tensor(guess, dtype=torch.float64).log().requires_grad_()
    search = torch.optim.LBFGS([logs], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        missed = _missed(logs, lengths, found)
        missed.backward()  # type: ignore[no-untyped-call]
        return missed

    search.step(loss)  # type: ignore[no-untyped-call]
    return logs.detach()


def _missed(logs: Tensor, lengths: Tensor, found: Tensor) -> Tensor:
    a, b, c, d, e = logs.exp()
    curve = a * torch.exp(-b * lengths) + c * torch.exp(-d * lengths) + e
    missed: Tensor = (curve / found - 1).square().mean()
    return missed
