"""A split as arrays: tokens, where documents begin, how their prefixes begin, and which spans mean something.

They lie in shards, one a project, and are read where they lie: a split may be larger than the memory.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from dg_engine.errors import EngineError
from dg_engine.prompt import encode_header
from dg_engine.tokenizer import Tokenizer
from dg_engine.training.languages import LANGUAGE_NAMES
from dg_engine.training.sources import Document
from dg_engine.training.syntax import Nodes, find_nodes

MIN_TOKENS = 48
"""A shorter document has no room for a prefix, a hole and a suffix."""

_BATCH = 64


class Rows(Protocol):
    """An array, in memory or in a file, of which parts are read."""

    def __getitem__(self, where: slice, /) -> Any:
        """A part."""
        ...


class Shard:
    """Some documents. Arrays named as in the file:

    `tokens` [T] uint16, or uint32 of a vocabulary that needs it, `document_starts` [D + 1], `header_tokens` and
    `header_starts` [D + 1] likewise (what `encode_header` makes of each path), `node_starts` [D + 1] into `node_start`
    (token number within the document), `node_length` and `node_kind`; `language` [D] index into `LANGUAGES`, all Python
    where there is none.
    """

    def __init__(self, arrays: Mapping[str, Rows]) -> None:
        self._arrays = arrays
        self._starts = self._offsets("document_starts")
        self._header_starts = self._offsets("header_starts")
        self._node_starts = self._offsets("node_starts")

    @classmethod
    def open(cls, path: Path, key: str = "") -> Shard:
        """Open a file; nothing but the offsets is read.

        Args:
            path: the file.
            key: what it must have been made from, if that is known.

        Raises:
            EngineError: the file is missing or malformed, or was made from something else.
        """
        try:
            file: Any = safe_open(path, "np")
            found = (file.metadata() or {}).get("key", "")
            shard = cls({name: file.get_slice(name) for name in file.keys()})  # noqa: SIM118  (no mapping)
        except (OSError, SafetensorError, KeyError) as error:
            raise EngineError(f"{path}: is no encoded split ({error}); run `dg-engine corpus build` first") from error
        if key not in ("", found):
            raise EngineError(f"{path}: is of another build than the manifest; run `dg-engine corpus build` to its end")
        return shard

    def __len__(self) -> int:
        return len(self._starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[D] tokens of each document."""
        return np.diff(self._starts)

    @property
    def languages(self) -> NDArray[np.uint8]:
        """[D] each document's language, as an index into `LANGUAGES`."""
        if "language" not in self._arrays or not len(self):
            return np.zeros(len(self), np.uint8)
        return np.asarray(self._arrays["language"][:])

    def tokens_by_language(self) -> dict[str, int]:
        """The tokens in each language that there is."""
        counts = np.bincount(self.languages, weights=self.lengths, minlength=len(LANGUAGE_NAMES)).astype(int).tolist()
        return {name: count for name, count in zip(LANGUAGE_NAMES, counts, strict=True) if count}

    def tokens(self, document: int) -> NDArray[np.int64]:
        """[T] token ids of a document."""
        return self._part("tokens", self._starts, document).astype(np.int64)

    def header(self, document: int) -> NDArray[np.int64]:
        """What stands before a document's text: `<bos>`, `<|file|>`, its path, a newline."""
        return self._part("header_tokens", self._header_starts, document).astype(np.int64)

    def nodes(self, document: int) -> Nodes:
        """The syntactic spans of a document."""
        parts = (self._part(f"node_{name}", self._node_starts, document) for name in ("start", "length", "kind"))
        start, length, kind = parts
        return Nodes(start.astype(np.int32), length.astype(np.uint8), kind.astype(np.uint8))

    def _offsets(self, name: str) -> NDArray[np.int64]:
        return np.asarray(self._arrays[name][:], dtype=np.int64)

    def _part(self, name: str, starts: NDArray[np.int64], document: int) -> NDArray[np.generic]:
        first, last = int(starts[document]), int(starts[document + 1])
        # An array without anything in it refuses to be cut.
        return np.asarray(self._arrays[name][first:last]) if first < last else np.empty(0, np.int64)


class EncodedSplit:
    """The documents of a split, numbered through all its shards."""

    def __init__(self, *shards: Shard | Mapping[str, Rows]) -> None:
        self.shards = [shard if isinstance(shard, Shard) else Shard(shard) for shard in shards]
        self._ends = np.cumsum([len(shard) for shard in self.shards]).tolist()
        self.lengths: NDArray[np.int64] = np.concatenate([np.empty(0, np.int64), *(one.lengths for one in self.shards)])
        """[D] tokens of each document."""

    @classmethod
    def load(cls, path: Path) -> EncodedSplit:
        """Open a split that is a single file.

        Raises:
            EngineError: the file is missing or malformed.
        """
        return cls(Shard.open(path))

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def total_tokens(self) -> int:
        """Tokens of all documents."""
        return int(self.lengths.sum())

    def tokens(self, document: int) -> NDArray[np.int64]:
        """[T] token ids of a document."""
        shard, number = self._locate(document)
        return shard.tokens(number)

    def header(self, document: int) -> NDArray[np.int64]:
        """What stands before a document's text: `<bos>`, `<|file|>`, its path, a newline."""
        shard, number = self._locate(document)
        return shard.header(number)

    def nodes(self, document: int) -> Nodes:
        """The syntactic spans of a document."""
        shard, number = self._locate(document)
        return shard.nodes(number)

    def _locate(self, document: int) -> tuple[Shard, int]:
        index = bisect_right(self._ends, document)
        return self.shards[index], document - (self._ends[index] - len(self.shards[index]))


def encode_split(documents: Iterable[Document], tokenizer: Tokenizer) -> dict[str, NDArray[np.generic]]:
    """The arrays of a `Shard`.

    Args:
        documents: sound files.
        tokenizer: for the texts.
    """
    kind: type[np.generic] = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    tokens, headers, nodes = list[NDArray[np.generic]](), list[NDArray[np.generic]](), list[Nodes]()
    languages = list[int]()
    for batch in _batches(documents):
        encodings = tokenizer.backend.encode_batch([document.text for document in batch], add_special_tokens=False)
        for document, encoding in zip(batch, encodings, strict=True):
            if len(encoding.ids) >= MIN_TOKENS:
                tokens.append(np.array(encoding.ids, dtype=kind))
                headers.append(np.array(encode_header(tokenizer, document.path), dtype=kind))
                starts = np.array(encoding.offsets, dtype=np.int64)[:, 0]
                nodes.append(find_nodes(document.text, starts, document.language))
                languages.append(LANGUAGE_NAMES.index(document.language))
    return {
        "tokens": _joined(tokens, kind),
        "document_starts": _offsets(tokens),
        "header_tokens": _joined(headers, kind),
        "header_starts": _offsets(headers),
        "node_start": _joined([one.start for one in nodes], np.int32),
        "node_length": _joined([one.length for one in nodes], np.uint8),
        "node_kind": _joined([one.kind for one in nodes], np.uint8),
        "node_starts": _offsets([one.start for one in nodes]),
        "language": np.array(languages, np.uint8),
    }


def save_split(arrays: dict[str, NDArray[np.generic]], path: Path, key: str = "") -> None:
    """Write a shard beside its place and rename it; `key` says what it was made from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(arrays, partial, {"key": key})
    partial.replace(path)


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    rest = iter(documents)
    while batch := list(islice(rest, _BATCH)):
        yield batch


def _joined(parts: Sequence[NDArray[Any]], dtype: type[np.generic]) -> NDArray[np.generic]:
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def _offsets(parts: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum([len(part) for part in parts]))).astype(np.int64)
