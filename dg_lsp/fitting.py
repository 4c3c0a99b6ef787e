"""Fit a text between what stands before and after the cursor, so that nothing is written or closed twice.

Editors put closing brackets and quotes after the cursor while the user types, and models close what they opened. So a
bracket that the text closes must have been left open by both sides; at the first one that was not, the text is cut, or
it takes the place of those closers after the cursor that it writes itself.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from dg_lsp.brackets import CLOSER_OF, Bracket, Scan, closable, not_taken, pairs, scan, string_end
from dg_lsp.indentation import width
from dg_lsp.interpolation import Interpolation, interpolation_of
from dg_lsp.languages import PROSE
from dg_lsp.planning import Plan

CLOSING = re.compile(r"[\s)\]}>\"'`:;,]*")
"""Brackets, quotes and separators: what an answer may write itself and so take the place of."""

# A shared end shorter than this is chance, unless it is all there is.
_MIN_OVERLAP = 3


class Fit(NamedTuple):
    """A text and how many characters after the cursor it takes the place of."""

    text: str
    replaced: int = 0


class Opened(NamedTuple):
    """What is open before a cursor."""

    scan: Scan
    interpolation: Interpolation | None
    """The code within a string in which the cursor stands; the string is a bracket in `scan` then."""


class _Gap(NamedTuple):
    """The two sides that a text has to fit."""

    plan: Plan
    quote: str
    """The quote of the string in which the cursor stands, empty outside."""
    openers: tuple[Bracket, ...]
    suffix: str


def fitted(plan: Plan, text: str) -> Fit:
    """`text`, trimmed or with the closers after the cursor in its reach, so that it fits the plan's cursor."""
    fit = _fitted_as_code(plan, _without_overlap(text, plan.rest_of_line.strip()))
    if fit.replaced or not (plan.in_comment or plan.in_string):
        return fit
    return _closed_once(plan, fit.text)


def _fitted_as_code(plan: Plan, text: str) -> Fit:
    before, interpolation = opened(plan)
    if plan.in_comment or (plan.in_string and not before.quote):
        return Fit(text)  # a string of many lines, of which the prefix does not hold the beginning
    code, suffix = text, plan.suffix
    if interpolation is not None:
        code, suffix = interpolation.after(text), interpolation.after(suffix)
    gap = _Gap(plan, before.quote if plan.in_string else "", before.openers, suffix)
    surplus = _first_surplus(gap, code)
    if surplus is None:
        return Fit(text)
    if not plan.rest_of_line.strip().startswith(text[surplus:].strip()):
        for length in _replaceable(gap, code, text):
            if _first_surplus(gap._replace(suffix=suffix[length:]), code) is None:
                return Fit(text, length)
    return Fit(text[:surplus])


def opened(plan: Plan) -> Opened:
    """What is open before the cursor.

    A prefix may begin inside a string, such as a docstring, whose end then looks like a beginning: where the scan ends
    in a string and the cursor stands in none, or in one that begins on its line, what counts is behind the first such
    quote.
    """
    found = scan(plan.prefix, plan.language)
    if not found.quote or plan.in_comment:
        return Opened(found, None)
    behind = _behind_the_first(found.quote, plan) if plan.prefix_is_cut else found
    if plan.in_string:
        is_of_the_line = bool(behind.quote) and behind.quote == scan(plan.line_prefix, plan.language).quote
        return Opened(behind if is_of_the_line and len(found.quote) > 1 else found, None)
    inside = interpolation_of(plan.prefix, found, plan.language)
    if inside is not None and not (plan.prefix_is_cut and len(found.quote) > 1):
        return Opened(scan(inside.before(plan.prefix), plan.language), inside)
    return Opened(behind, None)


def _behind_the_first(quote: str, plan: Plan) -> Scan:
    begun = plan.prefix.find(quote) + len(quote)
    return scan(" " * begun + plan.prefix[begun:], plan.language)


def _closed_once(plan: Plan, text: str) -> Fit:
    """`text`, of a comment or a string, which may close a bracket of its line that the text after the cursor closes."""
    openers, closers = scan(plan.line_prefix, PROSE).openers, scan(text, PROSE).closers
    if not (openers and closers and pairs(openers[-1], closers[0])):
        return Fit(text)
    rest, offset, closer = plan.rest_of_line, closers[0].offset, closers[0].character
    if rest.startswith(closer) and text[offset:].rstrip() != closer:
        return Fit(text, 1)
    return Fit(text[:offset]) if rest.lstrip().startswith(closer) else Fit(text)


def _replaceable(gap: _Gap, code: str, text: str) -> Iterator[int]:
    """How many characters after the cursor `text`, read as `code`, may take the place of, beginning with the most."""
    rest = gap.plan.rest_of_line.rstrip()
    if not CLOSING.fullmatch(rest):
        return
    language = gap.plan.language
    closed = _characters(scan(code, language).closers)
    for length in range(len(rest), 0, -1):
        is_whole = length == len(rest)
        if not is_whole and (gap.quote or rest[length - 1].isspace() or text.rstrip().endswith((";", ",", ":"))):
            continue  # a quote or a separator would stand there twice
        further_out = closable(gap.openers, scan(gap.suffix[:length], language).closers).undecided
        inner = gap.openers[len(further_out) :]
        if (gap.quote or closed.startswith(closing(inner))) and in_order(rest[:length], text):
            yield length


def _without_overlap(text: str, rest: str) -> str:
    """`text` without the end that `rest`, the text after the cursor on its line, begins with."""
    stripped = text.rstrip()
    # Whether a bracket is there twice depends on what it closes.
    least = len(rest) + 1 if CLOSING.fullmatch(rest) else min(len(rest), _MIN_OVERLAP)
    for size in range(min(len(rest), len(stripped)), 0, -1):
        left = stripped[:-size]
        is_certain = rest[0] in ";,:" or (rest[0] == ">" and _closes_an_angle(f"{left}>"))
        if stripped.endswith(rest[:size]) and (is_certain or size >= least):
            return left
    return text


def _closes_an_angle(text: str) -> bool:
    """Whether `text` ends in a `>` for a `<` that it does not hold, as of `#include <`, a tag or a type's parameter."""
    return re.search(r"(?<![-=])>\Z", text) is not None and text.count(">") > text.count("<")


def _first_surplus(gap: _Gap, text: str) -> int | None:
    """Where `text` first closes a string or a bracket that the other side closes, or that nobody opened."""
    end = string_end(gap.quote, text) if gap.quote else None
    if end is not None and _ends_the_string(gap, gap.suffix.split("\n", 1)[0]):
        return end
    found = scan(gap.quote + text, gap.plan.language)
    if _opens_again(gap.openers, found):
        return None
    after = scan((gap.quote if end is None else "") + gap.suffix, gap.plan.language)
    open_ = _closable(gap, not_taken(found.openers, after.closers))
    for closer in found.closers:
        if not open_ or not pairs(open_.pop(), closer):
            return closer.offset - len(gap.quote)
    return None


def _closable(gap: _Gap, closers: Sequence[Bracket]) -> list[Bracket]:
    """What a text may close of what was open before it, outermost first, if the suffix closes what `closers` do."""
    missing, undecided = closable(gap.openers, closers)
    if gap.plan.suffix_is_cut:
        reach, least = _reach(gap.plan), _least_depth(gap.suffix)
        undecided = tuple(bracket for bracket in undecided if bracket.offset >= reach or bracket.depth >= least)
    return [*undecided, *missing]


def _reach(plan: Plan) -> int:
    """Where in the prefix the cursor's line, or the line that opens its block, begins.

    An opener further up is closed somewhere beyond the known suffix, in all likelihood, if it lies less deep than that.
    """
    line = plan.line_prefix if plan.opener is None else plan.opener
    return max(plan.prefix.rfind(line), 0)


def _least_depth(suffix: str) -> int:
    """How deep the least indented line of `suffix` lies that does not begin with a closer.

    An opener that lies deeper, or as deep, is not closed beyond it.
    """
    lines = (line for line in suffix.split("\n")[1:] if not CLOSING.fullmatch(line.lstrip()[:1]))
    return min(map(width, lines), default=sys.maxsize)


def _opens_again(openers: Sequence[Bracket], found: Scan) -> bool:
    """Whether a text closes some of `openers` and opens the same ones again, as `} else {` does."""
    again = closing(found.openers)
    return bool(again) and _characters(found.closers) == again and closing(openers).startswith(again)


def closing(openers: Iterable[Bracket]) -> str:
    """The characters that close `openers`."""
    return "".join(reversed([CLOSER_OF[opener.character] for opener in openers]))


def _ends_the_string(gap: _Gap, line: str) -> bool:
    """Whether `line`, the rest of the cursor's, ends the string in which the cursor stands, and begins none itself."""
    begins_none = scan(line, gap.plan.language).quote == ""
    return string_end(gap.quote, line) is not None and not begins_none


def _characters(brackets: Iterable[Bracket]) -> str:
    return "".join(bracket.character for bracket in brackets)


def in_order(characters: str, text: str) -> bool:
    """Whether the `characters`, blanks aside, occur in `text` one after the other."""
    rest = iter(text)
    return all(character in rest for character in characters if not character.isspace())
