"""Copying as a baseline: what stood behind the longest match of the prefix's end, elsewhere in the same file.

Prompt lookup, as speculative decoders use it for drafts; here it must be right by itself.
"""

from __future__ import annotations

from dg_engine.evaluation.cases import MAX_ANSWER, Case

# Characters of the suffix's start that end a copied block: shorter coincidences are ordinary.
_MEETING = 12
# Characters of the prefix's end that are looked for at most.
_LONGEST = 400


def copied(case: Case) -> str:
    """The copied text, empty where nothing matches.

    In a line it ends with the line; else where it meets the suffix, or with its first line where it never does.
    """
    text = _following(case.prefix, case.suffix)[:MAX_ANSWER]
    end = text.find(case.suffix[:_MEETING])
    if not case.in_line and end > 0:
        return text[:end]
    start = 0 if case.in_line else len(text) - len(text.lstrip("\n"))
    return text[:start] + text[start:].split("\n", 1)[0]


def _following(prefix: str, suffix: str) -> str:
    """What follows the longest match: the last one before the hole, or the first one behind it."""
    low, high = 0, min(_LONGEST, len(prefix) - 1)
    while low < high:  # where n characters match, so do the last n - 1 of them
        middle = (low + high + 1) // 2
        if _place(prefix, suffix, prefix[-middle:]) is None:
            high = middle - 1
        else:
            low = middle
    return (_place(prefix, suffix, prefix[-low:]) or "") if low else ""


def _place(prefix: str, suffix: str, wanted: str) -> str | None:
    """The text behind a match of `wanted`; None where there is none."""
    before = prefix.rfind(wanted, 0, len(prefix) - 1)
    if before >= 0:
        return prefix[before + len(wanted) :]
    behind = suffix.find(wanted)
    return suffix[behind + len(wanted) :] if behind >= 0 else None
