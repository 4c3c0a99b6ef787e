"""Which brackets and quotes a piece of text leaves open or closes, with its strings and comments skipped.

This works on text that does not parse, which is what stands around a cursor.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from dg_lsp.indentation import width
from dg_lsp.languages import Language

CLOSER_OF = {"(": ")", "[": "]", "{": "}"}


class Bracket(NamedTuple):
    """A bracket without its partner, `offset` characters into the text."""

    offset: int
    character: str
    depth: int = 0
    """How deep the line is indented on which it stands, in columns."""
    leads: bool = False
    """Whether it stands at the beginning of its line, behind other closers at most."""


class Scan(NamedTuple):
    """What a text leaves unmatched."""

    openers: tuple[Bracket, ...]
    """Outermost first."""
    closers: tuple[Bracket, ...]
    quote: str
    """The quote of the string in which the text ends, empty where it ends outside."""
    string_at: int
    """Where that string begins; -1 where the text ends outside."""
    in_comment: bool
    """Whether the text ends in a comment."""


def scan(text: str, language: Language) -> Scan:
    """Match the brackets of `text`, which begins outside of strings and comments."""
    openers: list[Bracket] = []
    closers: list[Bracket] = []
    quote, string_at, in_comment = "", -1, False
    for token in _tokens(language).finditer(text):
        word, at_end = token.group(), token.end() == len(text)
        if token.lastgroup == "bracket":
            _match(Bracket(token.start(), word), openers, closers)
        elif token.lastgroup == "string":
            quote = _open_quote(word) if at_end else ""
            string_at = token.start() if quote else -1
        else:
            in_comment = at_end and not _is_closed(word, language)
    return Scan(_placed(text, openers), _placed(text, closers), quote, string_at, in_comment)


class Closable(NamedTuple):
    """The openers before a cursor that text at the cursor may close, outermost first."""

    missing: tuple[Bracket, ...]
    """The text after the cursor closes what is around them and not them."""
    undecided: tuple[Bracket, ...]
    """They are further out than all that the text after the cursor closes, as far as it is known."""


def closable(openers: Sequence[Bracket], closers: Sequence[Bracket]) -> Closable:
    """What remains of `openers` before a cursor when `closers` after it have closed theirs, from the inside out.

    A closer that leads its line closes nothing that was opened on a line that is indented deeper than its own.
    """
    left = list(openers)
    missing: list[Bracket] = []
    for closer in closers:
        while left and not _may_close(closer, left[-1]):
            missing.insert(0, left.pop())
        if not left:
            break
        left.pop()
    return Closable(tuple(missing), tuple(left))


def _may_close(closer: Bracket, opener: Bracket) -> bool:
    return pairs(opener, closer) and (not closer.leads or opener.depth <= closer.depth)


def not_taken(openers: Sequence[Bracket], closers: Sequence[Bracket]) -> Sequence[Bracket]:
    """What remains of `closers` when each of the `openers` right before them has taken its own, where it can."""
    for opener in reversed(openers):
        if closers and pairs(opener, closers[0]):
            closers = closers[1:]
    return closers


def pairs(opener: Bracket, closer: Bracket) -> bool:
    """Whether `closer` is the partner of `opener`."""
    return CLOSER_OF[opener.character] == closer.character


def string_end(quote: str, text: str) -> int | None:
    """Where in `text`, which begins inside a string, the closing `quote` of that string stands."""
    found = re.match(rf"(?:\\.|(?!{quote})[^\\])*{quote}", text, flags=re.DOTALL)
    return None if found is None else found.end() - len(quote)


def _placed(text: str, brackets: Sequence[Bracket]) -> tuple[Bracket, ...]:
    return tuple(_at_depth(text, bracket) for bracket in brackets)


def _at_depth(text: str, bracket: Bracket) -> Bracket:
    start = text.rfind("\n", 0, bracket.offset) + 1
    before = text[start : bracket.offset]
    return bracket._replace(depth=width(before), leads=start > 0 and not before.strip(" \t)]}"))


def _match(bracket: Bracket, openers: list[Bracket], closers: list[Bracket]) -> None:
    if bracket.character in CLOSER_OF:
        openers.append(bracket)
        return
    partners = [index for index, opener in enumerate(openers) if pairs(opener, bracket)]
    if partners:
        del openers[partners[-1] :]  # what was opened inside and not closed ends here too
    else:
        closers.append(bracket)


def _open_quote(string: str) -> str:
    for quote in ('"""', "'''"):
        if string.startswith(quote):
            return "" if len(string) >= 6 and string.endswith(quote) else quote
    body = re.sub(r"\\.", "", string[1:], flags=re.DOTALL)
    return "" if body.endswith(string[0]) else string[0]


def _is_closed(comment: str, language: Language) -> bool:
    return any(comment.startswith(start) and comment.endswith(end) for start, end in language.block_comments)


@lru_cache(maxsize=64)
def _tokens(language: Language) -> re.Pattern[str]:
    """Comments, strings and brackets. A quote that its line does not close opens nothing, save at the text's end."""
    comments = [rf"{re.escape(start)}(?s:.*?)(?:{re.escape(end)}|\Z)" for start, end in language.block_comments]
    # `$#` and `${#name}` of the shell are no comments.
    comments += [rf"(?<![$]){re.escape(start)}[^\n]*" for start in language.line_comments if start != "#"]
    comments += [r"(?<![${])#[^\n]*"] if "#" in language.line_comments else []
    strings = [r'"""(?s:\\.|.)*?(?:"""|\Z)', r"'''(?s:\\.|.)*?(?:'''|\Z)"] if language.indented else []
    for quote in language.quotes:
        stop = "" if quote == "`" else r"\n"  # a backtick string of Go or JavaScript runs over lines
        strings.append(rf"{quote}(?:\\(?s:.)|[^{quote}\\{stop}])*(?:{quote}|\Z)")
    if language.quotes_characters:
        strings.append(r"'(?:\\[^\n'][^'\n]*|\\'|[^'\\\n])'")
    kinds = [("comment", comments), ("string", strings), ("bracket", [r"[()\[\]{}]"])]
    return re.compile("|".join(f"(?P<{name}>{'|'.join(parts)})" for name, parts in kinds if parts))
