"""What is written and what may be copied, as one distribution over the next token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Copied(NamedTuple):
    """A text that may come next, because it follows the same text elsewhere.

    What is written is copied from it with some probability, and else the model's own: at each token copying goes on or
    stops, and each token that was copied and that the model did not expect makes it likelier that copying goes on
    (mixing by posterior weight, Herbster and Warmuth 1998, of the model and a cache, Grave et al., arXiv 1711.02604).
    """

    tokens: Sequence[int]
    weight: float
    """The probability, below 1, that the cover with which the text begins is copied."""
    keeps: float
    """The probability, below 1, that what was copied so far is copied further."""

    def opened(self, cover: Sequence[int], gain: float) -> tuple[float, float]:
        """The log-probability of a cover, by that of the model, and the probability that the token behind is copied."""
        if not self.weight or tuple(cover) != tuple(self.tokens[: len(cover)]):
            return gain + math.log1p(-self.weight), 0.0
        chance = self.weight + (1 - self.weight) * math.exp(gain)
        return math.log(chance), self.keeps * self.weight / chance

    def mixed(self, logs: Tensor, place: int, weight: float) -> Tensor:
        """The log-probabilities [V] of a text's next token, by those of the model; the text is copied up to `place`."""
        if not weight or place >= len(self.tokens):
            return logs
        token, mixed = self.tokens[place], logs + math.log1p(-weight)
        mixed[token] = mixed.new_tensor(math.log(weight)).logaddexp(mixed[token])
        return mixed

    def next_weight(self, logs: Tensor, place: int, weight: float, token: int) -> float:
        """The probability that the token behind this one is copied too."""
        if not weight or place >= len(self.tokens) or token != self.tokens[place]:
            return 0.0
        return self.keeps * weight / (weight + (1 - weight) * math.exp(float(logs[token])))


NOTHING = Copied((), 0.0, 0.0)
