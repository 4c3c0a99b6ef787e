"""Caches that share buffers never see one another's tokens, and buffers change no number."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dg_engine.config import ModelConfig
from dg_engine.model import DiffusionGemma
from dg_engine.prefix_cache import SPARE, PrefixCache
from dg_engine.testing import SHAPES, TINY, tiny_model

PREFIX, MORE, CANVAS = 19, 5, 7


def tokens(config: ModelConfig, count: int, seed: int = 0) -> Tensor:
    return torch.randint(0, config.vocab_size, (1, count), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def model() -> DiffusionGemma:
    return tiny_model(replace(TINY, use_bidirectional_attention=None))


def same(first: PrefixCache, second: PrefixCache) -> bool:
    parts = zip((*first.keys, *first.values), (*second.keys, *second.values), strict=True)
    return all(torch.equal(one, other) for one, other in parts)


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES.keys())
def test_buffers_change_no_number(config: ModelConfig) -> None:
    """Where a gradient is wanted everything is concatenated: the plain form."""
    model = tiny_model(config)
    prefix, more, canvas = tokens(config, PREFIX), tokens(config, MORE, 1), tokens(config, CANVAS, 2)

    def forward() -> list[Tensor]:
        first = model.encode(prefix)
        second = model.encode(more, first.cache)
        third = model.encode(more[:, :1], second.cache)
        return [first.hidden, second.hidden, third.hidden, model.decode(canvas, third.cache, None)]

    plain = forward()
    with torch.no_grad():
        buffered = forward()
    torch.testing.assert_close(buffered, plain, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_two_continuations_of_one_prefix_do_not_meet(model: DiffusionGemma) -> None:
    prefix = model.encode(tokens(model.config, PREFIX)).cache
    alone = [
        model.encode(tokens(model.config, MORE, seed), model.encode(tokens(model.config, PREFIX)).cache)
        for seed in (1, 2)
    ]
    first = model.encode(tokens(model.config, MORE, 1), prefix)
    second = model.encode(tokens(model.config, MORE, 2), prefix)
    assert same(first.cache, alone[0].cache)
    assert same(second.cache, alone[1].cache)
    shorter = first.cache.truncated(PREFIX + 2)
    third = model.encode(tokens(model.config, MORE, 3), shorter)
    assert same(first.cache, alone[0].cache)
    assert same(third.cache.truncated(PREFIX + 2), shorter)


@torch.no_grad()
def test_a_canvas_leaves_the_cache_and_what_grows_behind_it_as_they_are(model: DiffusionGemma) -> None:
    prefix = model.encode(tokens(model.config, PREFIX)).cache
    grown = model.encode(tokens(model.config, MORE, 1), prefix)
    before = [one.clone() for one in (*grown.cache.keys, *grown.cache.values)]
    shown = [model.decode(tokens(model.config, CANVAS, 2), cache, None) for cache in (prefix, grown.cache, prefix)]
    assert torch.equal(shown[0], shown[2])
    assert all(map(torch.equal, (*grown.cache.keys, *grown.cache.values), before))


@torch.no_grad()
def test_more_than_there_is_room_for_moves_to_a_larger_buffer(model: DiffusionGemma) -> None:
    text = tokens(model.config, PREFIX + SPARE + 40)
    cache = model.encode(text[:, :PREFIX]).cache
    for place in range(PREFIX, text.shape[1]):
        cache = model.encode(text[:, place : place + 1], cache).cache
    whole = model.encode(text).cache
    torch.testing.assert_close((cache.keys, cache.values), (whole.keys, whole.values), rtol=1e-4, atol=1e-5)


def test_what_inference_mode_made_can_be_used_outside_of_it(model: DiffusionGemma) -> None:
    with torch.inference_mode():
        inside = model.encode(tokens(model.config, PREFIX)).cache
    with torch.no_grad():
        outside = model.encode(tokens(model.config, MORE, 1), inside).cache
    assert outside.length == PREFIX + MORE
