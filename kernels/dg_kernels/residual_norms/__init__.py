"""The additions to a layer's residual stream, each a norm of what is added, and the norms of what comes of it.

On a GPU each is one pass over [N, H] numbers that rounds what it writes and nothing else; as single operations it is
six or seven.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from dg_kernels.launching import run, served
from dg_kernels.rms_norm import rms_norm

__all__ = ["FeedForwardInputs", "add_attention", "add_feed_forward"]


class FeedForwardInputs(NamedTuple):
    """The residual stream behind attention, and what the parts behind it read."""

    x: Tensor
    dense: Tensor
    experts: Tensor
    router: Tensor


def add_attention(
    x: Tensor, attended: Tensor, after: Tensor, dense: Tensor, experts: Tensor, router: Tensor, eps: float
) -> FeedForwardInputs:
    """`x` and the norm of what was attended to, and three norms of the sum.

    Args:
        x: [N, H].
        attended: [N, H].
        after: [H], the weight of its norm.
        dense: [H], that of the dense MLP's norm.
        experts: [H], that of the experts' norm.
        router: [H], that of the router's, which is multiplied by the inverse root of H too.
        eps: added to the mean squares.

    Raises:
        ValueError: shapes that do not belong together.
    """
    _check(x, (attended,), (after, dense, experts, router))
    if served(x, attended, after, dense, experts, router):
        from dg_kernels.residual_norms.plan import plan_attention

        launches, found = plan_attention(x, attended, after, dense, experts, router, eps)
        run(launches)
        return found
    x = x + rms_norm(attended, after, eps)
    routed = rms_norm(x, None, eps) * router * x.shape[-1] ** -0.5
    return FeedForwardInputs(x, rms_norm(x, dense, eps), rms_norm(x, experts, eps), routed)


def add_feed_forward(
    x: Tensor, dense: Tensor, mixed: Tensor, weights: tuple[Tensor, Tensor, Tensor], scalar: Tensor, eps: float
) -> Tensor:
    """(x + norm(norm(dense) + norm(mixed))) scalar.

    Args:
        x: [N, H].
        dense: [N, H], of the dense MLP.
        mixed: [N, H], of the experts.
        weights: [H] each, of the norms of `dense`, `mixed` and their sum.
        scalar: [1].
        eps: added to the mean squares.

    Raises:
        ValueError: shapes that do not belong together.
    """
    _check(x, (dense, mixed), weights)
    if served(x, dense, mixed, *weights, scalar):
        from dg_kernels.residual_norms.plan import plan_feed_forward

        launches, found = plan_feed_forward(x, dense, mixed, weights, scalar, eps)
        run(launches)
        return found
    first, second, whole = weights
    return (x + rms_norm(rms_norm(dense, first, eps) + rms_norm(mixed, second, eps), whole, eps)) * scalar


def _check(x: Tensor, rows: tuple[Tensor, ...], weights: tuple[Tensor, ...]) -> None:
    for one in rows:
        if one.shape != x.shape:
            raise ValueError(f"what is added must be {list(x.shape)}, not {list(one.shape)}")
    for one in weights:
        if one.shape != x.shape[1:]:
            raise ValueError(f"weights must be {list(x.shape[1:])}, not {list(one.shape)}")
