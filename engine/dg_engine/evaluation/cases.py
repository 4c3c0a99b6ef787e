"""Holes in files that were never trained on, cut by characters: no tokenizer has a say in where they are."""

from __future__ import annotations

import ast
import random
import re
import warnings
from collections.abc import Iterable
from typing import Literal, get_args

import msgspec

from dg_engine.training.sources import Document

DrawnKind = Literal["line", "expression", "lines", "random"]
CaseKind = DrawnKind | Literal["humaneval"]
DRAWN_KINDS: tuple[DrawnKind, ...] = get_args(DrawnKind)
CASE_KINDS: tuple[CaseKind, ...] = (*DRAWN_KINDS, "humaneval")

MAX_ANSWER = 200
"""Characters of an answer; about 64 tokens."""
MIN_PREFIX = 100
"""Characters before a hole."""

# Where people stop to look at what is offered: behind a word, a sign or a blank.
_CURSOR = re.compile(r"(?<=[\w(\[{.,=: ])(?=\S)(?<!\w(?=\w))")
_TRIES = 20


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One hole with its true content."""

    project: str
    path: str
    kind: CaseKind
    prefix: str
    answer: str
    suffix: str
    test: str = ""
    """Python that judges the whole when it runs behind prefix, answer and suffix; empty where there is none."""


def draw_cases(documents: Iterable[Document], per_kind: int, seed: int) -> list[Case]:
    """So many cases of every kind, spread evenly over the projects; always the same for the same seed.

    Args:
        documents: of the held-out split.
        per_kind: fewer come back where the documents have no more.
        seed: of the choice.
    """
    projects: dict[str, list[Document]] = {}
    for document in documents:
        projects.setdefault(document.project, []).append(document)
    rng = random.Random(seed)  # noqa: S311  (a choice of cases, not a secret)
    cases = []
    for kind in DRAWN_KINDS:
        drawn = 0
        for attempt in range(per_kind * _TRIES):
            if drawn == per_kind:
                break
            name = sorted(projects)[attempt % len(projects)]
            if case := _cut(rng.choice(projects[name]), kind, rng):
                cases.append(case)
                drawn += 1
    return cases


def _cut(document: Document, kind: DrawnKind, rng: random.Random) -> Case | None:
    text = document.text
    span = {"line": _line, "expression": _expression, "lines": _lines, "random": _random}[kind](text, rng)
    if span is None:
        return None
    start, end = span
    answer = text[start:end]
    if start < MIN_PREFIX or not answer.strip() or len(answer) > MAX_ANSWER:
        return None
    return Case(
        project=document.project,
        path=document.path,
        kind=kind,
        prefix=text[:start],
        answer=answer,
        suffix=text[end:],
    )


def _cursor(text: str, rng: random.Random) -> int | None:
    """A cursor in a random line, with text to its right."""
    begins = [0, *(match.end() for match in re.finditer("\n", text))]
    begin = rng.choice(begins)
    line = text[begin : _line_end(text, begin)]
    places = [match.start() for match in _CURSOR.finditer(line)]
    return begin + rng.choice(places) if places else None


def _line_end(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end


def _line(text: str, rng: random.Random) -> tuple[int, int] | None:
    start = _cursor(text, rng)
    return None if start is None else (start, _line_end(text, start))


def _lines(text: str, rng: random.Random) -> tuple[int, int] | None:
    """Two to six lines, from a cursor or from the first column of text."""
    start = _cursor(text, rng)
    if start is None:
        return None
    if rng.random() < 0.5:
        begin = text.rfind("\n", 0, start) + 1
        start = begin + len(text[begin:start]) - len(text[begin:start].lstrip())
    end = _line_end(text, start)
    for _ in range(rng.randint(1, 5)):
        end = _line_end(text, min(len(text), end + 1))
    return start, end


def _random(text: str, rng: random.Random) -> tuple[int, int] | None:
    """Any characters, up to a hundred."""
    start = rng.randrange(len(text))
    return start, min(len(text), start + int(100 ** rng.random()) + 1)


def _expression(text: str, rng: random.Random) -> tuple[int, int] | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes and the like in other people's code
        nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.expr)]
    if not nodes:
        return None
    node = rng.choice(nodes)
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    if node.end_lineno is None or node.end_col_offset is None:
        return None
    return _offset(text, starts, node.lineno, node.col_offset), _offset(
        text, starts, node.end_lineno, node.end_col_offset
    )


def _offset(text: str, starts: list[int], line: int, column: int) -> int:
    """Characters before a place that `ast` gives as line and UTF-8 column."""
    begin = starts[line - 1]
    return begin + len(text[begin : _line_end(text, begin)].encode()[:column].decode("utf-8", "ignore"))
