"""HumanEval-Infilling (Bavarian et al., arXiv 2207.14255): holes in solutions, judged by running them.

The data is a file of JSON lines, gzipped or not, as its authors publish it; it is no part of this package.
"""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import msgspec

from dg_engine.errors import EngineError
from dg_engine.evaluation.cases import Case


class _Task(msgspec.Struct, frozen=True):
    task_id: str
    entry_point: str
    prompt: str
    suffix: str
    canonical_solution: str
    test: str


def read_tasks(path: Path, count: int | None = None, seed: int = 0) -> list[Case]:
    """The tasks of a file as cases, or so many of them, chosen by the seed.

    Raises:
        EngineError: the file cannot be read or is something else; the message names the line.
    """
    try:
        content = path.read_bytes()
        lines = (gzip.decompress(content) if path.suffix == ".gz" else content).splitlines()
    except OSError as error:
        raise EngineError(f"{path}: {error.strerror or error}") from error
    cases = []
    for number, line in enumerate(lines, 1):
        try:
            cases.append(_case(msgspec.json.decode(line, type=_Task)))
        except msgspec.DecodeError as error:
            raise EngineError(f"{path}, line {number}: no task of HumanEval-Infilling: {error}") from error
    if count is None or count >= len(cases):
        return cases
    return random.Random(seed).sample(cases, count)  # noqa: S311  (a choice of cases, not a secret)


def _case(task: _Task) -> Case:
    return Case(
        project=task.task_id.split("/")[0],
        path="solution.py",
        kind="humaneval",
        prefix=task.prompt,
        answer=task.canonical_solution,
        suffix=task.suffix,
        test=f"{task.test}\ncheck({task.entry_point})\n",
    )
