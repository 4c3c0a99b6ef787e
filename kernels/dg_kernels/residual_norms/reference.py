"""The truth for `residual_norms`, in fp64, rounded once at the end."""

from __future__ import annotations

from torch import Tensor

from dg_kernels.quantised.rows import Operand, quantise_rows
from dg_kernels.residual_norms import FeedForwardInputs, Norm, Normed


def _norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    normed = x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt()
    return normed if weight is None else normed * weight.double()


def _read(x: Tensor, norm: Norm, eps: float) -> Operand:
    """As it is read. What is normed is the sum as it is written."""
    normed = _norm(x.double(), norm.weight, eps)
    return quantise_rows(normed)._replace(dtype=x.dtype) if norm.rounds else normed.to(x.dtype)


def add_attention_reference(
    x: Tensor, attended: Tensor, after: Tensor, dense: Norm, experts: Norm, router: Tensor, eps: float
) -> FeedForwardInputs:
    """Same shapes as `add_attention`, on a device that multiplies e4m3."""
    found = (x.double() + _norm(attended.double(), after, eps)).to(x.dtype)
    routed = _norm(found.double(), router.double() * x.shape[-1] ** -0.5, eps).to(x.dtype)
    return FeedForwardInputs(found, _read(found, dense, eps), _read(found, experts, eps), routed)


def add_feed_forward_reference(
    x: Tensor,
    dense: Tensor,
    mixed: Tensor,
    weights: tuple[Tensor, Tensor, Tensor],
    scalar: Tensor,
    following: Norm,
    eps: float,
) -> Normed:
    """Same shapes as `add_feed_forward`, on a device that multiplies e4m3."""
    both = _norm(dense.double(), weights[0], eps) + _norm(mixed.double().sum(1), weights[1], eps)
    found = ((x.double() + _norm(both, weights[2], eps)) * scalar.double()).to(x.dtype)
    return Normed(found, _read(found, following, eps))
