"""The text before and after a cursor, cut to a budget in such a way that typing does not move the cuts.

The engine keeps the keys and values of a prefix and reuses them up to the first character that differs; a prefix that
began one character further on with every key would lose them all. So its beginning is quantised.
"""

from __future__ import annotations

from typing import NamedTuple

from dg_lsp.document import Point
from dg_lsp.lines import Lines

QUANTUM = 1024
"""Characters by which the beginning of a prefix moves, at the least."""


class Cut(NamedTuple):
    """A piece of the document with `\\n` as its only line end, and whether the document goes on beyond it."""

    text: str
    is_cut: bool


def text_before(lines: Lines, point: Point, budget: int) -> Cut:
    """At most `budget` characters before `point`.

    They begin at the first line start at or after a whole multiple of the quantum; inside a line, at the multiple
    itself, where that is the cursor's or goes on for more than half a quantum.
    """
    quantum = min(QUANTUM, max(budget // 2, 1))
    surplus = lines.offset(point.row) + point.column - budget
    if surplus <= 0:
        return Cut(normalised("".join(lines.between(0, point.row)) + lines[point.row][: point.column]), is_cut=False)
    anchor = -(-surplus // quantum) * quantum
    row = lines.row_at(anchor)
    column = anchor - lines.offset(row)
    # Not if much is lost by it: right below a line of thousands of characters all of the text would be.
    if column and row < point.row and len(lines[row]) - column <= quantum // 2:
        row, column = row + 1, 0
    text = "".join(lines.between(row, point.row)) + lines[point.row][: point.column]
    return Cut(normalised(text[column:]), is_cut=True)


def text_after(lines: Lines, point: Point, budget: int) -> Cut:
    """At most `budget` characters after `point`, up to a line end where there is one."""
    last = lines.row_at(lines.offset(point.row) + point.column + budget)
    text = "".join(lines.between(point.row, last + 1))[point.column : point.column + budget + 1]
    if len(text) <= budget:
        return Cut(normalised(text), is_cut=False)
    kept = text[:budget]
    end = max(kept.rfind("\n"), kept.rfind("\r")) + 1
    return Cut(normalised(kept[:end] if end else kept), is_cut=True)


def normalised(text: str) -> str:
    """The text with `\\n` as its only line end."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
