"""What a hole sees of the chunk that it was cut out of, while training: its own prefix, and nothing else.

Holes are rows of their own, so none sees another; a row's cache ends at its cut, so none sees its own answer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from dg_engine.config import ModelConfig
from dg_engine.model import Masks
from dg_engine.prefix_cache import PrefixCache
from dg_engine.training.batches import Canvases


class View(NamedTuple):
    """A cache of N rows (S keys in full layers, window - 1 in sliding ones), masks over it, positions [N, C]."""

    cache: PrefixCache
    masks: Masks
    positions: Tensor


def canvas_view(config: ModelConfig, cache: PrefixCache, canvases: Canvases) -> View:
    """What canvases see: every slot their whole prefix, in sliding layers its last `window` - 1 tokens, and all slots.

    Args:
        config: kinds of layers and window.
        cache: of B chunks of S tokens.
        canvases: N = B K canvases of C slots.
    """
    cut, slots, device = canvases.cut, canvases.clean.shape[1], canvases.cut.device
    whole = torch.arange(cache.length, device=device) < cut[:, None]
    window = cut[:, None] + torch.arange(1 - config.window, 0, device=device) >= 0
    full, near = (
        torch.cat((before, canvases.real), dim=1)[:, None].expand(-1, slots, -1) for before in (whole, window)
    )
    return View(_cut(config, cache, cut), Masks(full, near), cut[:, None] + torch.arange(slots, device=device))


def _cut(config: ModelConfig, cache: PrefixCache, cuts: Tensor) -> PrefixCache:
    """The cache once for each of N rows; in sliding layers only what stands in the window before each row's cut."""
    count, chunks, window = len(cuts), cache.keys[0].shape[0], config.window - 1
    near = cuts[:, None] + torch.arange(-window, 0, device=cuts.device)
    first = torch.arange(chunks, device=cuts.device).repeat_interleave(count // chunks)[:, None] * cache.length
    places = first + near.clamp_min(0)

    def cut(tensor: Tensor, layer: int) -> Tensor:
        if not config.is_sliding(layer):
            return tensor[:, None].expand(-1, count // chunks, -1, -1, -1).flatten(0, 1)
        # A table look-up: the gradient of an indexing by two tensors is ten times slower on a CPU.
        table = tensor.transpose(1, 2).flatten(2).flatten(0, 1)
        rows = functional.embedding(places, table)
        return rows.view(count, window, tensor.shape[1], -1).transpose(1, 2)

    keys = tuple(cut(key, layer) for layer, key in enumerate(cache.keys))
    return PrefixCache(keys, tuple(cut(value, layer) for layer, value in enumerate(cache.values)))
