"""What was cut off a prefix, spelt anew by tokens: every way in which a vocabulary can write it.

A user stops typing inside words, and the first token of a word may be shorter than what is there already: the `turr` of
`turret` is `t`, `ur` and a part of `ret`. So while the tokens spell less than the cut, the next one either is a
beginning of what is left, or begins with it. All texts that begin with the cut are written so, and the probability of
the cut is the sum over its covers (Vieira et al., arXiv 2412.03719; Phan et al., arXiv 2410.09303).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from dg_engine.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Spelling:
    """What is to be spelt, in the tokens of a vocabulary. A cover of it is the fewest tokens that spell all of it."""

    tokenizer: Tokenizer
    cut: str

    def left(self, tokens: Sequence[int]) -> str:
        """What is not spelt behind tokens that spell less than all."""
        return self.cut[len(self._text(tokens)) :]

    def completing(self, tokens: Sequence[int]) -> Tensor:
        """[N] what makes a cover of tokens that spell less than all."""
        return self.tokenizer.completing(self.left(tokens))

    def continuing(self, tokens: Sequence[int]) -> Tensor:
        """[N] what may come behind the same and leaves more to spell."""
        return self.tokenizer.beginning(self.left(tokens))

    def cover(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """The cover with which tokens begin; none where they begin otherwise, or end before."""
        for end in range(1, len(tokens) + 1):
            text = self._text(tokens[:end])
            if text.startswith(self.cut):
                return tuple(tokens[:end])
            if not self.cut.startswith(text):
                break
        return ()

    def _text(self, tokens: Sequence[int]) -> str:
        return "".join(self.tokenizer.texts[token] for token in tokens)
