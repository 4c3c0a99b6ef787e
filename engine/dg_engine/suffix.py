"""The beginning of what stands behind the cursor, for texts whose last token may reach into it.

A hole ends anywhere, tokens do not: before `nge(10)` a model writes `range`, and the answer is its first two letters.
This is the other half of healing a prefix (`Spelling`).
"""

from __future__ import annotations

from dataclasses import dataclass

from dg_engine.prompt import encode_suffix
from dg_engine.tokenizer import REPLACEMENT, Tokenizer


@dataclass(frozen=True, slots=True)
class SuffixHead:
    """The first tokens of a suffix, and their text."""

    tokenizer: Tokenizer
    tokens: list[int]
    text: str

    @classmethod
    def of(cls, tokenizer: Tokenizer, suffix: str, tokens: int) -> SuffixHead:
        """The first so many tokens."""
        head = encode_suffix(tokenizer, suffix, tokens)
        return cls(tokenizer, head, tokenizer.decode(head).rstrip(REPLACEMENT))

    def overlaps(self, token: int, own: int = 0) -> list[int]:
        """With how many characters a token may reach into the suffix and not hold all of it.

        Args:
            token: the last of a text.
            own: characters of it, the first, that do not belong to the suffix.
        """
        text = self.tokenizer.texts[token]
        longest = min(len(text) - own, len(self.text) - 1)
        return [length for length in range(1, longest + 1) if self.text.startswith(text[-length:])]

    def behind(self, overlap: int) -> list[int]:
        """The tokens of what is left of it behind so many characters."""
        return self.tokenizer.encode(self.text[overlap:]) if overlap else self.tokens
