"""Find where a text begins to repeat itself, which is how a model without an idea goes on.

The period of every tail of the text comes from the prefix function of the reversed text (Knuth, Morris and Pratt, "Fast
pattern matching in strings", SIAM J. Comput. 6(2), 1977), in one pass.
"""

from __future__ import annotations

# (least length, times): so often in a row a unit of this length is a repetition; short ones may be rulers or padding.
_LIMITS = ((1, 24), (2, 10), (3, 6), (10, 4), (20, 3))
_RULER = frozenset("-=#*~_./+ \n\t")


def without_repetition(text: str) -> str:
    """`text` up to the end of the first unit of the repetition in which it ends; all of it where there is none."""
    tail = text.rstrip()
    backwards = tail[::-1]
    best = len(tail)
    for length, period in enumerate(_periods(backwards), start=1):
        unit = backwards[:period]
        if length // period >= _limit(period) and not set(unit) <= _RULER:
            best = min(best, len(tail) - length + period)
    return text if best == len(tail) else tail[:best]


def _limit(period: int) -> int:
    return next(limit for least, limit in reversed(_LIMITS) if period >= least)


def _periods(text: str) -> list[int]:
    """The smallest period of each head of `text`, by length from 1."""
    border = [0] * len(text)
    for index in range(1, len(text)):
        size = border[index - 1]
        while size and text[index] != text[size]:
            size = border[size - 1]
        border[index] = size + (text[index] == text[size])
    return [index + 1 - size for index, size in enumerate(border)]
