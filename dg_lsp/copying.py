"""What the user wrote before and may be about to write again: around the cursor, and in other open documents."""

from __future__ import annotations

from collections.abc import Sequence

from dg_engine.api import Copy
from dg_engine.copying import continuation
from dg_lsp.context import normalised, text_before
from dg_lsp.document import Point, Snapshot
from dg_lsp.planning import Plan

REACH = 100_000
"""Characters before the cursor, behind it and in each other document that are looked through."""
OTHERS = 4
"""Other documents that are looked through."""


def copied(plan: Plan, others: Sequence[Snapshot]) -> Copy | None:
    """What follows the text before the cursor elsewhere: in the cursor's own document, else in one of the others."""
    before = text_before(plan.snapshot.lines, plan.start, REACH).text + plan.typed
    return continuation(before, [_behind(plan.snapshot, plan.point), *map(_beginning, others[:OTHERS])])


def _behind(snapshot: Snapshot, point: Point) -> str:
    lines = snapshot.lines
    last = lines.row_at(lines.offset(point.row) + point.column + REACH)
    return normalised("".join(lines.between(point.row, last + 1))[point.column :][:REACH])


def _beginning(snapshot: Snapshot) -> str:
    return normalised(snapshot.text[:REACH])
