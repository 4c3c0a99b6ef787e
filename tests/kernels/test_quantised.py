"""Numbers of four and eight bits: every code against its bits, every rounding against the nearest code."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dg_kernels import (
    dequantise_e2m1,
    dequantise_e4m3,
    dequantise_int4,
    quantise_e2m1,
    quantise_e4m3,
    quantise_int4,
)
from dg_kernels.quantised.reference import (
    dequantise_reference,
    e2m1_value,
    e4m3_value,
    int4_value,
    nibble_reference,
)
from dg_kernels.testing import random

ONE = torch.ones(1, 1)


def every_nibble() -> Tensor:
    return torch.arange(256, dtype=torch.uint8)[None]


def test_every_code_means_what_its_bits_say() -> None:
    pairs = every_nibble()
    columns = [nibble_reference(pairs[0], column) for column in range(512)]
    assert dequantise_e2m1(pairs, ONE)[0].tolist() == [e2m1_value(code) for code in columns]
    assert dequantise_int4(pairs.view(torch.int32), ONE)[0].tolist() == [int4_value(code) for code in columns]
    bytes_ = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)[None]
    expected = torch.tensor([[e4m3_value(code) for code in range(256)]])
    torch.testing.assert_close(dequantise_e4m3(bytes_, ONE), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("rows", "groups"), [(1, 1), (3, 1), (3, 5), (7, 2)])
def test_a_scale_belongs_to_its_group_of_columns(rows: int, groups: int) -> None:
    scale = random(rows, groups).abs() + 0.1
    packed = torch.randint(0, 256, (rows, groups * 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    numbers = torch.tensor([[e2m1_value(nibble_reference(row, i)) for i in range(groups * 16)] for row in packed])
    expected = dequantise_reference(numbers, scale)
    torch.testing.assert_close(dequantise_e2m1(packed, scale), expected, rtol=0, atol=0)
    stacked = dequantise_e2m1(torch.stack((packed, packed)), torch.stack((scale, 2 * scale)))
    torch.testing.assert_close(stacked, torch.stack((expected, 2 * expected)), rtol=0, atol=0)


@pytest.mark.parametrize(
    "value", [0.0, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 0.2500001, 0.7499999, 5.0000005, 6.0, 9.0]
)
def test_e2m1_rounds_to_nearest_and_ties_to_even(value: float) -> None:
    codes = sorted(range(8), key=lambda code: (abs(e2m1_value(code) - min(value, 6.0)), code % 2))
    both = torch.tensor([[value, -value]])
    assert dequantise_e2m1(quantise_e2m1(both, ONE), ONE)[0].tolist() == [e2m1_value(codes[0]), -e2m1_value(codes[0])]


def test_what_is_representable_comes_back() -> None:
    scale = torch.tensor([[0.5, 4.0]])
    for quantise, dequantise, codes in (
        (quantise_e2m1, dequantise_e2m1, every_nibble()),
        (quantise_int4, dequantise_int4, every_nibble().view(torch.int32)),
    ):
        assert torch.equal(quantise(dequantise(codes, scale), scale), codes)


def test_int4_and_e4m3_round_to_nearest_and_stay_in_range() -> None:
    matrix = 6 * random(5, 64)
    for found, step in (
        (dequantise_int4(quantise_int4(matrix, ONE), ONE), torch.full_like(matrix, 0.5)),
        (dequantise_e4m3(quantise_e4m3(matrix, ONE), ONE), torch.maximum(matrix.abs() * 2**-4, torch.tensor(2**-10))),
    ):
        inside = (matrix > -8) & (matrix < 7)
        assert ((found - matrix).abs() <= step)[inside].all()
    far = torch.tensor([[1e6, -1e6, 1e3, -1e3, 0.0, 0.0, 0.0, 0.0]])
    assert dequantise_int4(quantise_int4(far, ONE), ONE)[0, :2].tolist() == [7, -8]
    assert dequantise_e4m3(quantise_e4m3(far, ONE), ONE)[0, :2].tolist() == [448, -448]


@pytest.mark.parametrize("scale", [torch.ones(1, 3), torch.ones(2, 1)])
def test_a_scale_that_does_not_fit_is_refused(scale: Tensor) -> None:
    with pytest.raises(ValueError, match="scale must be"):
        dequantise_e4m3(torch.zeros(3, 16, dtype=torch.float8_e4m3fn), scale)
