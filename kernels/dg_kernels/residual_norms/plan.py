"""The launches of `residual_norms`."""

from __future__ import annotations

import torch
from torch import Tensor

from dg_kernels.launching import Argument, Launch, padded
from dg_kernels.residual_norms import FeedForwardInputs
from dg_kernels.residual_norms.kernel import attention_row, feed_forward_row

_NUMBERS_A_THREAD = 16
_THREADS_A_WARP = 32
_MOST_WARPS = 16


def plan_attention(
    x: Tensor, attended: Tensor, after: Tensor, dense: Tensor, experts: Tensor, router: Tensor, eps: float
) -> tuple[list[Launch], FeedForwardInputs]:
    """One launch, and the four [N, H] that it will fill."""
    x = x.contiguous()
    found = FeedForwardInputs(*(torch.empty_like(x) for _ in FeedForwardInputs._fields))
    arguments: dict[str, Argument] = {
        "x": x,
        "attended": attended.contiguous(),
        "after": after,
        "dense": dense,
        "experts": experts,
        "router": router,
        "total": found.x,
        "to_dense": found.dense,
        "to_experts": found.experts,
        "to_router": found.router,
        "eps": eps,
        "share": x.shape[-1] ** -0.5,
    }
    return [_by_row(attention_row, x, arguments)], found


def plan_feed_forward(
    x: Tensor, dense: Tensor, mixed: Tensor, weights: tuple[Tensor, Tensor, Tensor], scalar: Tensor, eps: float
) -> tuple[list[Launch], Tensor]:
    """One launch, and the [N, H] that it will fill."""
    x = x.contiguous()
    result = torch.empty_like(x)
    arguments: dict[str, Argument] = {
        "x": x,
        "dense": dense.contiguous(),
        "mixed": mixed.contiguous(),
        **dict(zip(("first", "second", "whole"), weights, strict=True)),
        "scalar": scalar,
        "result": result,
        "eps": eps,
    }
    return [_by_row(feed_forward_row, x, arguments)], result


def _by_row(kernel: object, x: Tensor, arguments: dict[str, Argument]) -> Launch:
    rows, width = x.shape
    places = padded(width, 32)
    warps = min(_MOST_WARPS, max(1, places // (_NUMBERS_A_THREAD * _THREADS_A_WARP)))
    return Launch(kernel, (rows,), arguments | {"width": width}, {"padded": places}, warps=warps, stages=1)
