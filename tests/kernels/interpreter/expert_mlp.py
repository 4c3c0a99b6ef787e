"""The kernels of `expert_mlp` against row by row, expert by expert."""

from __future__ import annotations

import pytest
import torch

from dg_kernels.configurations import Tile
from dg_kernels.expert_mlp.plan import plan
from dg_kernels.expert_mlp.reference import expert_mlp_reference
from dg_kernels.launching import run
from dg_kernels.testing import assert_agrees, random

TILES = dict.fromkeys(("gate_up", "down"), Tile(rows=16, columns=16, depth=16, warps=4, stages=2))


@pytest.mark.parametrize(
    ("rows", "experts", "chosen", "hidden", "width"),
    [(1, 1, 1, 32, 16), (1, 5, 2, 19, 37), (7, 3, 3, 16, 16), (24, 3, 2, 19, 37), (2, 130, 4, 16, 32)],
)
def test_agrees_with_the_reference(
    rows: int, experts: int, chosen: int, hidden: int, width: int, device: torch.device, dtype: torch.dtype
) -> None:
    x = random(rows, hidden, dtype=dtype).to(device)
    gate_up = (0.3 * random(experts, 2 * width, hidden, seed=1)).to(device, dtype)
    down = (0.3 * random(experts, hidden, width, seed=2)).to(device, dtype)
    weight, index = random(rows, experts, seed=3).to(device).softmax(-1).topk(chosen)
    launches, found = plan(x, gate_up, down, index, weight, tiles=TILES)
    run(launches)
    expected = expert_mlp_reference(x.cpu(), gate_up.cpu(), down.cpu(), index.cpu(), weight.cpu())
    assert_agrees(found.sum(1).cpu(), expected, terms=hidden * width * chosen)


def test_pairs_are_sorted_by_expert_and_stay_in_order(device: torch.device, dtype: torch.dtype) -> None:
    index = torch.randint(0, 9, (83, 3), generator=torch.Generator().manual_seed(0)).to(device)
    x, gate_up, down = (random(*shape, dtype=dtype).to(device) for shape in ((83, 16), (9, 32, 16), (9, 16, 16)))
    launches, _ = plan(x, gate_up, down, index, torch.ones(83, 3, device=device), tiles=TILES)
    run(launches[:1])
    order, first_pair = (launches[0].arguments[name] for name in ("order", "first_pair"))
    counts = torch.bincount(index.flatten(), minlength=9)
    assert torch.equal(torch.as_tensor(order).long(), index.flatten().argsort(stable=True))
    assert torch.as_tensor(first_pair).tolist() == [0, *counts.cumsum(0).tolist()]
    first_block = torch.as_tensor(launches[0].arguments["first_block"])
    assert first_block.diff().tolist() == [-(-count // 16) for count in counts.tolist()]


def test_experts_that_nobody_chose_are_not_read(device: torch.device, dtype: torch.dtype) -> None:
    x, gate_up, down = (random(*shape, dtype=dtype).to(device) for shape in ((6, 16), (4, 32, 16), (4, 16, 16)))
    index = torch.tensor([[0, 2]] * 6, device=device)
    gate_up[[1, 3]] = float("nan")
    down[[1, 3]] = float("nan")
    launches, found = plan(x, gate_up, down, index, torch.full((6, 2), 0.5, device=device), tiles=TILES)
    run(launches)
    assert found.isfinite().all()
