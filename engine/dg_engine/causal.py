"""Writing from left to right with the encoder and the head: what the same weights do as a causal language model.

`write` decodes greedily. `gains_behind` says how likely given texts are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from dg_engine.api import StopReason
from dg_engine.chunks import CHUNK_BUCKETS
from dg_engine.device_loop import DeviceLoop
from dg_engine.model import DiffusionGemma, Masks
from dg_engine.prefix_cache import PrefixCache

_LOGITS_AT_ONCE = 2**23
"""Of which a softmax is made, so that four copies in fp32 stay under what a step leaves of probabilities: of the
released model's vocabulary 32 rows, 134 MB."""


class Start(NamedTuple):
    """Where writing begins."""

    hidden: Tensor
    """[1, H], which predicts the first token."""
    cache: PrefixCache


class Cover(NamedTuple):
    """With what a text may begin: its first token, or where something has to be spelt all tokens that it takes."""

    tokens: tuple[int, ...]
    gain: float
    """The log-probability, in nats, by the model."""


@dataclass(slots=True)
class Written:
    """A text so far."""

    tokens: list[int] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)
    """The log-probability of each token, in nats, all of the cover's with its first; at the end also that of ending."""
    stop_reason: StopReason | None = None
    """None while there is more to do."""


def write(
    model: DiffusionGemma, start: Start, cover: Cover, ends: Tensor, limit: int, *, deadline: float | None = None
) -> Iterator[Written]:
    """Greedy decoding; yields the text after each pass of the model, and last with a stop reason.

    Args:
        model: the encoder and the head.
        start: what was read.
        cover: with which the text begins.
        ends: [V] booleans, tokens that end the text and are not part of it.
        limit: tokens at most.
        deadline: `time.perf_counter()` seconds after which to stop.
    """
    text, cache, new = Written(), start.cache, [*cover.tokens]
    if bool(ends[new[-1]]):
        new, text.gains, text.stop_reason = [], [cover.gain], "end_of_sequence"
    text.tokens += new[:limit]
    text.gains += [cover.gain, *[0.0] * (len(text.tokens) - 1)] if text.tokens else []
    while text.stop_reason is None:
        if len(text.tokens) >= limit:
            text.stop_reason = "max_new_tokens"
        elif deadline is not None and time.perf_counter() >= deadline:
            text.stop_reason = "time_budget"
        else:
            yield text
            encoded = model.encode(torch.tensor([new], device=start.hidden.device), cache, slice(-1, None))
            cache, logs = encoded.cache, model.logits(encoded.hidden[0, -1]).log_softmax(dim=-1)
            new = [int(logs.argmax())]
            text.gains.append(float(logs[new[0]]))
            if bool(ends[new[0]]):
                text.stop_reason = "end_of_sequence"
            else:
                text.tokens += new
    yield text


def gains_behind(
    model: DiffusionGemma, start: Start, passages: Sequence[Sequence[int]], loop: DeviceLoop | None = None
) -> list[list[float]]:
    """The log-probability, in nats, of each token of each passage.

    Args:
        model: encoder and head.
        start: behind which every passage stands.
        passages: of at least one token each.
        loop: has passes that are captured; None makes one as it is.
    """
    device = start.hidden.device
    # The last token of a passage predicts nothing that is asked.
    texts = [torch.tensor(passage[:-1], dtype=torch.long, device=device) for passage in passages]
    longest = max(map(len, texts))
    if not longest:
        hidden = [start.hidden[:0]] * len(texts)
    elif loop is not None and longest <= CHUNK_BUCKETS[-1]:
        hidden = loop.hidden_behind(start.cache, texts)
    else:
        hidden = hidden_behind(model, start.cache, texts)
    predicting = torch.cat([torch.cat((start.hidden, after)) for after in hidden])
    tokens = torch.tensor([token for passage in passages for token in passage], dtype=torch.long, device=device)
    gains = log_probabilities(model, predicting, tokens)
    return [part.tolist() for part in torch.split(gains, list(map(len, passages)))]


def hidden_behind(model: DiffusionGemma, cache: PrefixCache, texts: Sequence[Tensor]) -> list[Tensor]:
    """The hidden states [S, H] after the final norm of each of several texts [S], of token ids, in one pass.

    One row holds the tokens of all; by masks and positions each text sees the cache and itself alone.
    """
    device, lengths = texts[0].device, list(map(len, texts))
    number = torch.arange(len(texts), device=device).repeat_interleave(torch.tensor(lengths, device=device))
    step = torch.cat([torch.arange(length, device=device) for length in lengths])
    positions = cache.length + step
    own = (number[:, None] == number) & (step[:, None] >= step)
    visible = torch.cat((torch.ones(len(step), cache.length, dtype=torch.bool, device=device), own), dim=1)
    keys = torch.cat((torch.arange(cache.length, device=device), positions))
    near = positions[:, None] - keys < model.config.window
    masks = Masks(visible[None], (visible & near)[None])
    return list(torch.split(model.encode_rows(torch.cat(list(texts))[None], cache, masks, positions)[0], lengths))


def log_probabilities(model: DiffusionGemma, hidden: Tensor, tokens: Tensor) -> Tensor:
    """[N, H] and [N] to the log-probabilities [N], without the logits of more than some rows at a time."""
    rows = max(1, _LOGITS_AT_ONCE // model.config.vocab_size)
    parts = zip(torch.split(hidden, rows), torch.split(tokens, rows), strict=True)
    return torch.cat([model.logits(some).log_softmax(dim=-1).gather(1, ids[:, None])[:, 0] for some, ids in parts])
