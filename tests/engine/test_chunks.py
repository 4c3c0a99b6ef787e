"""Chunks of fixed shapes, held to `DiffusionGemma.encode`; and who takes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace

from dg_engine import causal, device_loop, prefix_store
from dg_engine import lengths as lengths_module
from dg_engine import rows as rows_module
from dg_engine.api import Infill, InfillRequest, ScoreRequest
from dg_engine.captures import can_capture
from dg_engine.causal import Start, gains_behind, hidden_behind
from dg_engine.chunks import CHUNK_BUCKETS, Chunk, ChunkShape, chunk_bucket, static_encode
from dg_engine.device_loop import DeviceLoop
from dg_engine.engine import Engine
from dg_engine.model import DiffusionGemma
from dg_engine.prefix_cache import PrefixCache
from dg_engine.prefix_store import PrefixEncoder
from dg_engine.testing import SHAPES, TINY, NothingAsksTheHost, tiny_checkpoint, tiny_model

CAUSAL = [name for name, config in SHAPES.items() if config.use_bidirectional_attention != "all"]

pytestmark = pytest.mark.usefixtures("without_gradients")


def numbers(count: int, first: int = 0) -> torch.Tensor:
    return (torch.arange(first, first + count)[None] * 7 + 3) % TINY.vocab_size


def assert_same(found: PrefixCache, expected: PrefixCache) -> None:
    assert found.length == expected.length
    for one, other in zip((*found.keys, *found.values), (*expected.keys, *expected.values), strict=True):
        known = min(one.shape[2], other.shape[2])
        torch.testing.assert_close(one[:, :, -known:], other[:, :, -known:])
    assert found.holds(found.length)


@pytest.mark.parametrize("shape", CAUSAL)
def test_chunks_behind_one_another_are_encoded_as_by_the_readable_twin(
    shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of lengths that fill a bucket or do not, behind prefixes in more and more places and longer than the window."""
    monkeypatch.setattr(rows_module, "SHORTEST_PREFIX", 16)
    model = tiny_model(SHAPES[shape]).double()
    loop, cache, readable = DeviceLoop(model), model.empty_cache(1), model.empty_cache(1)
    for count in (1, 5, 16, 17, 64, 1, 70, 2):
        tokens = numbers(count, cache.length)
        hidden, cache = loop.encode(tokens, cache)
        expected, readable = model.encode(tokens, readable, slice(-1, None))
        torch.testing.assert_close(hidden, expected)
        assert_same(cache, readable)


def test_a_prefix_that_was_cut_is_encoded_anew_from_there(model: DiffusionGemma) -> None:
    loop = DeviceLoop(model)
    _, cache = loop.encode(numbers(40), model.empty_cache(1))
    _, longer = loop.encode(numbers(9, 40), cache)
    hidden, other = loop.encode(numbers(5, 90), cache.truncated(31))
    whole = model.encode(torch.cat((numbers(31), numbers(5, 90)), dim=1))
    torch.testing.assert_close(hidden[:, -1], whole.hidden[:, -1])
    assert_same(other, whole.cache)
    assert_same(longer, model.encode(numbers(49)).cache)


@pytest.mark.parametrize("shape", CAUSAL)
@pytest.mark.parametrize("prefix", [3, 40])
@pytest.mark.parametrize("most", [32, 1024])
def test_texts_behind_one_prefix_are_encoded_as_by_the_readable_twin(
    shape: str, prefix: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All in one pass, or two and then one."""
    monkeypatch.setattr(rows_module, "SHORTEST_PREFIX", 16)
    monkeypatch.setattr(device_loop, "MOST_SLOTS", most)
    model = tiny_model(SHAPES[shape]).double()
    cache = model.encode(numbers(prefix)).cache
    texts = [numbers(count, first)[0] for count, first in ((12, 50), (1, 7), (0, 0))]
    found = DeviceLoop(model).hidden_behind(cache, texts)
    for one, expected in zip(found, hidden_behind(model, cache, texts), strict=True):
        torch.testing.assert_close(one, expected)


def test_log_probabilities_of_some_rows_at_a_time_are_those_of_all(
    model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, cache = model.encode(numbers(9))
    start = Start(hidden[0, -1:], cache)
    passages = [numbers(count)[0].tolist() for count in (7, 1, 2)]
    expected, rows, logits = gains_behind(model, start, passages), list[int](), DiffusionGemma.logits

    def noted(model: DiffusionGemma, hidden: torch.Tensor) -> torch.Tensor:
        rows.append(len(hidden))
        return logits(model, hidden)

    monkeypatch.setattr(causal, "_LOGITS_AT_ONCE", 4 * TINY.vocab_size)
    monkeypatch.setattr(DiffusionGemma, "logits", noted)
    found = gains_behind(model, start, passages)
    assert rows == [4, 4, 2]
    assert [len(gains) for gains in found] == [7, 1, 2]
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-12)


def test_what_an_encoder_tells_outlasts_the_next_chunk(model: DiffusionGemma) -> None:
    loop = DeviceLoop(model)
    hidden, _ = loop.encode(numbers(12), model.empty_cache(1))
    kept = hidden.clone()
    loop.encode(numbers(12, 50), model.empty_cache(1))
    assert torch.equal(hidden, kept)


def test_a_chunk_asks_the_host_for_nothing(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []

    def watched(*given: Any, last: bool) -> torch.Tensor:
        with NothingAsksTheHost():
            passes.append(static_encode(*given, last=last))
        return passes[-1]

    one_expert = tiny_model(SHAPES["a single expert"])
    monkeypatch.setattr("dg_engine.chunks.static_encode", watched)
    loop = DeviceLoop(one_expert)
    _, cache = loop.encode(numbers(20), one_expert.empty_cache(1))
    loop.hidden_behind(cache, [numbers(5)[0], numbers(9)[0]])
    assert [one.shape[:2] for one in passes] == [(1, 1), (2, 16)]


def test_a_chunk_is_one_graph_whatever_its_length_and_that_of_the_prefix() -> None:
    model = tiny_model(SHAPES["a single expert"])
    compiled = torch.compile(static_encode, fullgraph=True, backend="eager")
    graphs = torch._dynamo.utils.counters["stats"]
    before = graphs["unique_graphs"]
    loop = DeviceLoop(model)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("dg_engine.chunks.static_encode", compiled)
        _, cache = loop.encode(numbers(20), model.empty_cache(1))
        hidden, _ = loop.encode(numbers(44, 20), cache)
    torch.testing.assert_close(hidden[:, -1], model.encode(numbers(64)).hidden[:, -1])
    assert graphs["unique_graphs"] == before + 1


@pytest.mark.parametrize("count", [0, CHUNK_BUCKETS[-1] + 1])
def test_a_chunk_that_no_bucket_holds_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"1 to {CHUNK_BUCKETS[-1]} tokens, not {count}"):
        chunk_bucket(count)


def test_the_engine_encodes_by_captured_chunks_where_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tiny_checkpoint(tmp_path)
    request = InfillRequest(prefix="def f(a):\n    return a + 1\n" * 20, suffix="\n", document="a", decoding="causal")
    edited = replace(request, prefix=request.prefix[:-20] + "b\n")
    plain, taken = Engine.load(directory, device="cpu", dtype=torch.float32), list[tuple[int, int]]()

    class Noted(Chunk):
        def encode(self, rows: Sequence[torch.Tensor], prefix: int) -> torch.Tensor:
            taken.extend((len(row), prefix) for row in rows)
            return super().encode(rows, prefix)

    monkeypatch.setattr(device_loop, "Chunk", Noted)
    monkeypatch.setattr(lengths_module, "can_capture", lambda model: True)
    engine = Engine.load(directory, device="cpu", dtype=torch.float32)
    for asked in (request, edited):
        taken.clear()
        expected, found = (answer_of(one, asked) for one in (plain, engine))
        assert (found.text, found.cached_tokens) == (expected.text, expected.cached_tokens)
        assert sum(count for count, _ in taken) == found.prefix_tokens - found.cached_tokens
        assert taken[0][1] == found.cached_tokens
    assert found.cached_tokens > 0
    taken.clear()
    scored = ScoreRequest(prefix=request.prefix, text="x = 1", suffix="\n")
    found_score, expected_score = engine.score(scored), plain.score(scored)
    assert found_score.text == pytest.approx(expected_score.text, rel=1e-5)
    assert found_score.suffix == pytest.approx(expected_score.suffix, rel=1e-5)
    assert len(taken) > 1


def answer_of(engine: Engine, request: InfillRequest) -> Infill:
    *_, answer = engine.infill(request)
    assert isinstance(answer, Infill)
    return answer


def test_an_encoder_that_looks_both_ways_encodes_as_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(SHAPES["bidirectional encoder"])
    loop = DeviceLoop(model)
    monkeypatch.setattr(loop, "encode", None)
    *_, prefix = PrefixEncoder(model, loop).encode("", [5] * 20)
    assert prefix is not None
    assert prefix.tokens == 20


@torch.inference_mode()
def test_chunks_of_every_length_are_captured_before_the_first_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "SHORTEST_PREFIX", 64)
    monkeypatch.setattr(prefix_store, "SHORTEST_PREFIX", 64)
    monkeypatch.setattr(prefix_store, "PREFILL_CHUNK", prefix_store.GPU_PREFILL_CHUNK)
    made = []

    class Noted(Chunk):
        def __init__(self, model: DiffusionGemma, shape: ChunkShape, *given: Any) -> None:
            made.append(shape.slots)
            super().__init__(model, shape, *given)

    monkeypatch.setattr(device_loop, "Chunk", Noted)
    model = tiny_model(SHAPES["one full layer only"])
    encoder = PrefixEncoder(model, DeviceLoop(model))
    encoder.warm_up()
    assert sorted(made) == sorted(CHUNK_BUCKETS * 2)
    for count in (3, 100, 600, 601):
        list(encoder.encode("", numbers(count)[0].tolist()))
    assert len(made) == 2 * len(CHUNK_BUCKETS)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_chunk_played_again_equals_the_readable_twin() -> None:
    model = tiny_model(SHAPES["a single expert"]).double().cuda()
    assert can_capture(model)
    loop, cache, readable = DeviceLoop(model), model.empty_cache(1), model.empty_cache(1)
    for count in (5, 12, 60, 3, 64):
        tokens = numbers(count, cache.length).cuda()
        hidden, cache = loop.encode(tokens, cache)
        expected, readable = model.encode(tokens, readable, slice(-1, None))
        torch.testing.assert_close(hidden, expected)
        assert_same(cache, readable)
