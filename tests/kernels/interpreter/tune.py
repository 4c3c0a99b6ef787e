"""Tuning over real kernels: which they are is found by running them, and a tile that is tried is the one that runs."""

from __future__ import annotations

import math
import re

import msgspec
import torch

from dg_kernels import tune
from dg_kernels.cases import Case
from dg_kernels.configurations import Tile, tile_for, tried
from dg_kernels.costs import Cost
from dg_kernels.expert_mlp.plan import plan as plan_experts
from dg_kernels.launching import run
from dg_kernels.packed_linear.plan import plan as plan_linear
from dg_kernels.testing import packed, random

SMALL = Tile(rows=16, columns=16, depth=32, warps=4, stages=2)
PAIR = {"expert_mlp/plain/gate_up": SMALL, "expert_mlp/plain/down": SMALL}


def experts(device: torch.device, dtype: torch.dtype) -> Case:
    x, gate_up, down = (0.3 * random(*shape).to(device, dtype) for shape in ((5, 32), (3, 64, 32), (3, 32, 32)))
    weight, index = random(5, 3, seed=3).to(device).softmax(-1).topk(2)

    def call() -> torch.Tensor:
        launches, found = plan_experts(x, gate_up, down, index, weight)
        run(launches)
        return found

    return Case(call, Cost(1, 1), ())


def linear(device: torch.device, dtype: torch.dtype) -> Case:
    x, weight = random(5, 64, dtype=dtype).to(device), packed("int4", random(32, 64, seed=1).to(device))

    def call() -> torch.Tensor:
        launches, found = plan_linear(x, weight)
        run(launches)
        return found

    return Case(call, Cost(1, 1), ())


def test_the_kernels_of_a_case_are_found_by_running_it(device: torch.device, dtype: torch.dtype) -> None:
    found = tune.groups([experts(device, dtype), linear(device, dtype)], lambda name: True)
    assert set(found) == {("expert_mlp/plain/down", "expert_mlp/plain/gate_up"), ("packed_linear/int4",)}
    assert set(tune.groups([experts(device, dtype), linear(device, dtype)], re.compile("packed.*").fullmatch)) == {
        ("packed_linear/int4",)
    }


def test_a_tile_that_is_tried_runs_and_has_the_usual_result(device: torch.device, dtype: torch.dtype) -> None:
    case = linear(device, dtype)
    cost = tune.time_of([case], device, (ValueError,))
    assert 0 < cost({"packed_linear/int4": SMALL}) < math.inf
    usual = case.call()
    with tried({"packed_linear/int4": SMALL}):
        launches, _ = plan_linear(random(5, 64, dtype=dtype).to(device), packed("int4", random(32, 64).to(device)))
        assert launches[-1].constants["rows"] == SMALL.rows != tile_for("soft_embedding", "").rows
        assert tune.agree([case.call()], [usual])


def test_tiles_that_do_not_fit_one_another_are_refused(device: torch.device, dtype: torch.dtype) -> None:
    cost = tune.time_of([experts(device, dtype)], device, (ValueError,))
    assert cost(PAIR) < math.inf
    assert cost(PAIR | {"expert_mlp/plain/down": msgspec.structs.replace(SMALL, rows=32)}) == math.inf
