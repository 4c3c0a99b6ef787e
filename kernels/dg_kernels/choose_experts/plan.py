"""The launch of `choose_experts`."""

from __future__ import annotations

import torch
from torch import Tensor

from dg_kernels.choose_experts.kernel import choose
from dg_kernels.launching import Argument, Launch, blocks, padded

_AT_ONCE = 4
"""Rows that a program holds."""


def plan(logits: Tensor, scale: Tensor, count: int) -> tuple[list[Launch], Tensor, Tensor]:
    """One launch, and the numbers and weights that it will fill."""
    rows, experts = logits.shape
    index = logits.new_empty(rows, count, dtype=torch.int64)
    weight = logits.new_empty(rows, count, dtype=torch.float32)
    arguments: dict[str, Argument] = {
        "logits": logits.contiguous(),
        "scale": scale.contiguous(),
        "index": index,
        "weight": weight,
        "row_count": rows,
        "experts": experts,
    }
    constants: dict[str, int | float | str] = {
        "count": count,
        "places": padded(count, 2),
        "padded": padded(experts, 2),
        "rows": _AT_ONCE,
    }
    return [Launch(choose, (blocks(rows, _AT_ONCE),), arguments, constants, warps=4, stages=1)], index, weight
