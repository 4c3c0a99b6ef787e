"""`vocabulary_head` against logits written out in fp64."""

from __future__ import annotations

import pytest
import torch

from dg_kernels import vocabulary_head
from dg_kernels.testing import assert_agrees, random
from dg_kernels.vocabulary_head.reference import vocabulary_head_reference


@pytest.mark.parametrize(("rows", "vocabulary", "width"), [(1, 1, 3), (7, 61, 16), (5, 4096, 33)])
def test_agrees_with_the_reference(rows: int, vocabulary: int, width: int) -> None:
    hidden, weight = random(rows, width), 0.5 * random(vocabulary, width, seed=1)
    temperature = torch.linspace(0.4, 0.9, rows)
    uniform = torch.rand(rows, generator=torch.Generator().manual_seed(2))
    found = vocabulary_head(hidden, weight, cap=7.0, temperature=temperature, uniform=uniform, keep_logits=True)
    expected = vocabulary_head_reference(hidden, weight, cap=7.0, temperature=temperature, uniform=uniform)
    assert torch.equal(found.argmax, expected.argmax)
    assert torch.equal(found.sample, expected.sample)
    assert found.logits is not None
    assert expected.logits is not None
    assert_agrees(found.logits, expected.logits, terms=width)
    torch.testing.assert_close(found.confidence, expected.confidence)
    torch.testing.assert_close(found.entropy, expected.entropy, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.log_normaliser, expected.log_normaliser)
    assert vocabulary_head(hidden, weight, cap=7.0, temperature=temperature, uniform=uniform).logits is None


def test_kept_logits_and_the_normaliser_give_the_probabilities() -> None:
    hidden, weight, ones = random(3, 16), random(50, 16, seed=1), torch.ones(3)
    found = vocabulary_head(hidden, weight, cap=9.0, temperature=ones, uniform=0.5 * ones, keep_logits=True)
    assert found.logits is not None
    probabilities = torch.exp(found.logits - found.log_normaliser[:, None])
    torch.testing.assert_close(probabilities.sum(dim=-1), ones)
    torch.testing.assert_close(probabilities.amax(dim=-1), found.confidence)


def test_shapes_that_do_not_belong_together_are_refused() -> None:
    hidden, ones = random(2, 8), torch.ones(2)
    with pytest.raises(ValueError, match=r"weight must be \[V, 8\], not \[5, 9\]"):
        vocabulary_head(hidden, random(5, 9), cap=1.0, temperature=ones, uniform=ones)
    with pytest.raises(ValueError, match=r"must be \[2\], not \[1\] and \[2\]"):
        vocabulary_head(hidden, random(5, 8), cap=1.0, temperature=ones[:1], uniform=ones)
    with pytest.raises(ValueError, match="cap must be positive"):
        vocabulary_head(hidden, random(5, 8), cap=0.0, temperature=ones, uniform=ones)
