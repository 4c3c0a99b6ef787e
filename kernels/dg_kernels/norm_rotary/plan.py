"""The launch of `norm_rotary`."""

from __future__ import annotations

import torch
from torch import Tensor

from dg_kernels.launching import Argument, Launch, blocks, padded
from dg_kernels.norm_rotary.kernel import norm_and_turn

_PAIRS_AT_ONCE = 1024
"""That a program holds: 8 a thread."""


def plan(x: Tensor, weight: Tensor, cosines: Tensor, sines: Tensor, eps: float) -> tuple[list[Launch], Tensor]:
    """One launch, and the [B, T, heads, D] that it will fill."""
    *_, heads, width = x.shape
    x = x.contiguous()
    result, rows, half = torch.empty_like(x), x.numel() // width, width // 2
    arguments: dict[str, Argument] = {
        "x": x,
        "weight": weight.contiguous(),
        "cosines": cosines.contiguous(),
        "sines": sines.contiguous(),
        "result": result,
        "row_count": rows,
        "heads": heads,
        "angle_count": cosines.numel() // width,
        "eps": eps,
    }
    places = padded(half, 16)
    at_once = max(1, _PAIRS_AT_ONCE // places)
    constants: dict[str, int | float | str] = {"half": half, "padded": places, "rows": at_once}
    return [Launch(norm_and_turn, (blocks(rows, at_once),), arguments, constants, warps=4, stages=1)], result
