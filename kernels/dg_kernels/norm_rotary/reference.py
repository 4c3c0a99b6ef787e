"""The truth for `norm_rotary`, in fp64."""

import torch
from torch import Tensor


def norm_rotary_reference(x: Tensor, weight: Tensor, cosines: Tensor, sines: Tensor, eps: float) -> Tensor:
    """Each pair (i, i + D/2) of a normalised head as a complex number, turned by its angle."""
    wide = x.double()
    normed = wide / (wide.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight.double()
    half = x.shape[-1] // 2
    turn = torch.complex(cosines.double()[..., :half], sines.double()[..., :half]).unsqueeze(-2)
    turned = torch.complex(normed[..., :half], normed[..., half:]) * turn
    return torch.cat((turned.real, turned.imag), dim=-1).to(x.dtype)
