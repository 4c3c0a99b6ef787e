"""Copying as a baseline: what stands elsewhere in the same file where it has most in common with both sides of a hole.

The same guess that the engine may take over; here it must be right by itself.
"""

from __future__ import annotations

from dg_engine.copying import continuation, end_of_copy
from dg_engine.evaluation.cases import MAX_ANSWER, Case

# Characters of the suffix's start that end a copied block: shorter coincidences are ordinary.
_MEETING = 12


def copied(case: Case) -> str:
    """The copied text, empty where nothing matches.

    It ends where it meets the suffix, in a line with the line at the latest, else with its first line.
    """
    found = continuation(case.prefix, case.suffix)
    text = "" if found is None else found.text[:MAX_ANSWER]
    if case.in_line:
        return text[: end_of_copy(text, case.suffix, "line")]
    end = text.find(case.suffix[:_MEETING])
    start = len(text) - len(text.lstrip("\n"))
    return text[:end] if end > 0 else text[:start] + text[start:].split("\n", 1)[0]
