"""What attention does to its queries and keys before they meet: a norm of each head, and the rotary embedding."""

from __future__ import annotations

from torch import Tensor

from dg_kernels.launching import run, served
from dg_kernels.rms_norm import rms_norm
from dg_kernels.rotary import rotary

__all__ = ["norm_rotary"]


def norm_rotary(x: Tensor, weight: Tensor, cosines: Tensor, sines: Tensor, eps: float) -> Tensor:
    """`rotary` of `rms_norm`; on a GPU in one pass, rounded once.

    Args:
        x: [B, T, heads, D].
        weight: [D].
        cosines: [T, D] or [B, T, D], from `rotary_angles`, in the type of `x`.
        sines: likewise.
        eps: added to the mean square.

    Returns:
        [B, T, heads, D] in the type of `x`.

    Raises:
        ValueError: the weight or the angles are not D wide.
    """
    if not weight.shape == cosines.shape[-1:] == sines.shape[-1:] == x.shape[-1:]:
        raise ValueError(f"weight and angles must be {x.shape[-1]} wide, not {len(weight)} and {cosines.shape[-1]}")
    if served(x, weight, cosines, sines):
        from dg_kernels.norm_rotary.plan import plan

        launches, result = plan(x, weight, cosines, sines, eps)
        run(launches)
        return result
    return rotary(rms_norm(x, weight, eps), cosines, sines)
