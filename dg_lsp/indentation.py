"""Indentation: how deep a line lies, which lines stand around a cursor, and how deep the next block goes.

A tab counts to the next multiple of four; only comparisons rest on that, text is never converted.
"""

from __future__ import annotations

from typing import NamedTuple

from dg_lsp.lines import Lines, content

_TAB = 4
# Blank lines beyond this are taken for the end of the text: a cursor amid thousands of them asks nothing of the rest.
_REACH = 200


class Surroundings(NamedTuple):
    """The nearest lines that are not blank, without terminators; empty where there is none within reach."""

    above: str
    above_row: int
    below: str


def surroundings(lines: Lines, row: int) -> Surroundings:
    """What stands above and below `row`."""
    above_row, above = row, ""
    while above_row > max(row - _REACH, 0) and not above:
        above_row -= 1
        above = content(lines[above_row]) if not lines[above_row].isspace() else ""
    following = (content(line) for line in lines.between(row + 1, row + 1 + _REACH))
    return Surroundings(above, above_row, next((line for line in following if line.strip()), ""))


def indentation_of(line: str) -> str:
    """The white space at which `line` begins."""
    return line[: len(line) - len(line.lstrip(" \t"))]


def width(line: str) -> int:
    """How deep `line` is indented, in columns."""
    return len(indentation_of(line).expandtabs(_TAB))


def inner_indentation(opener: str, text: str) -> str:
    """The indentation of a block that `opener` opens, by the step that `text` takes where it goes deeper."""
    outer = indentation_of(opener)
    previous = None
    for line in reversed(text.split("\n")):
        if not line.strip():
            continue
        here = indentation_of(line)
        if previous is not None and previous.startswith(here) and len(previous) > len(here):
            return outer + previous[len(here) :]
        previous = here
    return outer + ("\t" if "\t" in outer else " " * _TAB)
