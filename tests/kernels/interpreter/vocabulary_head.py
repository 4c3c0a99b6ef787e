"""The kernels of `vocabulary_head` against fp64, and their samples against the distribution."""

from __future__ import annotations

import pytest
import torch

from dg_kernels.configurations import Tile
from dg_kernels.launching import run
from dg_kernels.sampling import SamplingStatistics
from dg_kernels.testing import random
from dg_kernels.vocabulary_head import AllowedTokens, LogitBias
from dg_kernels.vocabulary_head.plan import plan
from dg_kernels.vocabulary_head.reference import vocabulary_head_reference

TILE = Tile(rows=16, columns=32, depth=16, warps=4, stages=2)
CAP = 5.0


def both(
    rows: int,
    vocabulary: int,
    width: int,
    device: torch.device,
    dtype: torch.dtype,
    bias: LogitBias | None = None,
    allowed: AllowedTokens | None = None,
) -> tuple[SamplingStatistics, SamplingStatistics]:
    hidden = random(rows, width, dtype=dtype).to(device)
    weight = (0.3 * random(vocabulary, width, seed=1)).to(device, dtype)
    temperature = torch.linspace(0.3, 1.1, rows, device=device)
    uniform = torch.rand(rows, generator=torch.Generator().manual_seed(2)).to(device)
    launches, found = plan(hidden, weight, CAP, temperature, uniform, bias, allowed, tile=TILE)
    run(launches)
    truth = vocabulary_head_reference(
        hidden, weight, cap=CAP, temperature=temperature, uniform=uniform, bias=bias, allowed=allowed
    )
    return found, truth


def assert_equal(found: SamplingStatistics, expected: SamplingStatistics, width: int) -> None:
    assert torch.equal(found.argmax, expected.argmax)
    # A logit may be off by eps * cap / temperature, and the statistics by as much or its square root's sum.
    error = {"rtol": 1e-4, "atol": 4 * torch.finfo(torch.float32).eps * width**0.5 * CAP / 0.3}
    torch.testing.assert_close(found.entropy, expected.entropy, **error)
    torch.testing.assert_close(found.confidence, expected.confidence, **error)
    # However small: two roundings, and e to the error of a logit.
    eps = torch.finfo(found.probabilities.dtype).eps
    relative = 2 * eps + 8 * torch.finfo(torch.float32).eps * width**0.5 * CAP / 0.3
    torch.testing.assert_close(found.probabilities.float(), expected.probabilities, rtol=relative, atol=1e-37)


@pytest.mark.parametrize(
    ("rows", "vocabulary", "width"), [(1, 1, 16), (3, 61, 48), (17, 32, 40), (33, 100, 17), (16, 577, 64)]
)
def test_statistics_are_those_of_the_written_out_logits(
    rows: int, vocabulary: int, width: int, device: torch.device, dtype: torch.dtype
) -> None:
    assert_equal(*both(rows, vocabulary, width, device, dtype), width)


def test_rows_are_biased_and_keep_to_their_masks(device: torch.device, dtype: torch.dtype) -> None:
    """Three tiles: one is banned whole for some rows, the last is not full; a mask may leave a single token."""
    rows, vocabulary = 18, 70
    masks = torch.ones(3, vocabulary, dtype=torch.bool, device=device)
    masks[0, 10:64] = False
    masks[1] = torch.arange(vocabulary, device=device) == 66
    masks[2, ::2] = False
    number = torch.arange(rows, device=device) % 4 - 1
    nats = torch.linspace(-9, 9, rows, device=device)
    bias = LogitBias(torch.arange(rows, device=device) * 4, nats)
    found, expected = both(rows, vocabulary, 32, device, dtype, bias, AllowedTokens(masks, number))
    assert_equal(found, expected, 32)
    unruled, _ = both(rows, vocabulary, 32, device, dtype)
    assert not torch.equal(found.argmax, unruled.argmax)
    for row, mask in enumerate(number.tolist()):
        if mask >= 0:
            assert masks[mask, found.sample[row]]
            assert float(found.probabilities[row, ~masks[mask]].sum()) == 0.0


def test_one_temperature_may_be_expanded_to_all_rows(device: torch.device, dtype: torch.dtype) -> None:
    hidden, weight = random(5, 16, dtype=dtype).to(device), random(40, 16, seed=1, dtype=dtype).to(device)
    uniform, one = torch.full((5,), 0.5, device=device), torch.full((1,), 0.7, device=device)
    whole, expanded = (plan(hidden, weight, CAP, t, uniform, tile=TILE) for t in (one.repeat(5), one.expand(5)))
    run([*whole[0], *expanded[0]])
    for ours, theirs in zip(expanded[1], whole[1], strict=True):
        assert torch.equal(ours, theirs)


def test_certain_rows_have_entropy_zero_and_sample_their_argmax(device: torch.device, dtype: torch.dtype) -> None:
    hidden = torch.ones(4, 16, device=device, dtype=dtype)
    weight = torch.full((70, 16), -100.0, device=device, dtype=dtype)
    weight[41] = 100.0
    uniform = torch.tensor([0.0, 0.3, 0.9, 1 - 2**-24], device=device)
    launches, found = plan(hidden, weight, 30.0, torch.full_like(uniform, 0.4), uniform, tile=TILE)
    run(launches)
    assert found.argmax.tolist() == found.sample.tolist() == [41] * 4
    assert found.entropy.tolist() == [0.0] * 4
    assert found.confidence.tolist() == [1.0] * 4


def test_samples_follow_the_distribution(device: torch.device, dtype: torch.dtype) -> None:
    """Chi-squared of 8,192 draws over 75 tokens in three tiles, the last of them not full: 1 per degree of freedom."""
    draws, vocabulary = 8192, 75
    hidden = random(1, 16, dtype=dtype).to(device).expand(draws, -1).contiguous()
    weight = (0.4 * random(vocabulary, 16, seed=1)).to(device, dtype)
    uniform = torch.rand(draws, generator=torch.Generator().manual_seed(3)).to(device)
    tile = Tile(rows=1024, columns=32, depth=16, warps=4, stages=2)
    ones = torch.ones_like(uniform)
    launches, found = plan(hidden, weight, CAP, ones, uniform, tile=tile if device.type == "cpu" else TILE)
    run(launches)
    truth = vocabulary_head_reference(hidden[:1], weight, cap=CAP, temperature=ones[:1], uniform=uniform[:1])
    expected = draws * truth.probabilities[0].double()
    counted = torch.bincount(found.sample, minlength=vocabulary)
    seen = expected > 5
    statistic = ((counted - expected) ** 2 / expected)[seen].sum()
    degrees = int(seen.sum()) - 1
    # Mean and variance of chi-squared are its degrees of freedom and twice that: four standard deviations.
    assert degrees > 30
    assert abs(float(statistic) - degrees) < 4 * (2 * degrees) ** 0.5


def test_a_sample_depends_on_its_own_row_alone(device: torch.device, dtype: torch.dtype) -> None:
    hidden = random(18, 16, dtype=dtype).to(device)
    weight = (0.3 * random(90, 16, seed=1)).to(device, dtype)
    uniform = torch.rand(18, generator=torch.Generator().manual_seed(2)).to(device)
    ones = torch.ones_like(uniform)
    alone = slice(17, 18)
    samples = []
    for rows in (slice(None), alone):
        launches, found = plan(hidden[rows], weight, CAP, ones[rows], uniform[rows], tile=TILE)
        run(launches)
        samples.append(found.sample[-1].item())
    assert samples[0] == samples[1]
