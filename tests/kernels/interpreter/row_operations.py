"""The kernels between a layer's products, against fp64."""

from __future__ import annotations

import pytest
import torch

from dg_kernels import Heads, Norm, Operand, RoundedRows, rotary_angles
from dg_kernels.choose_experts.plan import plan as plan_choose_experts
from dg_kernels.choose_experts.reference import choose_experts_reference
from dg_kernels.gated_gelu.plan import plan as plan_gated_gelu
from dg_kernels.gated_gelu.reference import gated_gelu_reference
from dg_kernels.launching import run
from dg_kernels.norm_rotary.plan import plan as plan_norm_rotary
from dg_kernels.norm_rotary.reference import norm_rotary_reference
from dg_kernels.random_numbers.plan import plan as plan_random_numbers
from dg_kernels.random_numbers.reference import random_numbers_reference
from dg_kernels.residual_norms.plan import plan_attention, plan_feed_forward
from dg_kernels.residual_norms.reference import add_attention_reference, add_feed_forward_reference
from dg_kernels.testing import assert_agrees, random

EPS = 1e-6


@pytest.mark.parametrize("batch", [(), (2,)], ids=["angles of a canvas", "angles of each"])
@pytest.mark.parametrize(("heads", "key_heads", "width"), [(1, 1, 64), (6, 3, 48), (4, 2, 256)])
def test_heads_are_normed_and_turned(
    batch: tuple[int, ...], heads: int, key_heads: int, width: int, device: torch.device, dtype: torch.dtype
) -> None:
    positions = torch.arange(7 * (2 if batch else 1)).view(*batch, 7)
    angles = rotary_angles(positions, head_dim=width, theta=10_000.0, rotated_share=0.5)
    cosines, sines = (one.to(dtype) for one in angles)
    counts = enumerate((heads, key_heads, key_heads))
    raw = Heads(*((3 * random(2, 7, count, width, seed=seed)).to(dtype) for seed, count in counts))
    by_query, by_key = ((1 + 0.1 * random(width, seed=seed)).to(dtype) for seed in (3, 4))
    there = Heads(*(one.to(device) for one in raw))
    turn = cosines.to(device), sines.to(device)
    launches, found = plan_norm_rotary(there, by_query.to(device), by_key.to(device), *turn, EPS)
    run(launches)
    for one, expected in zip(found, norm_rotary_reference(raw, by_query, by_key, cosines, sines, EPS), strict=True):
        assert_agrees(one.cpu(), expected, terms=width)


def test_heads_may_be_parts_of_wider_rows_and_keys_go_where_they_belong(
    device: torch.device, dtype: torch.dtype
) -> None:
    """As one product makes them; the keys are the values too, and lie behind those of a prefix."""
    joined, weight = random(2, 5, 6 * 64, dtype=dtype), random(64, dtype=dtype, seed=1)
    angles = torch.cat(rotary_angles(torch.arange(5), head_dim=64, theta=10_000.0), dim=1).to(dtype)
    cosines, sines = angles[:, :64], angles[:, 64:]
    joined = joined.to(device).view(2, 5, 6, 64)
    query, key = joined[:, :, :4], joined[:, :, 4:]
    whole = torch.zeros(2, 2, 2, 9, 64, device=device, dtype=dtype)
    places = whole[:, :, :, 4:].unbind()
    there, turn = weight.to(device), (cosines.to(device), sines.to(device))
    launches, found = plan_norm_rotary(Heads(query, key, key), there, there, *turn, EPS, (places[0], places[1]))
    run(launches)
    raw = Heads(query.cpu(), key.cpu(), key.cpu())
    expected = norm_rotary_reference(raw, weight, weight, cosines, sines, EPS)
    for one, wanted in zip(found, expected, strict=True):
        assert_agrees(one.cpu(), wanted, terms=64)
    assert torch.equal(whole[:, :, :, 4:], torch.stack((found.key, found.value)))
    assert not whole[:, :, :, :4].any()


@pytest.mark.parametrize(("rows", "width"), [(1, 32), (5, 70), (3, 2816)])
@pytest.mark.parametrize("rounds", [False, True])
def test_sums_and_their_norms_agree(
    rows: int, width: int, rounds: bool, device: torch.device, dtype: torch.dtype
) -> None:
    x, attended = (random(rows, width, dtype=dtype, seed=seed) for seed in (0, 1))
    after, dense, experts, router = ((1 + 0.3 * random(width, seed=seed)).to(dtype) for seed in range(2, 6))
    norms = Norm(dense, rounds), Norm(experts)
    there = [Norm(one.weight.to(device), one.rounds) for one in norms if one.weight is not None]
    launches, found = plan_attention(
        x.to(device), attended.to(device), after.to(device), there[0], there[1], router.to(device), EPS
    )
    run(launches)
    wanted = add_attention_reference(x, attended, after, *norms, router, EPS)
    for one, expected in zip(found, wanted, strict=True):
        assert_read_alike(one, expected, terms=width)


@pytest.mark.parametrize(("rows", "width", "parts"), [(1, 32, 1), (5, 70, 3), (3, 2816, 8)])
@pytest.mark.parametrize("norm", ["rounded", "as it is", "without a weight"])
def test_sums_of_all_that_was_found_and_the_norm_that_follows_agree(
    rows: int, width: int, parts: int, norm: str, device: torch.device, dtype: torch.dtype
) -> None:
    x, dense = (random(rows, width, dtype=dtype, seed=seed) for seed in (0, 1))
    mixed = random(rows, parts, width, dtype=dtype, seed=2)
    first, second, whole, weight = ((1 + 0.3 * random(width, seed=seed)).to(dtype) for seed in range(3, 7))
    scalar, weights = torch.tensor([0.7]).to(dtype), (first, second, whole)
    given = [one.to(device) for one in weights]
    following = Norm(None if norm == "without a weight" else weight, norm == "rounded")
    there = Norm(None if following.weight is None else weight.to(device), following.rounds)
    operands = x.to(device), dense.to(device), mixed.to(device), (given[0], given[1], given[2])
    launches, found = plan_feed_forward(*operands, scalar.to(device), there, EPS)
    run(launches)
    expected = add_feed_forward_reference(x, dense, mixed, weights, scalar, following, EPS)
    for one, wanted in zip(found, expected, strict=True):
        assert_read_alike(one, wanted, terms=width)


@pytest.mark.parametrize(("rows", "width"), [((1,), 32), ((2, 5), 70), ((3,), 2112)])
@pytest.mark.parametrize("rounds", [False, True])
def test_parts_of_one_product_are_gated(
    rows: tuple[int, ...], width: int, rounds: bool, device: torch.device, dtype: torch.dtype
) -> None:
    joined = (3 * random(*rows, 2 * width)).to(dtype)
    gate, up = joined[..., :width], joined[..., width:]
    there = joined.to(device)
    launches, found = plan_gated_gelu(there[..., :width], there[..., width:], rounds=rounds)
    run(launches)
    assert_read_alike(found, gated_gelu_reference(gate, up, rounds=rounds), terms=1)


def test_what_is_gated_may_be_large(device: torch.device, dtype: torch.dtype) -> None:
    gate = torch.tensor([[-1e4, -50.0, 0.0, 50.0, 1e4]]).to(device, dtype)
    launches, found = plan_gated_gelu(gate, torch.ones_like(gate))
    run(launches)
    assert isinstance(found, torch.Tensor)
    assert torch.equal(found, gate.clamp_min(0))


def assert_read_alike(found: Operand, expected: Operand, *, terms: int) -> None:
    """As what they are; of rounded rows a number near the middle of two may go either way."""
    if isinstance(expected, torch.Tensor):
        assert isinstance(found, torch.Tensor)
        assert_agrees(found.cpu(), expected, terms=terms)
        return
    assert isinstance(found, RoundedRows)
    assert found.dtype == expected.dtype
    # The numbers themselves are not rounded to `dtype` before.
    assert_agrees(found.scale.cpu(), expected.scale, terms=terms)
    numbers, wanted = (one.values.cpu().double() for one in (found, expected))
    assert numbers.shape == wanted.shape
    # Codes are at most an eighth apart, or, below 2^-6, 2^-9.
    assert bool(((numbers - wanted).abs() <= wanted.abs() / 8 + 2.0**-9).all())
    assert float((numbers != wanted).double().mean()) < 0.01


@pytest.mark.parametrize(("rows", "experts", "count"), [(1, 2, 1), (7, 12, 3), (9, 128, 8), (4, 5, 5)])
def test_the_likeliest_experts_share_what_is_theirs(
    rows: int, experts: int, count: int, device: torch.device, dtype: torch.dtype
) -> None:
    # No two alike, in bf16 neither: which of two equals comes first is nobody's claim.
    logits = (torch.stack([torch.randperm(experts) for _ in range(rows)]) / 8 - 3).to(dtype)
    scale = (1 + 0.2 * random(experts, seed=1)).to(dtype)
    launches, index, weight = plan_choose_experts(logits.to(device), scale.to(device), count)
    run(launches)
    numbers, expected = choose_experts_reference(logits, scale, count)
    assert torch.equal(index.cpu(), numbers)
    assert_agrees(weight.cpu(), expected)


def test_of_equal_experts_the_first_is_chosen_once(device: torch.device, dtype: torch.dtype) -> None:
    launches, index, weight = plan_choose_experts(
        torch.zeros(3, 6, dtype=dtype, device=device), torch.ones(6, dtype=dtype, device=device), 4
    )
    run(launches)
    assert index.tolist() == [[0, 1, 2, 3]] * 3
    assert weight.tolist() == [[0.25] * 4] * 3


@pytest.mark.parametrize(("slots", "vocabulary"), [(1, 1), (64, 150), (300, 262_144)])
def test_random_numbers_are_everywhere_the_same_bits(slots: int, vocabulary: int, device: torch.device) -> None:
    seed, step = torch.tensor([0, 3, -(2**63), 2**63 - 1]), torch.tensor([-1, 0, 47, 3])
    launches, uniform, noise = plan_random_numbers(seed.to(device), step.to(device), slots, vocabulary)
    run(launches)
    expected = random_numbers_reference(seed, step, slots, vocabulary)
    assert torch.equal(uniform.cpu(), expected[0])
    assert torch.equal(noise.cpu(), expected[1])
