"""The mirror of one editor buffer: text, edits and positions, in the units that the client counts in.

Positions are (line, character) with the character counted in UTF-8 bytes, UTF-16 words or code points; everything
inside the server uses `Point`, counted in code points. Example, the line `a😀b`, cursor before `b`:

    utf-8  character 5        utf-16  character 3        utf-32  character 2        Point column 2

A position is never wrong, only rounded: past the end of a line to the end of its content, past the last line to the end
of the text, inside a character to that character's start. Line ends are those of the protocol alone (`dg_lsp.lines`).

Lone surrogates are kept: editors send them. A high surrogate followed by a low one is the character they spell, whether
they arrive together or by two edits, so that text and client count alike.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Literal, NamedTuple

from dg_lsp.lines import Lines, content, split_lines

Encoding = Literal["utf-8", "utf-16", "utf-32"]


class Position(NamedTuple):
    """A place as the client counts it: zero-based line, zero-based character in the client's units."""

    line: int
    character: int


class Point(NamedTuple):
    """A place as the server counts it: zero-based row, zero-based column in code points."""

    row: int
    column: int


class Change(NamedTuple):
    """One edit: `text` in place of what lies between `start` and `end`, or of everything where both are None."""

    start: Position | None
    end: Position | None
    text: str


class Snapshot:
    """One version of a document. Immutable; older snapshots share their lines with newer ones."""

    def __init__(self, uri: str, language_id: str, version: int, lines: Lines, encoding: Encoding) -> None:
        self.uri = uri
        self.language_id = language_id
        self.version = version
        self.lines = lines
        self.encoding = encoding

    @cached_property
    def text(self) -> str:
        """The whole text, joined on first use: 1 ms per MiB."""
        return "".join(self.lines)

    def point(self, position: Position) -> Point:
        """The point nearest to `position`, rounded as the module says. Never raises."""
        if position.line < 0:
            return Point(0, 0)
        if position.line >= len(self.lines):
            row = len(self.lines) - 1
            return Point(row, len(self.lines[row]))
        line = content(self.lines[position.line])
        return Point(position.line, column(line, position.character, self.encoding))

    def position(self, point: Point) -> Position:
        """The client's position of `point`; columns past the content of the row are clamped to its end."""
        row = min(max(point.row, 0), len(self.lines) - 1)
        head = content(self.lines[row])[: max(point.column, 0)]
        return Position(row, units(head, self.encoding))

    def edited(self, start: Point, end: Point, text: str) -> Snapshot:
        """This text with `text` in place of what lies from `start` to `end`, as no document has it yet."""
        lines = _replaced(self.lines, start, end, text)
        return Snapshot(self.uri, self.language_id, self.version, lines, self.encoding)


class Document:
    """The mutable mirror of one editor buffer; `snapshot` hands out its current version."""

    def __init__(self, uri: str, language_id: str, version: int, text: str, encoding: Encoding) -> None:
        self._current = Snapshot(uri, language_id, version, Lines.of(_paired(text)), encoding)

    def snapshot(self) -> Snapshot:
        """The current version. Costs nothing."""
        return self._current

    def apply(self, changes: Sequence[Change], version: int) -> None:
        """Carry out `changes` in order, each on the text that the ones before it left, and take `version`."""
        current = self._current
        for change in changes:
            current = self._with_lines(_edited(current, change), version)
        self._current = self._with_lines(current.lines, version)

    def _with_lines(self, lines: Lines, version: int) -> Snapshot:
        old = self._current
        return Snapshot(old.uri, old.language_id, version, lines, old.encoding)


def units(text: str, encoding: Encoding) -> int:
    """The length of `text` in units of `encoding`."""
    if encoding == "utf-32" or text.isascii():
        return len(text)
    if encoding == "utf-8":
        return len(encoded(text))
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def encoded(text: str) -> bytes:
    """`text` as UTF-8; a lone surrogate takes the three bytes that its code point would."""
    return text.encode("utf-8", "surrogatepass")


# Blocks are encoded and measured; decoding the whole head again to count it takes three times as long.
_BLOCK = 4096


def column(line: str, character: int, encoding: Encoding) -> int:
    """How many code points of `line` lie whole in its first `character` units."""
    if character <= 0:
        return 0
    if encoding == "utf-32" or line.isascii():
        return min(character, len(line))
    start = 0
    while start < len(line):
        block = line[start : start + _BLOCK]
        size = units(block, encoding)
        if size > character:
            return start + _column_within(block, character, encoding)
        character -= size
        start += len(block)
    return len(line)


def _column_within(block: str, character: int, encoding: Encoding) -> int:
    """The column in a block that has more than `character` units, by bisection."""
    low, high = 0, len(block)  # units(block[:low]) <= character < units(block[:high])
    while high - low > 1:
        middle = (low + high) // 2
        size = units(block[low:middle], encoding)
        if size <= character:
            low, character = middle, character - size
        else:
            high = middle
    return low


def _edited(snapshot: Snapshot, change: Change) -> Lines:
    if change.start is None or change.end is None:
        return Lines.of(_paired(change.text))
    start = end = snapshot.point(change.start)
    if change.end != change.start:
        start, end = sorted((start, snapshot.point(change.end)))
    return _replaced(snapshot.lines, start, end, change.text)


def _replaced(lines: Lines, start: Point, end: Point, text: str) -> Lines:
    first, last = start.row, end.row
    head, tail = lines[first][: start.column], lines[last][end.column :]
    if first and lines[first - 1].endswith("\r"):
        # A lone \r before the edit and a \n that the edit brings to the start of its row are one terminator.
        first -= 1
        head = lines[first] + head
    new = split_lines(_joined(_joined(head, _paired(text)), tail))
    if last + 1 < len(lines):
        new.pop()  # the text that follows this terminator is the next row
    return lines.replaced(first, last, new)


_SPELT_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def _paired(text: str) -> str:
    if text.isascii() or not _SPELT_PAIR.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _joined(left: str, right: str) -> str:
    seam = left[-1:] + right[:1]
    if _SPELT_PAIR.match(seam):
        return left[:-1] + _paired(seam) + right[1:]
    return left + right
