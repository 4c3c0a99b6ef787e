"""Caches that share buffers never see one another's tokens, and buffers change no number."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dg_engine import prefix_cache, prefix_store
from dg_engine.canvas import SeededDraws, denoise_together, new_canvas
from dg_engine.config import ModelConfig
from dg_engine.model import DiffusionGemma, Masks
from dg_engine.policies import EntropyBound
from dg_engine.prefix_cache import SPARE, PrefixCache
from dg_engine.prefix_store import PrefixEncoder, PrefixStore
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


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffers are replaced often, and little before the window is kept."""
    monkeypatch.setattr(prefix_cache, "SPARE", 2)
    monkeypatch.setattr(prefix_cache, "BEHIND", 3)


def by_pieces(model: DiffusionGemma, text: Tensor, piece: int = 3) -> PrefixCache:
    cache = model.empty_cache(1)
    for start in range(0, text.shape[1], piece):
        cache = model.encode(text[:, start : start + piece], cache).cache
    return cache


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("config", [c for c in SHAPES.values() if c.use_bidirectional_attention != "all"])
@torch.no_grad()
def test_what_layers_forget_they_would_not_have_seen(config: ModelConfig) -> None:
    model = tiny_model(config)
    text, more, canvas = tokens(config, 41), tokens(config, MORE, 1), tokens(config, CANVAS, 2)
    whole, forgetful = model.encode(text).cache, by_pieces(model, text)
    sliding = [layer for layer in range(config.num_hidden_layers) if config.is_sliding(layer)]
    assert all(forgetful.first(layer) > 20 for layer in sliding)
    assert all(whole.first(layer) == 0 for layer in sliding)
    places = torch.arange(41 + MORE)
    shown = (places[41:, None] >= places)[None]
    masks = Masks(shown, shown & (places[41:, None] - places < config.window))

    def computed(cache: PrefixCache) -> list[Tensor]:
        together = [new_canvas(model, 5, canvas[0, :2], SeededDraws(config.vocab_size, 3), pinned_signal=True)] * 2
        draws = [SeededDraws(config.vocab_size, seed) for seed in (4, 5)]
        found = denoise_together(model, cache, together, temperature=0.7, acceptance=EntropyBound(), draws=draws)
        return [
            model.encode(more, cache).hidden,
            model.encode(more[:, :1], cache).hidden,
            model.decode(canvas, cache, None),
            model.encode_rows(more, cache, masks, places[41:]),
            *(belief.entropy for _, belief in found),
            model.encode(more, cache.repeated(1).truncated(39)).hidden,
        ]

    torch.testing.assert_close(computed(forgetful), computed(whole), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("forgetful")
@torch.no_grad()
def test_a_prefix_is_begun_anew_where_its_window_is_forgotten(model: DiffusionGemma) -> None:
    text = tokens(model.config, 41)
    cache, store = by_pieces(model, text), PrefixStore(1)
    store.keep("a", text[0].tolist(), cache)
    first = cache.first(0)
    assert first > 20
    for length in range(1, 41):
        reused = store.reusable("a", [*text[0, :length].tolist(), 60])
        assert (reused is None) == (length - TINY.sliding_window < first)
        if reused is not None:
            more = tokens(model.config, MORE, 5)
            expected = model.encode(torch.cat((text[:, :length], more), dim=1)).hidden[:, length:]
            torch.testing.assert_close(model.encode(more, reused).hidden, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_of_a_prefix_that_was_given_up_what_was_encoded_is_not_encoded_again(
    model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix_store, "PREFILL_CHUNK", 10)
    text = tokens(model.config, 41)[0].tolist()
    encoder = PrefixEncoder(model)
    given_up = encoder.encode("a", text)
    for _ in range(3):
        assert next(given_up) is None
    given_up.close()  # type: ignore[attr-defined]
    prefix = encoder.whole("a", text)
    assert (prefix.tokens, prefix.cached) == (41, 30)
    expected = PrefixEncoder(model).whole("", text)
    torch.testing.assert_close(prefix.start.hidden, expected.start.hidden, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_where_memory_runs_out_the_documents_not_used_for_longest_are_forgotten(model: DiffusionGemma) -> None:
    text = tokens(model.config, 10)
    cache, full = by_pieces(model, text), False
    store = PrefixStore(3, lambda: full)
    for name in "abc":
        store.keep(name, text[0].tolist(), cache)
    assert store.reusable("a", text[0].tolist()) is not None
    full = True
    store.keep("a", text[0].tolist(), cache)
    assert [name for name in "abc" if store.reusable(name, text[0].tolist()) is not None] == ["a"]


@torch.no_grad()
def test_sliding_layers_take_memory_for_their_window_and_full_ones_for_all(model: DiffusionGemma) -> None:
    length, chunk = 4000, 500
    cache = by_pieces(model, tokens(model.config, length), chunk)
    assert cache.room is not None
    places = [one.shape[2] for one in cache.room.keys]
    assert places[-1] <= length + chunk + SPARE
    assert max(places[:-1]) <= TINY.sliding_window + prefix_cache.BEHIND + chunk + SPARE
