"""Copying as a baseline: what stands behind the longest match of the prefix's end, elsewhere in the same file.

The same guess that the engine may take over; here it must be right by itself.
"""

from __future__ import annotations

from dg_engine.copying import continuation
from dg_engine.evaluation.cases import MAX_ANSWER, Case

# Characters of the suffix's start that end a copied block: shorter coincidences are ordinary.
_MEETING = 12


def copied(case: Case) -> str:
    """The copied text, empty where nothing matches.

    In a line it ends with the line; else where it meets the suffix, or with its first line where it never does.
    """
    found = continuation(case.prefix, (case.suffix,))
    text = "" if found is None else found.text[:MAX_ANSWER]
    end = text.find(case.suffix[:_MEETING])
    if not case.in_line and end > 0:
        return text[:end]
    start = 0 if case.in_line else len(text) - len(text.lstrip("\n"))
    return text[:start] + text[start:].split("\n", 1)[0]
