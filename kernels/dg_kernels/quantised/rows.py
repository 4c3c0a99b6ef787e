"""Rows in eight bits, each by its own scale: what a matrix of eight bits is multiplied with in its own type."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from dg_kernels.quantised import E4M3_MAX, quantise_e4m3

__all__ = ["multiplies_e4m3", "quantise_rows"]

_FIRST_CAPABILITY = (8, 9)
"""Of NVIDIA's devices that multiply e4m3 numbers: Ada."""
LEAST_SCALE = 2.0**-100
"""Of a row of zeros, so that nothing is divided by zero."""


def quantise_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """[..., K] to [..., K] float8_e4m3fn and [...] fp32 scales, by which a row's largest number becomes 448."""
    scale = (x.float().abs().amax(-1) / E4M3_MAX).clamp_min(LEAST_SCALE)
    return quantise_e4m3(x.reshape(-1, x.shape[-1]), scale.reshape(-1, 1)).view(x.shape), scale


def multiplies_e4m3(x: Tensor) -> bool:
    """Whether the device of a tensor multiplies e4m3 numbers."""
    return x.is_cuda and _capability(x.device) >= _FIRST_CAPABILITY


@functools.cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)
