"""Where an answer may be cut: against the tokens' decoded text, on real code."""

from __future__ import annotations

import heapq
import random
import re
from pathlib import Path

import pytest

from dg_engine.cuts import find_heads
from dg_engine.paths import shipped_model
from dg_engine.testing import tiny_tokenizer
from dg_engine.tokenizer import Tokenizer

SOURCE = Path(heapq.__file__).read_text(encoding="utf-8")


@pytest.fixture(scope="module", params=["shipped", "tiny"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer.load(shipped_model()) if request.param == "shipped" else Tokenizer(tiny_tokenizer())


def some_answer(tokenizer: Tokenizer, seed: int) -> tuple[list[int], list[float], str, str]:
    """Tokens, their gains, what they begin with before the text does, and the text, whose end may be missing."""
    rng = random.Random(seed)
    start = rng.randrange(1000, len(SOURCE) - 400)
    cut, overlap = SOURCE[start - rng.randrange(6) : start], rng.choice((0, 0, 1))
    written = SOURCE[start : start + rng.randrange(2, 300)]
    tokens = tokenizer.encode(cut + written)
    return tokens, [-rng.random() for _ in tokens], cut, written[: len(written) - overlap]


@pytest.mark.parametrize("seed", range(20))
def test_each_line_ends_a_head_of_the_fewest_tokens_that_hold_it(tokenizer: Tokenizer, seed: int) -> None:
    tokens, gains, cut, text = some_answer(tokenizer, seed)
    heads = {head.characters: head for head in find_heads(tokenizer, tokens, gains, cut, text)}
    lines = text.split("\n")
    ends = [len("\n".join(lines[: number + 1])) for number, line in enumerate(lines) if line.strip()]
    assert set(ends) == {end for end in heads if text[end : end + 1] in ("", "\n")}
    for end in ends:
        needed = next(
            count for count in range(len(tokens) + 1) if len(tokenizer.decode(tokens[:count])) >= len(cut) + end
        )
        assert heads[end].tokens == (len(tokens) if end == len(text) else needed)


@pytest.mark.parametrize("seed", range(20))
def test_inside_a_line_a_head_ends_with_each_token_that_ends_a_word_or_a_sign(tokenizer: Tokenizer, seed: int) -> None:
    tokens, gains, cut, text = some_answer(tokenizer, seed)
    behind_words = {place.start() for place in re.finditer(r"(?<=\S)(?!(?<=\w)\w)(?=[^\n])", text)}
    with_tokens = {len(tokenizer.decode(tokens[:count])) - len(cut): count for count in range(len(tokens), 0, -1)}
    wanted = {place: with_tokens[place] for place in behind_words & with_tokens.keys()}
    heads = find_heads(tokenizer, tokens, gains, cut, text)
    assert {
        head.characters: head.tokens for head in heads if text[head.characters : head.characters + 1] not in ("", "\n")
    } == wanted


@pytest.mark.parametrize("seed", range(20))
def test_heads_grow_and_have_the_mean_gain_of_their_tokens(tokenizer: Tokenizer, seed: int) -> None:
    tokens, gains, cut, text = some_answer(tokenizer, seed)
    heads = find_heads(tokenizer, tokens, gains, cut, text)
    assert [head.characters for head in heads] == sorted({head.characters for head in heads})
    for head in heads:
        assert head.score == pytest.approx(sum(gains[: head.tokens]) / head.tokens)


def test_no_head_ends_inside_a_character_or_with_a_blank(tokenizer: Tokenizer) -> None:
    text = "name = '\u4f60\u597d \U0001f600' + x"
    tokens = tokenizer.encode(text)
    heads = [text[: head.characters] for head in find_heads(tokenizer, tokens, [-1.0] * len(tokens), "", text)]
    assert {"name", "name =", text} <= set(heads)
    assert not [head for head in heads if head[-1].isspace()]


def test_blank_lines_end_no_head_and_nothing_has_none(tokenizer: Tokenizer) -> None:
    text = "\n    return x\n\n"
    tokens = tokenizer.encode(text)
    *_, head = find_heads(tokenizer, tokens, [-1.0] * len(tokens), "", text)
    assert text[: head.characters] == "\n    return x"
    assert find_heads(tokenizer, [], [], "", "") == ()
