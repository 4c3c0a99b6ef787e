"""With what a text from left to right begins: the likeliest tokens, or the likeliest spellings of what must come first.

What must come first may take one token or several, and how likely the first of several is says little: many words begin
with `t`, few of them with `turr`. So covers are compared as wholes, by what the model gives all their tokens, and what
it gives all covers together is their sum. A search goes token by token over all that may still become one of the
likeliest; where one token spells everything, as at most places in code, it ends before its first pass of the model.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter

import torch
from torch import Tensor

from dg_engine.causal import Cover, Start
from dg_engine.model import DiffusionGemma
from dg_engine.spelling import Spelling

LEAST_LIKELY = -3.0
"""Nats by which what may still become a cover may be less likely than the likeliest."""
PARTS = 4
"""Unfinished spellings that are followed at most, the likeliest."""

_Gains = dict[tuple[int, ...], float]
"""Log-probabilities of tokens, each given those before it."""


def find_covers(
    model: DiffusionGemma,
    start: Start,
    ends: Tensor,
    spelling: Spelling,
    *,
    most: int = 1,
    wanted: tuple[int, ...] = (),
    deadline: float | None = None,
) -> Iterator[list[Cover] | None]:
    """The likeliest covers, each with its share of all; yields None after each pass of the model, and them last.

    Args:
        model: the encoder and the head.
        start: what was read.
        ends: [V] booleans, tokens that end a text. They do not count among the likeliest, but the very best is there.
        spelling: of what must come first.
        most: covers.
        wanted: one that is told in any case, as impossible where the search does not come across it; none if empty.
        deadline: `time.perf_counter()` seconds after which no pass begins.
    """
    parts: _Gains = {(): 0.0}
    covers: _Gains = {}
    hidden, cache, sums = start.hidden, start.cache, list[float]()
    while True:
        before = torch.tensor([*parts.values()], device=hidden.device)
        logs = before[:, None] + model.logits(hidden).log_softmax(dim=-1)
        allowed = _completing(logs, parts, spelling) if spelling.cut else logs
        sums.append(float(allowed.logsumexp(dim=(0, 1))))
        covers |= _likeliest(allowed, parts, 1) | _likeliest(allowed.masked_fill(ends, -math.inf), parts, most)
        if wanted and wanted[:-1] in parts:
            covers[wanted] = float(logs[[*parts].index(wanted[:-1]), wanted[-1]])
        longer = _longer(
            logs, parts, spelling, _least([gain for each, gain in covers.items() if not ends[each[-1]]], most)
        )
        if not longer or (deadline is not None and time.perf_counter() >= deadline):
            break
        rows = [[*parts].index(tokens[:-1]) for tokens in longer]
        cache = cache.repeated(len(rows)) if len(parts) == 1 else cache.of_rows(rows)
        encoded = model.encode(torch.tensor([tokens[-1:] for tokens in longer], device=hidden.device), cache)
        parts, hidden, cache = longer, encoded.hidden[:, 0], encoded.cache
        yield None
    everything = float(torch.tensor(sums).logsumexp(dim=0))
    if wanted:
        covers.setdefault(wanted, -math.inf)
    yield [Cover(tokens, gain - everything) for tokens, gain in covers.items()]


def _completing(logs: Tensor, parts: _Gains, spelling: Spelling) -> Tensor:
    """Of log-probabilities [N, V] behind each part those that complete it."""
    allowed = torch.full_like(logs, -math.inf)
    for row, part in enumerate(parts):
        tokens = spelling.completing(part).to(logs.device)
        allowed[row, tokens] = logs[row, tokens]
    return allowed


def _likeliest(logs: Tensor, parts: _Gains, most: int) -> _Gains:
    """The likeliest of one more token behind each of the parts, by the log-probabilities [N, V] of both."""
    width, behind = logs.shape[1], [*parts]
    found = logs.flatten().topk(min(most, logs.numel()))
    pairs = zip(found.values.tolist(), found.indices.tolist(), strict=True)
    return {(*behind[place // width], place % width): gain for gain, place in pairs if gain > -math.inf}


def _least(gains: list[float], most: int) -> float:
    """What a part must have that may still become one of the likeliest: more tokens only make it less likely."""
    likeliest = sorted(gains, reverse=True)[:most]
    return max([*likeliest[most - 1 :], *(gain + LEAST_LIKELY for gain in likeliest[:1])], default=-math.inf)


def _longer(logs: Tensor, parts: _Gains, spelling: Spelling, least: float) -> _Gains:
    """The parts of one more token that are likely enough to become covers."""
    found: _Gains = {}
    for row, part in zip(logs, parts, strict=True):
        tokens = spelling.continuing(part)
        gains = row[tokens.to(row.device)].tolist()
        found |= {(*part, token): gain for token, gain in zip(tokens.tolist(), gains, strict=True) if gain > least}
    return dict(sorted(found.items(), key=itemgetter(1), reverse=True)[:PARTS])


def every_cover(logs: Callable[[Sequence[int]], Tensor], spelling: Spelling, part: tuple[int, ...] = ()) -> list[Cover]:
    """What `find_covers` looks for, by a look at all of them: its readable twin.

    Args:
        logs: gives the model's log-probabilities [V] behind some tokens.
        spelling: of what must come first, at least one character.
        part: with which the covers begin.

    Returns:
        Each with the log-probability of its tokens behind the part, not its share of all.
    """
    row = logs(part)
    found = [Cover((*part, token), float(row[token])) for token in spelling.completing(part).tolist()]
    for token in spelling.continuing(part).tolist():
        longer = every_cover(logs, spelling, (*part, token))
        found += [Cover(cover.tokens, cover.gain + float(row[token])) for cover in longer]
    return found
