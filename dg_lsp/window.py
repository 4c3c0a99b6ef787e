"""The part of a document that is parsed: the whole of a small file, the lines around the cursor of a large one.

Parsing again after one key costs time in proportion to the file where brackets are left open: 2 ms and up to 60 ms in
1 MiB of Python (tree-sitter 0.26), 0.3 ms and up to 2 ms in 32 KiB. So some 8 KiB are parsed, at most twice that.
Within a large file a window begins and ends where a definition does, at the least indentation that is to be had: the
parser knows nothing of the text outside, and a window that begins inside a string or a comment of many lines takes its
end for its start. Where the parse of a new window goes badly, the window is tried once more from behind the next such
end, and the better of the two is kept. Nothing is parsed where the cursor's own line is longer than a window.
"""

from __future__ import annotations

from typing import NamedTuple

from dg_lsp.document import Point, encoded
from dg_lsp.indentation import width
from dg_lsp.languages import Language
from dg_lsp.lines import Lines, content

BEFORE, AFTER = 6144, 2048
"""Characters wanted before and after the row of the cursor."""

# A cursor that stays this far from both ends keeps its window, so that typing never parses anew.
_MARGIN_ROWS = 24


_ENDS_OF_MANY_LINES = ('"""', "'''", "`", "*/", "-->", "=end")


class Window(NamedTuple):
    """Rows `first` (included) to `last` (excluded) of a document that had `total` rows."""

    first: int
    last: int
    total: int

    def behind_delimiter(self, lines: Lines, row: int) -> Window | None:
        """The window from the row after the first that may end a string or comment of many lines; None without one."""
        found = (at for at in range(self.first, row) if any(mark in lines[at] for mark in _ENDS_OF_MANY_LINES))
        end = next(found, None)
        return None if end is None or self.first == 0 else self._replace(first=end + 1)

    def source(self, lines: Lines) -> bytes:
        """The rows as UTF-8, lone surrogates as the three bytes of their code point."""
        return encoded("".join(lines.between(self.first, self.last)))

    def offset(self, lines: Lines, point: Point) -> int:
        """The byte offset of `point` in `source`."""
        head = lines[point.row][: point.column]
        return len(encoded("".join(lines.between(self.first, point.row)))) + len(encoded(head))


def window_at(lines: Lines, row: int, old: Window | None, language: Language) -> Window | None:
    """The window for a cursor in `row`: `old`, grown with the text, while that fits; None where the line is a giant."""
    if len(lines[row]) > BEFORE:
        return None
    if old is not None:
        kept = Window(old.first, old.last + len(lines) - old.total, len(lines))
        if _fits(kept, lines, row):
            return kept
    return Window(_first_row(lines, row, language), _last_row(lines, row, language), len(lines))


def _fits(window: Window, lines: Lines, row: int) -> bool:
    above = window.first == 0 or row - window.first >= _MARGIN_ROWS
    below = window.last == len(lines) or window.last - row > _MARGIN_ROWS
    if not (above and below and window.first <= row < window.last):
        return False
    return sum(map(len, lines.between(window.first, window.last))) <= 2 * (BEFORE + AFTER)


def _first_row(lines: Lines, row: int, language: Language) -> int:
    first, room = row, BEFORE
    while first and len(lines[first - 1]) <= room:
        first -= 1
        room -= len(lines[first])
    if first == 0:
        return 0
    starts = _definitions(lines, first, (first + row) // 2, language)
    return min(starts, key=lambda start: (width(lines[start]), start), default=first)


def _last_row(lines: Lines, row: int, language: Language) -> int:
    last, room = row + 1, AFTER
    while last < len(lines) and len(lines[last]) <= room:
        room -= len(lines[last])
        last += 1
    if last == len(lines):
        return last
    starts = _definitions(lines, (row + last) // 2 + 1, last, language)
    return min(starts, key=lambda start: (width(lines[start]), -start), default=last)


def _definitions(lines: Lines, first: int, last: int, language: Language) -> list[int]:
    """The rows from `first` to `last` that open a block right after a blank line."""
    return [row for row in range(max(first, 1), last) if lines[row - 1].isspace() and _opens(lines[row], language)]


def _opens(line: str, language: Language) -> bool:
    return line[:1] == "@" or language.opens_block(content(line))
