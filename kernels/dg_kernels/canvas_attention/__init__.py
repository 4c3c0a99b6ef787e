"""Attention of a run of queries over keys of which the last are their own, grouped heads, scale 1.

One operation serves the whole model: the decoder's canvas attends to the cached prefix and, in both directions, to
itself; the encoder's chunk attends to the cache and, by a causal mask, to itself.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from dg_kernels.canvas_attention.trained import trained_attention
from dg_kernels.launching import run, served

__all__ = ["Causal", "CausalRuns", "Mask", "VisibleRuns", "canvas_attention"]

_KERNEL_WIDTHS = (64, 128, 256, 512)
"""Of the heads that the kernel has tiles for."""


class VisibleRuns(NamedTuple):
    """Two runs of keys, the same for all queries of a row: what there is of a prefix, and behind its places a canvas.

    Rows may stand behind one prefix: then the keys of all are the same, and the canvases lie one behind the other. The
    lengths are tensors, so that one CUDA graph serves all that fit into the places; keys beyond them are not read.
    """

    prefix: Tensor
    """[B] int64; of a prefix longer than the places, these are its last."""
    canvas: Tensor
    """[B] int64, at least one."""
    places: int
    """P: the canvas of the first row begins at the key P."""
    apart: int = 0
    """So many keys further that of each row than that of the row before."""

    def mask(self, keys: int) -> Tensor:
        """[B, 1, K] booleans that show the same."""
        place = torch.arange(keys, device=self.prefix.device)
        row = torch.arange(len(self.prefix), device=self.prefix.device)
        first = (self.places + row * self.apart)[:, None]
        known = place < self.prefix[:, None].clamp_max(self.places)
        return (known | (place >= first) & (place < first + self.canvas[:, None]))[:, None]


class Causal(NamedTuple):
    """A query sees its own key, of which the C queries' are the last of all, and those before it."""

    window: int | None
    """How many keys it sees at most, its own among them; None for all."""

    def mask(self, queries: int, keys: int, device: torch.device) -> Tensor:
        """[1, C, K] booleans that show the same."""
        ago = torch.arange(keys - queries, keys, device=device)[:, None] - torch.arange(keys, device=device)
        return ((ago >= 0) & (ago < (self.window or keys)))[None]


class CausalRuns(NamedTuple):
    """`Causal` where the keys lie in the two runs of `VisibleRuns`: a prefix, and behind its places the C queries' own.

    Of fewer queries than C the first are meant; what the others see is of no use to anybody.
    """

    prefix: Tensor
    """[B] int64; of a prefix longer than the places, these are its last."""
    own: Tensor
    """[B] int64: of how many queries there are, at least one."""
    places: int
    """P: the own keys of the first row begin at the key P."""
    window: int | None
    """As in `Causal`."""
    apart: int = 0
    """As in `VisibleRuns`."""

    def mask(self, queries: int, keys: int) -> Tensor:
        """[B, C, K] booleans that show the same."""
        place = torch.arange(keys, device=self.prefix.device)
        known = self.prefix[:, None].clamp_max(self.places)
        first = (self.places + torch.arange(len(known), device=place.device) * self.apart)[:, None]
        behind = place - torch.where(place < self.places, known, first)
        there = (place < known) | (place >= first)
        ago = torch.arange(queries, device=place.device)[:, None] - behind[:, None]
        return there[:, None] & (ago >= 0) & (ago < (self.window or keys))

    @property
    def of_last(self) -> VisibleRuns:
        """What the last query there is sees without a window."""
        return VisibleRuns(self.prefix, self.own, self.places, self.apart)


Mask = Tensor | VisibleRuns | Causal | CausalRuns
"""[B or 1, C, K] booleans, true where a key is visible, or a rule."""


def canvas_attention(query: Tensor, keys: Tensor, values: Tensor, mask: Mask | None = None) -> Tensor:
    """softmax(Q K^T) V, with every group of Hq / Hkv query heads sharing one key head.

    Args:
        query: [B, Hq, C, D].
        keys: [B, Hkv, K, D]; Hkv divides Hq.
        values: [B, Hkv, K, D].
        mask: which keys are visible; None shows everything.

    Returns:
        [B, C, Hq * D] in the type of `query`. The scale is 1: queries and keys are normalised before.

    Raises:
        ValueError: the key heads do not divide the query heads, or the mask is not K wide.
    """
    batch, heads, length, width = query.shape
    if heads % keys.shape[1]:
        raise ValueError(f"{keys.shape[1]} key heads do not divide {heads} query heads")
    if not isinstance(mask, Tensor) and width in _KERNEL_WIDTHS and served(query, keys, values):
        from dg_kernels.canvas_attention.plan import plan

        launches, result = plan(query, keys, values, mask)
        run(launches)
        return result
    if isinstance(mask, VisibleRuns):
        mask = mask.mask(keys.shape[2]).expand(-1, length, -1)
    elif isinstance(mask, Causal):
        mask = mask.mask(length, keys.shape[2], query.device)
    elif isinstance(mask, CausalRuns):
        mask = mask.mask(length, keys.shape[2])
    if mask is not None and mask.shape[-1] != keys.shape[2]:
        raise ValueError(f"mask must be {keys.shape[2]} wide, not {mask.shape[-1]}")
    if query.requires_grad and torch.is_grad_enabled() and query.device.type == "cpu":
        mixed = trained_attention(query, keys, values, mask)
    elif mask is None:
        # Heads that share keys as more rows of one head: on a CPU in bf16 a sixth of the time for a single query.
        grouped = query.reshape(batch, keys.shape[1], -1, width)
        mixed = functional.scaled_dot_product_attention(grouped, keys, values, scale=1.0).view_as(query)
    else:
        mixed = functional.scaled_dot_product_attention(
            query, keys, values, mask.unsqueeze(-3), scale=1.0, enable_gqa=True
        )
    return mixed.transpose(1, 2).reshape(batch, length, heads * width)
