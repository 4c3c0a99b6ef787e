"""What the user wrote before and may be about to write again: around the cursor, and in other files."""

from __future__ import annotations

from collections.abc import Iterable

from dg_engine.api import Copy
from dg_engine.copying import continuation
from dg_lsp.context import text_after, text_before
from dg_lsp.planning import Plan

REACH = 100_000
"""Characters before the cursor, behind it and in each other text that are looked through."""


def copied(plan: Plan, others: Iterable[str]) -> Copy | None:
    """What follows the text before the cursor elsewhere, in the cursor's own document or in one of the others.

    Args:
        plan: where the cursor is.
        others: texts of at most REACH characters with `\\n` as their only line end; of equally good places that
            in the first counts.
    """
    lines = plan.snapshot.lines
    before = text_before(lines, plan.start, REACH).text + plan.typed
    behind = text_after(lines, plan.point, REACH).text
    return continuation(before, behind, list(others))
