"""The additions to a layer's residual stream, each a norm of what is added, and the norms of what comes of it.

On a GPU each is one pass over [N, H] numbers that rounds what it writes and nothing else; as single operations it is
six to nine.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from dg_kernels.launching import run, served
from dg_kernels.quantised.rows import Operand, multiplies_e4m3
from dg_kernels.rms_norm import rms_norm

__all__ = ["FeedForwardInputs", "Norm", "Normed", "add_attention", "add_feed_forward"]


class Norm(NamedTuple):
    """A norm, by what reads it."""

    weight: Tensor | None
    """[H]; None for a norm without a scale."""
    rounds: bool = False
    """Whether that multiplies it in e4m3 where the device does: there it is rounded to that (`quantise_rows`)."""

    def where_multiplied(self, x: Tensor) -> Norm:
        """What it is on the device of a tensor."""
        return self._replace(rounds=self.rounds and multiplies_e4m3(x))


class Normed(NamedTuple):
    """The residual stream, and the norm of it that is read next."""

    x: Tensor
    normed: Operand


class FeedForwardInputs(NamedTuple):
    """The residual stream behind attention, and what the parts behind it read."""

    x: Tensor
    dense: Operand
    experts: Operand
    router: Tensor


def add_attention(
    x: Tensor, attended: Tensor, after: Tensor, dense: Norm, experts: Norm, router: Tensor, eps: float
) -> FeedForwardInputs:
    """`x` and the norm of what was attended to, and three norms of the sum.

    Args:
        x: [N, H].
        attended: [N, H].
        after: [H], the weight of its norm.
        dense: the dense MLP's norm.
        experts: the experts' norm.
        router: [H], the weight of the router's, which is multiplied by the inverse root of H too.
        eps: added to the mean squares.

    Raises:
        ValueError: shapes that do not belong together.
    """
    weights = after, router, *_weights(dense, experts)
    _check(x, (attended,), weights)
    if served(x, attended, *weights):
        from dg_kernels.residual_norms.plan import plan_attention

        norms = dense.where_multiplied(x), experts.where_multiplied(x)
        launches, found = plan_attention(x, attended, after, *norms, router, eps)
        run(launches)
        return found
    x = x + rms_norm(attended, after, eps)
    routed = rms_norm(x, None, eps) * router * x.shape[-1] ** -0.5
    return FeedForwardInputs(x, rms_norm(x, dense.weight, eps), rms_norm(x, experts.weight, eps), routed)


def add_feed_forward(
    x: Tensor,
    dense: Tensor,
    mixed: Tensor,
    weights: tuple[Tensor, Tensor, Tensor],
    scalar: Tensor,
    following: Norm,
    eps: float,
) -> Normed:
    """(x + norm(norm(dense) + norm(sum of mixed))) scalar, and the norm that follows.

    Args:
        x: [N, H].
        dense: [N, H], of the dense MLP.
        mixed: [N, P, H], of the experts: parts that are added up.
        weights: [H] each, of the norms of `dense`, `mixed` and their sum.
        scalar: [1].
        following: the norm of the result that is read next.
        eps: added to the mean squares.

    Raises:
        ValueError: shapes that do not belong together.
    """
    _check(x, (dense, mixed[:, 0]), (*weights, *_weights(following)))
    if served(x, dense, mixed, *weights, scalar, *_weights(following)):
        from dg_kernels.residual_norms.plan import plan_feed_forward

        norm = following.where_multiplied(x)
        launches, found = plan_feed_forward(x, dense, mixed, weights, scalar, norm, eps)
        run(launches)
        return found
    first, second, whole = weights
    both = rms_norm(dense, first, eps) + rms_norm(mixed.sum(dim=1), second, eps)
    x = (x + rms_norm(both, whole, eps)) * scalar
    return Normed(x, rms_norm(x, following.weight, eps))


def _weights(*norms: Norm) -> list[Tensor]:
    return [norm.weight for norm in norms if norm.weight is not None]


def _check(x: Tensor, rows: tuple[Tensor, ...], weights: tuple[Tensor, ...]) -> None:
    for one in rows:
        if one.shape != x.shape:
            raise ValueError(f"what is added must be {list(x.shape)}, not {list(one.shape)}")
    for one in weights:
        if one.shape != x.shape[1:]:
            raise ValueError(f"weights must be {list(x.shape[1:])}, not {list(one.shape)}")
