"""Prefix caches of the documents in use, each reused up to the first token that changed."""

from __future__ import annotations

from collections import OrderedDict

from dg_engine.prefix_cache import PrefixCache


class PrefixStore:
    """The latest prefix of each of the most recently used documents. Not thread-safe: one worker owns it."""

    def __init__(self, documents: int) -> None:
        self._documents = documents
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
        return cache.truncated(length) if length else None

    def keep(self, document: str, tokens: list[int], cache: PrefixCache) -> None:
        """Remember the encoded prefix of a document, and forget the document not used for longest."""
        if not document:
            return
        self._kept[document] = (tokens, cache)
        self._kept.move_to_end(document)
        while len(self._kept) > self._documents:
            self._kept.popitem(last=False)


def _common_start(first: list[int], second: list[int]) -> int:
    length = min(len(first), len(second))
    if first[:length] == second[:length]:
        return length
    return next(i for i in range(length) if first[i] != second[i])
