"""`packed_linear` without a kernel, against every number on its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dg_kernels import PackedWeight, packed_linear, quantise_int4
from dg_kernels.packed_linear.reference import packed_linear_reference
from dg_kernels.quantised.rows import quantise_rows
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


def test_rows_are_rounded_to_their_own_scale() -> None:
    x = torch.stack((random(64), 1000 * random(64, seed=1), torch.zeros(64)))
    values, scale, _ = quantise_rows(x)
    assert values.dtype is torch.float8_e4m3fn
    found = values.float() * scale[:, None]
    # Three bits of mantissa: half a unit in the last place is a sixteenth.
    near = found.abs() > scale[:, None] * 2.0**-6
    assert bool(((found - x).abs() <= x.abs() / 16)[near].all())
    assert bool(((found - x).abs() <= scale[:, None] * 2.0**-10)[~near].all())
    assert found[:2].abs().amax(1).tolist() == pytest.approx(x[:2].abs().amax(1).tolist())


def test_a_device_that_does_not_multiply_e4m3_leaves_rows_as_they_are() -> None:
    x, weight = random(3, 64), replace(packed("e4m3", random(7, 64, seed=1)), quantises_rows=True)
    assert_agrees(packed_linear(x, weight), packed_linear_reference(x, weight), terms=64)


@pytest.mark.parametrize("kind", ["e2m1", "int4"])
def test_only_e4m3_is_multiplied_in_its_own_type(kind: str) -> None:
    with pytest.raises(ValueError, match="quantises_rows: only e4m3"):
        replace(packed(kind, random(7, 64)), quantises_rows=True)


def test_a_weight_of_another_width_and_stacked_ones_are_refused() -> None:
    with pytest.raises(ValueError, match=r"weight must be \[N, 32\], not \[7, 64\]"):
        packed_linear(random(2, 32), packed("e4m3", random(7, 64)))
    with pytest.raises(ValueError, match=r"weight must be \[N, 64\], not \[3, 7, 64\]"):
        packed_linear(random(2, 64), packed("e4m3", random(3, 7, 64)))


def test_rows_that_are_rounded_are_for_weights_that_round_them() -> None:
    with pytest.raises(ValueError, match="rounded rows are for weights that quantises_rows"):
        packed_linear(quantise_rows(random(2, 64)), packed("e4m3", random(7, 64)))
