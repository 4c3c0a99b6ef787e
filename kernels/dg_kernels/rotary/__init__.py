"""Rotary position embedding (Su et al., arXiv 2104.09864), split-half layout, whole or proportional."""

import torch
from torch import Tensor

__all__ = ["rotary", "rotary_angles"]


def rotary_angles(
    positions: Tensor, *, head_dim: int, theta: float, rotated_share: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of every position, for `rotary`.

    Only the first `rotated_share` of the frequencies turn; the others have frequency zero. The exponent's denominator
    is the whole `head_dim` ("proportional" in Hugging Face's configuration).

    Args:
        positions: [..., T] integer positions.
        head_dim: width of one head; even.
        theta: base of the geometric frequency series.
        rotated_share: between 0 and 1.

    Returns:
        Two [..., T, head_dim] tensors in fp32, the half of the frequencies repeated for the split-half layout.
    """
    turning = int(rotated_share * head_dim // 2)
    exponents = torch.arange(0, 2 * turning, 2, dtype=torch.float32, device=positions.device) / head_dim
    frequencies = torch.zeros(head_dim // 2, dtype=torch.float32, device=positions.device)
    frequencies[:turning] = 1.0 / theta**exponents
    angles = positions[..., None].float() * frequencies
    doubled = torch.cat((angles, angles), dim=-1)
    return doubled.cos(), doubled.sin()


def rotary(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotate the pairs (i, i + D/2) of every head by the angles of its position.

    Args:
        x: [B, T, heads, D].
        cosines: [T, D] or [B, T, D], from `rotary_angles`, in the type of `x`.
        sines: likewise.

    Returns:
        [B, T, heads, D] in the type of `x`.

    Raises:
        ValueError: the angles are not D wide.
    """
    if cosines.shape[-1] != x.shape[-1]:
        raise ValueError(f"angles must be {x.shape[-1]} wide, not {cosines.shape[-1]}")
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return x * cosines.unsqueeze(-2) + turned * sines.unsqueeze(-2)
