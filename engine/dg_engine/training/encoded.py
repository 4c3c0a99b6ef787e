"""A split as arrays: tokens, where documents begin, how their prefixes begin, and which spans mean something.

Made once, read whole: 40 M tokens are 80 MB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from dg_engine.errors import EngineError
from dg_engine.prompt import encode_header
from dg_engine.tokenizer import Tokenizer
from dg_engine.training.sources import Document
from dg_engine.training.syntax import Nodes, find_nodes

MIN_TOKENS = 48
"""A shorter document has no room for a prefix, a hole and a suffix."""

_BATCH = 256


class EncodedSplit:
    """The documents of a split. Arrays named as in the file:

    `tokens` [T] uint16, `document_starts` [D + 1], `header_tokens` and `header_starts` [D + 1] likewise (what
    `encode_header` makes of each path), `node_starts` [D + 1] into `node_start` (token number within the document),
    `node_length` and `node_kind`.
    """

    def __init__(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        self._arrays = arrays
        self._starts = arrays["document_starts"].astype(np.int64)
        self._header_starts = arrays["header_starts"].astype(np.int64)
        self._node_starts = arrays["node_starts"].astype(np.int64)

    @classmethod
    def load(cls, path: Path) -> EncodedSplit:
        """Read a split.

        Raises:
            EngineError: the file is missing or malformed.
        """
        try:
            return cls(load_file(path))
        except (OSError, SafetensorError, KeyError) as error:
            raise EngineError(f"{path}: is no encoded split ({error}); run `dg-engine corpus` first") from error

    def __len__(self) -> int:
        return len(self._starts) - 1

    @property
    def total_tokens(self) -> int:
        """Tokens of all documents."""
        return len(self._arrays["tokens"])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[D] tokens of each document."""
        return np.diff(self._starts)

    def tokens(self, document: int) -> NDArray[np.int64]:
        """[T] token ids of a document."""
        return self._arrays["tokens"][self._slice(self._starts, document)].astype(np.int64)

    def header(self, document: int) -> NDArray[np.int64]:
        """What stands before a document's text: `<bos>`, `<|file|>`, its path, a newline."""
        return self._arrays["header_tokens"][self._slice(self._header_starts, document)].astype(np.int64)

    def nodes(self, document: int) -> Nodes:
        """The syntactic spans of a document."""
        where = self._slice(self._node_starts, document)
        start, length, kind = (self._arrays[f"node_{name}"][where] for name in ("start", "length", "kind"))
        return Nodes(start.astype(np.int32), length.astype(np.uint8), kind.astype(np.uint8))

    @staticmethod
    def _slice(starts: NDArray[np.int64], document: int) -> slice:
        return slice(starts[document], starts[document + 1])


def encode_split(
    documents: Iterable[Document], tokenizer: Tokenizer, counted: Callable[[Document, int], None]
) -> dict[str, NDArray[np.generic]]:
    """The arrays of an `EncodedSplit`.

    Args:
        documents: sound Python files.
        tokenizer: at most 65,536 tokens.
        counted: told of every document how many tokens it has.
    """
    tokens, headers, nodes = list[NDArray[np.uint16]](), list[NDArray[np.uint16]](), list[Nodes]()
    for batch in _batches(documents):
        encodings = tokenizer.backend.encode_batch([document.text for document in batch], add_special_tokens=False)
        for document, encoding in zip(batch, encodings, strict=True):
            counted(document, len(encoding.ids))
            if len(encoding.ids) >= MIN_TOKENS:
                tokens.append(np.array(encoding.ids, dtype=np.uint16))
                headers.append(np.array(encode_header(tokenizer, document.path), dtype=np.uint16))
                starts = np.array(encoding.offsets, dtype=np.int64)[:, 0]
                nodes.append(find_nodes(document.text, starts))
    return {
        "tokens": _joined(tokens, np.uint16),
        "document_starts": _offsets(tokens),
        "header_tokens": _joined(headers, np.uint16),
        "header_starts": _offsets(headers),
        "node_start": _joined([one.start for one in nodes], np.int32),
        "node_length": _joined([one.length for one in nodes], np.uint8),
        "node_kind": _joined([one.kind for one in nodes], np.uint8),
        "node_starts": _offsets([one.start for one in nodes]),
    }


def save_split(arrays: dict[str, NDArray[np.generic]], path: Path) -> None:
    """Write beside its place and rename."""
    partial = path.with_suffix(".partial")
    save_file(arrays, partial)
    partial.replace(path)


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    rest = iter(documents)
    while batch := list(islice(rest, _BATCH)):
        yield batch


def _joined(parts: Sequence[NDArray[Any]], dtype: type[np.generic]) -> NDArray[np.generic]:
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def _offsets(parts: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum([len(part) for part in parts]))).astype(np.int64)
