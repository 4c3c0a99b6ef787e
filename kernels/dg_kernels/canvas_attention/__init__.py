"""Attention of a run of queries over a cached prefix and over themselves, grouped heads, scale 1.

One operation serves the whole model: the decoder's canvas attends to the prefix cache and, in both directions, to
itself; the encoder's chunk attends to the cache and, by a causal mask, to itself.
"""

import torch
from torch import Tensor
from torch.nn import functional

from dg_kernels.canvas_attention.trained import trained_attention

__all__ = ["canvas_attention"]


def canvas_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    prefix_key: Tensor,
    prefix_value: Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    """softmax(Q [Kp; K]^T) [Vp; V], with every group of Hq / Hkv query heads sharing one key head.

    Args:
        query: [B, Hq, C, D].
        key: [B, Hkv, C, D], the canvas's own keys; Hkv divides Hq.
        value: [B, Hkv, C, D].
        prefix_key: [B, Hkv, P, D], the cache; P may be 0.
        prefix_value: [B, Hkv, P, D].
        mask: [B or 1, C, P + C] boolean, True where a key is visible; None shows everything.

    Returns:
        [B, C, Hq * D] in the type of `query`. The scale is 1: queries and keys are normalised before.

    Raises:
        ValueError: the key heads do not divide the query heads, or the mask is not P + C wide.
    """
    batch, heads, length, width = query.shape
    if heads % key.shape[1]:
        raise ValueError(f"{key.shape[1]} key heads do not divide {heads} query heads")
    keys = torch.cat((prefix_key, key), dim=2)
    values = torch.cat((prefix_value, value), dim=2)
    if mask is not None and mask.shape[-1] != keys.shape[2]:
        raise ValueError(f"mask must be {keys.shape[2]} wide, not {mask.shape[-1]}")
    if query.requires_grad and torch.is_grad_enabled() and query.device.type == "cpu":
        mixed = trained_attention(query, keys, values, mask)
        return mixed.transpose(1, 2).reshape(batch, length, heads * width)
    visible = None if mask is None else mask.unsqueeze(-3)
    mixed = functional.scaled_dot_product_attention(query, keys, values, visible, scale=1.0, enable_gqa=True)
    return mixed.transpose(1, 2).reshape(batch, length, heads * width)
