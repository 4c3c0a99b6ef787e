"""Tokens behind a prefix, encoded with shapes that depend on a bucket of their number alone: one CUDA graph serves all.

`DiffusionGemma.encode` is the readable twin of a chunk of a prefix, `causal.hidden_behind` of several texts behind one.
There the lengths are shapes of tensors. Here they are numbers in tensors, the tokens are padded, and their keys lie
behind the places of a prefix. On a GPU the launches of one pass of 30 layers take the host longer than the device needs
for the few tokens that somebody typed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

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
    """What is to be encoded: rows of S tokens behind one prefix."""

    tokens: Tensor
    """[B, S], padded."""
    own: Tensor
    """[B] tokens that are no padding."""
    prefix: Tensor
    """[B] tokens encoded before."""


def static_encode(model: DiffusionGemma, seen: Sequence[Seen], told: Told, *, last: bool) -> Tensor:
    """Encode rows behind a prefix.

    Args:
        model: the encoder.
        seen: each layer's keys and values of the prefix; the B S places behind them are written.
        told: tokens and lengths.
        last: of one row, whether its last token that is no padding is all that is read.

    Returns:
        [B, S, H] hidden states after the final norm, or [1, 1, H].
    """
    rows, slots = told.tokens.shape
    positions = told.prefix[:, None] + torch.arange(slots, device=told.tokens.device)
    masks = {}
    for layer, kind in enumerate(model.config.layer_types):
        places = seen[layer].keys.shape[2] - rows * slots
        window = model.config.window if model.config.is_sliding(layer) else None
        masks[kind] = CausalRuns(told.prefix, told.own, places, window, slots if rows > 1 else 0)
    rules = Masks(masks.get("full_attention"), masks.get("sliding_attention"))
    return model.encode_over(told.tokens, seen, positions, rules, told.own - 1 if last else None)


class ChunkShape(NamedTuple):
    """All that the shapes of such a pass depend on, beside the model and the places."""

    rows: int
    """B."""
    slots: int
    """S."""
    last: bool
    """As in `static_encode`."""


class Chunk:
    """The buffers of one shape behind a prefix, and the pass over them.

    Args:
        model: the encoder.
        shape: of what is encoded.
        seen: as in `static_encode`.
        graphs: captures the pass; None runs it as it is.
    """

    def __init__(self, model: DiffusionGemma, shape: ChunkShape, seen: Sequence[Seen], graphs: Graphs | None) -> None:
        self._model, self._shape, self._seen = model, shape, seen
        tokens = torch.zeros(shape.rows, shape.slots, dtype=torch.long, device=model.device)
        self._told = Told(tokens, torch.ones_like(tokens[:, 0]), torch.zeros_like(tokens[:, 0]))
        read = 1 if shape.last else shape.slots
        self._hidden = model.decoder.embed_tokens.weight.new_zeros(shape.rows, read, model.config.hidden_size)
        self._pass = self._advance if graphs is None else graphs.captured(self._advance)

    def encode(self, rows: Sequence[Tensor], prefix: int) -> Tensor:
        """B rows of at most S tokens behind so many; returns what `static_encode` does."""
        tokens = pad_sequence(rows, batch_first=True)  # type: ignore[arg-type]
        self._told.tokens.zero_()
        self._told.tokens[:, : tokens.shape[1]] = tokens
        self._told.own.copy_(torch.tensor([len(row) for row in rows]))
        self._told.prefix.fill_(prefix)
        self._pass()
        return self._hidden.clone()

    def _advance(self) -> None:
        write([self._hidden], [static_encode(self._model, self._seen, self._told, last=self._shape.last)])
