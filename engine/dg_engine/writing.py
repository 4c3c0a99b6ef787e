"""What is written from left to right for a request: several texts as they grow, then the beginning of one that fits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from dg_engine.api import Decoding, Extent, InfillRequest, Piece, StopReason
from dg_engine.beginnings import Beginning, best_fit, end_of_copy, likeliest_end
from dg_engine.causal import NOTHING, Copied, Fit, Start, Written, behind, write
from dg_engine.covers import find_covers
from dg_engine.drafts import without
from dg_engine.errors import RequestError
from dg_engine.model import DiffusionGemma
from dg_engine.prompt import encode_suffix
from dg_engine.settings import InfillConfig
from dg_engine.spelling import Spelling
from dg_engine.suffix import SuffixHead
from dg_engine.tokenizer import Tokenizer

PATIENCE: dict[Extent, int] = {"line": 8, "block": 16}
"""Tokens that branches go on beyond the best end so far: on validation projects more found nothing better."""
BRANCHES = 4
"""Texts that are begun with different tokens before one is chosen by the suffix."""
FIT_TOKENS = 10
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
    overlap: int
    """Characters at the end of its last token that belong to the suffix."""


_NOTHING_NEW = Growing(0, ())


class Writer:
    """The causal side of a model, text to tokens and back."""

    def __init__(self, model: DiffusionGemma, tokenizer: Tokenizer) -> None:
        self._model, self._tokenizer = model, tokenizer

    def write(self, wanted: Wanted) -> Iterator[Growing | Chosen]:
        """Do the work, yielding after every unit; the last item is the answer.

        Raises:
            RequestError: the checkpoint did not learn what is asked.
        """
        start, head = wanted.start, SuffixHead.of(self._tokenizer, wanted.request.suffix, FIT_TOKENS)
        behind_text = None
        if wanted.decoding == "causal_infill":
            start = behind(self._model, start.cache, self._suffix_row(wanted))
            behind_text = self._model.config.eos_token_id
        elif wanted.decoding == "causal_fit" and head.tokens:
            behind_text = head.tokens[0]
        spelling = Spelling(self._tokenizer, wanted.cut)
        for steps, texts in enumerate(self._texts(wanted, start, spelling, behind_text)):
            if any(text.stop_reason is None for text in texts):
                yield self._shown(wanted.cut, texts[0], steps)
            elif not texts:
                yield _NOTHING_NEW
        one = Beginning(0, len(texts[0].tokens))
        if one.end and wanted.decoding == "causal_infill":
            one = likeliest_end(texts)
        elif one.end and behind_text is not None:
            one = best_fit(self._model, start, texts, head, spelling, length=wanted.length)
        best = texts[one.text]
        assert best.stop_reason is not None  # noqa: S101  (`causal.write` ends with one)
        yield Chosen(best.tokens[: one.end], best.gains, steps, best.stop_reason, one.overlap)

    def _texts(
        self, wanted: Wanted, start: Start, spelling: Spelling, behind_text: int | None
    ) -> Iterator[list[Written]]:
        """One text as it grows, or several of which one is chosen by the token that comes behind it.

        There are none while it is sought with what they begin.
        """
        request, ends, known = wanted.request, wanted.ends, wanted.length
        copied = NOTHING if behind_text is None else self._copied(wanted)
        branches, copied_cover = 1 if behind_text is None else BRANCHES, spelling.cover(copied.tokens)
        covers = None
        for covers in find_covers(
            self._model, start, ends, spelling, most=branches, wanted=copied_cover, deadline=wanted.deadline
        ):
            if covers is None:
                yield []
        assert covers is not None  # noqa: S101  (the last item is the list of them)
        yield from write(
            self._model,
            start,
            covers,
            ends,
            known or request.max_new_tokens,
            branches=branches,
            fit=Fit(behind_text, PATIENCE[request.extent]) if behind_text is not None and known is None else None,
            copied=copied,
            deadline=wanted.deadline,
        )

    def _copied(self, wanted: Wanted) -> Copied:
        request, trust = wanted.request, wanted.config.copy_trust
        if request.copied is None or trust is None:
            return NOTHING
        text, tail = request.copied.text, list[int]()
        if wanted.decoding == "causal_infill":
            # What is written ends where the suffix begins, and then comes end-of-sequence.
            end = end_of_copy(text, request.suffix, request.extent)
            text, tail = text[:end], [] if end is None else [self._model.config.eos_token_id]
        tokens = self._tokenizer.encode(wanted.cut + text)
        return Copied(tokens + tail, wanted.config.copy_probability(request), trust.keeps)

    def _shown(self, cut: str, first: Written, steps: int) -> Growing:
        """The first branch while it grows behind what is typed."""
        if first.stop_reason is not None or first.is_opening:
            return _NOTHING_NEW
        text, whole = without(cut, self._tokenizer.decode(first.tokens))
        return Growing(steps, (Piece(text, settled=True),) if whole and text else ())

    def _suffix_row(self, wanted: Wanted) -> list[int]:
        """`<|suffix|>`, the first tokens of the suffix, `<|middle|>`."""
        count = wanted.config.causal_suffix_tokens
        if not count:
            raise RequestError("this checkpoint did not learn causal infill; ask for diffusion or causal")
        tokens = encode_suffix(self._tokenizer, wanted.request.suffix, count)
        return [self._tokenizer.special_id("<|suffix|>"), *tokens, self._tokenizer.special_id("<|middle|>")]
