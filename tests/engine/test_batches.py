"""Canvases see their own prefix and themselves, and nothing else: shown by gradients, not by reading masks."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dg_engine.model import DiffusionGemma
from dg_engine.prompt import encode_prefix
from dg_engine.testing import TINY, tiny_model, tiny_tokenizer
from dg_engine.tokenizer import Tokenizer
from dg_engine.training.batches import Batcher, Canvases, Chunks, Layout, noised
from dg_engine.training.encoded import EncodedSplit, encode_split
from dg_engine.training.sources import Document
from dg_engine.training.spans import Vocabulary
from dg_engine.training.views import canvas_view

LAYOUT = Layout(chunks=2, encoder_tokens=96, canvases=3, slots=48)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(tiny_tokenizer())


@pytest.fixture(scope="module")
def split(tokenizer: Tokenizer) -> EncodedSplit:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    documents = [Document("own", f"tests/engine/{file.name}", file.read_text(encoding="utf-8")) for file in sources]
    return EncodedSplit(encode_split(documents, tokenizer))


@pytest.fixture
def batcher(split: EncodedSplit, tokenizer: Tokenizer) -> Batcher:
    config = replace(TINY, vocab_size=tokenizer.vocab_size)
    return Batcher(split, Vocabulary.of(tokenizer), config, seed=3)


@pytest.fixture
def batch(batcher: Batcher) -> tuple[Chunks, Canvases]:
    chunks, canvases = batcher.batch(0, LAYOUT)
    assert canvases is not None
    return chunks, canvases


@pytest.fixture
def model(tokenizer: Tokenizer) -> DiffusionGemma:
    return tiny_model(replace(TINY, vocab_size=tokenizer.vocab_size, use_bidirectional_attention=None))


def test_a_path_that_fills_a_short_chunk_is_not_told(tokenizer: Tokenizer) -> None:
    document = Document("own", "/".join(["a_folder_with_a_rather_long_name_of_many_words"] * 3) + ".py", "x = 1\n" * 99)
    split = EncodedSplit(encode_split([document], tokenizer))
    batcher = Batcher(split, Vocabulary.of(tokenizer), replace(TINY, vocab_size=tokenizer.vocab_size), seed=3)
    shortest = replace(LAYOUT, encoder_tokens=64, slots=32)
    assert len(split.header(0)) > shortest.encoder_tokens
    for number in range(8):
        assert batcher.batch(number, shortest).chunks.real.all()


def hidden_of(model: DiffusionGemma, chunks: Chunks, canvases: Canvases, embedded: list[Tensor]) -> Tensor:
    """The decoder's output; collects the embeddings that it was made of: the chunk's, then the canvases'."""
    plain = model.embed

    def embed(tokens: Tensor) -> Tensor:
        rows = plain(tokens).detach().requires_grad_()
        embedded.append(rows)
        return rows

    model.embed = embed  # type: ignore[method-assign]
    cache = model.encode(chunks.tokens).cache
    view, masks, positions = canvas_view(model.config, cache, canvases)
    return model.decode(canvases.clean, view, None, positions, masks)


def header_length(row: list[int], tokenizer: Tokenizer) -> int:
    """Tokens before the text of a chunk: `<bos>`, with or without a path and its newline."""
    return row.index(tokenizer.encode("\n")[0]) + 1 if row[1] == tokenizer.special_id("<|file|>") else 1


@pytest.mark.parametrize("number", range(LAYOUT.chunks * LAYOUT.canvases))
def test_a_canvas_has_gradient_from_its_own_prefix_and_slots_alone(
    model: DiffusionGemma, batch: tuple[Chunks, Canvases], number: int
) -> None:
    chunks, canvases = batch
    embedded: list[Tensor] = []
    hidden = hidden_of(model, chunks, canvases, embedded)
    real = canvases.real[number]
    hidden[number][real].square().sum().backward()  # type: ignore[no-untyped-call]
    in_chunk, in_canvas = (rows.grad for rows in embedded)
    assert in_chunk is not None
    assert in_canvas is not None
    row, cut = number // LAYOUT.canvases, int(canvases.cut[number])
    assert in_chunk[row, cut:].abs().max() == 0.0, "the canvas sees the encoder's tokens from its cut on"
    assert in_chunk[row, cut - 1].abs().max() > 0.0
    assert in_chunk[1 - row].abs().max() == 0.0, "the canvas sees another chunk"
    others = [index for index in range(len(hidden)) if index != number]
    assert in_canvas[others].abs().max() == 0.0, "canvases see one another"
    assert in_canvas[number, ~real].abs().sum() == 0.0, "the canvas sees its padding"
    assert (in_canvas[number, real].abs().amax(dim=1) > 0.0).all()


def test_a_canvas_in_a_batch_equals_the_same_canvas_decoded_alone(
    model: DiffusionGemma, batch: tuple[Chunks, Canvases]
) -> None:
    chunks, canvases = batch
    together = hidden_of(model, chunks, canvases, [])
    for number in range(len(together)):
        cut, real = int(canvases.cut[number]), canvases.real[number]
        prefix = chunks.tokens[number // LAYOUT.canvases, None, :cut]
        alone = model.decode(canvases.clean[number, real][None], model.encode(prefix).cache, None)
        torch.testing.assert_close(together[number, real], alone[0], rtol=1e-4, atol=1e-5)


def test_chunk_and_canvas_together_are_the_document(
    batch: tuple[Chunks, Canvases], split: EncodedSplit, tokenizer: Tokenizer
) -> None:
    chunks, canvases = batch
    texts = [tokenizer.decode(split.tokens(document).tolist()) for document in range(len(split))]
    for number in range(len(canvases.clean)):
        row = chunks.tokens[number // LAYOUT.canvases, : int(canvases.cut[number])].tolist()
        special = tokenizer.special.tolist()
        header = header_length(row, tokenizer)
        answer = [token for token in canvases.clean[number][canvases.real[number]].tolist() if not special[token]]
        assert any(tokenizer.decode(row[header:] + answer) in text for text in texts)


def test_prefixes_begin_as_they_do_when_an_editor_asks(
    batcher: Batcher, split: EncodedSplit, tokenizer: Tokenizer
) -> None:
    whole_files = {
        tuple(encode_prefix(tokenizer, path, "", 512))
        for path in (f"tests/engine/{file.name}" for file in Path(__file__).parent.glob("*.py"))
    }
    newline = tokenizer.with_newline.tolist()
    for number in range(20):
        for row in batcher.batch(number, LAYOUT).chunks.tokens.tolist():
            assert row[0] == 2
            headers = [header for header in whole_files if tuple(row[: len(header)]) == header]
            rest = row[len(headers[0]) :] if headers else row[1:]
            begins_file = any(split.tokens(one)[:8].tolist() == rest[:8] for one in range(len(split)))
            assert newline[rest[0]] or begins_file


def test_a_batch_follows_from_the_seed_and_its_number_alone(split: EncodedSplit, tokenizer: Tokenizer) -> None:
    config, vocabulary = replace(TINY, vocab_size=tokenizer.vocab_size), Vocabulary.of(tokenizer)
    first, second = (Batcher(split, vocabulary, config, seed=5) for _ in range(2))
    number = next(number for number in count() if first.epochs(number, LAYOUT) > 1.2)
    for earlier in range(3):
        first.batch(earlier, LAYOUT)
    for expected, found in zip(first.batch(number, LAYOUT), second.batch(number, LAYOUT), strict=True):
        assert expected is not None
        assert found is not None
        assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


def test_noise_falls_on_open_slots_alone_and_on_at_least_one(batch: tuple[Chunks, Canvases]) -> None:
    _, canvases = batch
    shape = canvases.clean.shape
    uniform = torch.from_numpy(np.random.default_rng(0).random(shape, dtype=np.float32))
    noise = torch.full(shape, 7)
    for corruption in (0.0, 0.3, 1.0):
        canvas, replaced = noised(canvases, torch.full(shape, corruption), noise, uniform)
        assert not (replaced & ~canvases.open).any()
        assert replaced.any(dim=1).all()
        assert torch.equal(canvas[~replaced], canvases.clean[~replaced])
        assert (canvas[replaced] == 7).all()
    assert torch.equal(replaced, canvases.open)
