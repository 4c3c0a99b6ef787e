"""The truth for `packed_linear`: every number on its own, in fp64."""

import torch
from torch import Tensor

from dg_kernels.quantised.packed import PackedWeight
from dg_kernels.quantised.rows import quantise_rows


def packed_linear_reference(x: Tensor, weight: PackedWeight, *, native: bool = False) -> Tensor:
    """Same shapes as `packed_linear`; with rows rounded to e4m3 first if products are `native`."""
    numbers, rows = weight.dequantised(torch.float64), x.double()
    if native:
        values, scale, _ = quantise_rows(x)
        rows = values.double() * scale.double()[..., None]
    return torch.einsum("...k,nk->...n", rows, numbers).to(x.dtype)
