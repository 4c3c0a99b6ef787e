"""The regression gate: a few fixed cases that a change of the engine must not make worse. It measures no quality.

The cases are holes in Python's own standard library, which is not copied here: each names a module and the digest of
the lines around its hole. Where the installed Python has other lines, the case is passed over.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import msgspec

from dg_engine.engine import Engine
from dg_engine.errors import EngineError
from dg_engine.evaluation.bootstrap import mean_interval
from dg_engine.evaluation.cases import DRAWN_KINDS, Case, CaseKind, draw_cases
from dg_engine.evaluation.harness import run
from dg_engine.evaluation.systems import ordered
from dg_engine.training.corpus import write_json
from dg_engine.training.sources import Document

GATE_FILE = Path(__file__).with_name("gate.json")
MODULES = (
    "difflib",
    "fileinput",
    "graphlib",
    "heapq",
    "imaplib",
    "mailbox",
    "modulefinder",
    "optparse",
    "textwrap",
    "weakref",
)
"""Those with much code that changed least: Python 3.12 has all of the cases, 3.13 has 28 of 30."""
CASES = 30
LIBRARY = Path(sysconfig.get_path("stdlib"))

# Few enough lines that other versions of Python have most of them too.
_LINES_BEFORE = 16
_LINES_BEHIND = 8


class GateCase(msgspec.Struct, frozen=True, kw_only=True):
    """One hole, and what the shipped model made of it when the gate was last updated."""

    module: str
    kind: CaseKind
    lines: int
    """Of the module, around the hole."""
    sha256: str
    """Of those lines."""
    start: int
    end: int
    """The hole, in characters of those lines."""
    similarity: float
    """Edit similarity, 0 to 1."""


class Passed(NamedTuple):
    """What the gate found."""

    similarity: float
    committed: float
    """Mean of the same cases when the gate was last updated."""
    tolerance: float
    """The width of the 95 % interval of the difference, which is paired, for the cases are the same. Half of it would
    fail one in forty processors that merely round otherwise."""
    cases: int
    skipped: int


def check(engine: Engine, path: Path = GATE_FILE) -> Passed:
    """Measure the cases and compare their mean edit similarity with the committed one.

    Raises:
        EngineError: it is lower by more than the tolerance, or fewer than half of the cases are in this Python.
    """
    kept = msgspec.json.decode(path.read_bytes(), type=list[GateCase])
    pairs = [(one, case) for one in kept if (case := _case(one)) is not None]
    if 2 * len(pairs) < len(kept):
        raise EngineError(
            f"only {len(pairs)} of the gate's {len(kept)} cases are in this Python's standard library; choose others "
            "with `dg-engine evaluate --gate --update` on a commit that is known to be good"
        )
    committed = [one.similarity for one, _ in pairs]
    found = _similarities(engine, [case for _, case in pairs])
    differences = [now - before for now, before in zip(found, committed, strict=True)]
    low, high = mean_interval(differences, [one.module for one, _ in pairs])
    result = Passed(_mean(found), _mean(committed), high - low, len(pairs), len(kept) - len(pairs))
    if result.similarity < result.committed - result.tolerance:
        raise EngineError(
            f"the gate's edit similarity fell from {100 * result.committed:.1f} to {100 * result.similarity:.1f} %, by "
            f"more than the tolerance of {100 * result.tolerance:.1f} points; if it is meant to, "
            "`dg-engine evaluate --gate --update` accepts it"
        )
    return result


def update(engine: Engine, path: Path = GATE_FILE) -> int:
    """Choose the cases out of this Python, always the same ones, measure them, and write both; returns how many."""
    documents = [Document(name, f"{name}.py", text) for name in MODULES if (text := _source(name)) is not None]
    drawn = draw_cases(documents, CASES // len(DRAWN_KINDS))
    windows = [_window(case) for case in drawn]
    found = _similarities(engine, [case for case in map(_case, windows) if case is not None])
    measured = [msgspec.structs.replace(window, similarity=value) for window, value in zip(windows, found, strict=True)]
    write_json(path, measured)
    return len(measured)


def _window(case: Case) -> GateCase:
    """A case cut down to the lines around its hole."""
    before = "".join(case.prefix.splitlines(keepends=True)[-_LINES_BEFORE:])
    behind = "".join(case.suffix.splitlines(keepends=True)[:_LINES_BEHIND])
    text = before + case.answer + behind
    return GateCase(
        module=case.project,
        kind=case.kind,
        lines=len(text.splitlines()),
        sha256=_digest(text),
        start=len(before),
        end=len(before) + len(case.answer),
        similarity=0.0,
    )


def _case(one: GateCase) -> Case | None:
    """The case in this Python's standard library; None where its lines are not there."""
    lines = (_source(one.module) or "").splitlines(keepends=True)
    windows = ("".join(lines[first : first + one.lines]) for first in range(len(lines)))
    text = next((window for window in windows if _digest(window) == one.sha256), None)
    if text is None:
        return None
    return Case(
        project=one.module,
        path=f"{one.module}.py",
        kind=one.kind,
        prefix=text[: one.start],
        answer=text[one.start : one.end],
        suffix=text[one.end :],
    )


def _source(module: str) -> str | None:
    path = LIBRARY / f"{module}.py"
    return path.read_text(encoding="utf-8") if path.exists() else None


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _similarities(engine: Engine, cases: Sequence[Case]) -> list[float]:
    """Of what the checkpoint does when it is not told, as precise as they are kept."""
    return [round(one.scores.similarity, 4) for one in run(engine, cases, ordered(engine.config)[:1])]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
