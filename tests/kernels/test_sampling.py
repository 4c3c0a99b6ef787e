"""`sampling_statistics` against each statistic's definition, and its samples against the distribution."""

from __future__ import annotations

import pytest
import torch

from dg_kernels import sampling_statistics, soft_cap
from dg_kernels.sampling.reference import sampling_statistics_reference
from dg_kernels.testing import assert_agrees, random


@pytest.mark.parametrize(("rows", "vocabulary"), [(1, 1), (3, 61), (7, 64), (5, 300), (2, 4096)])
@pytest.mark.parametrize("temperature", [0.1, 0.7, 3.0])
def test_agrees_with_the_reference(rows: int, vocabulary: int, temperature: float) -> None:
    logits, uniform = 4 * random(rows, vocabulary), torch.rand(rows, generator=torch.Generator().manual_seed(1))
    found = sampling_statistics(logits, temperature, uniform)
    expected = sampling_statistics_reference(logits, temperature, uniform)
    assert torch.equal(found.argmax, expected.argmax)
    assert torch.equal(found.sample, expected.sample)
    torch.testing.assert_close(found.entropy, expected.entropy, rtol=1e-4, atol=1e-5)
    assert_agrees(found.probabilities, expected.probabilities, terms=vocabulary)
    torch.testing.assert_close(found.confidence, expected.confidence, rtol=1e-4, atol=1e-6)


def test_samples_follow_the_distribution() -> None:
    """Chi-squared over 200 tokens, 40,000 evenly spaced draws: an inverse transform must hit nearly exactly."""
    logits = 2 * random(1, 200)
    draws = 40_000
    uniform = (torch.arange(draws) + 0.5) / draws
    found = sampling_statistics(logits.expand(draws, -1), 0.9, uniform)
    counts = torch.bincount(found.sample, minlength=200)
    assert (counts - draws * found.probabilities[0]).abs().max() <= 1.5


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_the_ends_of_the_unit_interval_give_tokens_with_mass(uniform: float) -> None:
    logits = torch.full((1, 130), -1e4)
    logits[0, 70] = 0.0
    found = sampling_statistics(logits, 1.0, torch.tensor([uniform]))
    assert found.sample.tolist() == found.argmax.tolist() == [70]
    assert found.entropy.item() == 0.0
    assert found.confidence.item() == 1.0


def test_certain_rows_have_entropy_zero_and_flat_rows_the_logarithm() -> None:
    logits = torch.zeros(2, 50)
    logits[0, 3] = 30.0
    entropy = sampling_statistics(logits, 0.4, torch.tensor([0.5, 0.5])).entropy
    assert 0 <= entropy[0] < 1e-6
    assert entropy[1].item() == pytest.approx(torch.log(torch.tensor(50.0)).item(), rel=1e-6)


def test_soft_cap_bounds_and_keeps_the_order() -> None:
    x = torch.linspace(-500, 500, 101)
    capped = soft_cap(x, 30.0)
    assert capped.abs().max() <= 30
    assert bool((capped.diff() >= 0).all())
    torch.testing.assert_close(soft_cap(torch.tensor([0.01]), 30.0), torch.tensor([0.01]), rtol=1e-5, atol=0)
    assert soft_cap(torch.ones(1, dtype=torch.bfloat16), 30.0).dtype == torch.float32


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="temperature must be positive"):
        sampling_statistics(torch.zeros(1, 4), 0.0, torch.zeros(1))
    with pytest.raises(ValueError, match=r"uniform must be \[1\], not \[2\]"):
        sampling_statistics(torch.zeros(1, 4), 1.0, torch.zeros(2))
