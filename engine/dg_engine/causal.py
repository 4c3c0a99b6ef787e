"""Writing from left to right with the encoder and the head: what the same weights do as a causal language model.

`write` decodes greedily; of several branches it begins each with another of the likeliest first tokens.

`best_fit` then chooses, among all beginnings of what was written, the one that the suffix follows best. By Bayes' rule
the likeliest text between a prefix and a suffix is that for which the text behind the prefix and the suffix behind both
are likeliest together. The first part is known from writing, the first suffix token of the second part too; the few
beginnings that are best by those are judged by more of the suffix, in one pass. A beginning may end inside its last
token, where the suffix begins as that token ends.

A checkpoint that was trained for it is told the suffix before, in the order prefix, suffix, middle (Bavarian et al.,
arXiv 2207.14255): behind the cached prefix come `<|suffix|>`, the first tokens of the suffix and `<|middle|>`, then the
answer. The prefix comes first, so that its cache is the one that diffusion uses, and stays while the user types.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from dg_engine.api import StopReason
from dg_engine.canvas import BANNED
from dg_engine.model import DiffusionGemma, Masks
from dg_engine.prefix_cache import PrefixCache
from dg_engine.suffix import SuffixHead

SHORTLIST = 5
"""Beginnings that are judged by the whole suffix."""
LEAST_LIKELY = -3.0
"""Nats by which a branch's first token may be less likely than the likeliest."""
MARGIN = 3.0
"""Nats by which more of the suffix may turn the order of two beginnings that its first token leaves."""


class Copied(NamedTuple):
    """A text that may come next, because it follows the same text elsewhere.

    What is written is copied from it with some probability, and else the model's own: at each token copying goes on or
    stops, and each token that was copied and that the model did not expect makes it likelier that copying goes on
    (mixing by posterior weight, Herbster and Warmuth 1998, of the model and a cache, Grave et al., arXiv 1711.02604).
    """

    tokens: Sequence[int]
    weight: float
    """The probability, below 1, that the first token is copied."""
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
"""A text of which so much is copied is let go on: its end is where that of the other text is, however far."""


@dataclass(slots=True)
class Written:
    """One branch so far."""

    tokens: list[int] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)
    """The log-probability of each token, in nats; at the end of the text also that of ending there."""
    fits: list[float] = field(default_factory=list)
    """Behind each token but possibly the last, the log-probability that the suffix's first token comes next."""
    copying: float = 0.0
    """The probability that the next token is copied."""
    stop_reason: StopReason | None = None
    """None while there is more to do."""


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


def write(
    model: DiffusionGemma,
    start: Start,
    ends: Tensor,
    limit: int,
    *,
    branches: int = 1,
    fit: Fit | None = None,
    copied: Copied = NOTHING,
    first_allowed: Tensor | None = None,
    deadline: float | None = None,
) -> Iterator[list[Written]]:
    """Greedy decoding; yields the branches after each token, and last with a stop reason each.

    Args:
        model: the encoder and the head.
        start: what was read.
        ends: [V] booleans, tokens that end the text and are not part of it. A text that ends at once has no branches.
        limit: tokens at most.
        branches: texts at most, the likeliest first.
        fit: what is behind the texts; branches that hardly can fit it better any more are given up.
        copied: what the texts may take over; its first token must be allowed.
        first_allowed: [V] booleans; with what the text may begin; None for anything.
        deadline: `time.perf_counter()` seconds after which to stop.
    """
    logits = model.logits(start.hidden)
    if first_allowed is not None:
        logits = logits.masked_fill(~first_allowed, BANNED)
    texts = _begun(logits.log_softmax(dim=-1)[0], ends, branches, copied)
    growing, cache = texts, start.cache.repeated(len(texts))
    for length in range(1, limit + 1):
        if length == limit:
            _stop(texts, "max_new_tokens")
        elif deadline is not None and time.perf_counter() >= deadline:
            _stop(texts, "time_budget")
        yield texts
        rows = [row for row, text in enumerate(growing) if text.stop_reason is None]
        if not rows:
            return
        if len(rows) < len(growing):
            growing, cache = [growing[row] for row in rows], cache.of_rows(rows)
        last = torch.tensor([[text.tokens[-1]] for text in growing], device=cache.keys[0].device)
        encoded = model.encode(last, cache, slice(-1, None))
        cache = encoded.cache
        logs = model.logits(encoded.hidden[:, 0]).log_softmax(dim=-1)
        _grow(growing, logs, ends, fit, copied)
        if fit is not None:
            _give_up(texts, fit.patience)


def _begun(logs: Tensor, ends: Tensor, branches: int, copied: Copied) -> list[Written]:
    """The branches' first tokens, by the model's log-probabilities [V]."""
    mixed = copied.mixed(logs, 0, copied.weight)
    if bool(ends[mixed.argmax()]):
        return [Written(gains=[float(mixed.max())], stop_reason="end_of_sequence")]
    chosen = mixed.masked_fill(ends, BANNED).topk(branches)
    firsts = zip(chosen.values.tolist(), chosen.indices.tolist(), strict=True)
    return [
        Written([token], [gain], copying=copied.next_weight(logs, 0, copied.weight, token))
        for gain, token in firsts
        if gain >= float(chosen.values[0]) + LEAST_LIKELY
    ]


def _stop(texts: Sequence[Written], reason: StopReason) -> None:
    for text in texts:
        text.stop_reason = text.stop_reason or reason


def _grow(texts: Sequence[Written], logs: Tensor, ends: Tensor, fit: Fit | None, copied: Copied) -> None:
    """One more token for each of N branches, by the model's log-probabilities [N, V]."""
    pairs = list(zip(texts, logs, strict=True))
    mixed = torch.stack([copied.mixed(row, len(text.tokens), text.copying) for text, row in pairs])
    best = mixed.max(dim=-1)
    for (text, row), gain, token in zip(pairs, best.values.tolist(), best.indices.tolist(), strict=True):
        text.gains.append(gain)
        if bool(ends[token]):
            text.stop_reason = "end_of_sequence"
        else:
            text.copying = copied.next_weight(row, len(text.tokens), text.copying, token)
            text.tokens.append(token)
    if fit is not None:
        for text, gain in zip(texts, mixed[:, fit.token].tolist(), strict=True):
            text.fits.append(gain)


def _give_up(texts: Sequence[Written], patience: int) -> None:
    """Stop the branches in which, from here on, hardly anything can become likelier than a beginning that is there."""
    found, end = max((sum(text.gains[:end]) + fit, end) for text in texts for end, fit in enumerate(text.fits, 1))
    late = max(len(text.fits) for text in texts) - end >= patience
    for text in texts:
        if (late and text.copying < SURELY_COPIED) or sum(text.gains) + MARGIN < found:
            text.stop_reason = text.stop_reason or "converged"


class Beginning(NamedTuple):
    """Some first tokens of a text."""

    text: int
    """Its number."""
    end: int
    """At least 1."""
    overlap: int = 0
    """Characters at the end of its last token with which the suffix begins: they belong to that."""


def best_fit(
    model: DiffusionGemma,
    start: Start,
    texts: Sequence[Written],
    suffix: SuffixHead,
    *,
    typed: int = 0,
    length: int | None = None,
) -> Beginning:
    """The beginning of one of the texts for which it and the suffix are likeliest together.

    Args:
        model: the encoder and the head.
        start: where the texts begin.
        texts: at least one, of at least one token; with `fits` for the suffix's first token unless the length is known.
        suffix: of at least one token; more than some ten say little more.
        typed: characters of the texts that are there already: the first token goes on behind them.
        length: tokens, where they are known: beginnings of other lengths do not count. None for any.
    """
    if length is None:
        known = _likelihoods(texts, suffix, typed)
        shortlist = sorted(known, key=known.__getitem__)[-SHORTLIST:]
    else:
        whole = [number for number, text in enumerate(texts) if len(text.tokens) >= length]
        known = {Beginning(number, length): sum(texts[number].gains[:length]) for number in whole}
        shortlist = list(known)
    if not shortlist:
        return Beginning(0, len(texts[0].tokens))
    passages = []
    for one in shortlist:
        tokens = [*texts[one.text].tokens[: one.end], *suffix.behind(one.overlap)]
        has_fit = length is None and not one.overlap  # which stands for the suffix's first token
        passages.append(Passage(tokens, one.end + has_fit))
    behind_each = map(sum, gains_behind(model, start, passages))
    return max(zip(shortlist, behind_each, strict=True), key=lambda pair: known[pair[0]] + pair[1])[0]


def _likelihoods(texts: Sequence[Written], suffix: SuffixHead, typed: int) -> dict[Beginning, float]:
    """The log-probability of each beginning and the suffix's first token, or what its own last token holds of it."""
    found: dict[Beginning, float] = {}
    for number, text in enumerate(texts):
        gain = 0.0
        for end, token in enumerate(text.tokens, 1):
            gain += text.gains[end - 1]
            if end <= len(text.fits):
                found[Beginning(number, end)] = gain + text.fits[end - 1]
            # A text that is nothing but suffix is no answer.
            own = typed + 1 if end == 1 else 0
            found.update({Beginning(number, end, overlap): gain for overlap in suffix.overlaps(token, own)})
    return found


class Passage(NamedTuple):
    """Tokens behind a start, of which the first so many are known to be there."""

    tokens: Sequence[int]
    known: int = 0


def gains_behind(model: DiffusionGemma, start: Start, passages: Sequence[Passage]) -> list[list[float]]:
    """The log-probability, in nats, of each token of each passage that is not known, in one pass.

    One row holds the tokens of all passages, each without its last. Masks and positions make each of them see the cache
    and itself alone, as if it stood behind the cache.
    """
    device, cache = start.hidden.device, start.cache
    read = [passage.tokens[:-1] for passage in passages]
    lengths = [len(tokens) for tokens in read]
    number = torch.arange(len(read), device=device).repeat_interleave(torch.tensor(lengths, device=device))
    step = torch.cat([torch.arange(length, device=device) for length in lengths])
    positions = cache.length + step

    own = (number[:, None] == number) & (step[:, None] >= step)
    visible = torch.cat((torch.ones(len(step), cache.length, dtype=torch.bool, device=device), own), dim=1)
    keys = torch.cat((torch.arange(cache.length, device=device), positions))
    near = positions[:, None] - keys < model.config.window
    masks = Masks(visible[None], (visible & near)[None])
    row = torch.tensor([[token for tokens in read for token in tokens]], dtype=torch.long, device=device)
    hidden = model.encode_rows(row, cache, masks, positions)[0] if len(step) else start.hidden[:0]

    behind_each = zip(passages, torch.split(hidden, lengths), strict=True)
    predicting = torch.cat(
        [torch.cat((start.hidden, after))[passage.known : len(passage.tokens)] for passage, after in behind_each]
    )
    targets = [passage.tokens[passage.known :] for passage in passages]
    ids = torch.tensor([token for tokens in targets for token in tokens], dtype=torch.long, device=device)
    gains = model.logits(predicting).log_softmax(dim=-1).gather(1, ids[:, None])[:, 0]
    return [part.tolist() for part in torch.split(gains, [len(tokens) for tokens in targets])]
