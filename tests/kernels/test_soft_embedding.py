"""`soft_embedding` without a kernel: exact where nothing may be left out, within its bound where something may."""

from __future__ import annotations

import pytest
import torch

from dg_kernels import soft_embedding
from dg_kernels.soft_embedding import MOST_KEPT
from dg_kernels.soft_embedding.reference import soft_embedding_reference
from dg_kernels.testing import assert_agrees, distributions, random

DROPPED = 2.0**-9


def test_agrees_with_every_row_on_its_own() -> None:
    probabilities, weight = distributions(9, 700), random(700, 33, seed=1)
    assert_agrees(soft_embedding(probabilities, weight), soft_embedding_reference(probabilities, weight), terms=700)
    found = soft_embedding(probabilities, weight, dropped=DROPPED)
    assert_agrees(found, soft_embedding_reference(probabilities, weight, dropped=DROPPED), terms=700)


def test_what_is_left_out_is_within_the_bound_and_something_is() -> None:
    probabilities, weight = distributions(64, 2000), random(2000, 16, seed=1)
    exact = soft_embedding_reference(probabilities.double(), weight.double())
    error = (soft_embedding(probabilities.double(), weight.double(), dropped=DROPPED) - exact).norm(dim=1)
    assert float(error.max()) <= DROPPED * float(weight.norm(dim=1).max())
    assert int((error > 1e-9).sum()) > 8, "rows that are sure are summed over few tokens"
    assert int((error < 1e-15).sum()) > 8, "the others over all"


def test_the_bound_is_reached_where_all_that_is_dropped_points_one_way() -> None:
    weight = torch.cat((torch.zeros(1, 4), torch.ones(999, 4))).double()
    rest = 0.999 * DROPPED / 999
    probabilities = torch.tensor([[1 - 999 * rest] + [rest] * 999], dtype=torch.float64)
    found = soft_embedding(probabilities, weight, dropped=DROPPED)
    error = float((found - soft_embedding(probabilities, weight)).norm())
    assert 0.99 * DROPPED * 2 < error <= DROPPED * 2


@pytest.mark.parametrize("many", [MOST_KEPT, MOST_KEPT + 1])
def test_a_row_of_more_tokens_than_are_kept_is_exact(many: int) -> None:
    weight = random(1000, 8, seed=2).double()
    probabilities = torch.zeros(1, 1000, dtype=torch.float64)
    probabilities[0, :many] = (1 - DROPPED / 2) / many
    probabilities[0, many:] = DROPPED / 2 / (1000 - many)
    error = soft_embedding(probabilities, weight, dropped=DROPPED) - soft_embedding(probabilities, weight)
    assert bool(error.any()) == (many == MOST_KEPT)


def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(ValueError, match=r"weight must be \[7, H\], not \[8, 3\]"):
        soft_embedding(torch.rand(2, 7), random(8, 3))
    for dropped in (-0.1, 1.0):
        with pytest.raises(ValueError, match=r"dropped must be in \[0, 1\)"):
            soft_embedding(torch.rand(2, 7), random(7, 3), dropped=dropped)
