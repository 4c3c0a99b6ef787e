"""Fit a text between what stands before and after the cursor, so that nothing is written or closed twice.

Editors put closing brackets and quotes after the cursor while the user types, and models close what they opened. So a
bracket that the text closes must have been left open by both sides; at the first one that was not, the text is cut, or
it takes the place of the closers after the cursor where it writes all of them itself.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from dg_lsp.brackets import Bracket, Scan, closable, pairs, scan
from dg_lsp.planning import Plan

CLOSING = re.compile(r"[\s)\]}>\"'`:;,]*")
"""Brackets, quotes and separators: what an answer may write itself and so take the place of."""

# A shared end shorter than this is chance, unless it is all there is.
_MIN_OVERLAP = 3


class Fit(NamedTuple):
    """A text and how many characters after the cursor it takes the place of."""

    text: str
    replaced: int = 0


class _Gap(NamedTuple):
    """The two sides that a text has to fit."""

    plan: Plan
    quote: str
    """The quote of the string in which the cursor stands, empty outside."""
    openers: tuple[Bracket, ...]
    suffix: str


def fitted(plan: Plan, text: str) -> Fit:
    """`text`, trimmed or with the closers after the cursor in its reach, so that it fits the plan's cursor."""
    rest = plan.rest_of_line.strip()
    text = _without_overlap(text, rest)
    before = opened(plan)
    if plan.in_comment or (plan.in_string and not before.quote):
        return Fit(text)  # a string of many lines, of which the prefix does not hold the beginning
    gap = _Gap(plan, before.quote if plan.in_string else "", before.openers, plan.suffix)
    surplus = _first_surplus(gap, text)
    if surplus is None:
        return Fit(text)
    if rest and CLOSING.fullmatch(rest):
        length = len(plan.rest_of_line.rstrip())
        if text[surplus:].strip() != rest and _in_order(rest, text):
            beyond = gap._replace(suffix=plan.suffix[length:])
            if _first_surplus(beyond, text) is None:
                return Fit(text, length)
    return Fit(text[:surplus])


def opened(plan: Plan) -> Scan:
    """What is open before the cursor.

    A prefix may begin inside a string, such as a docstring, whose end then looks like a beginning: where the scan ends
    in a string and the cursor stands in none, what counts is behind the first such quote.
    """
    found = scan(plan.prefix, plan.language)
    if plan.prefix_is_cut and found.quote and not (plan.in_string or plan.in_comment):
        begun = plan.prefix.find(found.quote) + len(found.quote)
        found = scan(" " * begun + plan.prefix[begun:], plan.language)
    return found


def _without_overlap(text: str, rest: str) -> str:
    """`text` without the end that `rest`, the text after the cursor on its line, begins with."""
    stripped = text.rstrip()
    if rest[:1] in (";", ",", ":") and stripped.endswith(rest[0]):
        return stripped[:-1]
    if CLOSING.fullmatch(rest):
        return text  # whether a bracket is there twice depends on what it closes
    for size in range(min(len(rest), len(stripped)), min(len(rest), _MIN_OVERLAP) - 1, -1):
        if stripped.endswith(rest[:size]):
            return stripped[:-size]
    return text


def _first_surplus(gap: _Gap, text: str) -> int | None:
    """Where `text` first closes a string or a bracket that the other side closes, or that nobody opened."""
    end = _string_end(gap.quote, text)
    if end is not None and _string_end(gap.quote, gap.suffix.split("\n", 1)[0]) is not None:
        return end
    inside = gap.quote if end is None else ""
    after = scan(inside + gap.suffix, gap.plan.language)
    missing, undecided = closable(gap.openers, after.closers)
    if gap.plan.suffix_is_cut:
        undecided = tuple(bracket for bracket in undecided if bracket.offset >= _reach(gap.plan))
    open_ = [*undecided, *missing]
    for closer in scan(gap.quote + text, gap.plan.language).closers:
        if not open_ or not pairs(open_.pop(), closer):
            return closer.offset - len(gap.quote)
    return None


def _reach(plan: Plan) -> int:
    """Where in the prefix the cursor's line, or the line that opens its block, begins.

    An opener further up is closed somewhere beyond the known suffix, in all likelihood.
    """
    line = plan.line_prefix if plan.opener is None else plan.opener
    return max(plan.prefix.rfind(line), 0)


def _string_end(quote: str, text: str) -> int | None:
    """Where in `text`, which begins inside a string, that string's closing quote stands."""
    if not quote:
        return None
    found = re.match(rf"(?:\\.|(?!{quote})[^\\])*{quote}", text, flags=re.DOTALL)
    return None if found is None else found.end() - len(quote)


def _in_order(characters: str, text: str) -> bool:
    """Whether the `characters`, blanks aside, occur in `text` one after the other."""
    rest = iter(text)
    return all(character in rest for character in characters if not character.isspace())
