"""The text that is likeliest between a prefix and a suffix, sought best first.

By Bayes' rule that is the text for which it behind the prefix, and the suffix behind both, are likeliest together. What
a text has lost in likelihood it never regains. So one that is less likely already than the best end that was found
leads to no better one, and where no other is open the search is over: it is A* (Hart, Nilsson and Raphael 1968) with
the bound that nothing more is lost. Each pass of the model reads the open texts that are likeliest for their length.

An end counts with the suffix's first token, of which the pass that reads a text knows the probability. The best few are
judged by more of the suffix. A text may end inside its last token, where the suffix begins as that ends.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

import torch
from torch import Tensor

from dg_engine.causal import Cover, Start, log_probabilities
from dg_engine.drafts import answer_text
from dg_engine.mixture import NOTHING, Copied
from dg_engine.model import DiffusionGemma
from dg_engine.spelling import Spelling
from dg_engine.suffix import SuffixHead
from dg_engine.text_tree import Text, TextTree, chain

TEXTS = 12
"""Read in a pass."""
FOLLOWERS = 8
"""Tokens, the likeliest, with which a text goes on."""
LENGTH_BONUS = 0.7
"""Nats by which a longer text may be less likely for each token and still be read as soon."""
SLACK = 1.0
"""Nats by which a text may be less likely than the best end and still be read: by more of the suffix it may win."""
READ_AHEAD = 0.35
"""The probability of going on from which what a text copies is read at once."""
COPIED_AHEAD = 24
"""Tokens that are read so at most."""
SHORTLIST = 8
"""Ends that are judged by the whole suffix; those that it hardly can turn to the best are not."""
MARGIN = 4.0
"""Nats by which more of the suffix may turn the order of two ends that its first token leaves."""


class End(NamedTuple):
    """Where a text ends."""

    text: Text | None
    """None for no text at all."""
    overlap: int = 0
    """Characters at the end of its last token with which the suffix begins: they belong to that."""

    @property
    def tokens(self) -> list[int]:
        """Those of the text."""
        return self.text.tokens if self.text else []


@dataclass(frozen=True, kw_only=True, slots=True)
class Sought:
    """What is looked for."""

    covers: Sequence[Cover]
    """With which the texts may begin."""
    spelling: Spelling
    """Of what is there already."""
    suffix: SuffixHead
    """What is behind them, at least one token; where that is end-of-sequence the texts may not reach into it."""
    ends: Tensor
    """[V] booleans, tokens that are no part of a text."""
    limit: int
    """Tokens at most."""
    patience: int
    """Passes in a row that find no better end, behind which none is expected any more."""
    copied: Copied = NOTHING
    """What the texts may take over."""
    length: int | None = None
    """Tokens, where they are known: no other end counts."""
    deadline: float | None = None
    """`time.perf_counter()` seconds after which no pass begins."""


class Search:
    """A search behind a start.

    Args:
        model: the encoder and the head.
        start: where the texts begin.
        sought: what is looked for.
    """

    def __init__(self, model: DiffusionGemma, start: Start, sought: Sought) -> None:
        self._model, self._start, self._sought = model, start, sought
        self._tree = TextTree(model, start)
        self._open: list[Text] = []
        self._idle = 0
        self.found: dict[End, float] = {}
        """The log-probability of each end and the suffix's first token, or what its own last token holds of that."""
        self.best, self.most = End(None), -math.inf
        """The likeliest of them, and how likely it is."""
        self._begin()

    def passes(self) -> Iterator[None]:
        """Search; yield after each pass of the model."""
        while texts := self._next():
            self._read(texts)
            yield

    @property
    def is_out_of_time(self) -> bool:
        """Whether the search had to stop."""
        deadline = self._sought.deadline
        return deadline is not None and time.perf_counter() >= deadline

    def judged(self, count: int = 1) -> list[End]:
        """The best ends, each of another text, by the whole suffix unless there is no time for it.

        Where none was found, it is the likeliest text that was begun.

        Args:
            count: at most so many. Where one is enough, none is judged that is not likely to be it.
        """
        if not self.found:
            return [End(max(self._open, key=lambda text: text.gain, default=None))]
        likeliest = heapq.nlargest(SHORTLIST, self.found.items(), key=lambda pair: pair[1])
        shortlist = [end for end, gain in likeliest if count > 1 or gain >= self.most - MARGIN]
        if len(shortlist) > 1 and not self.is_out_of_time:
            behind = dict(zip(shortlist, self._gains_behind(shortlist), strict=True))
            shortlist.sort(key=lambda end: self.found[end] + behind[end], reverse=True)
        spelling, different = self._sought.spelling, dict[str, End]()
        for end in shortlist:
            different.setdefault(answer_text(spelling.tokenizer, spelling.cut, end.tokens, end.overlap), end)
        return [*different.values()][:count]

    def _begin(self) -> None:
        """Open the covers, and end at once where nothing needs to be spelt."""
        sought = self._sought
        if not sought.spelling.cut:
            logs = self._model.logits(self._start.hidden).log_softmax(dim=-1)[0]
            mixed = sought.copied.mixed(logs, 0, sought.copied.weight)
            self._end(End(None), float(mixed[sought.suffix.tokens[0]]), 0)
        for cover in sought.covers:
            if not bool(sought.ends[cover.tokens[-1]]):
                *parts, text = chain(None, cover.tokens)
                gain, text.copying = sought.copied.opened(cover.tokens, cover.gain)
                for part in (*parts, text):
                    part.gain, part.is_part = gain, part is not text
                self._overlap(text, 1 + len(sought.spelling.left(cover.tokens[:-1])))
                self._open.append(text)

    def _end(self, end: End, gain: float, length: int) -> None:
        if self._sought.length not in {None, length}:
            return
        self.found[end] = gain
        if gain > self.most:
            self.best, self.most, self._idle = end, gain, 0

    def _overlap(self, text: Text, own: int = 0) -> None:
        """End a text inside its last token, of which the first so many characters are none of the suffix."""
        if text.length > self._sought.limit:
            return
        for overlap in self._sought.suffix.overlaps(text.token, own):
            self._end(End(text, overlap), text.gain, text.length)

    def _next(self) -> list[Text]:
        """What the next pass reads; nothing where the search is over."""
        least, limit = self.most - SLACK, self._sought.limit
        self._open = [text for text in self._open if text.gain >= least and text.length <= limit]
        if self._idle > self._sought.patience or self.is_out_of_time:
            return []
        chosen = set(heapq.nlargest(TEXTS, self._open, key=self._promise))
        first = [text for text in self._open if text in chosen]
        self._open = [text for text in self._open if text not in chosen]
        return list(dict.fromkeys(part for text in first for part in (*text.unread, *self._copies(text))))

    def _promise(self, text: Text) -> float:
        # A length that is known is reached by a beam, which reads the longest.
        return text.gain + text.length * (LENGTH_BONUS if self._sought.length is None else 1e3)

    def _copies(self, text: Text) -> Iterable[Text]:
        """What a text goes on with if it surely is copied."""
        if text.copying < READ_AHEAD:
            return ()
        rest = self._sought.copied.tokens[text.length : min(self._sought.limit, text.length + COPIED_AHEAD)]
        return chain(text, [*takewhile(lambda token: not bool(self._sought.ends[token]), rest)])

    def _read(self, texts: Sequence[Text]) -> None:
        """Let each text end, and go on."""
        self._idle += bool(self.found)
        logs = self._model.logits(self._tree.read(texts)).log_softmax(dim=-1)
        copies = {text.parent: text for text in texts if text.gain == -math.inf}
        for text, row in zip(texts, logs, strict=True):
            if not text.is_part:
                self._follow(text, row, copies.get(text))

    def _follow(self, text: Text, logs: Tensor, copy: Text | None) -> None:
        """Let a text end and go on, by the model's log-probabilities [V]; its copy was read in the same pass."""
        sought, copied = self._sought, self._sought.copied
        mixed = copied.mixed(logs, text.length, text.copying)
        self._end(End(text), text.gain + float(mixed[sought.suffix.tokens[0]]), text.length)
        likeliest = mixed.masked_fill(sought.ends, -math.inf).topk(min(FOLLOWERS, len(mixed)))
        gains = dict(zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True))
        if copy is not None:
            gains[copy.token] = float(mixed[copy.token])
        for token, gain in gains.items():
            follower = copy if copy is not None and copy.token == token else Text(text, token)
            follower.gain = text.gain + gain
            follower.copying = copied.next_weight(logs, text.length, text.copying, token)
            # What lies in the suffix whole is the end that stands above, in another spelling.
            self._overlap(follower, 1)
            if follower is not copy:
                self._open.append(follower)

    def _gains_behind(self, ends: Sequence[End]) -> list[float]:
        """The log-probability of the suffix behind each end, without what is counted with the end already."""
        suffix, read, targets, counts = self._sought.suffix, list[Text](), list[int](), list[int]()
        # What is spelt by several tokens may end in the last of them, before any was read.
        parents = [text.parent for text, overlap in ends if text is not None and text.parent is not None and overlap]
        begun = list(dict.fromkeys(part for parent in parents for part in parent.unread))
        for text, overlap in ends:
            if text is not None and overlap:
                # Its last token once more: what it predicts is not kept.
                wanted = suffix.behind(overlap)
                read += chain(text.parent, [text.token, *wanted[:-1]])
            else:
                wanted = suffix.tokens[1:]
                read += chain(text, suffix.tokens[:-1])
            targets += wanted
            counts.append(len(wanted))
        if not read:
            return [0.0] * len(ends)
        hidden = self._tree.read([*begun, *read])[len(begun) :]
        gains = log_probabilities(self._model, hidden, torch.tensor(targets, device=self._model.device))
        return [float(part.sum()) for part in torch.split(gains, counts)]
