"""`packed_expert_mlp` against experts that were dequantised before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from dg_kernels import PackedWeight, packed_expert_mlp, quantise_e2m1, quantise_e4m3, quantise_int4
from dg_kernels.expert_mlp.reference import expert_mlp_reference
from dg_kernels.quantised.rows import quantise_rows
from dg_kernels.testing import assert_agrees, random

HIDDEN, INNER, EXPERTS = 32, 48, 5


def nvfp4(rows: int, columns: int, seed: int) -> PackedWeight:
    matrix = random(EXPERTS, rows, columns, seed=seed)
    scale = (matrix.reshape(EXPERTS, rows, -1, 16).abs().amax(-1) / 6).to(torch.float8_e4m3fn)
    return PackedWeight("e2m1", quantise_e2m1(matrix, scale.float()), scale, torch.full((EXPERTS, rows), 0.1))


def int4(rows: int, columns: int, seed: int) -> PackedWeight:
    matrix = random(EXPERTS, rows, columns, seed=seed)
    scale = matrix.reshape(EXPERTS, rows, -1, 16).abs().amax(-1) / 7
    return PackedWeight("int4", quantise_int4(matrix, scale), scale, torch.full((EXPERTS, rows), 0.1))


def fp8(rows: int, columns: int, seed: int) -> PackedWeight:
    matrix = random(EXPERTS, rows, columns, seed=seed)
    factor = matrix.abs().amax(-1) / 448
    return PackedWeight("e4m3", quantise_e4m3(matrix, factor[..., None]), None, factor)


@pytest.mark.parametrize("pack", [nvfp4, int4, fp8])
@pytest.mark.parametrize("chosen", [1, 2, EXPERTS])
def test_agrees_with_dequantised_experts(pack: Callable[[int, int, int], PackedWeight], chosen: int) -> None:
    gate_up, down = pack(2 * INNER, HIDDEN, 1), pack(HIDDEN, INNER, 2)
    x = 0.3 * random(7, HIDDEN)
    weight, index = random(7, EXPERTS, seed=3).softmax(-1).topk(chosen)
    plain = [one.dequantised(torch.float32) for one in (gate_up, down)]
    expected = expert_mlp_reference(x, plain[0], plain[1], index, weight)
    assert_agrees(packed_expert_mlp(x, gate_up, down, index, weight).sum(1), expected, terms=HIDDEN * INNER * chosen)


def test_gate_and_up_may_have_factors_of_their_own() -> None:
    gate_up, down = nvfp4(2 * INNER, HIDDEN, 1), nvfp4(HIDDEN, INNER, 2)
    x, index, weight = random(2, HIDDEN), torch.tensor([[0], [3]]), torch.ones(2, 1)
    before = packed_expert_mlp(x, gate_up, down, index, weight)
    factor = gate_up.factor.clone()
    factor[:, INNER:] *= 2
    # Up is linear, gate is not.
    doubled = packed_expert_mlp(x, replace(gate_up, factor=factor), down, index, weight)
    assert_agrees(doubled, 2 * before, terms=HIDDEN * INNER)


def test_experts_that_nobody_chose_are_not_read() -> None:
    gate_up, down = nvfp4(2 * INNER, HIDDEN, 1), nvfp4(HIDDEN, INNER, 2)
    for one in (gate_up, down):
        one.factor[[1, 2, 4]] = float("nan")
    index = torch.tensor([[0, 3]] * 4)
    assert packed_expert_mlp(random(4, HIDDEN), gate_up, down, index, torch.ones(4, 2)).isfinite().all()


def test_shapes_that_do_not_belong_together_are_refused() -> None:
    good, down = nvfp4(2 * INNER, HIDDEN, 1), nvfp4(HIDDEN, INNER, 2)
    with pytest.raises(ValueError, match=r"factor must be \[5, 96\], not \[5, 1\]"):
        replace(good, factor=torch.ones(5, 1))
    with pytest.raises(ValueError, match=r"scale must be \[5, 96\] by groups of 32, not \[5, 96, 3\]"):
        replace(good, scale=torch.ones(5, 96, 3))
    x, index, weight = random(2, HIDDEN), torch.zeros(2, 1, dtype=torch.long), torch.ones(2, 1)
    with pytest.raises(ValueError, match=r"gate_up must be \[5, 96, 32\], not \[5, 32, 48\]"):
        packed_expert_mlp(x, down, down, index, weight)
    with pytest.raises(ValueError, match="index is"):
        packed_expert_mlp(x, good, down, index, weight[:1])
    with pytest.raises(ValueError, match="rounded rows are for weights that quantises_rows"):
        packed_expert_mlp(quantise_rows(x), good, down, index, weight)
