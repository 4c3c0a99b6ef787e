"""`packed_linear` without a kernel, against every number on its own."""

from __future__ import annotations

import pytest
import torch

from dg_kernels import PackedWeight, packed_linear, quantise_int4
from dg_kernels.packed_linear.reference import packed_linear_reference
from dg_kernels.testing import assert_agrees, packed, random


@pytest.mark.parametrize("kind", ["e2m1", "e4m3", "int4"])
@pytest.mark.parametrize("rows", [(1,), (2, 3)])
def test_agrees_with_every_number_on_its_own(kind: str, rows: tuple[int, ...]) -> None:
    x, weight = random(*rows, 64), packed(kind, random(7, 64, seed=1))
    assert_agrees(packed_linear(x, weight), packed_linear_reference(x, weight), terms=64)


def test_groups_that_no_kernel_knows_are_multiplied_all_the_same() -> None:
    matrix = random(5, 48, seed=1)
    scale = matrix.reshape(5, 2, 24).abs().amax(-1) / 7
    weight = PackedWeight("int4", quantise_int4(matrix, scale), scale, torch.ones(5))
    assert not weight.has_kernel
    x = random(3, 48)
    assert_agrees(packed_linear(x, weight), packed_linear_reference(x, weight), terms=48)


def test_a_weight_of_another_width_and_stacked_ones_are_refused() -> None:
    with pytest.raises(ValueError, match=r"weight must be \[N, 32\], not \[7, 64\]"):
        packed_linear(random(2, 32), packed("e4m3", random(7, 64)))
    with pytest.raises(ValueError, match=r"weight must be \[N, 64\], not \[3, 7, 64\]"):
        packed_linear(random(2, 64), packed("e4m3", random(3, 7, 64)))
