"""Which beginning of what was written from left to right is the answer: the one that the suffix follows best.

By Bayes' rule the likeliest text between a prefix and a suffix is that for which the text behind the prefix and the
suffix behind both are likeliest together. The first part is known from writing, the first suffix token of the second
part too; the few beginnings that are best by those are judged by more of the suffix, in one pass. A beginning may end
inside its last token, where the suffix begins as that token ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from dg_engine.api import Extent
from dg_engine.causal import MARGIN, Passage, Start, Written, gains_behind
from dg_engine.model import DiffusionGemma
from dg_engine.spelling import Spelling
from dg_engine.suffix import SuffixHead

_MEETING = 6
"""Characters of a suffix by which it is known again: fewer stand in every text."""

SHORTLIST = 5
"""Beginnings that are judged by the whole suffix; those that it hardly can turn to the best are not."""


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
    spelling: Spelling,
    *,
    length: int | None = None,
) -> Beginning:
    """The beginning of one of the texts for which it and the suffix are likeliest together.

    Args:
        model: the encoder and the head.
        start: where the texts begin.
        texts: at least one, of at least one token; with `fits` for the suffix's first token unless the length is known.
        suffix: of at least one token; more than some ten say little more.
        spelling: of what is there already; the texts' covers go on behind it.
        length: tokens, where they are known: beginnings of other lengths do not count. None for any.
    """
    if length is None:
        known = _likelihoods(texts, suffix, spelling)
        least = max(known.values(), default=0.0) - MARGIN
        shortlist = [one for one in sorted(known, key=known.__getitem__)[-SHORTLIST:] if known[one] >= least]
    else:
        whole = [number for number, text in enumerate(texts) if len(text.cover) <= length <= len(text.tokens)]
        known = {Beginning(number, length): sum(texts[number].gains[:length]) for number in whole}
        shortlist = list(known)
    if len(shortlist) < 2:
        return shortlist[0] if shortlist else Beginning(0, len(texts[0].tokens))
    passages = []
    for one in shortlist:
        tokens = [*texts[one.text].tokens[: one.end], *suffix.behind(one.overlap)]
        has_fit = length is None and not one.overlap  # which stands for the suffix's first token
        passages.append(Passage(tokens, one.end + has_fit))
    behind_each = map(sum, gains_behind(model, start, passages))
    return max(zip(shortlist, behind_each, strict=True), key=lambda pair: known[pair[0]] + pair[1])[0]


def likeliest_end(texts: Sequence[Written]) -> Beginning:
    """The beginning of one of the texts that is likeliest together with the token that was fitted behind it.

    Where that is end-of-sequence, by a model that was told the suffix before, nothing else needs to be asked.

    Args:
        texts: at least one, of at least one token.
    """
    return max(
        (Beginning(number, end) for number, text in enumerate(texts) for end in range(1, len(text.fits) + 1)),
        key=lambda one: sum(texts[one.text].gains[: one.end]) + texts[one.text].fits[one.end - 1],
        default=Beginning(0, len(texts[0].tokens)),
    )


def end_of_copy(text: str, suffix: str, extent: Extent) -> int | None:
    """Where a copied text goes over into what is behind the cursor already: there a hole ends.

    Args:
        text: that may be copied.
        suffix: behind the cursor.
        extent: a line ends at the first line break.

    Returns:
        None where it does not.
    """
    ends = [text.find(suffix[:_MEETING])] if suffix.strip() else []
    ends += [text.find("\n")] if extent == "line" else []
    return min((end for end in ends if end >= 0), default=None)


def _likelihoods(texts: Sequence[Written], suffix: SuffixHead, spelling: Spelling) -> dict[Beginning, float]:
    """The log-probability of each beginning and the suffix's first token, or what its own last token holds of it."""
    found: dict[Beginning, float] = {}
    for number, text in enumerate(texts):
        gains = list(accumulate(text.gains))
        for end in range(max(1, len(text.cover)), len(text.tokens) + 1):
            gain = gains[end - 1]
            if end <= len(text.fits):
                found[Beginning(number, end)] = gain + text.fits[end - 1]
            # A text that is nothing but suffix is no answer.
            own = 1 + len(spelling.left(text.cover[:-1])) if end == len(text.cover) else 0
            overlaps = suffix.overlaps(text.tokens[end - 1], own)
            found.update({Beginning(number, end, overlap): gain for overlap in overlaps})
    return found
