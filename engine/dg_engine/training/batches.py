"""Batches of the joint stage: chunks of documents, and several canvases cut out of each that share its encoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dg_engine.config import ModelConfig
from dg_engine.model import Masks, PrefixCache
from dg_engine.prompt import CUT_STEP
from dg_engine.training.encoded import EncodedSplit
from dg_engine.training.spans import Hole, SpanSampler, Vocabulary


class Chunks(NamedTuple):
    """[B, S] encoder tokens, padded at the right, and which of them are real."""

    tokens: Tensor
    real: Tensor


class Canvases(NamedTuple):
    """N = B K canvases, K consecutive ones over each chunk. C slots each."""

    clean: Tensor
    """[N, C] the tokens that belong there: span, filler, suffix, padding."""
    open: Tensor
    """[N, C] slots of the hole."""
    real: Tensor
    """[N, C] slots that are not padding."""
    cut: Tensor
    """[N] encoder tokens that are the canvas's prefix."""


class Cut(NamedTuple):
    """One hole with the document that it is in."""

    text: NDArray[np.int64]
    """[T] tokens of the whole document."""
    hole: Hole
    prefix: int
    """Encoder tokens before the hole, the header among them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Shapes of a batch. Equal for all batches of a kind, so that each kind is compiled once."""

    chunks: int
    encoder_tokens: int
    canvases: int
    """Over each chunk; 0 while only the causal side is trained."""
    slots: int


# One chunk in four is told no path: users complete unnamed buffers too.
_NAMELESS = 0.25


class Batcher:
    """An endless, reproducible stream of batches: every document in random order, cut into chunks, again and again.

    All randomness and the place in the data are in `state`, so that a run resumes where it was killed.
    """

    def __init__(self, data: EncodedSplit, vocabulary: Vocabulary, config: ModelConfig, seed: int) -> None:
        self._data, self._vocabulary, self._config = data, vocabulary, config
        self._rng = np.random.default_rng(seed)
        self._epoch = 0
        self._seed = seed
        self._position = 0
        self._order = self._shuffled()

    @property
    def epochs(self) -> float:
        """Passes over the data so far."""
        return self._epoch + self._position / max(1, len(self._order))

    def state(self) -> dict[str, Any]:
        """Place and randomness, as JSON holds them."""
        return {"epoch": self._epoch, "position": self._position, "rng": self._rng.bit_generator.state}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state`."""
        self._epoch, self._position = state["epoch"], state["position"]
        self._rng.bit_generator.state = state["rng"]
        self._order = self._shuffled()

    def batch(self, layout: Layout) -> tuple[Chunks, Canvases | None]:
        """The next batch."""
        rows, holes = [], []
        for _ in range(layout.chunks):
            tokens, cuts = self._chunk(layout)
            rows.append(tokens)
            holes.extend(cuts)
        chunks = _padded(rows, layout.encoder_tokens, self._config.pad_token_id)
        return chunks, lay_out(holes, layout.slots, self._config) if layout.canvases else None

    def _shuffled(self) -> NDArray[np.int64]:
        """(document, first token) of every chunk of an epoch; the grid is moved by a random offset in each document."""
        rng = np.random.default_rng((self._seed, self._epoch))
        pieces = []
        for document, length in enumerate(self._data.lengths):
            offset = int(rng.integers(0, _STRIDE))
            starts = np.arange(-offset, max(1, length - _STRIDE // 4), _STRIDE).clip(0)
            starts = np.unique(starts)
            pieces.append(np.stack((np.full(len(starts), document), starts), axis=1))
        return rng.permutation(np.concatenate(pieces))

    def _next_place(self) -> tuple[int, int]:
        if self._position >= len(self._order):
            self._epoch += 1
            self._position = 0
            self._order = self._shuffled()
        document, start = self._order[self._position]
        self._position += 1
        return int(document), int(start)

    def _chunk(self, layout: Layout) -> tuple[NDArray[np.int64], list[Cut]]:
        document, start = self._next_place()
        text = self._data.tokens(document)
        header = self._data.header(document)
        header = header[:1] if self._rng.random() < _NAMELESS else header
        start = self._line_start(text, start)
        end = min(len(text), start + layout.encoder_tokens - len(header))
        cuts: list[Cut] = []
        if layout.canvases:
            nodes = self._data.nodes(document)
            sampler = SpanSampler(text, nodes, (start, end), self._vocabulary, layout.slots, self._rng)
            holes = [sampler.draw() for _ in range(layout.canvases)]
            cuts = [Cut(text, hole, len(header) + hole.start - start) for hole in holes]
        return np.concatenate((header, text[start:end])), cuts

    def _line_start(self, text: NDArray[np.int64], start: int) -> int:
        """The first line break at or behind a place, as `encode_prefix` cuts; no chunk begins at a document's end."""
        start = min(start, max(0, len(text) - _LEAST))
        if start == 0:
            return 0
        breaks = np.flatnonzero(self._vocabulary.newline[text[start : start + CUT_STEP]])
        return min(start + int(breaks[0]) if len(breaks) else start, max(0, len(text) - 2))


# Chunks overlap a little: each begins up to a line late, and behind a header.
_STRIDE = 448
# Tokens that a chunk has at the least, if its document does.
_LEAST = 160


def noised(canvases: Canvases, corruption: Tensor, noise: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Replace tokens of open slots by noise.

    Args:
        canvases: the clean tokens.
        corruption: [N, C] the probability t of each slot to be replaced.
        noise: [N, C] what to replace it by.
        uniform: [N, C] in [0, 1): the only randomness.

    Returns:
        The noised canvas, and which slots were replaced; at least one in every canvas.
    """
    chance = uniform.masked_fill(~canvases.open, 2.0)
    replaced = chance < corruption
    least = torch.zeros_like(replaced).scatter_(1, chance.argmin(dim=1, keepdim=True), value=True)
    replaced = replaced | (least & ~replaced.any(dim=1, keepdim=True))
    return torch.where(replaced, noise, canvases.clean), replaced


def canvas_view(config: ModelConfig, cache: PrefixCache, canvases: Canvases) -> tuple[PrefixCache, Masks, Tensor]:
    """What each canvas sees of its chunk: its own prefix, in sliding layers the last `window` - 1 tokens of it.

    Canvases are rows of their own, so none sees another; a row's cache ends at its cut, so none sees its own answer.

    Args:
        config: kinds of layers and window.
        cache: of B chunks of S tokens.
        canvases: N = B K canvases of C slots.

    Returns:
        A cache of N rows (S keys in full layers, window - 1 in sliding ones), the masks over it, positions [N, C].
    """
    count, slots = canvases.clean.shape
    length = cache.length
    rows = cache.keys[0].shape[0]
    window = config.window - 1
    near = canvases.cut[:, None] + torch.arange(-window, 0)
    own = canvases.real[:, None, :].expand(-1, slots, -1)
    visible = (torch.arange(length) < canvases.cut[:, None])[:, None, :].expand(-1, slots, -1)
    behind = (near >= 0)[:, None, :].expand(-1, slots, -1)
    first = torch.arange(rows).repeat_interleave(count // rows)[:, None] * length
    places = first + near.clamp_min(0)

    def cut(tensor: Tensor, layer: int) -> Tensor:
        if not config.is_sliding(layer):
            return tensor[:, None].expand(-1, count // rows, -1, -1, -1).flatten(0, 1)
        # A table look-up: the gradient of an indexing by two tensors is ten times slower on a CPU.
        table = tensor.transpose(1, 2).flatten(2).flatten(0, 1)
        near_cut = functional.embedding(places, table)
        return near_cut.view(count, window, tensor.shape[1], -1).transpose(1, 2)

    keys = tuple(cut(key, layer) for layer, key in enumerate(cache.keys))
    values = tuple(cut(value, layer) for layer, value in enumerate(cache.values))
    positions = canvases.cut[:, None] + torch.arange(slots)
    masks = Masks(torch.cat((visible, own), dim=2), torch.cat((behind, own), dim=2))
    return PrefixCache(keys, values), masks, positions


def _padded(rows: list[NDArray[np.int64]], width: int, pad: int) -> Chunks:
    tokens = np.full((len(rows), width), pad)
    real = np.zeros((len(rows), width), dtype=bool)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = row
        real[number, : len(row)] = True
    return Chunks(torch.from_numpy(tokens), torch.from_numpy(real))


def lay_out(cuts: list[Cut], slots: int, config: ModelConfig) -> Canvases:
    """The canvases of some holes: span, filler, suffix, padding up to `slots`."""
    clean = np.full((len(cuts), slots), config.pad_token_id)
    filled = np.arange(slots)
    for number, (text, hole, _) in enumerate(cuts):
        span = hole.end - hole.start
        clean[number, :span] = text[hole.start : hole.end]
        clean[number, span : hole.slots] = config.eos_token_id
        clean[number, hole.slots : hole.slots + hole.suffix] = text[hole.end : hole.end + hole.suffix]
    holes = np.array([cut.hole.slots for cut in cuts])[:, None]
    used = holes + np.array([cut.hole.suffix for cut in cuts])[:, None]
    arrays = clean, filled < holes, filled < used, np.array([cut.prefix for cut in cuts])
    return Canvases(*map(torch.from_numpy, arrays))
