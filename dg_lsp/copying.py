"""What the user wrote before and may be about to write again: around the cursor, and in other open documents."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from dg_engine.api import Copy
from dg_engine.copying import continuation
from dg_lsp.context import normalised, text_after, text_before
from dg_lsp.document import Snapshot
from dg_lsp.planning import Plan

REACH = 100_000
"""Characters before the cursor, behind it and in each other document that are looked through."""
OTHERS = 4
"""Other documents that are looked through."""


def copied(plan: Plan, others: Iterable[Snapshot]) -> Copy | None:
    """What follows the text before the cursor elsewhere: in the cursor's own document, else in one of the others."""
    lines = plan.snapshot.lines
    before = text_before(lines, plan.start, REACH).text + plan.typed
    behind = text_after(lines, plan.point, REACH).text
    # Their texts are joined once, and stay so until they are edited.
    return continuation(before, [behind, *(normalised(other.text[:REACH]) for other in islice(others, OTHERS))])
