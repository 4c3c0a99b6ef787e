"""The truth for `packed_linear`: every number on its own, in fp64."""

import torch
from torch import Tensor

from dg_kernels.quantised.packed import PackedWeight


def packed_linear_reference(x: Tensor, weight: PackedWeight) -> Tensor:
    """Same shapes as `packed_linear`."""
    numbers = weight.dequantised(torch.float64)
    return torch.einsum("...k,nk->...n", x.double(), numbers).to(x.dtype)
