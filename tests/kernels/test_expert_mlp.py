"""`expert_mlp` against row by row, expert by expert."""

from __future__ import annotations

import pytest
import torch

from dg_kernels import expert_mlp
from dg_kernels.expert_mlp.reference import expert_mlp_reference
from dg_kernels.testing import assert_agrees, random


@pytest.mark.parametrize("rows", [1, 7, 64])
@pytest.mark.parametrize(("experts", "chosen"), [(1, 1), (3, 3), (5, 2), (128, 8)])
def test_agrees_with_the_reference(rows: int, experts: int, chosen: int) -> None:
    x = random(rows, 12)
    gate_up, down = random(experts, 2 * 9, 12, seed=1), random(experts, 12, 9, seed=2)
    weight, index = random(rows, experts, seed=3).softmax(-1).topk(chosen)
    expected = expert_mlp_reference(x, gate_up, down, index, weight)
    assert_agrees(expert_mlp(x, gate_up, down, index, weight).sum(1), expected, terms=12 * 9 * chosen)


def test_an_expert_that_nobody_chose_has_no_influence() -> None:
    x, gate_up, down = random(6, 8), random(4, 10, 8, seed=1), random(4, 8, 5, seed=2)
    index, weight = torch.tensor([[0, 2]] * 6), torch.full((6, 2), 0.5)
    before = expert_mlp(x, gate_up, down, index, weight)
    gate_up[[1, 3]] = float("nan")
    down[[1, 3]] = float("nan")
    assert torch.equal(expert_mlp(x, gate_up, down, index, weight), before)


def test_shapes_that_do_not_belong_together_are_refused() -> None:
    x, index, weight = random(2, 8), torch.zeros(2, 1, dtype=torch.long), torch.ones(2, 1)
    with pytest.raises(ValueError, match=r"gate_up must be \[3, 10, 8\], not \[3, 9, 8\]"):
        expert_mlp(x, random(3, 9, 8), random(3, 8, 5), index, weight)
    with pytest.raises(ValueError, match="index is"):
        expert_mlp(x, random(3, 10, 8), random(3, 8, 5), index, weight[:1])
