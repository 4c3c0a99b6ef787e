"""The truth for `rotary`: every pair of components is one complex number, multiplied by a unit one."""

import torch
from torch import Tensor


def rotary_reference(
    x: Tensor, positions: Tensor, *, head_dim: int, theta: float, rotated_share: float = 1.0
) -> Tensor:
    """Rotate [B, T, heads, D] by complex multiplication in fp64; positions are [T]."""
    turning = int(rotated_share * head_dim // 2)
    frequencies = torch.zeros(head_dim // 2, dtype=torch.float64)
    for index in range(turning):
        frequencies[index] = theta ** (-2 * index / head_dim)
    angles = positions.double()[:, None, None] * frequencies
    first, second = x.double().chunk(2, dim=-1)
    turned = torch.complex(first, second) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((turned.real, turned.imag), dim=-1).to(x.dtype)
