"""What is written from left to right for a request: one text as it grows, or the best that fits what is behind it."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from dg_engine.api import Decoding, Extent, InfillRequest, Piece, StopReason
from dg_engine.causal import Cover, Start, write
from dg_engine.copying import LONGEST_COPY
from dg_engine.covers import find_covers
from dg_engine.drafts import without
from dg_engine.mixture import NOTHING, Copied
from dg_engine.model import DiffusionGemma
from dg_engine.search import End, Search, Sought
from dg_engine.settings import InfillConfig
from dg_engine.spelling import Spelling
from dg_engine.suffix import SuffixHead
from dg_engine.tokenizer import Tokenizer

PATIENCE: dict[Extent, int] = {"line": 5, "block": 10}
"""Passes that a search goes on beyond the best end so far."""
COVERS = 48
"""With which texts may begin, the likeliest."""
FIT_TOKENS = 8
"""Of the suffix, by which an answer's end is judged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What a request asks of the writer."""

    request: InfillRequest
    config: InfillConfig
    """Of the checkpoint."""
    start: Start
    """Behind the prefix, without what was cut off it."""
    cut: str
    """What texts must begin with, since it is there already."""
    ends: Tensor
    """[V] booleans, tokens that end a text."""
    length: int | None = None
    """Of the answer in tokens, where it is known."""
    deadline: float | None = None
    """`time.perf_counter()` seconds."""

    @property
    def limit(self) -> int:
        """Tokens at most."""
        return self.length or self.request.max_new_tokens

    @property
    def decoding(self) -> Decoding:
        """What the request names, or what the checkpoint does then."""
        return self.config.decoding_of(self.request)


class Growing(NamedTuple):
    """A unit of work was done. Of step 0 there is nothing new to show."""

    step: int
    pieces: tuple[Piece, ...]


class Chosen(NamedTuple):
    """The answer."""

    tokens: list[int]
    gains: list[float]
    """The log-probability of each, in nats."""
    steps: int
    stop_reason: StopReason
    overlap: int = 0
    """Characters at the end of its last token that belong to the suffix."""
    others: Sequence[End] = ()
    """Where other answers end, the likeliest first."""


_NOTHING_NEW = Growing(0, ())


class Writer:
    """The causal side of a model, text to tokens and back."""

    def __init__(self, model: DiffusionGemma, tokenizer: Tokenizer) -> None:
        self._model, self._tokenizer = model, tokenizer

    def write(self, wanted: Wanted) -> Iterator[Growing | Chosen]:
        """Do the work, yielding after every unit; the last item is the answer."""
        suffix = SuffixHead.of(self._tokenizer, wanted.request.suffix, FIT_TOKENS)
        if wanted.decoding == "causal" or not suffix.tokens:
            return self._greedy(wanted)
        return self._fitted(wanted, suffix)

    def _greedy(self, wanted: Wanted) -> Iterator[Growing | Chosen]:
        """One text, shown as it grows."""
        covers = yield from self._covers(wanted, Spelling(self._tokenizer, wanted.cut))
        if not covers:
            is_late = wanted.deadline is not None and time.perf_counter() >= wanted.deadline
            yield Chosen([], [], 0, "time_budget" if is_late else "end_of_sequence")
            return
        best = max(covers, key=lambda cover: cover.gain)
        for steps, text in enumerate(
            write(self._model, wanted.start, best, wanted.ends, wanted.limit, deadline=wanted.deadline)
        ):
            if text.stop_reason is None:
                yield self._shown(wanted.cut, text.tokens, steps, settled=True)
            else:
                yield Chosen(text.tokens, text.gains, steps, text.stop_reason)

    def _fitted(self, wanted: Wanted, suffix: SuffixHead) -> Iterator[Growing | Chosen]:
        """Of all texts the one that the suffix follows best; the best so far is shown."""
        spelling, copied = Spelling(self._tokenizer, wanted.cut), self._copied(wanted)
        sought = Sought(
            covers=(yield from self._covers(wanted, spelling, COVERS, spelling.cover(copied.tokens))),
            spelling=spelling,
            suffix=suffix,
            ends=wanted.ends,
            limit=wanted.limit,
            patience=PATIENCE[wanted.request.extent],
            copied=copied,
            length=wanted.length,
            deadline=wanted.deadline,
        )
        search, steps, shown = Search(self._model, wanted.start, sought), 0, _NOTHING_NEW
        for steps, _ in enumerate(search.passes(), 1):
            best = self._shown(wanted.cut, search.best.tokens, steps, search.best.overlap)
            yield best if best.pieces != shown.pieces else _NOTHING_NEW
            shown = best
        (text, overlap), *others = search.judged(1 + wanted.request.others)
        reason: StopReason = "converged"
        if search.is_out_of_time:
            reason = "time_budget"
        elif text is None or text.length == wanted.limit:
            reason = "end_of_sequence" if text is None else "max_new_tokens"
        tokens, gains = (text.tokens, text.gains) if text else ([], [])
        yield Chosen(tokens, gains, steps, reason, overlap, others)

    def _covers(
        self, wanted: Wanted, spelling: Spelling, most: int = 1, copied: tuple[int, ...] = ()
    ) -> Generator[Growing, None, list[Cover]]:
        """With what texts begin, and the cover that is copied, if there is one."""
        covers = None
        for covers in find_covers(
            self._model, wanted.start, wanted.ends, spelling, most=most, wanted=copied, deadline=wanted.deadline
        ):
            if covers is None:
                yield _NOTHING_NEW
        assert covers is not None  # noqa: S101  (the last item is the list of them)
        return covers

    def _copied(self, wanted: Wanted) -> Copied:
        request, trust = wanted.request, wanted.config.copy_trust
        if request.copied is None or trust is None:
            return NOTHING
        tokens = self._tokenizer.encode(wanted.cut + request.copied.text[:LONGEST_COPY])
        return Copied(tokens, wanted.config.copy_probability(request), trust.keeps)

    def _shown(self, cut: str, tokens: list[int], steps: int, overlap: int = 0, *, settled: bool = False) -> Growing:
        """A text behind what is typed."""
        written = self._tokenizer.decode(tokens)
        text, whole = without(cut, written[: len(written) - overlap])
        return Growing(steps, (Piece(text, settled=settled),) if whole and text else ())
