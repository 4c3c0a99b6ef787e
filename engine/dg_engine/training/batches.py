"""Batches: chunks of documents, and several holes cut out of each that share its encoding."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dg_engine.config import ModelConfig
from dg_engine.prompt import CUT_STEP
from dg_engine.training.bounds import bounded
from dg_engine.training.encoded import EncodedSplit
from dg_engine.training.spans import BUCKETS, Hole, SpanSampler, Vocabulary

SHORTEST_CHUNK = 64
"""Tokens. A header takes up to 67 where a file's path is long, which only a longer chunk is told."""


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


class Batch(NamedTuple):
    """Chunks, and the holes that were cut out of them; None where the layout has none."""

    chunks: Chunks
    canvases: Canvases | None

    @property
    def tokens(self) -> int:
        """Tokens that one forward pass goes over, padding among them."""
        canvases = 0 if self.canvases is None else self.canvases.clean.numel()
        return self.chunks.tokens.numel() + canvases

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        canvases = None if self.canvases is None else Canvases(*(one.to(device) for one in self.canvases))
        return Batch(Chunks(*(one.to(device) for one in self.chunks)), canvases)


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

    def __post_init__(self) -> None:
        """Refuse shapes that hold nothing, or no hole where there are to be some."""
        bounded("chunks", self.chunks, least=1)
        bounded("encoder_tokens", self.encoder_tokens, least=SHORTEST_CHUNK)
        bounded("canvases", self.canvases, least=0)
        bounded("slots", self.slots, least=BUCKETS[0] if self.canvases else 0)

    @property
    def stride(self) -> int:
        """Tokens between two chunks. They overlap a little: each begins up to a line late, and behind a header."""
        return self.encoder_tokens * 7 // 8


# One chunk in four is told no path: users complete unnamed buffers too.
_NAMELESS = 0.25


class Batcher:
    """An endless, reproducible stream of batches: every document in random order, cut into chunks, again and again.

    A batch follows from the seed and its number alone, so a run resumes exactly wherever it was killed, and any process
    can make any batch.
    """

    def __init__(self, data: EncodedSplit, vocabulary: Vocabulary, config: ModelConfig, seed: int) -> None:
        self._data, self._vocabulary, self._config = data, vocabulary, config
        self._seed = seed
        self._orders: dict[int, list[NDArray[np.int64]]] = defaultdict(list)

    def batch(self, number: int, layout: Layout) -> Batch:
        """Batch 0, 1, ...; all layouts of a run have as many chunks."""
        rng = np.random.default_rng((self._seed, number))
        rows, canvases = list[NDArray[np.int64]](), list[Cut]()
        for index in range(number * layout.chunks, (number + 1) * layout.chunks):
            tokens, cuts = self._chunk(self._place(index, layout)[1], layout, rng)
            rows.append(tokens)
            canvases += cuts
        return Batch(
            _padded(rows, layout.encoder_tokens, self._config.pad_token_id),
            lay_out(canvases, layout.slots, self._config) if canvases else None,
        )

    def epochs(self, batches: int, layout: Layout) -> float:
        """Passes over the data in so many batches."""
        epoch, _ = self._place(batches * layout.chunks, layout)
        orders = self._orders[layout.stride]
        before = sum(len(order) for order in orders[:epoch])
        return epoch + (batches * layout.chunks - before) / len(orders[epoch])

    def _place(self, index: int, layout: Layout) -> tuple[int, tuple[int, int]]:
        """The epoch of a chunk of the stream, and its (document, first token)."""
        orders = self._orders[layout.stride]
        for epoch in count():
            if epoch == len(orders):
                orders.append(self._shuffled(epoch, layout.stride))
            order = orders[epoch]
            if index < len(order):
                return epoch, (int(order[index, 0]), int(order[index, 1]))
            index -= len(order)
        raise AssertionError("there is always another epoch")

    def _shuffled(self, epoch: int, stride: int) -> NDArray[np.int64]:
        """(document, first token) of every chunk of an epoch; the grid is moved by a random offset in each document."""
        rng = np.random.default_rng((self._seed, epoch))
        pieces = []
        for document, length in enumerate(self._data.lengths):
            offset = int(rng.integers(0, stride))
            starts = np.arange(-offset, max(1, length - stride // 4), stride).clip(0)
            starts = np.unique(starts)
            pieces.append(np.stack((np.full(len(starts), document), starts), axis=1))
        return rng.permutation(np.concatenate(pieces))

    def _chunk(
        self, place: tuple[int, int], layout: Layout, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], list[Cut]]:
        document, start = place
        text = self._data.tokens(document)
        header = self._data.header(document)
        if rng.random() < _NAMELESS or 2 * len(header) > layout.encoder_tokens:
            header = header[:1]
        start = self._line_start(text, start)
        end = min(len(text), start + layout.encoder_tokens - len(header))
        cuts: list[Cut] = []
        if layout.canvases:
            nodes = self._data.nodes(document)
            sampler = SpanSampler(text, nodes, (start, end), self._vocabulary, layout.slots, rng)
            holes = (sampler.draw() for _ in range(layout.canvases))
            cuts = [Cut(text, hole, len(header) + hole.start - start) for hole in holes]
        return np.concatenate((header, text[start:end])), cuts

    def _line_start(self, text: NDArray[np.int64], start: int) -> int:
        """The first line break at or behind a place, as `encode_prefix` cuts; no chunk begins at a document's end."""
        start = min(start, max(0, len(text) - _LEAST))
        if start == 0:
            return 0
        breaks = np.flatnonzero(self._vocabulary.newline[text[start : start + CUT_STEP]])
        return min(start + int(breaks[0]) if len(breaks) else start, max(0, len(text) - 2))


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
