"""Writing from left to right with the encoder and the head: what the same weights do as a causal language model.

`write` decodes greedily, in several branches where it is told several covers with which to begin. `gains_behind` says
how likely given texts are.

A checkpoint that was trained for it is told the suffix before, in the order prefix, suffix, middle (Bavarian et al.,
arXiv 2207.14255): behind the cached prefix come `<|suffix|>`, the first tokens of the suffix and `<|middle|>`, then the
answer. The prefix comes first, so that its cache is the one that diffusion uses, and stays while the user types.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from dg_engine.api import StopReason
from dg_engine.chunks import CHUNK_BUCKETS
from dg_engine.device_loop import DeviceLoop
from dg_engine.model import DiffusionGemma, Masks
from dg_engine.prefix_cache import PrefixCache

LEAST_LIKELY = -3.0
"""Nats by which a branch's cover may be less likely than the likeliest."""
MARGIN = 3.0
"""Nats by which more of the suffix may turn the order of two beginnings that its first token leaves."""

_LOGITS_AT_ONCE = 2**23
"""Of which a softmax is made, so that four copies in fp32 stay under what a step leaves of probabilities: of the
released model's vocabulary 32 rows, 134 MB."""


class Copied(NamedTuple):
    """A text that may come next, because it follows the same text elsewhere.

    What is written is copied from it with some probability, and else the model's own: at each token copying goes on or
    stops, and each token that was copied and that the model did not expect makes it likelier that copying goes on
    (mixing by posterior weight, Herbster and Warmuth 1998, of the model and a cache, Grave et al., arXiv 1711.02604).
    """

    tokens: Sequence[int]
    weight: float
    """The probability, below 1, that the cover with which the text begins is copied."""
    keeps: float
    """The probability, below 1, that what was copied so far is copied further."""

    def mixed(self, logs: Tensor, place: int, weight: float) -> Tensor:
        """The log-probabilities [V] of a text's next token, by those of the model; the text is copied up to `place`."""
        if not weight or place >= len(self.tokens):
            return logs
        token, mixed = self.tokens[place], logs + math.log1p(-weight)
        mixed[token] = torch.logaddexp(mixed[token], mixed.new_tensor(math.log(weight)))
        return mixed

    def next_weight(self, logs: Tensor, place: int, weight: float, token: int) -> float:
        """The probability that the token behind this one is copied too."""
        if not weight or place >= len(self.tokens) or token != self.tokens[place]:
            return 0.0
        return self.keeps * weight / (weight + (1 - weight) * math.exp(float(logs[token])))


NOTHING = Copied((), 0.0, 0.0)

SURELY_COPIED = 0.5
"""The probability of going on from which a copied text has more patience: its end is where that of the other is."""
READ_AHEAD = 0.35
"""The probability of going on from which what a branch copies is read at once."""
COPIED_PATIENCE = 24
"""Tokens; more made no answer of the validation projects better, and took more time."""


@dataclass(slots=True)
class Written:
    """One branch so far."""

    cover: tuple[int, ...] = ()
    """With what it begins, token by token: it was chosen as a whole."""
    tokens: list[int] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)
    """The log-probability of each token, in nats, all of the cover's with its first; at the end also that of ending."""
    fits: list[float] = field(default_factory=list)
    """Behind each token but possibly the last, the log-probability that the suffix's first token comes next; within
    the cover no text ends."""
    copying: float = 0.0
    """The probability that the next token is copied."""
    forks: bool = False
    """Its cover is there already: the token behind that is where texts differ."""
    stop_reason: StopReason | None = None
    """None while there is more to do."""

    @property
    def is_opening(self) -> bool:
        """Whether its cover is not all written."""
        return len(self.tokens) < len(self.cover)


class Fit(NamedTuple):
    """To what texts are fitted while they are written."""

    token: int
    """The suffix's first, whose log-probability goes into `fits`."""
    patience: int
    """Tokens: where for so many no beginning was likelier than one that is there, none is expected any more."""


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


class Cover(NamedTuple):
    """With what a text may begin: its first token, or where something has to be spelt all tokens that it takes."""

    tokens: tuple[int, ...]
    gain: float
    """The log-probability, in nats, by the model."""
    exact: bool = False
    """Whether it is there already as a whole, and what a text adds begins behind it."""


def write(
    model: DiffusionGemma,
    start: Start,
    covers: Sequence[Cover],
    ends: Tensor,
    limit: int,
    *,
    branches: int = 1,
    fit: Fit | None = None,
    copied: Copied = NOTHING,
    deadline: float | None = None,
) -> Iterator[list[Written]]:
    """Greedy decoding; yields the branches after each pass of the model, and last with a stop reason each.

    A pass reads one token of every branch, but what one surely copies is read at once. That branch is ahead of the
    others then, which may be given up sooner, and joins them where they have come as far.

    Args:
        model: the encoder and the head.
        start: what was read.
        covers: with which the texts may begin (`find_covers`); a text that has none is empty.
        ends: [V] booleans, tokens that end the text and are not part of it. A text that ends at once has no branches.
        limit: tokens at most.
        branches: texts at most, the likeliest first. Where there are fewer, what goes on behind an exact cover is.
        fit: what is behind the texts; branches that hardly can fit it better any more are given up.
        copied: what the texts may take over.
        deadline: `time.perf_counter()` seconds after which to stop.
    """
    texts = _begun(covers, ends, branches, copied, limit)
    length, ahead = len(texts[0].tokens), None
    sure = next((text for text in texts if text.copying >= READ_AHEAD), None) if length < limit else None
    if sure is not None:
        yield texts
        ahead = _read_ahead(model, start, sure, ends, limit, fit, copied)
        _give_up(texts, fit)
    growing = [text for text in texts if text is not sure]
    cache, read = start.cache.repeated(len(growing)), 0
    while True:
        growing, cache = _still_growing(growing, cache)
        if ahead is not None and ahead.joins(growing, length):
            growing, cache = [*growing, ahead.text], ahead.joined(start, growing, cache)
            length = len(ahead.text.tokens)
            ahead, read = None, length - 1
        if length >= limit:
            _stop(texts, "max_new_tokens")
        elif deadline is not None and time.perf_counter() >= deadline:
            _stop(texts, "time_budget")
        yield texts
        growing, cache = _still_growing(growing, cache)
        if growing:
            behind_cache = torch.tensor([text.tokens[read:] for text in growing], device=start.hidden.device)
            encoded = model.encode(behind_cache, cache, slice(-1, None))
            cache, read, length = encoded.cache, length, length + 1
            logs = model.logits(encoded.hidden[:, 0]).log_softmax(dim=-1)
            mixed = _mixed(growing, logs, copied)
            forks = _forks(growing, mixed, ends, branches)
            more = [_forked(growing[row], token, gain, logs[row], copied) for gain, row, token in forks]
            _grow(growing, logs, mixed, ends, fit, copied)
            if more:
                cache = cache.of_rows([*range(len(growing)), *(row for _, row, _ in forks)])
                growing, texts = [*growing, *more], [*texts, *more]
            _give_up(texts, fit)
        elif ahead is None or ahead.text.stop_reason is not None:
            return


def _still_growing(texts: list[Written], cache: PrefixCache) -> tuple[list[Written], PrefixCache]:
    """The texts that have not stopped, and their rows."""
    rows = [row for row, text in enumerate(texts) if text.stop_reason is None]
    return (texts, cache) if len(rows) == len(texts) else ([texts[row] for row in rows], cache.of_rows(rows))


class _Ahead(NamedTuple):
    """A branch of which more was read than of the others."""

    text: Written
    cache: PrefixCache
    """Of what was read before it and of its own tokens, without the last and perhaps with some that it has not."""

    def joins(self, growing: Sequence[Written], length: int) -> bool:
        """Whether it goes on with others that have so many tokens, or without any."""
        return self.text.stop_reason is None and (not growing or length == len(self.text.tokens))

    def joined(self, start: Start, growing: Sequence[Written], cache: PrefixCache) -> PrefixCache:
        """The others' rows and its own, without its last token, which nothing has read yet."""
        own = self.cache.truncated(start.cache.length + len(self.text.tokens) - 1)
        return cache.beside(own) if growing else own


def _read_ahead(
    model: DiffusionGemma, start: Start, text: Written, ends: Tensor, limit: int, fit: Fit | None, copied: Copied
) -> _Ahead:
    """Grow a branch in one pass as far as it is copied, and by the token behind that."""
    begun = len(text.tokens)
    rest = copied.tokens[begun:limit]
    end = next((place for place, token in enumerate(rest, begun) if bool(ends[token])), begun + len(rest))
    read = copied.tokens[:end]
    encoded = model.encode(torch.tensor([read], device=start.hidden.device), start.cache)
    for row in model.logits(encoded.hidden[0, begun - 1 :]).log_softmax(dim=-1):
        place = len(text.tokens)
        if place == limit:
            break
        logs = row[None]
        _grow([text], logs, _mixed([text], logs, copied), ends, fit, copied)
        if text.stop_reason is not None or text.tokens[place:] != [*read[place : place + 1]]:
            break
    return _Ahead(text, encoded.cache)


def _begun(covers: Sequence[Cover], ends: Tensor, branches: int, copied: Copied, limit: int) -> list[Written]:
    """The branches, each with as many tokens as the shortest cover has: a pass reads as many of each."""
    texts = sorted((_opened(cover, copied) for cover in covers), key=lambda text: text.gains[0], reverse=True)
    if not texts or bool(ends[texts[0].cover[-1]]):
        return [Written(gains=texts[0].gains if texts else [], stop_reason="end_of_sequence")]
    least = texts[0].gains[0] + LEAST_LIKELY
    texts = [text for text in texts if text.gains[0] >= least and not bool(ends[text.cover[-1]])][:branches]
    shared = min(limit, *(len(text.cover) for text in texts))
    for text in texts:
        text.tokens += text.cover[:shared]
        text.gains += [0.0] * (shared - 1)
        text.fits += [-math.inf] * (shared - 1)
    return texts


def _opened(cover: Cover, copied: Copied) -> Written:
    """A branch that has its cover to write."""
    if not copied.weight or cover.tokens != tuple(copied.tokens[: len(cover.tokens)]):
        gain, copying = cover.gain + math.log1p(-copied.weight), 0.0
    else:
        chance = copied.weight + (1 - copied.weight) * math.exp(cover.gain)
        gain, copying = math.log(chance), copied.keeps * copied.weight / chance
    return Written(cover.tokens, gains=[gain], copying=copying, forks=cover.exact)


def _stop(texts: Sequence[Written], reason: StopReason) -> None:
    for text in texts:
        text.stop_reason = text.stop_reason or reason


def _mixed(texts: Sequence[Written], logs: Tensor, copied: Copied) -> Tensor:
    """The log-probabilities [N, V] of the next tokens of N branches, by the model's and by what may be copied."""
    rows = zip(texts, logs, strict=True)
    return torch.stack([copied.mixed(row, len(text.tokens), text.copying) for text, row in rows])


def _forks(texts: Sequence[Written], mixed: Tensor, ends: Tensor, branches: int) -> list[tuple[float, int, int]]:
    """What else than the likeliest token may come where one of N branches forks: its gain, the row, the token."""
    found: list[tuple[float, int, int]] = []
    for row, text in enumerate(texts):
        if text.forks and len(text.tokens) == len(text.cover):
            best = mixed[row].topk(branches)
            gains, tokens = best.values.tolist(), best.indices.tolist()
            least = gains[0] + LEAST_LIKELY
            others = zip(gains[1:], tokens[1:], strict=True)
            found += [(gain, row, token) for gain, token in others if gain >= least and not bool(ends[token])]
    return sorted(found, reverse=True)[: max(0, branches - len(texts))]


def _forked(text: Written, token: int, gain: float, logs: Tensor, copied: Copied) -> Written:
    """A branch that takes another token behind its cover."""
    return Written(
        cover=(*text.cover, token),
        tokens=[*text.tokens, token],
        gains=[*text.gains, gain],
        fits=[-math.inf] * len(text.tokens),
        copying=copied.next_weight(logs, len(text.tokens), text.copying, token),
    )


def _grow(texts: Sequence[Written], logs: Tensor, mixed: Tensor, ends: Tensor, fit: Fit | None, copied: Copied) -> None:
    """One more token for each of N branches: the likeliest by `mixed` [N, V], out of the model's `logs`."""
    if fit is not None:
        for text, gain in zip(texts, mixed[:, fit.token].tolist(), strict=True):
            text.fits.append(-math.inf if text.is_opening else gain)
    best = mixed.max(dim=-1)
    chosen = zip(texts, logs, best.values.tolist(), best.indices.tolist(), strict=True)
    for text, row, gain, token in chosen:
        if text.is_opening:
            text.gains.append(0.0)
            text.tokens.append(text.cover[len(text.tokens)])
            continue
        text.gains.append(gain)
        if bool(ends[token]):
            text.stop_reason = "end_of_sequence"
        else:
            text.copying = copied.next_weight(row, len(text.tokens), text.copying, token)
            text.tokens.append(token)


def _give_up(texts: Sequence[Written], fit: Fit | None) -> None:
    """Stop the branches in which, from here on, hardly anything can become likelier than a beginning that is there."""
    if fit is None:
        return
    # Behind the last token there may be no fit yet.
    sums = ((accumulate(text.gains), text.fits) for text in texts)
    found, end = max(
        (gain + fit, end) for gains, fits in sums for end, (gain, fit) in enumerate(zip(gains, fits, strict=False), 1)
    )
    for text in texts:
        allowed = COPIED_PATIENCE if text.copying >= SURELY_COPIED else fit.patience
        if len(text.fits) - end >= allowed or sum(text.gains) + MARGIN < found:
            text.stop_reason = text.stop_reason or "converged"


class Passage(NamedTuple):
    """Tokens behind a start, of which the first so many are known to be there."""

    tokens: Sequence[int]
    known: int = 0


def gains_behind(
    model: DiffusionGemma, start: Start, passages: Sequence[Passage], loop: DeviceLoop | None = None
) -> list[list[float]]:
    """The log-probability, in nats, of each token of each passage that is not known.

    Args:
        model: encoder and head.
        start: behind which every passage stands.
        passages: of at least one token each.
        loop: has passes that are captured; None makes one as it is.
    """
    device = start.hidden.device
    # The last token of a passage predicts nothing that is asked.
    texts = [torch.tensor(passage.tokens[:-1], dtype=torch.long, device=device) for passage in passages]
    longest = max(map(len, texts))
    if not longest:
        hidden = [start.hidden[:0]] * len(texts)
    elif loop is not None and longest <= CHUNK_BUCKETS[-1]:
        hidden = loop.hidden_behind(start.cache, texts)
    else:
        hidden = hidden_behind(model, start.cache, texts)
    predicting = [
        torch.cat((start.hidden, after))[passage.known : len(passage.tokens)]
        for passage, after in zip(passages, hidden, strict=True)
    ]
    targets = [passage.tokens[passage.known :] for passage in passages]
    ids = torch.tensor([token for tokens in targets for token in tokens], dtype=torch.long, device=device)
    gains = _log_probabilities(model, torch.cat(predicting), ids)
    return [part.tolist() for part in torch.split(gains, [len(tokens) for tokens in targets])]


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


def _log_probabilities(model: DiffusionGemma, hidden: Tensor, tokens: Tensor) -> Tensor:
    """[N, H] and [N] to the log-probabilities [N], without the logits of more than some rows at a time."""
    rows = max(1, _LOGITS_AT_ONCE // model.config.vocab_size)
    parts = zip(torch.split(hidden, rows), torch.split(tokens, rows), strict=True)
    return torch.cat([model.logits(some).log_softmax(dim=-1).gather(1, ids[:, None])[:, 0] for some, ids in parts])
