"""What follows the same text elsewhere: code repeats itself, also beyond what a model is shown.

The end of the text before the cursor is looked for in the user's buffers. What stands behind the longest match is a
guess at what comes next, and the better the longer the match is: a cache without bounds (Grave et al., arXiv
1711.02604), which prompt lookup uses for drafts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter

from dg_engine.api import Copy

LONGEST_MATCH = 200
"""Characters; longer matches count as if they were no longer."""
LONGEST_COPY = 400
"""Characters of what stands behind a match."""

# What matches a long seed is compared first. A short one stands in so many places that only the last are compared.
_SEEDS = (24, 10, 4)
_PLACES = 40


def continuation(before: str, elsewhere: Sequence[str] = ()) -> Copy | None:
    """What follows the longest match of the end of a text; of equally long matches, the last before the cursor.

    Args:
        before: all text before the cursor.
        elsewhere: what is behind the cursor, and other buffers; of equally long matches those in the first one count.

    Returns:
        None where less than four characters match.
    """
    end = before[-LONGEST_MATCH:]
    # A line that ends in a blank is not finished there either.
    nothing = ("\n", "") if end[-1:].isspace() and end[-1] != "\n" else ("",)
    for seed in (end[-length:] for length in _SEEDS if len(end) >= length):
        found = [
            (_matched(text[max(0, place - LONGEST_MATCH) : place], end), text, place)
            for text in (before, *elsewhere)
            for place in _places(text, seed)
            if text[place : place + 1] not in nothing
        ]
        if found:
            matched, text, place = max(found, key=itemgetter(0))
            return Copy(text=text[place : place + LONGEST_COPY], matched=matched)
    return None


def _places(text: str, seed: str) -> Iterator[int]:
    """Behind each of the last places of a seed, the last first."""
    place = len(text) + 1
    for _ in range(_PLACES):
        start = text.rfind(seed, 0, place - 1)
        if start < 0:
            return
        place = start + len(seed)
        yield place


def _matched(one: str, other: str) -> int:
    """How many characters two texts have in common at their ends: by halving, as n match only where n - 1 do."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one.endswith(other[-middle:]):
            low = middle
        else:
            high = middle - 1
    return low
