"""Code within strings, such as `{x}` of Python's f-strings, `${x}` of JavaScript and `$(x)` of the shell.

For brackets to be matched across it, the string around such code counts as one more pair of brackets, and what it says
as blanks: `print(f"of {n|}")` is read as `print(f[   {n|}])`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from dg_lsp.brackets import CLOSER_OF, Scan, scan, string_end
from dg_lsp.languages import Language


class Interpolation(NamedTuple):
    """The innermost code within a string in which a text ends. The offsets are those of the text."""

    quote: str
    string_at: int
    bracket_at: int
    """Where the bracket stands with which the code begins."""
    bracket: str
    language: Language

    def before(self, text: str) -> str:
        """The text that ends in it, of the same length, with the string as a bracket."""
        said = text[self.string_at + 1 : self.bracket_at]
        return f"{text[: self.string_at]}[{_blank(said)}{text[self.bracket_at :]}"

    def after(self, text: str) -> str:
        """A text that goes on in it, of the same length, with the string behind it as a bracket."""
        closers = (found for found in scan(text, self.language).closers if found.character == CLOSER_OF[self.bracket])
        if (closer := next(closers, None)) is None:
            return text
        code, string = text[: closer.offset + 1], text[closer.offset + 1 :]
        line = string if len(self.quote) > 1 or self.quote == "`" else string.partition("\n")[0]
        end = string_end(self.quote, line)
        if end is not None:
            beyond = end + len(self.quote)
            return code + _blank(string[:end]) + "]".ljust(len(self.quote)) + string[beyond:]
        again = line.rfind(self.bracket)  # the text may end in the next one
        said = len(line) if again < line.rfind(CLOSER_OF[self.bracket]) or again < 0 else again
        return code + _blank(string[:said]) + string[said:]


def interpolation_of(text: str, found: Scan, language: Language) -> Interpolation | None:
    """The code in which `text` ends, within the string in which its scan ended; None unless it is on the last line."""
    start = max(found.string_at, text.rfind("\n"))
    for mark in ("{", "$("):
        at = len(text)
        while (at := text.rfind(mark, start, at)) >= 0:
            bracket_at = at + len(mark) - 1
            openers = scan(text[bracket_at:], language).openers
            if openers and openers[0].offset == 0:
                return Interpolation(found.quote, found.string_at, bracket_at, mark[-1], language)
    return None


def _blank(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)
