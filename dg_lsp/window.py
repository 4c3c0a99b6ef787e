"""The part of a document that is parsed: the whole of a small file, the lines around the cursor of a large one.

Parsing again after one key costs time in proportion to the file where brackets are left open: 2 ms and up to 60 ms in
1 MiB of Python (tree-sitter 0.26), 0.3 ms and up to 2 ms in 32 KiB. So some 20 KiB are parsed, at most twice that. The
first line of a window in the middle of a file is one that begins at the margin; the parser knows nothing of the text
before it, so in a window that begins inside a string or a comment of many lines its end is taken for its start. Nothing
is parsed where the cursor's own line is longer than a window.
"""

from __future__ import annotations

from typing import NamedTuple

from dg_lsp.document import Point, encoded
from dg_lsp.lines import Lines

BEFORE, AFTER = 12_288, 6_144
"""Characters wanted before and after the row of the cursor."""

# A cursor that stays this far from both ends keeps its window, so that typing never parses anew.
_MARGIN_ROWS = 24


class Window(NamedTuple):
    """Rows `first` (included) to `last` (excluded) of a document that had `total` rows."""

    first: int
    last: int
    total: int

    def source(self, lines: Lines) -> bytes:
        """The rows as UTF-8, lone surrogates as the three bytes of their code point."""
        return encoded("".join(lines.between(self.first, self.last)))

    def offset(self, lines: Lines, point: Point) -> int:
        """The byte offset of `point` in `source`."""
        head = lines[point.row][: point.column]
        return len(encoded("".join(lines.between(self.first, point.row)))) + len(encoded(head))


def window_at(lines: Lines, row: int, old: Window | None) -> Window | None:
    """The window for a cursor in `row`: `old`, grown with the text, while that fits; None where the line is a giant."""
    if len(lines[row]) > BEFORE:
        return None
    if old is not None:
        kept = Window(old.first, old.last + len(lines) - old.total, len(lines))
        if _fits(kept, lines, row):
            return kept
    return Window(_first_row(lines, row), _last_row(lines, row), len(lines))


def _fits(window: Window, lines: Lines, row: int) -> bool:
    above = window.first == 0 or row - window.first >= _MARGIN_ROWS
    below = window.last == len(lines) or window.last - row > _MARGIN_ROWS
    if not (above and below and window.first <= row < window.last):
        return False
    return sum(map(len, lines.between(window.first, window.last))) <= 2 * (BEFORE + AFTER)


def _first_row(lines: Lines, row: int) -> int:
    first, room = row, BEFORE
    while first and len(lines[first - 1]) <= room:
        first -= 1
        room -= len(lines[first])
    if first == 0:
        return 0
    for candidate in range(first, (first + row) // 2):
        if lines[candidate][:1].isalpha() or lines[candidate][:1] in "@_$#<":
            return candidate
    return first


def _last_row(lines: Lines, row: int) -> int:
    last, room = row + 1, AFTER
    while last < len(lines) and len(lines[last]) <= room:
        room -= len(lines[last])
        last += 1
    return last
