"""What follows the same text elsewhere: code repeats itself, also beyond what a model is shown.

The end of the text before the cursor is looked for in the user's buffers, and what stands behind a match is a guess at
what comes next: the better the longer the match is, and the more of what is behind the cursor follows there too. The
one side is a cache without bounds (Grave et al., arXiv 1711.02604), which prompt lookup uses for drafts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dg_engine.api import Copy, Extent

LONGEST_MATCH = 200
"""Characters before the cursor that are compared."""
LONGEST_MEETING = 40
"""Characters behind the cursor that are compared."""
LONGEST_COPY = 400
"""Characters of what stands behind a match."""

# A short seed stands in so many places that only the last are compared.
_SEEDS = (24, 10, 4)
_PLACES = 40
_MEETING_SEEDS = (16, 8, 4, 2, 1)
_MEETING = 6
"""Characters of a suffix by which it is known again: fewer stand in every text."""


class Evidence(NamedTuple):
    """What speaks for a copy, and against it. Blanks do not count as characters that match: they stand everywhere."""

    matched: int
    """Characters before the cursor that stand before the copy too."""
    met: int
    """Characters behind the cursor with which the copy goes on somewhere."""
    elsewhere: bool
    """Whether it stands in another document."""

    @property
    def logs(self) -> tuple[float, float, float]:
        """How the odds depend on it: one character more is worth the less, the more there are."""
        return math.log1p(self.matched), math.log1p(self.met), float(self.elsewhere)

    def weighed(self, weights: tuple[float, float, float]) -> float:
        """The sum of the logs, each times its weight."""
        return sum(weight * log for weight, log in zip(weights, self.logs, strict=True))


# As the weights of `CopyTrust` stand to one another: the copy is chosen that is likeliest right. With 0.8 for what is
# met copies alone fill more holes, but those that the model fills by itself.
_WEIGHTS = (1.0, 0.25, -0.5)


def evidence(copy: Copy, behind: str) -> Evidence:
    """What speaks for a copy where so much is behind the cursor."""
    return Evidence(copy.matched, _met(copy.text, behind[:LONGEST_MEETING]), copy.elsewhere)


def continuation(before: str, behind: str = "", others: Sequence[str] = ()) -> Copy | None:
    """What follows the end of a text elsewhere, at the place that has most in common with both sides of the cursor.

    Of equally good places the last before the cursor counts, then those behind it, then those in the first other.

    Args:
        before: all text before the cursor.
        behind: all text behind it.
        others: other documents.

    Returns:
        None where less than four characters match, or blanks alone.
    """
    end = before[-LONGEST_MATCH:]
    backwards, ahead = end[::-1], behind[:LONGEST_MEETING]
    # A line that ends in a blank is not finished there either.
    nothing = ("\n", "") if end[-1:].isspace() and end[-1] != "\n" else ("",)
    best, found = -math.inf, None
    for number, text in enumerate((before, behind, *others)):
        for place in _places(text, end):
            if text[place : place + 1] in nothing:
                continue
            same = _common(text[max(0, place - LONGEST_MATCH) : place][::-1], backwards)
            # As if all that is behind the cursor followed: mostly that would not be enough, and need not be looked at.
            known = Evidence(_inked(backwards[:same]), len(ahead), elsewhere=number > 1)
            if known.matched and known.weighed(_WEIGHTS) > best:
                copied = text[place : place + LONGEST_COPY]
                worth = known._replace(met=_met(copied, ahead)).weighed(_WEIGHTS)
                if worth > best:
                    best, found = worth, Copy(text=copied, matched=known.matched, elsewhere=known.elsewhere)
    return found


def _met(text: str, behind: str) -> int:
    """With how much of another a text goes on where a long beginning of it stands, or else a short one."""
    for length in _MEETING_SEEDS:
        place = text.find(behind[:length]) if len(behind) >= length else -1
        if place >= 0:
            return _inked(behind[: _common(text[place : place + len(behind)], behind)])
    return 0


def _inked(text: str) -> int:
    """How many characters are no blanks."""
    return sum(map(len, text.split()))


def _places(text: str, end: str) -> Iterator[int]:
    """Behind the last places of each seed, each place once."""
    seen: set[int] = set()
    for length in _SEEDS:
        place = len(text) + 1
        for _ in range(_PLACES if len(end) >= length else 0):
            start = text.rfind(end[-length:], 0, place - 1)
            if start < 0:
                break
            place = start + length
            if place not in seen:
                seen.add(place)
                yield place


def _common(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginnings: by halving, as n do only where n - 1 do."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one.startswith(other[:middle]):
            low = middle
        else:
            high = middle - 1
    return low


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
