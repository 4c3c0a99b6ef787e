"""`vocabulary_head` against logits written out in fp64."""

from __future__ import annotations

import pytest
import torch

from dg_kernels import AllowedTokens, LogitBias, SamplingStatistics, vocabulary_head
from dg_kernels.testing import random
from dg_kernels.vocabulary_head.reference import vocabulary_head_reference


@pytest.mark.parametrize(("rows", "vocabulary", "width"), [(1, 1, 3), (7, 61, 16), (5, 4096, 33)])
def test_agrees_with_the_reference(rows: int, vocabulary: int, width: int) -> None:
    hidden, weight = random(rows, width), 0.5 * random(vocabulary, width, seed=1)
    temperature = torch.linspace(0.4, 0.9, rows)
    uniform = torch.rand(rows, generator=torch.Generator().manual_seed(2))
    drawn = {"cap": 7.0, "temperature": temperature, "uniform": uniform}
    found = vocabulary_head(hidden, weight, **drawn)  # type: ignore[arg-type]
    assert_equal(found, vocabulary_head_reference(hidden, weight, **drawn))  # type: ignore[arg-type]
    bias = LogitBias(torch.arange(rows) % vocabulary, torch.linspace(-5, 5, rows))
    masks = torch.rand(2, vocabulary, generator=torch.Generator().manual_seed(3)) < 0.5
    masks[:, 0] = True
    allowed = AllowedTokens(masks, torch.arange(rows) % 3 - 1)
    ruled = vocabulary_head(hidden, weight, **drawn, bias=bias, allowed=allowed)  # type: ignore[arg-type]
    assert_equal(ruled, vocabulary_head_reference(hidden, weight, **drawn, bias=bias, allowed=allowed))  # type: ignore[arg-type]
    if vocabulary > 1:
        assert not torch.equal(ruled.probabilities, found.probabilities)


def assert_equal(found: SamplingStatistics, expected: SamplingStatistics) -> None:
    assert torch.equal(found.argmax, expected.argmax)
    assert torch.equal(found.sample, expected.sample)
    torch.testing.assert_close(found.confidence, expected.confidence)
    torch.testing.assert_close(found.entropy, expected.entropy, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.probabilities, expected.probabilities, rtol=1e-4, atol=1e-7)


def test_shapes_that_do_not_belong_together_are_refused() -> None:
    hidden, ones = random(2, 8), torch.ones(2)
    with pytest.raises(ValueError, match=r"weight must be \[V, 8\], not \[5, 9\]"):
        vocabulary_head(hidden, random(5, 9), cap=1.0, temperature=ones, uniform=ones)
    with pytest.raises(ValueError, match=r"temperature must be \[2\], not \[1\]"):
        vocabulary_head(hidden, random(5, 8), cap=1.0, temperature=ones[:1], uniform=ones)
    bias = LogitBias(ones.long(), ones[:1])
    with pytest.raises(ValueError, match=r"bias\.nats must be \[2\], not \[1\]"):
        vocabulary_head(hidden, random(5, 8), cap=1.0, temperature=ones, uniform=ones, bias=bias)
    allowed = AllowedTokens(torch.ones(1, 4, dtype=torch.bool), ones.long())
    with pytest.raises(ValueError, match=r"allowed\.masks must be \[M, 5\], not \[1, 4\]"):
        vocabulary_head(hidden, random(5, 8), cap=1.0, temperature=ones, uniform=ones, allowed=allowed)
    with pytest.raises(ValueError, match="cap must be positive"):
        vocabulary_head(hidden, random(5, 8), cap=0.0, temperature=ones, uniform=ones)
