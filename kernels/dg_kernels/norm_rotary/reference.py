"""The truth for `norm_rotary`, in fp64."""

import torch
from torch import Tensor

from dg_kernels.norm_rotary import Heads


def norm_rotary_reference(
    raw: Heads, query_weight: Tensor, key_weight: Tensor, cosines: Tensor, sines: Tensor, eps: float
) -> Heads:
    """Each pair (i, i + D/2) of a normalised head as a complex number, turned by its angle; values are not turned."""
    half = raw.query.shape[-1] // 2
    turn = torch.complex(cosines.double()[..., :half], sines.double()[..., :half]).unsqueeze(-2)
    found = []
    for one, weight, by in zip(raw, (query_weight, key_weight, None), (turn, turn, torch.ones_like(turn)), strict=True):
        wide = one.double()
        normed = wide / (wide.pow(2).mean(-1, keepdim=True) + eps).sqrt()
        normed = normed if weight is None else normed * weight.double()
        turned = torch.complex(normed[..., :half], normed[..., half:]) * by
        found.append(torch.cat((turned.real, turned.imag), dim=-1).to(one.dtype).transpose(1, 2))
    return Heads(*found)
