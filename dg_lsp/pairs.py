"""A cursor in an editor that closes brackets and quotes by itself, for code to be typed as most people type it.

The rules are VS Code's defaults: what is opened in front of blanks or closers is closed behind the cursor; typing the
closer steps over it; a line break between a bracket and its closer gives the closer a line of its own. What does not
belong there, as behind `"["`, is deleted when what is further out is closed.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from dg_lsp.brackets import CLOSER_OF
from dg_lsp.indentation import indentation_of
from dg_lsp.planning import word_before

_QUOTES = "\"'"
# VS Code's `editor.autoClosingBrackets: languageDefined`: what may stand behind a cursor for a pair to be closed there.
_BEFORE = " \n\t;:.,=}])>`\"'"


class Cursor(NamedTuple):
    """A text around a cursor."""

    before: str
    closers: str
    """What the editor has written behind the cursor by itself and nobody has stepped over yet."""
    behind: str
    closes: bool
    """Whether the editor does such things."""
    deleted: int = 0
    """How many of its closers had to be deleted, of which each takes a key."""

    @property
    def text(self) -> str:
        """The whole text."""
        return self.before + self.closers + self.behind

    @property
    def line(self) -> str:
        """The cursor's line up to the cursor."""
        return self.before.rsplit("\n", 1)[-1]

    def typed(self, key: str) -> Cursor:
        """After a key: a character, or a line break with indentation."""
        wrong, there, further = self.closers.partition(key)
        # A blank steps over nothing, a line break only to a closer that has a line of its own.
        if there and (key.strip() or (not wrong and visible(further[:1]))):
            return self._replace(before=self.before + key, closers=further, deleted=self.deleted + visible(wrong))
        added = self._added(key) if self.closes else ""
        return self._replace(before=self.before + key, closers=added + self.closers)

    def accepted(self, text: str, replaced: int) -> Cursor:
        """After a completion that takes the place of so many characters behind the cursor."""
        return self._replace(
            before=self.before + text,
            closers=self.closers[replaced:],
            behind=self.behind[max(replaced - len(self.closers), 0) :],
        )

    def _added(self, key: str) -> str:
        following = (self.closers + self.behind)[:1]
        if key[0] == "\n":
            is_between = self.closers and CLOSER_OF.get(self.before[-1:]) == self.closers[0]
            return "\n" + indentation_of(self.line) if is_between else ""
        if following and following not in _BEFORE:
            return ""
        if key in _QUOTES:
            is_inside = self.closers[:1] in {*_QUOTES} or self.before[-1:] in {*_QUOTES} or self._is_behind_a_word()
            return "" if is_inside or self._is_open(key) else key
        return CLOSER_OF.get(key, "")

    def _is_open(self, quote: str) -> bool:
        """Whether a string is open on the line that an accepted text has begun, and has no end behind the cursor."""
        return re.sub(r"\\.", "", self.line).count(quote) % 2 == 1

    def _is_behind_a_word(self) -> bool:
        """Whether a quote would be an apostrophe; behind a string's prefix, as `f`, it is none."""
        word = word_before(self.line)
        return bool(word) and word.lower() not in {"f", "r", "b", "u", "fr", "rf", "br", "rb"}


def visible(text: str) -> int:
    """How many characters are no blanks."""
    return len("".join(text.split()))
