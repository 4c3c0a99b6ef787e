"""Text that benchmarks ask for: training files that share a piece of a solution are left out."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dg_engine.errors import EngineError
from dg_engine.training.duplicates import words_of
from dg_engine.training.trees import UNREADABLE

WINDOW_WORDS = 10
WINDOW_CHARACTERS = 30
"""A window is the shortest run of words and signs that has so many of both, white space aside. Ten words and signs
alone are an idiom (`for i in range(len(x))`): 3 % of all Python files were dropped for them, and with thirty characters
it is 0.1 %."""
WINDOW_DIFFERENT = 5
"""A window of fewer different words and signs is a ruler (`# -----`) or a table of zeros: with SAFIM among the
benchmarks every fifth file of collections of examples was dropped for one, or for its main guard."""

_MAIN_GUARD = "__main__"
"""A window with this is everybody's: `if __name__ == "__main__": main()` has ten words and signs."""

_DOCSTRING = re.compile(r'"""|\'\'\'')


class Benchmarks:
    """The windows of all solutions of some benchmarks."""

    def __init__(self, solutions: Iterable[str] = ()) -> None:
        parts = [np.unique(windows(solution)) for solution in solutions]
        self._known = np.unique(np.concatenate(parts)) if parts else np.empty(0, np.int64)

    def leak_into(self, text: str) -> bool:
        """Whether a text has any window of a solution."""
        if not len(self._known):
            return False
        found = windows(text)
        places = np.searchsorted(self._known, found).clip(max=len(self._known) - 1)
        return bool((self._known[places] == found).any())

    @classmethod
    def read(cls, paths: Iterable[Path]) -> Benchmarks:
        """Read benchmark files, a task a line, gzipped or not.

        HumanEval, HumanEval-Infilling, MBPP and SAFIM are known by their fields.

        Raises:
            EngineError: a file is none of those.
        """
        return cls(solution for path in paths for solution in _solutions(path))


def windows(text: str) -> NDArray[np.int64]:
    """[W] hashes of all windows of a text, good for this process."""
    words = words_of(text)
    if len(words) < WINDOW_WORDS:
        return np.empty(0, np.int64)
    joined = "".join(words)
    starts = np.concatenate(([0], np.cumsum([len(word) for word in words])))
    numbers = np.arange(len(words) - WINDOW_WORDS + 1)
    ends = np.maximum(numbers + WINDOW_WORDS, np.searchsorted(starts, starts[numbers] + WINDOW_CHARACTERS))
    inside = ends < len(starts)
    runs = zip(numbers[inside].tolist(), ends[inside].tolist(), strict=True)
    telling = [(first, last) for first, last in runs if _is_telling(words[first:last])]
    return np.array([hash(joined[starts[first] : starts[last]]) for first, last in telling], dtype=np.int64)


def _is_telling(words: list[str]) -> bool:
    """Whether a window says something of the text that it is in."""
    return len(set(words)) >= WINDOW_DIFFERENT and _MAIN_GUARD not in words


def digests(paths: Iterable[Path]) -> list[str]:
    """The SHA-256 of each benchmark file, in their own order."""
    return sorted(sha256(path.read_bytes()).hexdigest() for path in paths)


def _solutions(path: Path) -> list[str]:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as lines:
            return [_solution(json.loads(line)) for line in lines if line.strip()]
    except (*UNREADABLE, KeyError, TypeError) as error:
        raise EngineError(
            f"{path}: is not of HumanEval's, HumanEval-Infilling's, MBPP's or SAFIM's form ({error!r})"
        ) from error


def _solution(task: Mapping[str, Any]) -> str:
    if "eval_prompt" in task:
        return str(task["eval_prompt"]).replace("{{completion}}", task["ground_truth"])
    if "code" in task:
        return str(task["code"])
    return _body(task["prompt"] + task["canonical_solution"] + task.get("suffix", ""))


def _body(program: str) -> str:
    """What follows the last docstring: the signature and its imports are everybody's."""
    return _DOCSTRING.split(program)[-1]
