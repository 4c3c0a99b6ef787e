"""Our model against transformers', on the same random checkpoint: hidden states, cache and logits to 1e-4 in fp32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dg_engine import checkpoint
from dg_engine.config import ModelConfig
from dg_engine.model import DiffusionGemma
from dg_engine.prefix_cache import PrefixCache
from dg_engine.testing import SHAPES, TINY, tiny_model

transformers = pytest.importorskip("transformers", minversion="5.23.0")

TOLERANCE = 1e-4
PREFIX = 29  # more than three windows of 8


def assert_close(actual: object, expected: object) -> None:
    torch.testing.assert_close(actual, expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.fixture(autouse=True)
def repaired_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    """In 5.23 a configuration with "all" passes `is_causal` to the attention twice, which raises TypeError."""
    from transformers.models.diffusion_gemma import modeling_diffusion_gemma as modeling

    for name in ("DiffusionGemmaEncoderTextAttention", "DiffusionGemmaDecoderTextAttention"):
        attention = getattr(modeling, name)
        original = attention.forward

        def forward(self: Any, *args: Any, _original: Any = original, **keywords: Any) -> Any:
            keywords.pop("is_causal", None)
            return _original(self, *args, **keywords)

        monkeypatch.setattr(attention, "forward", forward)


def both(config: ModelConfig, directory: Path) -> tuple[DiffusionGemma, Any]:
    """Our model, and transformers' one opened from what ours wrote."""
    checkpoint.save(tiny_model(config), directory)
    theirs = transformers.DiffusionGemmaForBlockDiffusion.from_pretrained(directory, attn_implementation="sdpa")
    return checkpoint.load(directory), theirs.eval()


def random_tokens(config: ModelConfig, *shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, config.vocab_size, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES.keys())
@torch.no_grad()
def test_encoder_hidden_states_and_cache_equal_transformers(config: ModelConfig, tmp_path: Path) -> None:
    ours, theirs = both(config, tmp_path)
    tokens = random_tokens(config, 2, PREFIX)
    expected = theirs.model.encoder(input_ids=tokens)
    encoded = ours.encode(tokens)
    assert_close(encoded.hidden, expected.last_hidden_state)
    for layer, kept in enumerate(expected.past_key_values.layers):
        length = kept.keys.shape[2]
        assert_close(encoded.cache.keys[layer][:, :, -length:], kept.keys)
        assert_close(encoded.cache.values[layer][:, :, -length:], kept.values)


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("prefix", [1, 7, 8, PREFIX])
@torch.no_grad()
def test_decoder_logits_equal_transformers_with_and_without_self_conditioning(
    config: ModelConfig, prefix: int, tmp_path: Path
) -> None:
    ours, theirs = both(config, tmp_path)
    tokens, canvas = random_tokens(config, 2, prefix), random_tokens(config, 2, config.canvas_length, seed=2)
    belief = torch.randn(2, config.canvas_length, config.vocab_size, generator=torch.Generator().manual_seed(3))
    cache = ours.encode(tokens).cache

    plain = theirs(input_ids=tokens, decoder_input_ids=canvas)
    assert_close(ours.logits(ours.decode(canvas, cache, None)), plain.logits)

    conditioned = theirs(input_ids=tokens, decoder_input_ids=canvas, self_conditioning_logits=belief)
    signal = ours.soft_embedding(belief.softmax(-1))
    assert_close(ours.logits(ours.decode(canvas, cache, signal)), conditioned.logits)
    assert (plain.logits - conditioned.logits).abs().max() > 100 * TOLERANCE


@pytest.mark.parametrize("config", [c for c in SHAPES.values() if c.use_bidirectional_attention != "all"])
@torch.no_grad()
def test_encoding_in_chunks_equals_encoding_at_once(config: ModelConfig) -> None:
    model, tokens = tiny_model(config), random_tokens(config, 1, PREFIX)
    whole = model.encode(tokens)
    cache: PrefixCache | None = None
    for chunk in torch.split(tokens, [1, 12, 9, 7], dim=1):
        hidden, cache = model.encode(chunk, cache)
    assert cache is not None
    assert_close(hidden, whole.hidden[:, -7:])
    assert_close((cache.keys, cache.values), (whole.cache.keys, whole.cache.values))


@torch.no_grad()
def test_a_truncated_cache_equals_the_cache_of_the_shorter_prefix() -> None:
    model, tokens = tiny_model(), random_tokens(TINY, 1, PREFIX)
    cut, short = model.encode(tokens).cache.truncated(11), model.encode(tokens[:, :11]).cache
    assert_close((cut.keys, cut.values), (short.keys, short.values))


@torch.no_grad()
def test_a_checkpoint_saved_by_transformers_opens_here(tmp_path: Path) -> None:
    ours, theirs = both(TINY, tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    assert (tmp_path / "theirs" / "model.safetensors.index.json").exists()
    again = checkpoint.load(tmp_path / "theirs")
    assert again.config == ours.config
    torch.testing.assert_close(again.state_dict(), ours.state_dict(), rtol=0, atol=0)
