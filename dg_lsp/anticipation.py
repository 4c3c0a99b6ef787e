"""What a client is about to ask: after a key press it asks where that key has put the cursor, but it takes its time.

VS Code waits 50 ms before it asks and Neovim's own client 200; a server that knows what is coming begins at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dg_lsp.document import Change, Position, Snapshot
from dg_lsp.lines import content


class Asked(NamedTuple):
    """Where the client last asked on its own account, and in which text."""

    snapshot: Snapshot
    position: Position


def next_place(asked: Asked, changes: Sequence[Change], after: Snapshot) -> Position | None:
    """Where the client will ask after these edits; None unless they are one key pressed at the place it asked before.

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
    if start == end == asked.position and _is_key(text):
        return _behind(after, start, text)
    return None


def _is_key(text: str) -> bool:
    """One character, or a line break with the indentation that an editor puts behind it."""
    return len(text) == 1 or (text.startswith(("\n", "\r\n")) and not text.strip())


def _behind(after: Snapshot, start: Position, text: str) -> Position:
    """The place behind `text`, which begins at `start`, in the client's units."""
    breaks = text.count("\n")
    if breaks:
        row = start.line + breaks
        return after.position(after.point(Position(row, len(text.rsplit("\n", 1)[1]))))
    point = after.point(start)
    return after.position(point._replace(column=min(point.column + 1, len(content(after.lines[point.row])))))
