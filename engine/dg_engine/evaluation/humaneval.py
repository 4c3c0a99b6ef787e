"""HumanEval-Infilling (Bavarian et al., arXiv 2207.14255): holes in solutions, judged by running them.

The data is a file of JSON lines, gzipped or not, as its authors publish it; it is no part of this package. Of the
multi-line set the tasks of one line are passed over: they are the single-line set, on which nothing here is measured.
"""

from __future__ import annotations

import gzip
import random
import zlib
from pathlib import Path

import msgspec

from dg_engine.errors import MALFORMED, EngineError
from dg_engine.evaluation.cases import Case, TaskKind

_SETS: dict[str, TaskKind] = {
    "MultiLineInfilling": "humaneval-multi-line",
    "RandomSpanInfillingLight": "humaneval-random-span-light",
}
_SEED = 0


class _Task(msgspec.Struct, frozen=True):
    task_id: str
    entry_point: str
    prompt: str
    suffix: str
    canonical_solution: str
    test: str


def read_tasks(path: Path, count: int | None = None) -> list[Case]:
    """The tasks of a file as cases, or so many of them, always the same ones.

    The `project` of a case is the problem that it was cut from: several tasks are holes in one solution.

    Raises:
        EngineError: the file cannot be read or is something else; the message names the line.
    """
    try:
        content = path.read_bytes()
        lines = (gzip.decompress(content) if path.suffix == ".gz" else content).splitlines()
    except (OSError, EOFError, zlib.error) as error:
        raise EngineError(f"{path}: {error}") from error
    cases = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            case = _case(msgspec.json.decode(line, type=_Task))
        except (*MALFORMED, KeyError) as error:
            expected = " or ".join(_SETS)
            raise EngineError(f"{path}, line {number}: is no task of {expected} ({error})") from error
        if case.kind != "humaneval-multi-line" or "\n" in case.answer.strip("\n"):
            cases.append(case)
    if count is None or count >= len(cases):
        return cases
    return random.Random(_SEED).sample(cases, count)  # noqa: S311  (a choice of cases, not a secret)


def _case(task: _Task) -> Case:
    kind, _, problem = task.task_id.partition("/")
    return Case(
        project="/".join(problem.split("/")[:2]),
        path="solution.py",
        kind=_SETS[kind],
        prefix=task.prompt,
        answer=task.canonical_solution,
        suffix=task.suffix,
        test=f"{task.test}\ncheck({task.entry_point})\n",
    )
