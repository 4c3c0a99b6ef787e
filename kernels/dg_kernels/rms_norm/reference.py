"""The truth for `rms_norm`, in plain PyTorch."""

import torch
from torch import Tensor


def rms_norm_reference(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """Normalise [..., D] in fp32, scale in fp32, round once at the end."""
    wide = x.float()
    normed = wide * torch.pow(wide.pow(2).mean(-1, keepdim=True) + eps, -0.5)
    return (normed if weight is None else normed * weight.float()).to(x.dtype)
