"""Where an answer may be cut: against the tokens' decoded text, on real code."""

from __future__ import annotations

import heapq
import random
from pathlib import Path

import pytest

from dg_engine.line_ends import find_heads
from dg_engine.paths import shipped_model
from dg_engine.testing import tiny_tokenizer
from dg_engine.tokenizer import Tokenizer

SOURCE = Path(heapq.__file__).read_text(encoding="utf-8")


@pytest.fixture(scope="module", params=["shipped", "tiny"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer.load(shipped_model()) if request.param == "shipped" else Tokenizer(tiny_tokenizer())


@pytest.mark.parametrize("seed", range(20))
def test_a_head_has_the_fewest_tokens_that_hold_its_lines(tokenizer: Tokenizer, seed: int) -> None:
    rng = random.Random(seed)
    start = rng.randrange(1000, len(SOURCE) - 400)
    cut, overlap = SOURCE[start - rng.randrange(6) : start], rng.choice((0, 0, 1))
    written = SOURCE[start : start + rng.randrange(2, 300)]
    text = written[: len(written) - overlap]
    tokens = tokenizer.encode(cut + written)
    gains = [-rng.random() for _ in tokens]
    heads = find_heads(tokenizer, tokens, gains, cut, text)
    lines = text.split("\n")
    ends = [len("\n".join(lines[: number + 1])) for number, line in enumerate(lines) if line.strip()]
    assert [head.characters for head in heads] == ends
    for head in heads:
        needed = next(
            count
            for count in range(len(tokens) + 1)
            if len(tokenizer.decode(tokens[:count])) >= len(cut) + head.characters
        )
        assert head.tokens == (len(tokens) if head.characters == len(text) else needed)
        assert head.score == pytest.approx(sum(gains[: head.tokens]) / head.tokens)


def test_blank_lines_end_no_head_and_nothing_has_none(tokenizer: Tokenizer) -> None:
    text = "\n    return x\n\n"
    tokens = tokenizer.encode(text)
    (head,) = find_heads(tokenizer, tokens, [-1.0] * len(tokens), "", text)
    assert text[: head.characters] == "\n    return x"
    assert find_heads(tokenizer, [], [], "", "") == ()
