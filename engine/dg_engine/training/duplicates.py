"""Exact and near duplicates, and text that benchmarks would ask for."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

from datasketch import MinHash, MinHashLSH

from dg_engine.errors import EngineError

SIMILARITY = 0.7
"""Jaccard similarity of 5-gram sets from which two files count as one (SantaCoder's value, arXiv 2301.03988)."""
PERMUTATIONS = 64
SHINGLE = 5
WINDOW = 10
"""Tokens in a row that a training file may not share with a benchmark's solution."""

_WORD = re.compile(r"\w+|[^\w\s]")


class Duplicates:
    """Remembers every text it was shown."""

    def __init__(self) -> None:
        self._exact: set[bytes] = set()
        self._near = MinHashLSH(threshold=SIMILARITY, num_perm=PERMUTATIONS)
        self._count = 0

    def fault(self, text: str) -> str:
        """`exact duplicate`, `near duplicate`, or an empty string: the text is new, and from now on known."""
        words = _WORD.findall(text)
        digest = hashlib.sha256(" ".join(words).encode()).digest()
        if digest in self._exact:
            return "exact duplicate"
        self._exact.add(digest)
        sketch = _sketch(words)
        if self._near.query(sketch):
            return "near duplicate"
        self._near.insert(str(self._count), sketch)
        self._count += 1
        return ""


def windows(text: str) -> set[int]:
    """Hashes of all runs of `WINDOW` words and signs, white space aside."""
    words = _WORD.findall(text)
    return {hash(tuple(words[i : i + WINDOW])) for i in range(len(words) - WINDOW + 1)}


def benchmark_windows(paths: Iterable[Path]) -> set[int]:
    """The windows of every solution in HumanEval-Infilling files (`*.jsonl.gz`): the code behind its docstring.

    Raises:
        EngineError: a file is not one of those.
    """
    found: set[int] = set()
    for path in paths:
        try:
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                for line in lines:
                    task = json.loads(line)
                    found |= windows(_body(task["prompt"] + task["canonical_solution"] + task["suffix"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EngineError(f"{path}: is no HumanEval-Infilling file ({error!r})") from error
    return found


def _body(program: str) -> str:
    """What follows the last docstring: the signature and its imports are everybody's."""
    return re.split(r'"""|\'\'\'', program)[-1]


def _sketch(words: list[str]) -> MinHash:
    sketch = MinHash(num_perm=PERMUTATIONS, hashfunc=crc32)
    shingles = {" ".join(words[i : i + SHINGLE]).encode() for i in range(max(1, len(words) - SHINGLE + 1))}
    sketch.update_batch(list(shingles))
    return sketch
