"""Exact and near duplicates."""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple
from zlib import crc32

from datasketch import LeanMinHash, MinHash, MinHashLSH

SIMILARITY = 0.7
"""Jaccard similarity of 5-gram sets from which two files count as one (SantaCoder's value, arXiv 2301.03988)."""
PERMUTATIONS = 64
SHINGLE = 5

_WORD = re.compile(r"\w+|[^\w\s]")


class Sketch(NamedTuple):
    """What is remembered of a text: enough to know it again, as it is or nearly so."""

    exact: bytes
    """SHA-256 of its words and signs."""
    near: bytes
    """A serialised MinHash of its shingles."""


class Duplicates:
    """Remembers every text that was new."""

    def __init__(self) -> None:
        self._exact: set[bytes] = set()
        self._near = MinHashLSH(threshold=SIMILARITY, num_perm=PERMUTATIONS)

    def fault(self, text: str) -> str:
        """`exact duplicate`, `near duplicate`, or an empty string: the text is new, and from now on known."""
        return self.fault_of(sketch(text))

    def fault_of(self, sketched: Sketch) -> str:
        """As `fault`, of a text that is sketched already."""
        if sketched.exact in self._exact:
            return "exact duplicate"
        if self._near.query(LeanMinHash.deserialize(sketched.near)):
            return "near duplicate"
        self.remember(sketched)
        return ""

    def remember(self, sketched: Sketch) -> None:
        """Know a text from now on that was found to be new before."""
        self._exact.add(sketched.exact)
        self._near.insert(sketched.exact, LeanMinHash.deserialize(sketched.near))


def words_of(text: str) -> list[str]:
    """The words and signs of a text, without its white space."""
    return _WORD.findall(text)


def sketch(text: str) -> Sketch:
    """Sketch a text."""
    words = words_of(text)
    shingles = {" ".join(words[i : i + SHINGLE]).encode() for i in range(max(1, len(words) - SHINGLE + 1))}
    full = MinHash(num_perm=PERMUTATIONS, hashfunc=crc32)
    full.update_batch(list(shingles))
    lean = LeanMinHash(full)
    near = bytearray(lean.bytesize())
    lean.serialize(near)
    return Sketch(hashlib.sha256(" ".join(words).encode()).digest(), bytes(near))
