"""The launches of `residual_norms`."""

from __future__ import annotations

import torch
from torch import Tensor

from dg_kernels.launching import Argument, Launch, padded
from dg_kernels.quantised.plan import blank_rows, stored_in
from dg_kernels.quantised.rows import LEAST_SCALE
from dg_kernels.residual_norms import FeedForwardInputs, Norm, Normed
from dg_kernels.residual_norms.kernel import attention_row, feed_forward_row

_NUMBERS_A_THREAD = 8
_THREADS_A_WARP = 32
_MOST_WARPS = 16


def plan_attention(
    x: Tensor, attended: Tensor, after: Tensor, dense: Norm, experts: Norm, router: Tensor, eps: float
) -> tuple[list[Launch], FeedForwardInputs]:
    """One launch, and the four [N, H] that it will fill."""
    x = x.contiguous()
    to_dense, to_experts = (blank_rows(x, rounds=norm.rounds) for norm in (dense, experts))
    found = FeedForwardInputs(torch.empty_like(x), to_dense, to_experts, torch.empty_like(x))
    arguments: dict[str, Argument] = {
        "x": x,
        "attended": attended.contiguous(),
        "after": after,
        "dense": _weight(dense, x),
        "experts": _weight(experts, x),
        "router": router,
        "total": found.x,
        **stored_in("to_dense", to_dense, "dense_scale"),
        **stored_in("to_experts", to_experts, "experts_scale"),
        "to_router": found.router,
        "eps": eps,
        "share": x.shape[-1] ** -0.5,
    }
    return [_by_row(attention_row, x, arguments)], found


def plan_feed_forward(
    x: Tensor,
    dense: Tensor,
    mixed: Tensor,
    weights: tuple[Tensor, Tensor, Tensor],
    scalar: Tensor,
    following: Norm,
    eps: float,
) -> tuple[list[Launch], Normed]:
    """One launch, and the two [N, H] that it will fill."""
    x = x.contiguous()
    found = Normed(torch.empty_like(x), blank_rows(x, rounds=following.rounds))
    arguments: dict[str, Argument] = {
        "x": x,
        "dense": dense.contiguous(),
        "mixed": mixed.contiguous(),
        **dict(zip(("first", "second", "whole"), weights, strict=True)),
        "scalar": scalar,
        "following": _weight(following, x),
        "total": found.x,
        **stored_in("normed", found.normed, "normed_scale"),
        "parts": mixed.shape[1],
        "eps": eps,
    }
    return [_by_row(feed_forward_row, x, arguments)], found


def _weight(norm: Norm, x: Tensor) -> Tensor:
    return x.new_ones(x.shape[1]) if norm.weight is None else norm.weight


def _by_row(kernel: object, x: Tensor, arguments: dict[str, Argument]) -> Launch:
    rows, width = x.shape
    places = padded(width, 32)
    warps = min(_MOST_WARPS, max(1, places // (_NUMBERS_A_THREAD * _THREADS_A_WARP)))
    constants = {"padded": places, "least": LEAST_SCALE}
    return Launch(kernel, (rows,), arguments | {"width": width}, constants, warps=warps, stages=1)
