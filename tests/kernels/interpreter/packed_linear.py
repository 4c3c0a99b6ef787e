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
from dg_kernels.quantised.plan import rounding
from dg_kernels.quantised.rows import multiplies_e4m3, quantise_rows
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


@pytest.mark.parametrize(("rows", "width", "length"), [((1,), 32, 64), ((2, 17), 70, 64), ((33,), 20, 80)])
def test_rows_may_be_rounded_to_the_type_of_the_weight(
    rows: tuple[int, ...], width: int, length: int, device: torch.device, dtype: torch.dtype
) -> None:
    needs_native(device)
    x, weight = random(*rows, length, dtype=dtype).to(device), packed("e4m3", random(width, length, seed=1).to(device))
    launches, found = plan(x, weight, native=True, tile=TILE)
    run(launches)
    expected = packed_linear_reference(x.cpu(), on_cpu(weight), native=True)
    assert_agrees(found.cpu(), expected, terms=length)
    assert not torch.equal(expected, packed_linear_reference(x.cpu(), on_cpu(weight)))


def test_rows_that_are_rounded_already_are_taken_as_they_are(device: torch.device, dtype: torch.dtype) -> None:
    needs_native(device)
    x, weight = random(5, 64, dtype=dtype).to(device), packed("e4m3", random(7, 64, seed=1).to(device))
    launch, rounded = rounding(x)
    launches, found = plan(rounded, weight, native=True, tile=TILE)
    assert len(launches) == 1
    run([launch, *launches])
    assert_agrees(found.cpu(), packed_linear_reference(x.cpu(), on_cpu(weight), native=True), terms=64)


def needs_native(device: torch.device) -> None:
    if device.type == "cuda" and not multiplies_e4m3(torch.empty(0, device=device)):
        pytest.skip("this device does not multiply e4m3 numbers")


def test_rounded_rows_are_those_of_pytorch_bit_for_bit(device: torch.device, dtype: torch.dtype) -> None:
    sizes = torch.tensor([1.0, 1e-3, 1e4, 0.0])[:, None]
    # Of each row, numbers of all sizes down to where e4m3 has no more.
    x = (random(4, 700) * torch.logspace(-6, 0, 700) * sizes).to(dtype)
    launch, found = rounding(x.to(device))
    run([launch])
    expected = quantise_rows(x)
    assert torch.equal(found.scale.cpu(), expected.scale)
    assert torch.equal(found.values.cpu().view(torch.uint8), expected.values.view(torch.uint8))


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
