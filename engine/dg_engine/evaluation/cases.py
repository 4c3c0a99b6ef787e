"""Holes in files that were never trained on, cut by characters: no tokenizer has a say in where they are."""

from __future__ import annotations

import ast
import random
import re
import warnings
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Literal, get_args

import msgspec

from dg_engine.training.sources import Document

DrawnKind = Literal["line", "middle", "expression", "lines", "random"]
TaskKind = Literal["humaneval-multi-line", "humaneval-random-span-light"]
CaseKind = DrawnKind | TaskKind
DRAWN_KINDS: tuple[DrawnKind, ...] = get_args(DrawnKind)
TASK_KINDS: tuple[TaskKind, ...] = get_args(TaskKind)
CASE_KINDS: tuple[CaseKind, ...] = (*DRAWN_KINDS, *TASK_KINDS)
ALL = "all"
"""The drawn kinds together."""
MEANINGS: dict[str, str] = {
    ALL: "every kind that is drawn from projects",
    "line": "from a cursor to the end of its line",
    "middle": "inside a line, with words of the line behind it",
    "expression": "one expression of the syntax tree, inside a line",
    "lines": "two to six lines",
    "random": "any characters, up to a hundred",
    "humaneval-multi-line": "two or more whole lines of a solution",
    "humaneval-random-span-light": "any characters of a solution",
}

ONE_LINE: frozenset[CaseKind] = frozenset(("line", "middle", "expression"))
CALIBRATED = ONE_LINE | {"lines"}
"""What editors ask for; none asks for a hole that ends anywhere."""

MAX_ANSWER = 200
"""Characters of an answer; about 64 tokens."""
BESIDE = 400_000
"""Characters of other files of the project: as many as the language server looks through."""
BESIDE_FILES = 40
"""Likewise."""
MIN_PREFIX = 100
"""Characters before a hole."""

# Where people stop to look at what is offered: behind a word, a sign or a blank.
_CURSOR = re.compile(r"(?<=[\w(\[{.,=: ])(?=\S)(?<!\w(?=\w))")
# Where a hole inside a line may end: behind a word or a closing sign, with a word of two letters still to come.
_END = re.compile(r"(?:(?<=\w)(?!\w)|(?<=[)\]}]))(?=.*\w\w)")
_TRIES = 20


class Case(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One hole with its true content."""

    project: str
    path: str
    kind: CaseKind
    prefix: str
    answer: str
    suffix: str
    test: str = ""
    """Python that judges the whole when it runs behind prefix, answer and suffix; empty where there is none."""
    beside: tuple[str, ...] = ()
    """Other files of the project, the nearest first, as far as the server would look through them."""

    @cached_property
    def name(self) -> str:
        """The same for equal holes, whatever is beside them, another for any other."""
        hole = {name: getattr(self, name) for name in self.__struct_fields__ if name != "beside"}
        return sha256(msgspec.json.encode(hole)).hexdigest()[:16]

    @property
    def is_python(self) -> bool:
        """Whether the file is Python, by its name."""
        return self.path.endswith(".py")

    @property
    def in_line(self) -> bool:
        """Whether an editor would ask for one line here: behind the hole its line goes on or ends."""
        return self.kind in ONE_LINE


def draw_cases(documents: Iterable[Document], per_kind: int, seed: int = 0) -> list[Case]:
    """So many cases of every kind, spread evenly over the projects; always the same for the same seed.

    The cases of a smaller number are among those of a larger one.

    Args:
        documents: of a split that was not trained on.
        per_kind: fewer come back where the documents have no more.
        seed: of the choice.
    """
    projects: dict[str, list[Document]] = {}
    for document in documents:
        projects.setdefault(document.project, []).append(document)
    return [case for kind in DRAWN_KINDS for case in _of_kind(projects, kind, per_kind, seed)]


def _of_kind(projects: dict[str, list[Document]], kind: DrawnKind, count: int, seed: int) -> list[Case]:
    rng = random.Random(f"{seed} {kind}")  # noqa: S311  (a choice of cases, not a secret)
    names = rng.sample(sorted(projects), len(projects))
    drawn: dict[str, Case] = {}
    for attempt in range(count * _TRIES if names else 0):
        if len(drawn) == count:
            break
        project = projects[names[attempt % len(names)]]
        document = rng.choice(project)
        case = _cut(document, kind, rng)
        if case is not None:
            drawn[case.name] = msgspec.structs.replace(case, beside=tuple(beside(document, project)))
    return list(drawn.values())


def beside(document: Document, project: Iterable[Document]) -> Iterator[str]:
    """Those of a project's other documents that the server would look through, the nearest first.

    They have the same suffix and another name. Near are those that have most of the document's folders in common.
    """
    here = PurePosixPath(document.path)
    folder, left = here.parent, BESIDE

    def is_looked_at(other: Document) -> bool:
        there = PurePosixPath(other.path)
        return there.suffix == here.suffix and there.name != here.name

    def way(other: Document) -> tuple[int, str]:
        there = PurePosixPath(other.path).parent
        shared = next(one for one in (folder, *folder.parents) if there.is_relative_to(one))
        return len(folder.parts) + len(there.parts) - 2 * len(shared.parts), other.path

    for other in sorted(filter(is_looked_at, project), key=way)[:BESIDE_FILES]:
        if left <= 0:
            return
        yield other.text[:left]
        left -= len(other.text)


def _cut(document: Document, kind: DrawnKind, rng: random.Random) -> Case | None:
    text = document.text
    span = _CUTS[kind](text, rng)
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


def _middle(text: str, rng: random.Random) -> tuple[int, int] | None:
    start = _cursor(text, rng)
    if start is None:
        return None
    ends = [match.end() for match in _END.finditer(text, start + 1, _line_end(text, start))]
    return (start, rng.choice(ends)) if ends else None


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
    places = _expressions(text)
    return rng.choice(places) if places else None


@lru_cache(maxsize=512)
def _expressions(text: str) -> tuple[tuple[int, int], ...]:
    """Start and end of every expression that lies within a line; none where the text is not Python."""
    if "\r" in text:
        return ()  # a line break for the parser and for nobody else here
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes and the like in other people's code
            tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return ()
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    return tuple(
        (_offset(text, starts, node.lineno, node.col_offset), _offset(text, starts, node.lineno, node.end_col_offset))
        for node in _nodes(tree)
        if isinstance(node, ast.expr) and node.lineno == node.end_lineno and node.end_col_offset is not None
    )


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """A tree's nodes, formatted strings as wholes: before Python 3.12 what stands in them has false places."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.JoinedStr):
            waiting.extend(ast.iter_child_nodes(node))


def _offset(text: str, starts: list[int], line: int, column: int) -> int:
    """Characters before a place that `ast` gives as line and UTF-8 column."""
    begin = starts[line - 1]
    return begin + len(text[begin : _line_end(text, begin)].encode()[:column].decode("utf-8", "ignore"))


_CUTS = {"line": _line, "middle": _middle, "expression": _expression, "lines": _lines, "random": _random}
