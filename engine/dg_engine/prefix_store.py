"""Encoding prefixes: those of the documents in use are kept, each reused up to the first token that changed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from dg_engine.causal import Start
from dg_engine.chunks import CHUNK_BUCKETS
from dg_engine.device_loop import DeviceLoop
from dg_engine.hardware import is_nearly_full
from dg_engine.model import DiffusionGemma, Encoded
from dg_engine.prefix_cache import PrefixCache
from dg_engine.rows import SHORTEST_PREFIX, prefix_places

PREFILL_CHUNK = 128
"""Tokens encoded between two chances to cancel: on one core about 10 ms of a 5 M model."""
GPU_PREFILL_CHUNK = CHUNK_BUCKETS[-1]
"""The same on a GPU, where each chunk reads all experts, however many tokens it has: on an H200, of the released model,
3 to 11 ms by the bandwidth, and as much by the arithmetic of so many tokens."""
DOCUMENTS = 8
"""Whose prefixes are kept, while the device has room for them."""


class Prefix(NamedTuple):
    """An encoded prefix, and what the work was."""

    start: Start
    """Behind it."""
    tokens: int
    cached: int
    """How many of the tokens were encoded before."""


class PrefixEncoder:
    """Encodes prefixes in units that can be cancelled. Not thread-safe: one worker owns it.

    Args:
        model: the encoder.
        loop: has chunks that are captured; None encodes each as it is.
    """

    def __init__(self, model: DiffusionGemma, loop: DeviceLoop | None = None) -> None:
        self._model = model
        self._loop = loop if model.config.use_bidirectional_attention != "all" else None
        self._store = PrefixStore(DOCUMENTS, partial(is_nearly_full, model.device))

    def encode(self, document: str, tokens: list[int], known: Prefix | None = None) -> Iterator[Prefix | None]:
        """None after each chunk but the last, then the encoded prefix.

        Args:
            document: whose last prefix is reused, and replaced by this one; empty for none.
            tokens: at least one, and more than are known.
            known: with whose tokens these begin, if that is known.
        """
        cache = self._store.reusable(document, tokens) if known is None else known.start.cache
        cached = cache.length if cache else 0
        chunks = torch.split(
            torch.tensor([tokens[cached:]], device=self._model.device), prefill_chunk(self._model.device), dim=1
        )
        for number, chunk in enumerate(chunks):
            hidden, cache = self._encoded(chunk, cache)
            # Who is cancelled here, as at each key of a fast typist, leaves the next one less to do.
            self._store.keep(document, tokens[: cache.length], cache)
            if number + 1 < len(chunks):
                yield None
        assert cache is not None  # noqa: S101  (there is always at least one chunk)
        yield Prefix(Start(hidden[0, -1:], cache), len(tokens), cached)

    def whole(self, document: str, tokens: list[int]) -> Prefix:
        """As `encode`, in one go."""
        *_, prefix = self.encode(document, tokens)
        assert prefix is not None  # noqa: S101  (the last item always is a prefix)
        return prefix

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Where chunks are captured, those of every length are, behind short prefixes and behind longer ones."""
        if self._loop is None:
            return
        chunk = torch.zeros(1, CHUNK_BUCKETS[-1], dtype=torch.long, device=self._model.device)
        cache = self._model.empty_cache(1)
        while prefix_places(cache.length) <= SHORTEST_PREFIX:
            longer = [self._loop.encode(chunk[:, :slots], cache).cache for slots in CHUNK_BUCKETS]
            cache = longer[-1]
        for slots in CHUNK_BUCKETS:
            self._loop.encode(chunk[:, :slots], cache)

    def _encoded(self, chunk: Tensor, cache: PrefixCache | None) -> Encoded:
        if self._loop is None:
            return self._model.encode(chunk, cache, slice(-1, None))
        return self._loop.encode(chunk, cache or self._model.empty_cache(1))


def prefill_chunk(device: torch.device) -> int:
    """Tokens of a prefix that are encoded at a time."""
    return PREFILL_CHUNK if device.type == "cpu" else GPU_PREFILL_CHUNK


class PrefixStore:
    """The latest prefix of each of the most recently used documents. Not thread-safe: one worker owns it.

    Args:
        documents: at most.
        is_full: asked before one is kept beside others; the others are forgotten until it says no.
    """

    def __init__(self, documents: int, is_full: Callable[[], bool] = lambda: False) -> None:
        self._documents, self._is_full = documents, is_full
        self._kept: OrderedDict[str, tuple[list[int], PrefixCache]] = OrderedDict()

    def reusable(self, document: str, tokens: list[int]) -> PrefixCache | None:
        """The cache of the longest common start of `tokens` and the document's last prefix, or None.

        The last token is always left to be encoded: its hidden state, which is not cached, predicts what follows.
        """
        if document not in self._kept:
            return None
        self._kept.move_to_end(document)
        known, cache = self._kept[document]
        length = min(_common_start(known, tokens), len(tokens) - 1)
        # Where a cursor went far up, sliding layers no longer know what stands before it.
        return cache.truncated(length) if length and cache.holds(length) else None

    def keep(self, document: str, tokens: list[int], cache: PrefixCache) -> None:
        """Remember the encoded prefix of a document; forget those not used for longest, for which there is no room."""
        if not document:
            return
        self._kept[document] = (tokens, cache)
        self._kept.move_to_end(document)
        while len(self._kept) > self._allowed():
            self._kept.popitem(last=False)

    def _allowed(self) -> int:
        return 1 if self._is_full() else self._documents


def _common_start(first: list[int], second: list[int]) -> int:
    length = min(len(first), len(second))
    if first[:length] == second[:length]:
        return length
    return next(i for i in range(length) if first[i] != second[i])
