"""Rows in eight bits, each by its own scale: what a matrix of eight bits is multiplied with in its own type."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from dg_kernels.launching import run, served
from dg_kernels.quantised import E4M3_MAX, quantise_e4m3

__all__ = ["Operand", "RoundedRows", "multiplied_in_e4m3", "multiplies_e4m3", "quantise_rows"]

_FIRST_CAPABILITY = (8, 9)
"""Of NVIDIA's devices that multiply e4m3 numbers: Ada."""
LEAST_SCALE = 2.0**-100
"""Of a row of zeros, so that nothing is divided by zero."""


class RoundedRows(NamedTuple):
    """Rows [..., K] in e4m3, each times its scale: made by a kernel for another, on a device that multiplies them."""

    values: Tensor
    """[..., K] float8_e4m3fn."""
    scale: Tensor
    """[...] fp32."""
    dtype: torch.dtype
    """Of what was rounded, and of products with it."""

    @property
    def shape(self) -> torch.Size:
        """[..., K]."""
        return self.values.shape


Operand = Tensor | RoundedRows
"""Rows that a product reads."""


def quantise_rows(x: Tensor) -> RoundedRows:
    """[..., K], with scales by which a row's largest number becomes 448."""
    if served(x):
        from dg_kernels.quantised.plan import rounding, shaped

        launch, rounded = rounding(x.reshape(-1, x.shape[-1]).contiguous())
        run([launch])
        return shaped(rounded, x.shape)
    scale = (x.float().abs().amax(-1) / E4M3_MAX).clamp_min(LEAST_SCALE)
    values = quantise_e4m3(x.reshape(-1, x.shape[-1]), scale.reshape(-1, 1)).view(x.shape)
    return RoundedRows(values, scale, x.dtype)


def multiplied_in_e4m3(x: Operand, *, quantises: bool) -> bool:
    """Whether rows meet a weight in e4m3: because they were rounded to it, or as the weight and the device want it.

    Raises:
        ValueError: rows were rounded for a weight that does not quantise them.
    """
    if isinstance(x, Tensor):
        return quantises and multiplies_e4m3(x)
    if not quantises:
        raise ValueError("rounded rows are for weights that quantises_rows")
    return True


def multiplies_e4m3(x: Tensor) -> bool:
    """Whether the device of a tensor multiplies e4m3 numbers."""
    return x.is_cuda and _capability(x.device) >= _FIRST_CAPABILITY


@functools.cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)
