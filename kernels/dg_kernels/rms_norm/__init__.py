"""Root-mean-square normalisation (Zhang and Sennrich, arXiv 1910.07467)."""

from torch import Tensor
from torch.nn import functional

__all__ = ["rms_norm"]


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """Scale the last dimension of `x` to unit root mean square, then by `weight`.

    Args:
        x: [..., D], any floating type; the statistics are taken in fp32.
        weight: [D], or None for a norm without a scale.
        eps: added to the mean square.

    Returns:
        [..., D] in the type of `x`.

    Raises:
        ValueError: `weight` is not a vector of D elements.
    """
    if weight is not None and weight.shape != x.shape[-1:]:
        raise ValueError(f"weight must be [{x.shape[-1]}], not {list(weight.shape)}")
    # A weight of another type than x falls off ATen's fused path, with a warning.
    scale = weight if weight is None or weight.dtype == x.dtype else weight.to(x.dtype)
    return functional.rms_norm(x, x.shape[-1:], scale, eps)
