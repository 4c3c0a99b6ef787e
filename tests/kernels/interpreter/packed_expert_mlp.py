"""The kernels of `packed_expert_mlp`: every code of every type, and the whole against dequantised weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import triton
import triton.language as tl

from dg_kernels.configurations import Tile
from dg_kernels.expert_mlp.plan import plan
from dg_kernels.expert_mlp.reference import expert_mlp_reference
from dg_kernels.launching import run
from dg_kernels.quantised import quantise_int4
from dg_kernels.quantised.kernel import stored_numbers
from dg_kernels.quantised.packed import PackedWeight
from dg_kernels.quantised.reference import e2m1_value, e4m3_value, int4_value
from dg_kernels.quantised.rows import multiplies_e4m3, quantise_rows
from dg_kernels.testing import assert_agrees, packed, random

TILES = dict.fromkeys(("gate_up", "down"), Tile(rows=16, columns=16, depth=32, warps=4, stages=2))


@triton.jit  # type: ignore[untyped-decorator]
def decoded(values: Any, out: Any, kind: tl.constexpr) -> None:
    row = tl.arange(0, 16)
    numbers = stored_numbers(values, values, row.to(tl.int64), 0, 16, row < 16, kind, 0, 16, True)
    tl.store(out + row[:, None] * 16 + row[None, :], numbers)


@pytest.mark.parametrize(("kind", "value"), [("e2m1", e2m1_value), ("int4", int4_value)])
def test_every_nibble_is_its_number(kind: str, value: Callable[[int], float], device: torch.device) -> None:
    columns = torch.arange(16)
    codes = (columns[:, None] + columns[None, :]) % 16
    values = (codes[:, ::2] | codes[:, 1::2] << 4).to(torch.uint8).to(device)
    out = torch.empty(16, 16, device=device)
    decoded[(1,)](values, out, kind=kind)
    assert out.tolist() == [[value(code) for code in row] for row in codes.tolist()]


def test_every_byte_is_its_number(device: torch.device) -> None:
    codes = torch.arange(256).to(torch.uint8)
    out = torch.empty(16, 16, device=device)
    decoded[(1,)](codes.to(device), out, kind="e4m3")
    for code, found in enumerate(out.flatten().tolist()):
        # The two codes for not-a-number are no weights.
        assert found == e4m3_value(code) or code & 0x7F == 0x7F


def reference(
    x: torch.Tensor, gate_up: PackedWeight, down: PackedWeight, index: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    plain = [one.dequantised(torch.float32).cpu() for one in (gate_up, down)]
    return expert_mlp_reference(x.cpu(), plain[0], plain[1], index.cpu(), weight.cpu())


@pytest.mark.parametrize("kind", ["e2m1", "e4m3", "int4"])
@pytest.mark.parametrize(("hidden", "inner"), [(32, 32), (64, 32)])
def test_agrees_with_dequantised_weights(
    kind: str, hidden: int, inner: int, device: torch.device, dtype: torch.dtype
) -> None:
    x = random(9, hidden, dtype=dtype).to(device)
    gate_up = packed(kind, 0.3 * random(3, 2 * inner, hidden, seed=1).to(device))
    down = packed(kind, 0.3 * random(3, hidden, inner, seed=2).to(device))
    weight, index = random(9, 3, seed=3).to(device).softmax(-1).topk(2)
    launches, found = plan(x, gate_up, down, index, weight, tiles=TILES)
    run(launches)
    assert_agrees(found.sum(1).cpu(), reference(x, gate_up, down, index, weight), terms=hidden * inner * 2)


def test_both_products_may_be_in_the_type_of_the_weights(device: torch.device, dtype: torch.dtype) -> None:
    if device.type == "cuda" and not multiplies_e4m3(torch.empty(0, device=device)):
        pytest.skip("this device does not multiply e4m3 numbers")
    x = random(9, 64, dtype=dtype).to(device)
    gate_up = packed("e4m3", 0.3 * random(3, 64, 64, seed=1).to(device))
    down = packed("e4m3", 0.3 * random(3, 64, 32, seed=2).to(device))
    weight, index = random(9, 3, seed=3).to(device).softmax(-1).topk(2)
    launches, found = plan(x, gate_up, down, index, weight, native=True, tiles=TILES)
    run(launches)
    expected = native_reference(x, gate_up, down, index, weight)
    # What is between the products is rounded to bf16 on a GPU; there a number near the middle of two may go either way.
    error = (found.sum(1).cpu().float() - expected).norm() / expected.norm()
    assert float(error) < (2e-3 if dtype == torch.float32 else 2e-2)
    plain = reference(x.float(), gate_up, down, index, weight)
    assert 0.01 < float((plain - expected).norm() / plain.norm()) < 0.1, "what rounding rows costs"


def native_reference(
    x: torch.Tensor, gate_up: PackedWeight, down: PackedWeight, index: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Pair by pair, each row rounded before each product."""
    first, second = (one.dequantised(torch.float32).cpu() for one in (gate_up, down))

    def as_rounded(rows: torch.Tensor) -> torch.Tensor:
        values, scale, _ = quantise_rows(rows)
        return values.float() * scale[..., None]

    result = torch.zeros(x.shape)
    for row, (experts, shares) in enumerate(zip(index.tolist(), weight.cpu(), strict=True)):
        for expert, share in zip(experts, shares, strict=True):
            gate, up = (first[expert] @ as_rounded(x[row].cpu().float())).chunk(2)
            inner = torch.nn.functional.gelu(gate, approximate="tanh") * up
            result[row] += share * (second[expert] @ as_rounded(inner))
    return result


def test_depths_that_no_tile_divides_are_masked(device: torch.device, dtype: torch.dtype) -> None:
    x = random(5, 48, dtype=dtype).to(device)
    gate_up = packed("e2m1", 0.3 * random(2, 32, 48, seed=1).to(device))
    down = packed("e2m1", 0.3 * random(2, 48, 16, seed=2).to(device))
    weight, index = random(5, 2, seed=3).to(device).softmax(-1).topk(1)
    launches, found = plan(x, gate_up, down, index, weight, tiles=TILES)
    run(launches)
    assert_agrees(found.sum(1).cpu(), reference(x, gate_up, down, index, weight), terms=48 * 16)


def test_a_group_may_be_wider_than_the_tile(device: torch.device, dtype: torch.dtype) -> None:
    x = random(3, 64, dtype=dtype).to(device)
    matrix = [0.3 * random(2, 128, 64, seed=1).to(device), 0.3 * random(2, 64, 64, seed=2).to(device)]
    scales = [one.abs().amax(-1, keepdim=True) / 7 for one in matrix]
    gate_up, down = (
        PackedWeight("int4", quantise_int4(one, scale), scale, torch.ones_like(scale[..., 0]))
        for one, scale in zip(matrix, scales, strict=True)
    )
    assert gate_up.group == 64
    weight, index = random(3, 2, seed=3).to(device).softmax(-1).topk(1)
    launches, found = plan(x, gate_up, down, index, weight, tiles=TILES)
    run(launches)
    assert_agrees(found.sum(1).cpu(), reference(x, gate_up, down, index, weight), terms=64 * 64)
