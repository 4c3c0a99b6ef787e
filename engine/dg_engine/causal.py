"""Writing from left to right with the encoder and the head: what the same weights do as a causal language model.

A checkpoint that was trained for it is told the suffix too, in the order prefix, suffix, middle (Bavarian et al., arXiv
2207.14255): behind the cached prefix come `<|suffix|>`, the first tokens of the suffix and `<|middle|>`, then the
answer. The prefix comes first, so that its cache is the one that diffusion uses, and stays while the user types.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dg_engine.api import StopReason
from dg_engine.canvas import BANNED
from dg_engine.model import DiffusionGemma
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
