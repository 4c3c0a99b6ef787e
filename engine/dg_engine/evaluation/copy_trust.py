"""How far copied text is to be trusted, learnt where copying could have been right: in projects not trained on.

From every token of a stretch of text on there could be a hole: up to the end of its line, to a place before that, or to
the end of one of the lines below. It is known what would be copied there, from the file or from others of its project,
how far the text goes on like it, and how likely the model finds each token. Copies are trusted as much as makes these
tokens likeliest under the mixture of model and copy by which `causal_fit` writes.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from dg_engine.copying import Evidence, continuation, evidence
from dg_engine.engine import Engine
from dg_engine.errors import EngineError
from dg_engine.evaluation.cases import beside
from dg_engine.prompt import encode_prefix
from dg_engine.settings import CopyTrust
from dg_engine.training.sources import Document

# Characters of a stretch, and of its beginning, whose tokens the model must guess with too little to go by.
_STRETCH, _OPENING = 1500, 300
# Tokens of a run, and characters in which so many end.
_RUN, _RUN_CHARACTERS = 16, 120
_LEAST_RUNS = 1000
# Of a hole, as of those that the evaluation draws.
_LINES = 6
# Of the prior on `keeps`: nobody has seen copying go on for ever.
_PRIOR_STOPS = 1.0


class Run(NamedTuple):
    """Tokens of a hole, up to the first that is not copied, or as many as are looked at."""

    evidence: Evidence
    """What speaks for the copy."""
    gains: list[float]
    """The model's log-probability of each."""
    copied: int
    """How many of them follow there too: all, or all but the last."""


@torch.inference_mode()
def runs(engine: Engine, documents: Iterable[Document]) -> Iterator[Run]:
    """From each token of a stretch in the second half of each document that has one; all but ASCII is left out."""
    known = list(documents)
    for document in known:
        start = document.text.find("\n", len(document.text) // 2) + 1
        stretch = document.text[start : start + _STRETCH]
        if start and stretch.isascii() and len(stretch) == _STRETCH:
            others = tuple(beside(document, (one for one in known if one.project == document.project)))
            yield from _of_stretch(engine, document, others, start, engine.tokenizer.encode(stretch))


def _of_stretch(
    engine: Engine, document: Document, others: tuple[str, ...], start: int, tokens: list[int]
) -> Iterator[Run]:
    path = document.path if engine.config.file_header else ""
    header = encode_prefix(engine.tokenizer, path, "", engine.config.max_prefix_tokens)
    tokens = tokens[: engine.config.max_prefix_tokens - len(header)]
    hidden = engine.model.encode(torch.tensor([header + tokens], device=engine.model.device)).hidden[0]
    logs = engine.model.logits(hidden[len(header) - 1 : -1]).log_softmax(dim=-1)
    gains = logs.gather(1, torch.tensor(tokens, device=logs.device)[:, None])[:, 0].tolist()
    lengths = (len(engine.tokenizer.decode([token])) for token in tokens)
    places = list(accumulate(lengths, initial=start))
    rng = random.Random(document.path)  # noqa: S311  (a choice of holes, not a secret)
    for number, place in enumerate(places[:-_RUN]):
        if place < start + _OPENING:
            continue
        end = _end_of_hole(document.text, place, rng)
        behind = document.text[end:]
        copy = continuation(document.text[:place], behind, others)
        if copy is not None:
            inside = sum(place < other <= end for other in places)
            offered = engine.tokenizer.encode(copy.text[:_RUN_CHARACTERS])[: min(_RUN, inside)]
            pairs = zip(offered, tokens[number:], strict=False)
            copied = next((length for length, (one, other) in enumerate(pairs) if one != other), len(offered))
            length = min(copied + 1, len(offered))
            yield Run(evidence(copy, behind), gains[number : number + length], copied)


def _end_of_hole(text: str, start: int, rng: random.Random) -> int:
    """Behind the start: the end of its line, a place before that, or the end of a line below, as likely each."""
    ends = [start]
    for _ in range(rng.randint(2, _LINES) if rng.random() < 1 / 3 else 1):
        line_end = text.find("\n", ends[-1] + 1)
        ends.append(len(text) if line_end < 0 else line_end)
    return ends[-1] if len(ends) > 2 or rng.random() < 0.5 else rng.randint(start + 1, ends[-1])


def fit(found: Iterable[Run]) -> CopyTrust:
    """The weights under which what came is likeliest.

    Raises:
        EngineError: the runs are too few to say.
    """
    all_of_them = list(found)
    if len(all_of_them) < _LEAST_RUNS:
        raise EngineError(f"{len(all_of_them)} tokens behind a match are too few to learn from; {_LEAST_RUNS} would do")
    logs = torch.tensor([one.evidence.logs for one in all_of_them], dtype=torch.float64)
    likelihood = torch.ones(len(all_of_them), _RUN, dtype=torch.float64)
    for row, one in zip(likelihood, all_of_them, strict=True):
        row[: len(one.gains)] = torch.tensor(one.gains, dtype=torch.float64).exp()
    length = torch.tensor([len(one.gains) for one in all_of_them])
    copied = torch.tensor([one.copied for one in all_of_them])
    # A guess that is about right: nine of ten tokens keep on, and fifty characters are worth an even bet.
    weights = torch.tensor([-4.0, 1.0, 0.0, 0.0, 2.0], dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        missed = _missed(weights, logs, likelihood, length, copied)
        missed.backward()  # type: ignore[no-untyped-call]
        return missed

    search.step(loss)  # type: ignore[no-untyped-call]
    found = weights.detach()
    bias, matched, met, elsewhere = (round(weight, 3) for weight in found[:-1].tolist())
    keeps = round(float(torch.sigmoid(found[-1])), 3)
    return CopyTrust(bias=bias, matched=matched, met=met, elsewhere=elsewhere, keeps=keeps)


def _missed(weights: Tensor, logs: Tensor, likelihood: Tensor, length: Tensor, copied: Tensor) -> Tensor:
    """Nats by which N runs of at most T tokens are unlikely: `Copied` in parallel.

    Of each run the `logs` [N, 3] of its evidence are known, and the likelihoods [N, T] of its tokens.
    """
    weight, keeps = torch.sigmoid(weights[0] + logs @ weights[1:-1]), torch.sigmoid(weights[-1])
    missed = -_PRIOR_STOPS * (1 - keeps).log()
    for place in range(likelihood.shape[1]):
        model = likelihood[:, place]
        mixed = weight * (place < copied) + (1 - weight) * model
        missed = missed - torch.where(place < length, mixed, 1.0).log().sum()
        weight = keeps * weight / (weight + (1 - weight) * model)
    return missed / len(length)
