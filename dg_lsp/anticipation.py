"""What a client is about to ask: after a key press, or when an offer was taken, it asks where that has put the cursor,
but it takes its time.

VS Code waits 50 ms before it asks and Neovim's own client 200; a server that knows what is coming begins at once. While
an offer is shown and read, it can be known what will be asked if it is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dg_lsp.document import Change, Point, Position, Snapshot
from dg_lsp.lines import content
from dg_lsp.postprocess import Suggestion


class Asked(NamedTuple):
    """Where the client last asked on its own account, in which text, and what it was offered."""

    snapshot: Snapshot
    position: Position
    offered: Suggestion | None = None


def next_place(asked: Asked, changes: Sequence[Change], after: Snapshot) -> Position | None:
    """Where the client will ask after these edits; None unless they are one key, pressed where it asked before, or take
    what it was offered there.

    Args:
        asked: the last automatic request, for the text before the edits.
        changes: the edits.
        after: the text after them.
    """
    if len(changes) != 1 or changes[0].start is None or changes[0].end is None:
        return None
    start, end, text = changes[0]
    if start is None or end is None:
        return None
    if not text and start < end == asked.position and start.line == end.line:
        return start
    is_typed = start == end == asked.position and _is_key(text)
    if not is_typed and not _is_taken(asked, start, end, text):
        return None
    return _behind(after, asked.snapshot.point(start), text)


class Taken(NamedTuple):
    """A text as it will be if an offer is taken, and where the cursor will be."""

    snapshot: Snapshot
    position: Position


def taken(snapshot: Snapshot, offered: Suggestion) -> Taken:
    """What is to come if the user takes what was offered for a text."""
    after = snapshot.edited(offered.start, offered.end, offered.text)
    return Taken(after, _behind(after, offered.start, offered.text))


def _is_key(text: str) -> bool:
    """One character, or a line break with the indentation that an editor puts behind it."""
    return len(text) == 1 or (text.startswith(("\n", "\r\n")) and not text.strip())


def _is_taken(asked: Asked, start: Position, end: Position, text: str) -> bool:
    """Whether the edit takes the offer, or what of it is not there already, to the end of what it replaces."""
    if asked.offered is None:
        return False
    first, last = asked.snapshot.point(start), asked.snapshot.point(end)
    typed = first.column - asked.offered.start.column
    is_there = first.row == asked.offered.start.row and typed >= 0 and last == asked.offered.end
    return is_there and bool(text) and text == asked.offered.text[typed:]


def _behind(after: Snapshot, start: Point, text: str) -> Position:
    """The place behind `text`, which begins at `start`, in the client's units."""
    *above, last = text.replace("\r\n", "\n").split("\n")
    # A line feed behind a carriage return makes no line of its own.
    row = min(start.row + len(above), len(after.lines) - 1)
    column = len(last) + (0 if above else start.column)
    return after.position(Point(row, min(column, len(content(after.lines[row])))))
