"""A persistent sequence of text lines: an edit costs one chunk, and every older version stays as it was.

A line ends at `\\n`, `\\r\\n` or `\\r` and keeps its terminator. Nothing else ends a line: form feed, U+0085, U+2028
and the other characters at which `str.splitlines` cuts are ordinary text (Language Server Protocol 3.18, "Text
Documents"). The last line has no terminator and may be empty, so the empty text is one line.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate, chain
from typing import NamedTuple

_TERMINATED = re.compile(r"[^\r\n]*(?:\r\n?|\n)")

# An edit copies one chunk and the list of chunks: 512 keeps both short up to some 500,000 lines.
_CHUNK = 512


class Chunk(NamedTuple):
    """Some hundred lines and their length in characters."""

    lines: tuple[str, ...]
    size: int


def split_lines(text: str) -> list[str]:
    """Cut `text` into lines that keep their terminators; the last one has none."""
    *terminated, last = text.split("\n")  # str.split runs at memory speed, the regular expression at a tenth of it
    lines = [line + "\n" for line in terminated]
    if "\r" in text:
        lines = [part for line in lines for part in _split_at_returns(line)]
        *returned, last = [*_split_at_returns(last), ""] if last.endswith("\r") else _split_at_returns(last)
        lines += returned
    lines.append(last)
    return lines


def _split_at_returns(line: str) -> list[str]:
    """Cut one line, ended by `\\n` or by the end of the text, at its lone `\\r`."""
    if line.count("\r") == line.endswith("\r\n"):
        return [line]
    parts: list[str] = _TERMINATED.findall(line)
    rest = line[sum(map(len, parts)) :]
    return [*parts, rest] if rest else parts


def content(line: str) -> str:
    """The line without its terminator."""
    return line.rstrip("\r\n")


class Lines:
    """An immutable sequence of lines, kept as chunks of some hundred lines."""

    __slots__ = ("_chunks", "_ends", "_sizes")

    def __init__(self, chunks: Iterable[Chunk]) -> None:
        self._chunks = tuple(chunks)
        self._ends = tuple(accumulate(len(chunk.lines) for chunk in self._chunks))
        self._sizes = tuple(accumulate(chunk.size for chunk in self._chunks))

    @classmethod
    def of(cls, text: str) -> Lines:
        """The lines of `text`."""
        return cls(_chunked(split_lines(text)))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, row: int) -> str:
        index, offset = self._locate(row)
        return self._chunks[index].lines[offset]

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(chunk.lines for chunk in self._chunks)

    def between(self, first: int, last: int) -> Iterator[str]:
        """The lines of rows `first` (included) to `last` (excluded), both clamped to the text."""
        first, last = max(first, 0), min(last, len(self))
        while first < last:
            index, offset = self._locate(first)
            part = self._chunks[index].lines[offset : offset + last - first]
            yield from part
            first += len(part)

    def replaced(self, first: int, last: int, lines: list[str]) -> Lines:
        """These lines with rows `first` to `last`, both included, replaced by `lines`."""
        left, head = self._locate(first)
        right, tail = self._locate(last)
        middle = [*self._chunks[left].lines[:head], *lines, *self._chunks[right].lines[tail + 1 :]]
        if len(middle) < _CHUNK // 4 and right + 1 < len(self._chunks):
            right += 1
            middle.extend(self._chunks[right].lines)
        return Lines((*self._chunks[:left], *_chunked(middle), *self._chunks[right + 1 :]))

    def offset(self, row: int) -> int:
        """How many characters lie before `row`."""
        index, rest = self._locate(row)
        return (self._sizes[index - 1] if index else 0) + sum(map(len, self._chunks[index].lines[:rest]))

    def row_at(self, offset: int) -> int:
        """The row that holds the character at `offset`; the last row for an offset at the end of the text."""
        index = min(bisect_right(self._sizes, offset), len(self._chunks) - 1)
        row = self._ends[index - 1] if index else 0
        start = self._sizes[index - 1] if index else 0
        for line in self._chunks[index].lines[:-1]:
            start += len(line)
            if start > offset:
                break
            row += 1
        return row

    def _locate(self, row: int) -> tuple[int, int]:
        index = bisect_right(self._ends, row)
        return index, row - (self._ends[index - 1] if index else 0)


def _chunked(lines: list[str]) -> Iterator[Chunk]:
    # A little over one chunk is left whole, lest typing splits and merges in turn.
    size = len(lines) if len(lines) <= 2 * _CHUNK else _CHUNK
    for start in range(0, len(lines), max(size, 1)):
        part = tuple(lines[start : start + size])
        yield Chunk(part, sum(map(len, part)))
