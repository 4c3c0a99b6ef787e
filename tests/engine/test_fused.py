"""The network fused for a CPU against the readable one, and the rows that are read against all of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dg_engine import eight_bits
from dg_engine.config import ModelConfig
from dg_engine.eight_bits import EightBits, in_eight_bits
from dg_engine.fused import FusedModel
from dg_engine.layers import Rows
from dg_engine.model import DiffusionGemma, Encoded, Masks
from dg_engine.testing import SHAPES, TINY, tiny_model

ONE_EXPERT = {name: replace(config, num_experts=1, top_k_experts=1) for name, config in SHAPES.items()}
PREFIX, CANVAS = 21, 13
SOME: list[Rows] = [slice(2, 7), slice(-1, None), torch.tensor([0, 5, 12])]


def tokens(config: ModelConfig, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, config.vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def with_uneven_norms(config: ModelConfig) -> DiffusionGemma:
    """Norms and scales are one in a fresh model, and would hide one that is left out."""
    model = tiny_model(config)
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.copy_(0.5 + torch.rand(parameter.shape, generator=generator))
    return model


def assert_equal(found: Encoded, expected: Encoded) -> None:
    torch.testing.assert_close(found.hidden, expected.hidden, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.cache.keys, expected.cache.keys, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.cache.values, expected.cache.values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", ONE_EXPERT.values(), ids=ONE_EXPERT.keys())
@torch.inference_mode()
def test_the_fused_network_equals_the_readable_one(config: ModelConfig) -> None:
    with torch.inference_mode(mode=False):
        model = with_uneven_norms(config)
        fused = FusedModel(model)
    prefix, canvas = tokens(config, 2, PREFIX), tokens(config, 2, CANVAS, seed=1)
    expected, found = model.encode(prefix), fused.encode(prefix)
    assert_equal(found, expected)
    signal = model.embed(tokens(config, 2, CANVAS, seed=2))
    torch.testing.assert_close(
        fused.decode(canvas, found.cache, signal), model.decode(canvas, expected.cache, signal), rtol=1e-4, atol=1e-5
    )


@torch.inference_mode()
def test_in_bf16_the_two_differ_by_its_rounding_alone() -> None:
    with torch.inference_mode(mode=False):
        exact = with_uneven_norms(ONE_EXPERT["a single expert"])
        rounded = with_uneven_norms(exact.config).bfloat16()
        fused = FusedModel(rounded)
    prefix = tokens(exact.config, 1, PREFIX)
    truth = exact.encode(prefix).hidden
    error = (rounded.encode(prefix).hidden.float() - truth).norm()
    assert (fused.encode(prefix).hidden.float() - truth).norm() < 1.5 * error


@torch.inference_mode()
def test_in_eight_bits_products_are_those_of_the_rounded_numbers() -> None:
    generator = torch.Generator().manual_seed(0)
    for rows, inner, outer in ((0, 16, 4), (1, 37, 5), (3, 384, 7), (65, 256, 130)):
        x, matrix = (torch.randn(count, inner, generator=generator) for count in (rows, outer))
        (a, a_scale), (b, b_scale) = in_eight_bits(x), in_eight_bits(matrix)
        assert not rows or int(a.abs().max()) == 127
        assert bool(((a * a_scale - x).abs() <= 0.5001 * a_scale).all()), "rounded to the nearest"
        exact = (a.double() * a_scale) @ (b.double() * b_scale).T
        torch.testing.assert_close(EightBits(matrix)(x).double(), exact, rtol=1e-5, atol=1e-6)


@torch.inference_mode()
def test_in_eight_bits_a_row_does_not_depend_on_those_beside_it() -> None:
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(1))
    x[1] *= 1000
    x[2] = 0
    product = EightBits(torch.randn(96, 64, generator=torch.Generator().manual_seed(2)))
    together = product(x[None])[0]
    assert torch.equal(together, torch.stack([product(row) for row in x]))
    assert not together[2].any()


def test_a_cpu_that_adds_products_of_eight_bits_up_in_sixteen_is_not_taken_for_fast(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def overflowing(rows: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        pairs = (rows.int()[:, :, None] + 128) * matrix.int()[None]
        sums = (pairs[:, ::2] + pairs[:, 1::2]).clamp(-(2**15), 2**15 - 1).sum(1)
        return (sums - 128 * matrix.int().sum(0)).int()

    monkeypatch.setattr(eight_bits, "quickest", lambda work: 1.0 if "packed" in work.__code__.co_freevars else 2.0)
    assert eight_bits.is_faster(torch.float32)
    monkeypatch.setattr(torch, "_int_mm", overflowing)
    assert not eight_bits.is_faster(torch.float32)


@torch.inference_mode()
def test_the_network_in_eight_bits_differs_from_the_readable_one_by_their_rounding_alone() -> None:
    with torch.inference_mode(mode=False):
        model = with_uneven_norms(ONE_EXPERT["a single expert"])
        fused = FusedModel(model, eight_bits=True)
    prefix, canvas = tokens(model.config, 2, PREFIX), tokens(model.config, 2, CANVAS, seed=1)
    expected, found = model.encode(prefix), fused.encode(prefix)
    signal = model.embed(tokens(model.config, 2, CANVAS, seed=2))
    pairs = [
        (found.hidden, expected.hidden),
        (fused.decode(canvas, found.cache, signal), model.decode(canvas, expected.cache, signal)),
    ]
    for one, other in pairs:
        # Numbers of eight bits are within 0.4 % of the largest of their row; it adds up over both sides and the layers.
        assert 0 < (one - other).norm() < 0.1 * other.norm()
    assert fused.product_dtype == torch.int8


@torch.inference_mode()
def test_in_eight_bits_the_vocabulary_is_multiplied_in_the_type_of_the_model() -> None:
    with torch.inference_mode(mode=False):
        model = with_uneven_norms(ONE_EXPERT["a single expert"]).bfloat16()
        fused = FusedModel(model, eight_bits=True)
    hidden = fused.encode(tokens(model.config, 1, PREFIX)).hidden
    assert hidden.dtype == torch.float32
    assert torch.equal(fused.logits(hidden), model.logits(hidden.bfloat16()))
    shares = fused.logits(hidden).softmax(dim=-1)
    assert fused.soft_embedding(shares).dtype == torch.float32
    # The scale of the embeddings, a root, is rounded to the type of what it is for.
    torch.testing.assert_close(fused.soft_embedding(shares).bfloat16(), model.soft_embedding(shares), rtol=0.01, atol=0)


@pytest.mark.parametrize("read", SOME, ids=["slice", "last", "indices"])
@pytest.mark.parametrize("fused", [False, True])
@torch.no_grad()
def test_rows_that_are_read_equal_the_same_rows_of_all(read: Rows, *, fused: bool) -> None:
    config = ONE_EXPERT["a single expert"]
    plain = with_uneven_norms(config)
    model = FusedModel(plain) if fused else plain
    prefix, canvas = tokens(config, 2, PREFIX), tokens(config, 2, CANVAS, seed=1)
    whole, some = model.encode(prefix), model.encode(prefix, read=read)
    torch.testing.assert_close(some.hidden, whole.hidden[:, read], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        (some.cache.keys, some.cache.values), (whole.cache.keys, whole.cache.values), rtol=0, atol=0
    )
    causal = torch.ones(1, CANVAS, PREFIX + CANVAS, dtype=torch.bool).tril(PREFIX)
    positions = torch.arange(CANVAS) + torch.tensor([[PREFIX], [PREFIX + 3]])
    for masks in (None, Masks(causal, causal)):
        everything = model.decode(canvas, whole.cache, None, positions, masks)
        found = model.decode(canvas, whole.cache, None, positions, masks, read)
        torch.testing.assert_close(found, everything[:, read], rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_one_more_token_equals_the_last_of_a_chunk() -> None:
    """A single token is encoded without a mask, over the window alone."""
    model = tiny_model(replace(TINY, use_bidirectional_attention=None))
    prefix = tokens(model.config, 1, PREFIX)
    whole = model.encode(prefix)
    one = model.encode(prefix[:, -1:], model.encode(prefix[:, :-1]).cache)
    assert_equal(one, whole._replace(hidden=whole.hidden[:, -1:]))


def test_experts_that_are_chosen_row_by_row_are_not_fused() -> None:
    with pytest.raises(ValueError, match="4 experts"):
        FusedModel(tiny_model(replace(TINY, num_experts=4, top_k_experts=2)))


class OnCuda(DiffusionGemma):
    """A model that says so, which makes it take rules for masks."""

    @property
    def device(self) -> torch.device:
        return torch.device("cuda")


@pytest.mark.parametrize("read", [None, *SOME], ids=["all", "slice", "last", "indices"])
@torch.no_grad()
def test_causal_rules_show_what_masks_do(read: Rows | None) -> None:
    plain = tiny_model(TINY)
    ruled = OnCuda(TINY)
    ruled.load_state_dict(plain.state_dict())
    prefix, more = tokens(TINY, 2, PREFIX), tokens(TINY, 2, CANVAS, seed=1)
    expected, found = (model.encode(more, model.encode(prefix).cache, read) for model in (plain, ruled))
    assert_equal(found, expected)
