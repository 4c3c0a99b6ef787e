"""Writing from left to right with the encoder and the head: what the same weights do as a causal language model.

Any checkpoint can then end the text where the suffix follows best. By Bayes' rule the likeliest of several texts
between a prefix and a suffix is that for which the text behind the prefix and the suffix behind both are likeliest
together; here the texts are the beginnings of one, so the first part is known, and the second is one pass over the
suffix behind each of them.

A checkpoint that was trained for it is told the suffix too, in the order prefix, suffix, middle (Bavarian et al., arXiv
2207.14255): behind the cached prefix come `<|suffix|>`, the first tokens of the suffix and `<|middle|>`, then the
answer. The prefix comes first, so that its cache is the one that diffusion uses, and stays while the user types.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from dg_engine.api import StopReason
from dg_engine.canvas import BANNED
from dg_engine.model import DiffusionGemma, Masks
from dg_engine.prefix_cache import PrefixCache


class Written(NamedTuple):
    """The text so far."""

    tokens: list[int]
    gains: list[float]
    """The log-probability of each token, in nats; at the end of the text also that of ending there."""
    stop_reason: StopReason | None
    """None while there is more to do."""


class Start(NamedTuple):
    """Where writing begins."""

    hidden: Tensor
    """[1, H], which predicts the first token."""
    cache: PrefixCache


def behind(model: DiffusionGemma, cache: PrefixCache, tokens: Sequence[int]) -> Start:
    """The start behind more tokens."""
    device = cache.keys[0].device
    encoded = model.encode(torch.tensor([tokens], device=device), cache, slice(-1, None))
    return Start(encoded.hidden[0], encoded.cache)


def write(
    model: DiffusionGemma,
    start: Start,
    ends: Tensor,
    limit: int,
    *,
    first_allowed: Tensor | None = None,
    deadline: float | None = None,
) -> Iterator[Written]:
    """Greedy decoding; yields after each token, and last with a stop reason.

    Args:
        model: the encoder and the head.
        start: what was read.
        ends: [V] booleans, tokens that end the text and are not part of it.
        limit: tokens at most.
        first_allowed: [V] booleans; with what the text may begin; None for anything.
        deadline: `time.perf_counter()` seconds after which to stop.
    """
    hidden, cache = start
    tokens, gains = list[int](), list[float]()
    while True:
        logits = model.logits(hidden)[0]
        if not tokens and first_allowed is not None:
            logits = logits.masked_fill(~first_allowed, BANNED)
        token = int(logits.argmax())
        gains.append(float(logits[token] - logits.logsumexp(dim=0)))
        if bool(ends[token]):
            yield Written(tokens, gains, "end_of_sequence")
            return
        tokens.append(token)
        if len(tokens) >= limit:
            yield Written(tokens, gains, "max_new_tokens")
            return
        if deadline is not None and time.perf_counter() >= deadline:
            yield Written(tokens, gains, "time_budget")
            return
        yield Written(tokens, gains, None)
        hidden, cache = behind(model, cache, [token])


def best_end(model: DiffusionGemma, cache: PrefixCache, written: Written, suffix: Sequence[int]) -> int:
    """How many of the written tokens to keep, at least one, so that text and suffix are likeliest together.

    Args:
        model: the encoder and the head.
        cache: of what is before the text.
        written: at least one token.
        suffix: at least one token; more than some 16 say little more.
    """
    before = list(accumulate(written.gains))

    def joint(ends: Sequence[int], count: int) -> list[float]:
        behind = _gains_behind(model, cache, written.tokens, ends, suffix[:count])
        return [before[end - 1] + gain for end, gain in zip(ends, behind, strict=True)]

    ends: Sequence[int] = range(1, len(written.tokens) + 1)
    if len(ends) > SHORTLIST:
        first = joint(ends, 1)
        ends = sorted(sorted(ends, key=lambda end: first[end - 1])[-SHORTLIST:])
    whole = joint(ends, len(suffix))
    return ends[whole.index(max(whole))]


SHORTLIST = 8
"""Ends that are judged by the whole suffix; the others fall out by its first token."""


def _gains_behind(
    model: DiffusionGemma, cache: PrefixCache, text: Sequence[int], ends: Sequence[int], suffix: Sequence[int]
) -> list[float]:
    """The log-probability of a suffix behind each of several beginnings of a text, in one pass.

    The row is the text, and behind it for each end the last token before it with the suffix but its last token; masks
    and positions make each of these pieces see the text up to its end and itself, as if it stood there.
    """
    device = cache.keys[0].device
    width, written = len(suffix), len(text)
    row = [*text, *(token for end in ends for token in (text[end - 1], *suffix[:-1]))]
    end = torch.tensor(ends, device=device).repeat_interleave(width)
    piece = torch.arange(len(ends), device=device).repeat_interleave(width)
    step = torch.arange(width, device=device).repeat(len(ends))
    places = torch.arange(written, device=device)
    positions = cache.length + torch.cat((places, end - 1 + step))

    text_sees = torch.cat(
        (places[:, None] >= places, torch.zeros(written, len(piece), dtype=torch.bool, device=device)), 1
    )
    own = (piece[:, None] == piece) & (step[:, None] >= step)
    piece_sees = torch.cat((places < end[:, None] - 1, own), dim=1)
    new = torch.cat((text_sees, piece_sees))
    visible = torch.cat((torch.ones(len(row), cache.length, dtype=torch.bool, device=device), new), dim=1)
    keys = torch.cat((torch.arange(cache.length, device=device), positions))
    near = positions[:, None] - keys < model.config.window
    masks = Masks(visible[None], (visible & near)[None])

    hidden = model.encode_rows(torch.tensor([row], device=device), cache, masks, positions)[0, written:]
    targets = torch.tensor(list(suffix), device=device).repeat(len(ends))
    gains = model.logits(hidden).log_softmax(dim=-1).gather(1, targets[:, None])
    totals: list[float] = gains.view(len(ends), width).sum(dim=1).tolist()
    return totals
