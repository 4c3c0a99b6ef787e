"""The kernel of `packed_linear` against every number on its own."""

from __future__ import annotations

import pytest
import torch

from dg_kernels.configurations import Tile
from dg_kernels.launching import run
from dg_kernels.packed_linear.plan import plan
from dg_kernels.packed_linear.reference import packed_linear_reference
from dg_kernels.quantised import quantise_int4
from dg_kernels.quantised.packed import PackedWeight
from dg_kernels.testing import assert_agrees, packed, random

TILE = Tile(rows=16, columns=32, depth=32, warps=4, stages=2)


def on_cpu(weight: PackedWeight) -> PackedWeight:
    scale = None if weight.scale is None else weight.scale.cpu()
    return PackedWeight(weight.kind, weight.values.cpu(), scale, weight.factor.cpu())


@pytest.mark.parametrize("kind", ["e2m1", "e4m3", "int4"])
@pytest.mark.parametrize(("rows", "width"), [((1,), 32), ((2, 17), 32), ((16,), 7), ((33,), 70)])
def test_agrees_with_every_number_on_its_own(
    kind: str, rows: tuple[int, ...], width: int, device: torch.device, dtype: torch.dtype
) -> None:
    x, weight = random(*rows, 64, dtype=dtype).to(device), packed(kind, 0.3 * random(width, 64, seed=1).to(device))
    launches, found = plan(x, weight, tile=TILE)
    run(launches)
    assert found.shape == (*rows, width)
    assert_agrees(found.cpu(), packed_linear_reference(x.cpu(), on_cpu(weight)), terms=64)


@pytest.mark.parametrize("kind", ["e2m1", "e4m3"])
def test_a_length_that_no_tile_divides_is_masked(kind: str, device: torch.device, dtype: torch.dtype) -> None:
    x, weight = random(5, 48, dtype=dtype).to(device), packed(kind, 0.3 * random(20, 48, seed=1).to(device))
    launches, found = plan(x, weight, tile=TILE)
    run(launches)
    assert_agrees(found.cpu(), packed_linear_reference(x.cpu(), on_cpu(weight)), terms=48)


def test_a_group_may_be_wider_than_the_tile(device: torch.device, dtype: torch.dtype) -> None:
    x, matrix = random(3, 64, dtype=dtype).to(device), random(9, 64, seed=1).to(device)
    scale = matrix.abs().amax(-1, keepdim=True) / 7
    weight = PackedWeight("int4", quantise_int4(matrix, scale), scale, torch.ones(9, device=device))
    assert weight.group == 64
    launches, found = plan(x, weight, tile=TILE)
    run(launches)
    assert_agrees(found.cpu(), packed_linear_reference(x.cpu(), on_cpu(weight)), terms=64)


def test_rows_may_be_views(device: torch.device, dtype: torch.dtype) -> None:
    x, weight = random(32, 6, dtype=dtype).to(device).mT, packed("e4m3", random(16, 32, seed=1).to(device))
    launches, found = plan(x, weight, tile=TILE)
    run(launches)
    assert_agrees(found.cpu(), packed_linear_reference(x.cpu(), on_cpu(weight)), terms=32)
