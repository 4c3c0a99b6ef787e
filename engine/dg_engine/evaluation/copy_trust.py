"""How far copied text is to be trusted, learnt where copying could have been right: in projects not trained on.

From every token of a stretch of text on, it is known how many characters before it stand elsewhere in the file too, how
far the text goes on as it does there, and how likely the model finds each of its tokens. Copies are trusted as much as
makes these tokens likeliest under the mixture of model and copy by which `causal_fit` writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from dg_engine.copying import LONGEST_MATCH, continuation
from dg_engine.engine import Engine
from dg_engine.errors import EngineError
from dg_engine.prompt import encode_prefix
from dg_engine.settings import CopyTrust
from dg_engine.training.sources import Document

# Characters of a stretch, and of its beginning, whose tokens the model must guess with too little to go by.
_STRETCH, _OPENING = 1500, 300
# Tokens of a run, and characters in which so many end.
_RUN, _RUN_CHARACTERS = 16, 120
_LEAST_RUNS = 1000
# Of the prior on `keeps`: nobody has seen copying go on for ever.
_PRIOR_STOPS = 1.0


class Run(NamedTuple):
    """Tokens that come, up to the first that is not copied, or as many as are looked at."""

    matched: int
    """Characters before them that stand elsewhere too."""
    gains: list[float]
    """The model's log-probability of each."""
    copied: int
    """How many of them follow there too: all, or all but the last."""


@torch.inference_mode()
def runs(engine: Engine, documents: Iterable[Document]) -> Iterator[Run]:
    """From each token of a stretch in the second half of each document that has one; all but ASCII is left out."""
    for document in documents:
        start = document.text.find("\n", len(document.text) // 2) + 1
        stretch = document.text[start : start + _STRETCH]
        if start and stretch.isascii() and len(stretch) == _STRETCH:
            yield from _of_stretch(engine, document, start, engine.tokenizer.encode(stretch))


def _of_stretch(engine: Engine, document: Document, start: int, tokens: list[int]) -> Iterator[Run]:
    path = document.path if engine.config.file_header else ""
    header = encode_prefix(engine.tokenizer, path, "", engine.config.max_prefix_tokens)
    tokens = tokens[: engine.config.max_prefix_tokens - len(header)]
    hidden = engine.model.encode(torch.tensor([header + tokens], device=engine.model.device)).hidden[0]
    logs = engine.model.logits(hidden[len(header) - 1 : -1]).log_softmax(dim=-1)
    gains = logs.gather(1, torch.tensor(tokens, device=logs.device)[:, None])[:, 0].tolist()
    places = accumulate((len(engine.tokenizer.decode([token])) for token in tokens), initial=start)
    for number, place in enumerate(list(places)[:-_RUN]):
        copy = continuation(document.text[:place]) if place >= start + _OPENING else None
        if copy is not None:
            offered = engine.tokenizer.encode(copy.text[:_RUN_CHARACTERS])[:_RUN]
            pairs = zip(offered, tokens[number:], strict=False)
            copied = next((length for length, (one, other) in enumerate(pairs) if one != other), len(offered))
            length = min(copied + 1, len(offered))
            yield Run(copy.matched, gains[number : number + length], copied)


def fit(found: Iterable[Run]) -> CopyTrust:
    """The weights under which what came is likeliest.

    Raises:
        EngineError: the runs are too few to say.
    """
    all_of_them = list(found)
    if len(all_of_them) < _LEAST_RUNS:
        raise EngineError(f"{len(all_of_them)} tokens behind a match are too few to learn from; {_LEAST_RUNS} would do")
    matched = torch.tensor([one.matched for one in all_of_them], dtype=torch.float64).clamp_max(LONGEST_MATCH).log()
    likelihood = torch.ones(len(all_of_them), _RUN, dtype=torch.float64)
    for row, one in zip(likelihood, all_of_them, strict=True):
        row[: len(one.gains)] = torch.tensor(one.gains, dtype=torch.float64).exp()
    length = torch.tensor([len(one.gains) for one in all_of_them])
    copied = torch.tensor([one.copied for one in all_of_them])
    # A guess that is about right: nine of ten tokens keep on, and fifty characters are worth an even bet.
    weights = torch.tensor([-4.0, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        missed = _missed(weights, matched, likelihood, length, copied)
        missed.backward()  # type: ignore[no-untyped-call]
        return missed

    search.step(loss)  # type: ignore[no-untyped-call]
    bias, slope, keeps = weights.detach()
    return CopyTrust(
        bias=round(float(bias), 3), matched=round(float(slope), 3), keeps=round(float(torch.sigmoid(keeps)), 3)
    )


def _missed(weights: Tensor, matched: Tensor, likelihood: Tensor, length: Tensor, copied: Tensor) -> Tensor:
    """Nats by which N runs of at most T tokens, with likelihoods [N, T], are unlikely; `Copied` in parallel."""
    weight, keeps = torch.sigmoid(weights[0] + weights[1] * matched), torch.sigmoid(weights[2])
    missed = -_PRIOR_STOPS * (1 - keeps).log()
    for place in range(likelihood.shape[1]):
        model = likelihood[:, place]
        mixed = weight * (place < copied) + (1 - weight) * model
        missed = missed - torch.where(place < length, mixed, 1.0).log().sum()
        weight = keeps * weight / (weight + (1 - weight) * model)
    return missed / len(length)
