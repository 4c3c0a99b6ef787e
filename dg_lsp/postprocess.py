"""From the engine's raw text to what the editor shows: cut at the right place, repeating nothing that is there already.

In order: one kind of line end; the first line's indentation; one line, or the lines of one block; no repetition; no
line that follows anyway; brackets and quotes against what stands after the cursor; what the syntax tree finds broken at
the end. Either a text remains, with the range on the cursor's row that it replaces, or the reason why there is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from dg_lsp.declared import is_declared
from dg_lsp.document import Point
from dg_lsp.fitting import CLOSING, fitted, opened
from dg_lsp.indentation import width
from dg_lsp.planning import Plan, Silence
from dg_lsp.repetition import without_repetition
from dg_lsp.syntax import Syntax, Trial

# A shorter line than this may well stand twice.
_MIN_LINE = 3
# And so may what a line ends with and the next begins with.
_MIN_END = 8
# Nobody reads ghost text of more than some hundred lines, and the search for repetitions takes 0.7 us per character.
_MAX_TEXT = 8192
# Longer than this what breaks the syntax may be the beginning of something.
_MAX_SCRAP = 2


class Suggestion(NamedTuple):
    """`text`, with `\\n` as its only line end, in place of what lies from `start` to `end`, both on one row."""

    text: str
    start: Point
    end: Point


def distinct(suggestions: Iterable[Suggestion]) -> list[Suggestion]:
    """Those that look different: of some that differ in blanks at their end alone the first."""
    found = dict[Suggestion, Suggestion]()
    for one in suggestions:
        found.setdefault(one._replace(text=one.text.rstrip()), one)
    return list(found.values())


def without_scraps(plan: Plan, suggestions: list[Suggestion], syntax: Syntax | None) -> list[Suggestion]:
    """Those that are no mere bracket or comma out of place, if there are any.

    What is asked for by hand is shown however unlikely: of 322 such answers 20 were of the kind.
    """
    return [one for one in suggestions if not _is_scrap(plan, one, syntax)] or suggestions


def _is_scrap(plan: Plan, suggestion: Suggestion, syntax: Syntax | None) -> bool:
    if syntax is None or len(suggestion.text.strip()) > _MAX_SCRAP:
        return False
    tried = syntax.trial(plan.snapshot, suggestion.start, suggestion.end, suggestion.text)
    return tried is not None and tried.new_errors > 0


def suggest(plan: Plan, raw: str, syntax: Syntax | None) -> Suggestion | Silence:
    """What to show of `raw`, the engine's answer to `plan`, or why nothing. Reads the plan's own snapshot only."""
    text = _indented(plan, raw[:_MAX_TEXT].replace("\r\n", "\n").replace("\r", "\n"))
    if not text.strip():
        return Silence("The engine has nothing to add.")
    if plan.extent == "line" and text.startswith("\n"):
        return Silence("The engine takes the line for complete.")
    text = without_repetition(text.split("\n", 1)[0] if plan.extent == "line" else _block(plan, text))
    repeated = _repeated(plan, text)
    if repeated is not None:
        return Silence(repeated)
    text = _before_following_lines(plan, text)
    text, replaced = fitted(plan, text)
    if syntax is not None and plan.extent == "block" and not replaced:
        text = _sound(plan, text, syntax)
    return suggestion(plan, text, replaced)


def suggestion(plan: Plan, text: str, replaced: int) -> Suggestion | Silence:
    """Offer `text` at the plan's cursor, in place of the `replaced` characters after it."""
    following = plan.rest_of_line[replaced:]
    if not following.strip() or following[0].isspace():
        text = text.rstrip()
    if not text.strip():
        return Silence("Nothing of the answer is left that is not there already.")
    if text == plan.rest_of_line[:replaced]:
        return Silence("The answer is what is there already.")
    end = Point(plan.point.row, plan.point.column + replaced)
    return Suggestion(plan.typed + text, plan.start, end)


def _indented(plan: Plan, text: str) -> str:
    """The text with its first line as deep as the block it goes on, counting what is before the cursor already."""
    if plan.line_prefix.strip():
        return text.lstrip(" \t") if plan.line_prefix[-1:].isspace() else text
    text = re.sub(r"\A(?:[ \t]*\n)+", "", text)
    if plan.in_string or plan.in_comment or _is_bracketed(plan):
        return text
    if not plan.line_prefix:
        return text if text[:1].isspace() or not plan.language.indented else _deeper(plan, text)
    room = max(width(plan.indentation) - width(plan.line_prefix), 0)
    while text[:1] in {" ", "\t"} and width(text) > room:
        text = text[1:]
    return text


def _deeper(plan: Plan, text: str) -> str:
    """`text`, which begins in column 0, where the plan's indentation is; its other lines may be there already."""
    first, *others = text.split("\n")
    following = next((line for line in others if line.strip()), "")
    if plan.language.opens_block(first) and width(following) <= width(plan.indentation):
        others = [plan.indentation + line if line else line for line in others]
    return "\n".join([plan.indentation + first, *others])


def _is_bracketed(plan: Plan) -> bool:
    """Whether the cursor stands between round or square brackets, where indentation is free."""
    openers = opened(plan).scan.openers
    return bool(openers) and openers[-1].character in "(["


def _block(plan: Plan, text: str) -> str:
    """The lines of `text` that belong to the block at the cursor, by their indentation."""
    first, *others = text.split("\n")
    kept = [first]
    for line in others:
        if not line.strip():
            if plan.opener is None and any(map(str.strip, kept)):
                break  # where a block goes on, a blank line ends the thought
        elif plan.opener is None and width(line) < width(plan.indentation):
            break
        elif plan.opener is not None and width(line) <= width(plan.opener):
            if plan.language.closes_block(line) and width(line) == width(plan.opener):
                kept.append(line)
            break
        kept.append(line)
    while len(kept) > 1 and (not kept[-1].strip() or plan.language.opens_block(kept[-1])):
        kept.pop()  # the answer broke off before the block that this line opens
    return "\n".join(kept)


def _repeated(plan: Plan, text: str) -> str | None:
    """Why the first line of `text` is not worth showing, if the line above or below or its block says it already."""
    first = text.split("\n", 1)[0]
    line = (plan.line_prefix + first).strip()
    if len(line) < _MIN_LINE or CLOSING.fullmatch(line):
        return None
    if _is_same(line, plan.line_before) and not plan.language.closes_block(line):
        return "The answer repeats the line above."
    if _begins_below(plan, line, first.strip()):
        return "The answer repeats the line below."
    is_key = plan.line_prefix.lstrip()[:1] in {*plan.language.quotes}
    is_code = not (plan.in_comment or (plan.in_string and not is_key))
    if is_code and is_declared(plan, plan.line_prefix + first):
        return "The answer repeats another line of its block."
    return None


def _begins_below(plan: Plan, line: str, text: str) -> bool:
    """Whether the next line says what the cursor's would, or goes on with `text`, its end, as an end alone."""
    below = _line_below(plan).strip()
    is_end = bool(plan.line_prefix.strip()) and len(text) >= _MIN_END
    return _is_same(line, below) or (is_end and below.startswith(text))


def _is_same(line: str, other: str) -> bool:
    """Whether the `other` says what `line` does, which may have been cut before its last brackets and quotes."""
    return other.strip().startswith(line) and CLOSING.fullmatch(other.strip(), len(line)) is not None


def _before_following_lines(plan: Plan, text: str) -> str:
    """`text` up to a line that stands after the cursor anyway, if only its beginning is in the text."""
    below = _line_below(plan).rstrip()
    first, *others = text.split("\n")
    for count, line in enumerate(others):
        if line.strip() and line.rstrip() == below:
            return "\n".join([first, *others[:count]])
    begins_below = bool(others) and bool(first.strip()) and below.startswith(others[-1].rstrip())
    return text.rpartition("\n")[0] if begins_below else text


def _line_below(plan: Plan) -> str:
    """The nearest line below that is not blank, empty where there is none."""
    return next((line for line in plan.suffix.split("\n")[1:] if line.strip()), "")


def _sound(plan: Plan, text: str, syntax: Syntax) -> str:
    """`text` up to the end of its block, or else up to what does not parse; as it is where no cut makes it parse."""
    found = _trial(plan, text, syntax)
    if found is not None and plan.opener is not None and found.block_end is not None:
        text = text[: max(found.block_end - len(plan.typed), 0)] or text
        found = _trial(plan, text, syntax)
    if found is None or found.new_errors <= 0 or "\n" not in text:
        return text
    heads = [text.rsplit("\n", 1)[0]]
    if found.first_error is not None:
        heads.insert(0, text[: max(found.first_error - len(plan.typed), 0)].rpartition("\n")[0])
    for head in heads:
        tried = _trial(plan, head, syntax) if head.strip() else None
        if tried is not None and tried.new_errors <= 0:
            return head
    return text


def _trial(plan: Plan, text: str, syntax: Syntax) -> Trial | None:
    return syntax.trial(plan.snapshot, plan.start, plan.point, plan.typed + text)
