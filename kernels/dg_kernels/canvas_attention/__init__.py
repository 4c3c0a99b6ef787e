"""Attention of a run of queries over keys of which the last are their own, grouped heads, scale 1.

One operation serves the whole model: the decoder's canvas attends to the cached prefix and, in both directions, to
itself; the encoder's chunk attends to the cache and, by a causal mask, to itself.
"""

import torch
from torch import Tensor
from torch.nn import functional

from dg_kernels.canvas_attention.trained import trained_attention
from dg_kernels.launching import run, served

__all__ = ["canvas_attention"]

_KERNEL_WIDTHS = (64, 128, 256, 512)
"""Of the heads that the kernel has tiles for."""


def canvas_attention(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(Q K^T) V, with every group of Hq / Hkv query heads sharing one key head.

    Args:
        query: [B, Hq, C, D].
        keys: [B, Hkv, K, D]; Hkv divides Hq.
        values: [B, Hkv, K, D].
        mask: [B or 1, C, K] boolean, True where a key is visible; None shows everything.

    Returns:
        [B, C, Hq * D] in the type of `query`. The scale is 1: queries and keys are normalised before.

    Raises:
        ValueError: the key heads do not divide the query heads, or the mask is not K wide.
    """
    batch, heads, length, width = query.shape
    if heads % keys.shape[1]:
        raise ValueError(f"{keys.shape[1]} key heads do not divide {heads} query heads")
    if mask is not None and mask.shape[-1] != keys.shape[2]:
        raise ValueError(f"mask must be {keys.shape[2]} wide, not {mask.shape[-1]}")
    if query.requires_grad and torch.is_grad_enabled() and query.device.type == "cpu":
        mixed = trained_attention(query, keys, values, mask)
        return mixed.transpose(1, 2).reshape(batch, length, heads * width)
    if mask is None and width in _KERNEL_WIDTHS and served(query, keys, values):
        from dg_kernels.canvas_attention.plan import plan

        launches, result = plan(query, keys, values)
        run(launches)
        return result
    if mask is None:
        # Heads that share keys as more rows of one head: on a CPU in bf16 a sixth of the time for a single query.
        grouped = query.reshape(batch, keys.shape[1], -1, width)
        mixed = functional.scaled_dot_product_attention(grouped, keys, values, scale=1.0).view_as(query)
    else:
        mixed = functional.scaled_dot_product_attention(
            query, keys, values, mask.unsqueeze(-3), scale=1.0, enable_gqa=True
        )
    return mixed.transpose(1, 2).reshape(batch, length, heads * width)
