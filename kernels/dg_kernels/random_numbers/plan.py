"""The launch of `random_numbers`."""

from __future__ import annotations

import torch
from torch import Tensor

from dg_kernels.launching import Argument, Launch, blocks
from dg_kernels.random_numbers import FIRST, GAMMA, SECOND
from dg_kernels.random_numbers.kernel import draw

_AT_ONCE = 256
"""Slots that a program holds."""


def plan(seed: Tensor, step: Tensor, slots: int, vocab_size: int) -> tuple[list[Launch], Tensor, Tensor]:
    """One launch, and the numbers and tokens [B, C] that it will fill."""
    rows = len(seed)
    uniform, noise = seed.new_empty(rows, slots, dtype=torch.float32), seed.new_empty(rows, slots)
    arguments: dict[str, Argument] = {
        "seed": seed.contiguous(),
        "step": step.contiguous(),
        "gamma": GAMMA,
        "uniform": uniform,
        "noise": noise,
        "slots": slots,
        "vocab_size": vocab_size,
        "first": FIRST,
        "second": SECOND,
    }
    grid = rows, blocks(slots, _AT_ONCE)
    return [Launch(draw, grid, arguments, {"size": _AT_ONCE}, warps=4, stages=1)], uniform, noise
