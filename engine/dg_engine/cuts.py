"""Where an answer may be cut, and how likely it is up to there: behind its words, and at the ends of its lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from dg_engine.api import Head
from dg_engine.tokenizer import Tokenizer


def find_heads(
    tokenizer: Tokenizer, tokens: Sequence[int], gains: Sequence[float], cut: str, text: str
) -> tuple[Head, ...]:
    """The heads of an answer, the shortest first; the last is all of it unless its last line is blank.

    Args:
        tokenizer: of the tokens.
        tokens: of the answer.
        gains: the log-probability of each, in nats.
        cut: with which the tokens begin before the text does.
        text: of the answer. Its last characters may be missing, where they belong to the suffix.
    """
    totals = list(accumulate(gains))
    places = dict(_behind_words(tokenizer, tokens, cut, text)) | dict(_line_ends(tokenizer, tokens, cut, text))
    return tuple(
        Head(characters=characters, tokens=used, score=totals[used - 1] / used)
        for characters, used in sorted(places.items())
    )


def _behind_words(tokenizer: Tokenizer, tokens: Sequence[int], cut: str, text: str) -> Iterator[tuple[int, int]]:
    """Characters and tokens up to each place inside a line where a token ends, and a word or a sign."""
    for used in range(1, len(tokens)):
        head = tokenizer.decode([*tokens[:used]])[len(cut) :]
        # What a token leaves of a character whose bytes are in two is no beginning of the text.
        if text.startswith(head) and _is_behind_word(head[-1:], text[len(head) : len(head) + 1]):
            yield len(head), used


def _is_behind_word(before: str, after: str) -> bool:
    """Whether a word or a sign ends between two characters, and not the line with it."""
    if before in ("", " ", "\t", "\n") or after in ("", "\r", "\n"):
        return False
    return not all(character.isalnum() or character == "_" for character in (before, after))


def _line_ends(tokenizer: Tokenizer, tokens: Sequence[int], cut: str, text: str) -> Iterator[tuple[int, int]]:
    """Characters and tokens up to the end of each line that is not blank."""
    characters = -1
    for line, count in zip(text.split("\n"), [*_before_breaks(tokenizer, tokens, cut), len(tokens)], strict=False):
        characters += 1 + len(line)
        if line.strip() and count:
            yield characters, len(tokens) if characters == len(text) else count


def _before_breaks(tokenizer: Tokenizer, tokens: Sequence[int], cut: str) -> Iterator[int]:
    """For each line break behind the cut how many tokens are needed for all that stands before it."""
    behind = -cut.count("\n")
    for number, token in enumerate(tokens):
        written = tokenizer.texts[token]
        for part in written.split("\n")[:-1]:
            if behind >= 0:
                yield number + bool(part.strip("\r"))
            behind += 1
