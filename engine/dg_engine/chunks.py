"""A chunk of a prefix, encoded with shapes that depend on a bucket of its length alone: one CUDA graph serves all.

`DiffusionGemma.encode` is the readable twin: there the lengths of chunk and prefix are shapes of tensors. Here they are
numbers in tensors, the chunk is padded, and its keys lie behind the places of a prefix. On a GPU the launches of one
pass of 30 layers take the host longer than the device needs for the few tokens that somebody typed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dg_engine.captures import Graphs, write
from dg_engine.model import DiffusionGemma, Masks
from dg_engine.prefix_cache import Seen
from dg_kernels import CausalRuns

CHUNK_BUCKETS = (16, 64, 256, 512)
"""Lengths to which chunks are padded: what was typed, what was accepted, a canvas, a part of a longer prefix."""


def chunk_bucket(tokens: int) -> int:
    """The shortest that holds so many.

    Raises:
        ValueError: none does, or there are no tokens.
    """
    if not 0 < tokens <= CHUNK_BUCKETS[-1]:
        raise ValueError(f"a chunk has 1 to {CHUNK_BUCKETS[-1]} tokens, not {tokens}")
    return next(slots for slots in CHUNK_BUCKETS if slots >= tokens)


class Told(NamedTuple):
    """What is to be encoded."""

    tokens: Tensor
    """[1, S], padded."""
    own: Tensor
    """[1] tokens that are no padding."""
    prefix: Tensor
    """[1] tokens encoded before."""


def static_encode(model: DiffusionGemma, seen: Sequence[Seen], told: Told) -> Tensor:
    """Encode a chunk behind a prefix.

    Args:
        model: the encoder.
        seen: each layer's keys and values of the prefix; the S places behind them are written.
        told: tokens and lengths.

    Returns:
        [1, 1, H] the hidden state after the final norm of the last token that is no padding.
    """
    slots = told.tokens.shape[1]
    positions = told.prefix[:, None] + torch.arange(slots, device=told.tokens.device)
    masks = {}
    for layer, kind in enumerate(model.config.layer_types):
        places = seen[layer].keys.shape[2] - slots
        window = model.config.window if model.config.is_sliding(layer) else None
        masks[kind] = CausalRuns(told.prefix, told.own, places, window)
    rules = Masks(masks.get("full_attention"), masks.get("sliding_attention"))
    return model.encode_over(told.tokens, seen, positions, rules, told.own - 1)


class Chunk:
    """The buffers of chunks of one length behind a prefix, and the pass over them.

    Args:
        model: the encoder.
        slots: S.
        seen: as in `static_encode`.
        graphs: captures the pass; None runs it as it is.
    """

    def __init__(self, model: DiffusionGemma, slots: int, seen: Sequence[Seen], graphs: Graphs | None) -> None:
        self._model, self._seen = model, seen
        tokens = torch.zeros(1, slots, dtype=torch.long, device=model.device)
        self._told = Told(tokens, torch.ones_like(tokens[:, 0]), torch.zeros_like(tokens[:, 0]))
        weight = model.decoder.embed_tokens.weight
        self._hidden = weight.new_zeros(1, 1, model.config.hidden_size)
        self._pass = self._advance if graphs is None else graphs.captured(self._advance)

    def encode(self, tokens: Tensor, prefix: int) -> Tensor:
        """[1, at most S] behind so many tokens to [1, 1, H], as `static_encode`."""
        count = tokens.shape[1]
        self._told.tokens[:, :count] = tokens
        self._told.tokens[:, count:] = 0
        self._told.own.fill_(count)
        self._told.prefix.fill_(prefix)
        self._pass()
        return self._hidden.clone()

    def _advance(self) -> None:
        write([self._hidden], [static_encode(self._model, self._seen, self._told)])
