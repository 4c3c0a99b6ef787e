"""The kernels of `soft_embedding` against every row on its own."""

from __future__ import annotations

import pytest
import torch

from dg_kernels.configurations import Tile
from dg_kernels.launching import run
from dg_kernels.soft_embedding.plan import plan
from dg_kernels.soft_embedding.reference import soft_embedding_reference
from dg_kernels.testing import assert_agrees, distributions, random

TILE = Tile(rows=16, columns=32, depth=32, warps=4, stages=2)
DROPPED = 2.0**-9


def sum_of(probabilities: torch.Tensor, weight: torch.Tensor, dropped: float = DROPPED) -> torch.Tensor:
    launches, found = plan(probabilities, weight, dropped, tile=TILE)
    run(launches)
    return found.cpu()


@pytest.mark.parametrize(("rows", "vocabulary", "width"), [(1, 40, 16), (5, 300, 33), (37, 9000, 70)])
def test_agrees_with_every_row_on_its_own(
    rows: int, vocabulary: int, width: int, device: torch.device, dtype: torch.dtype
) -> None:
    probabilities = distributions(rows, vocabulary).to(dtype)
    weight = random(vocabulary, width, dtype=dtype, seed=1)
    expected = soft_embedding_reference(probabilities, weight, dropped=DROPPED)
    assert_agrees(sum_of(probabilities.to(device), weight.to(device)), expected, terms=vocabulary)


@pytest.mark.parametrize("sharpness", [0.0, 50.0], ids=["no row is sure", "every row is"])
def test_rows_may_all_be_of_one_kind(sharpness: float, device: torch.device, dtype: torch.dtype) -> None:
    probabilities = (sharpness * random(20, 500)).softmax(dim=1).to(dtype)
    weight = random(500, 48, dtype=dtype, seed=1)
    expected = soft_embedding_reference(probabilities, weight, dropped=DROPPED)
    assert_agrees(sum_of(probabilities.to(device), weight.to(device)), expected, terms=500)


def test_the_same_rows_give_the_same_bits(device: torch.device, dtype: torch.dtype) -> None:
    probabilities, weight = distributions(17, 1000).to(dtype).to(device), random(1000, 40, dtype=dtype).to(device)
    assert torch.equal(sum_of(probabilities, weight), sum_of(probabilities, weight))


def test_no_rows_are_nothing_to_do(device: torch.device, dtype: torch.dtype) -> None:
    weight = random(40, 16, dtype=dtype).to(device)
    assert sum_of(weight.new_empty(0, 40), weight).shape == (0, 16)
