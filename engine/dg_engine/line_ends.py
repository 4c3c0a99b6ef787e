"""Where an answer may be cut, and how likely it is up to there: at the ends of its lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from dg_engine.api import Head
from dg_engine.tokenizer import Tokenizer


def find_heads(
    tokenizer: Tokenizer, tokens: Sequence[int], gains: Sequence[float], cut: str, text: str
) -> tuple[Head, ...]:
    """The heads of an answer, one for each line that is not blank.

    Args:
        tokenizer: of the tokens.
        tokens: of the answer.
        gains: the log-probability of each, in nats.
        cut: with which the tokens begin before the text does.
        text: of the answer. Its last characters may be missing, where they belong to the suffix.
    """
    totals, heads, characters = list(accumulate(gains)), list[Head](), -1
    for line, count in zip(text.split("\n"), [*_before_breaks(tokenizer, tokens, cut), len(tokens)], strict=False):
        characters += 1 + len(line)
        if line.strip() and count:
            last = characters == len(text)
            used = len(tokens) if last else count
            heads.append(Head(characters=characters, tokens=used, score=totals[used - 1] / used))
    return tuple(heads)


def _before_breaks(tokenizer: Tokenizer, tokens: Sequence[int], cut: str) -> Iterator[int]:
    """For each line break behind the cut how many tokens are needed for all that stands before it."""
    behind = -cut.count("\n")
    for number, token in enumerate(tokens):
        written = tokenizer.texts[token]
        for part in written.split("\n")[:-1]:
            if behind >= 0:
                yield number + bool(part.strip("\r"))
            behind += 1
