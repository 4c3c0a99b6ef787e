"""The operations between a layer's products, without a kernel, against fp64."""

from __future__ import annotations

import pytest
import torch

from dg_kernels import (
    Heads,
    Norm,
    add_attention,
    add_feed_forward,
    choose_experts,
    gated_gelu,
    norm_rotary,
    random_numbers,
    rotary_angles,
)
from dg_kernels.choose_experts.reference import choose_experts_reference
from dg_kernels.gated_gelu.reference import gated_gelu_reference
from dg_kernels.norm_rotary.reference import norm_rotary_reference
from dg_kernels.random_numbers.reference import random_numbers_reference
from dg_kernels.residual_norms.reference import add_attention_reference, add_feed_forward_reference
from dg_kernels.testing import assert_agrees, random

EPS = 1e-6


@pytest.mark.parametrize("batch", [(), (2,)])
def test_heads_are_normed_and_turned(batch: tuple[int, ...]) -> None:
    positions = torch.arange(10 * (2 if batch else 1)).view(*batch, 10)
    cosines, sines = rotary_angles(positions, head_dim=16, theta=10_000.0, rotated_share=0.5)
    raw = Heads(*(3 * random(2, 10, heads, 16, seed=seed) for seed, heads in enumerate((4, 2, 2))))
    by_query, by_key = 1 + 0.1 * random(16, seed=3), 1 + 0.1 * random(16, seed=4)
    expected = norm_rotary_reference(raw, by_query, by_key, cosines, sines, EPS)
    places = torch.empty(2, 2, 14, 16)[:, :, 2:12], torch.empty(2, 2, 14, 16)[:, :, 2:12]
    for given in (None, places):
        found = norm_rotary(raw, by_query, by_key, cosines, sines, EPS, given)
        for one, wanted in zip(found, expected, strict=True):
            assert_agrees(one, wanted, terms=16)
    assert torch.equal(places[1], found.value)


@pytest.mark.parametrize("weighted", [True, False])
def test_what_attention_found_is_added_and_normed_for_all_that_read_it(weighted: bool) -> None:
    x, attended = random(5, 40), random(5, 40, seed=1)
    after, router, dense, experts = (1 + random(40, seed=seed) for seed in range(2, 6))
    norms = Norm(dense, rounds=True), Norm(experts if weighted else None)
    found = add_attention(x, attended, after, *norms, router, EPS)
    expected = add_attention_reference(x, attended, after, norms[0]._replace(rounds=False), norms[1], router, EPS)
    for one, wanted in zip(found, expected, strict=True):
        assert isinstance(one, torch.Tensor), "nothing is rounded that is not multiplied so"
        assert isinstance(wanted, torch.Tensor)
        assert_agrees(one, wanted, terms=40)


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("weighted", [True, False])
def test_what_the_dense_mlp_and_the_experts_found_is_added(parts: int, weighted: bool) -> None:
    x, dense, mixed = random(5, 40), random(5, 40, seed=1), random(5, parts, 40, seed=2)
    first, second, whole, weight = (1 + random(40, seed=seed) for seed in range(3, 7))
    scalar, following = torch.tensor([0.7]), Norm(weight if weighted else None)
    found = add_feed_forward(x, dense, mixed, (first, second, whole), scalar, following, EPS)
    expected = add_feed_forward_reference(x, dense, mixed, (first, second, whole), scalar, following, EPS)
    for one, wanted in zip(found, expected, strict=True):
        assert isinstance(one, torch.Tensor)
        assert isinstance(wanted, torch.Tensor)
        assert_agrees(one, wanted, terms=40)


def test_what_is_gated_is_multiplied() -> None:
    gate, up = 3 * random(2, 5, 40), random(2, 5, 40, seed=1)
    found, expected = gated_gelu(gate, up, rounds=True), gated_gelu_reference(gate, up)
    assert isinstance(found, torch.Tensor), "nothing is rounded that is not multiplied so"
    assert isinstance(expected, torch.Tensor)
    assert_agrees(found, expected)


def test_the_likeliest_experts_share_what_is_theirs() -> None:
    logits, scale = 2 * random(9, 12), 1 + 0.2 * random(12, seed=1)
    index, weight = choose_experts(logits, scale, 3)
    numbers, expected = choose_experts_reference(logits, scale, 3)
    assert torch.equal(index, numbers)
    assert_agrees(weight, expected)


def test_random_numbers_are_everywhere_the_same_bits() -> None:
    seed, step = torch.tensor([0, 3, -(2**63), 2**63 - 1]), torch.tensor([-1, 0, 47, 3])
    found, expected = random_numbers(seed, step, 30, 150), random_numbers_reference(seed, step, 30, 150)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def test_what_does_not_belong_together_is_refused() -> None:
    x, weight = random(2, 8), random(8)
    norm, parts = Norm(weight), x[:, None]
    with pytest.raises(ValueError, match=r"what is added must be \[2, 8\], not \[2, 7\]"):
        add_attention(x, random(2, 7), weight, norm, norm, weight, EPS)
    with pytest.raises(ValueError, match=r"weights must be \[8\], not \[7\]"):
        add_attention(x, x, weight, norm, Norm(random(7)), weight, EPS)
    with pytest.raises(ValueError, match=r"weights must be \[8\], not \[7\]"):
        add_feed_forward(x, x, parts, (weight, weight, random(7)), torch.ones(1), norm, EPS)
    with pytest.raises(ValueError, match=r"up must be \[2, 8\], not \[2, 1, 8\]"):
        gated_gelu(x, parts)
    with pytest.raises(ValueError, match=r"step must be \[2\], not \[3\]"):
        random_numbers(torch.zeros(2).long(), torch.zeros(3).long(), 4, 4)
    with pytest.raises(ValueError, match=r"9 of \[8\] experts"):
        choose_experts(x, weight, 9)
    heads, angles = Heads(*(random(1, 2, 3, 8) for _ in range(3))), random(2, 8)
    with pytest.raises(ValueError, match="must be 8 wide, not 7"):
        norm_rotary(heads, random(7), weight, angles, angles, EPS)
    with pytest.raises(ValueError, match=r"places must be \[1, 3, 2, 8\], not \[1, 3, 1, 8\]"):
        norm_rotary(heads, weight, weight, angles, angles, EPS, (random(1, 3, 2, 8), random(1, 3, 1, 8)))
