"""Spans of a Python file that are something: expressions, call arguments, statements, blocks. As token numbers."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

KINDS = ("expression", "arguments", "statement", "block")
"""A node's kind is its number in here."""

MAX_NODE_TOKENS = 64

_Place = tuple[int, int]


class Nodes(NamedTuple):
    """The N syntactic spans of a document, by their first token."""

    start: NDArray[np.int32]
    """[N] number of the first token."""
    length: NDArray[np.uint8]
    """[N] tokens, 1 to 64."""
    kind: NDArray[np.uint8]
    """[N] index into `KINDS`."""


def find_nodes(text: str, starts: NDArray[np.int64]) -> Nodes:
    """The syntactic spans of a sound Python text, grown to whole tokens.

    Args:
        text: the file.
        starts: [T] offset in characters of each of its tokens.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes and the like in other people's code
        places = [(*first, *last, kind) for first, last, kind in _places(ast.parse(text))]
    if not places:
        return Nodes(np.empty(0, np.int32), np.empty(0, np.uint8), np.empty(0, np.uint8))
    line, column, end_line, end_column, kind = np.array(places, dtype=np.int64).T
    raw = np.frombuffer(text.encode(), dtype=np.uint8)
    line_starts = np.concatenate(([0], np.flatnonzero(raw == ord("\n")) + 1))
    # A byte that does not continue a UTF-8 sequence begins a character.
    character = np.cumsum((raw & 0xC0) != 0x80) - 1
    first = np.searchsorted(starts, character[line_starts[line - 1] + column], side="right") - 1
    last = np.searchsorted(starts, character[line_starts[end_line - 1] + end_column - 1], side="right") - 1
    length = last - first + 1
    fits = (length >= 1) & (length <= MAX_NODE_TOKENS)
    order = np.argsort(first[fits], kind="stable")
    chosen = (values[fits][order] for values in (first, length, kind))
    return Nodes(next(chosen).astype(np.int32), next(chosen).astype(np.uint8), next(chosen).astype(np.uint8))


def _places(tree: ast.AST) -> Iterator[tuple[_Place, _Place, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.expr):
            yield _start(node), _end(node), 0
            if isinstance(node, ast.Call) and (node.args or node.keywords):
                line, column = _end(node)
                if column > 0:
                    first = min([_start(one) for one in node.args] + [_start(one) for one in node.keywords])
                    yield first, (line, column - 1), 1
        elif isinstance(node, ast.stmt):
            yield _start(node), _end(node), 2
            body = getattr(node, "body", None)
            if isinstance(body, list) and body:
                yield _start(body[0]), _end(body[-1]), 3


def _start(node: ast.expr | ast.stmt | ast.keyword) -> _Place:
    return node.lineno, node.col_offset


def _end(node: ast.expr | ast.stmt) -> _Place:
    return node.end_lineno or node.lineno, node.end_col_offset or node.col_offset
