"""The truth for `residual_norms`, in fp64, rounded once at the end."""

from __future__ import annotations

from torch import Tensor

from dg_kernels.residual_norms import FeedForwardInputs


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight.double()


def add_attention_reference(
    x: Tensor, attended: Tensor, after: Tensor, dense: Tensor, experts: Tensor, router: Tensor, eps: float
) -> FeedForwardInputs:
    """Same shapes as `add_attention`. What is normed is the sum as it is written."""
    found = (x.double() + _norm(attended.double(), after, eps)).to(x.dtype)
    scaled = router.double() * x.shape[-1] ** -0.5
    normed = [_norm(found.double(), weight, eps).to(x.dtype) for weight in (dense, experts, scaled)]
    return FeedForwardInputs(found, *normed)


def add_feed_forward_reference(
    x: Tensor, dense: Tensor, mixed: Tensor, weights: tuple[Tensor, Tensor, Tensor], scalar: Tensor, eps: float
) -> Tensor:
    """Same shapes as `add_feed_forward`."""
    both = _norm(dense.double(), weights[0], eps) + _norm(mixed.double(), weights[1], eps)
    return ((x.double() + _norm(both, weights[2], eps)) * scalar.double()).to(x.dtype)
