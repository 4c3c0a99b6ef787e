"""Holes are cut at every kind of place that a cursor stands at, and always hold what they promise."""

from __future__ import annotations

import inspect
import textwrap
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from dg_engine.infill import HOLE_LENGTHS
from dg_engine.testing import tiny_tokenizer
from dg_engine.tokenizer import Tokenizer
from dg_engine.training.spans import BUCKETS, SHARES, SPAN_KINDS, Hole, SpanSampler, Vocabulary, longest_hole
from dg_engine.training.syntax import Nodes, find_nodes

SOURCE = inspect.getsource(textwrap)
CHUNK = (100, 400)
DRAWS = 3000


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(tiny_tokenizer(600))


@pytest.fixture(scope="module")
def tokens(tokenizer: Tokenizer) -> NDArray[np.int64]:
    return np.array(tokenizer.encode(SOURCE))


@pytest.fixture(scope="module")
def nodes(tokenizer: Tokenizer) -> Nodes:
    offsets = np.array(tokenizer.backend.encode(SOURCE, add_special_tokens=False).offsets)
    return find_nodes(SOURCE, offsets[:, 0])


def draw(tokenizer: Tokenizer, tokens: NDArray[np.int64], nodes: Nodes, canvas: int, count: int = DRAWS) -> list[Hole]:
    rng = np.random.default_rng(0)
    sampler = SpanSampler(tokens, nodes, CHUNK, Vocabulary.of(tokenizer), canvas, rng)
    return [sampler.draw() for _ in range(count)]


@pytest.mark.parametrize("canvas", [48, 64, 96])
def test_every_hole_lies_in_its_chunk_and_fits_its_canvas(
    tokenizer: Tokenizer, tokens: NDArray[np.int64], nodes: Nodes, canvas: int
) -> None:
    for hole in draw(tokenizer, tokens, nodes, canvas):
        assert CHUNK[0] < hole.start < CHUNK[1]
        assert hole.start <= hole.end <= len(tokens)
        assert max(1, hole.end - hole.start) <= hole.slots <= longest_hole(canvas)
        assert hole.slots + hole.suffix <= canvas


def test_the_mix_is_the_one_that_is_stated(tokenizer: Tokenizer, tokens: NDArray[np.int64], nodes: Nodes) -> None:
    found = Counter(hole.kind for hole in draw(tokenizer, tokens, nodes, 64))
    for kind, share in zip(SPAN_KINDS, SHARES, strict=True):
        assert found[kind] / DRAWS == pytest.approx(share, abs=0.03)


def test_no_suffix_means_the_end_of_the_file_or_a_rare_draw(
    tokenizer: Tokenizer, tokens: NDArray[np.int64], nodes: Nodes
) -> None:
    holes = draw(tokenizer, tokens, nodes, 64)
    assert all(hole.suffix == 0 for hole in holes if hole.kind == "end")
    others = [hole.suffix for hole in holes if hole.kind != "end"]
    assert np.mean(np.array(others) == 0) < 0.02
    assert np.mean(np.array(others) >= 16) > 0.8


def test_a_line_hole_ends_at_a_line_break_unless_it_was_too_long(
    tokenizer: Tokenizer, tokens: NDArray[np.int64], nodes: Nodes
) -> None:
    newline = tokenizer.with_newline.numpy()
    for hole in draw(tokenizer, tokens, nodes, 96):
        if hole.kind == "line" and hole.end - hole.start < longest_hole(96):
            assert newline[tokens[hole.end]]
            assert not newline[tokens[hole.start : hole.end]].any()


def test_empty_holes_are_empty_and_long_ones_have_several_lines(
    tokenizer: Tokenizer, tokens: NDArray[np.int64], nodes: Nodes
) -> None:
    holes = draw(tokenizer, tokens, nodes, 96)
    assert all(hole.start == hole.end for hole in holes if hole.kind == "empty")
    lines = [hole for hole in holes if hole.kind == "lines"]
    broken = [tokenizer.with_newline.numpy()[tokens[hole.start : hole.end]].any() for hole in lines]
    assert np.mean(broken) > 0.8


def test_slack_is_of_every_size_that_sampling_meets(
    tokenizer: Tokenizer, tokens: NDArray[np.int64], nodes: Nodes
) -> None:
    assert set(BUCKETS) <= set(HOLE_LENGTHS)
    slack = Counter(hole.slots - (hole.end - hole.start) for hole in draw(tokenizer, tokens, nodes, 96))
    assert set(range(24)) <= set(slack)
    assert any(hole.slots not in BUCKETS for hole in draw(tokenizer, tokens, nodes, 96, 50))
