"""What the syntax tree says about a place in a document: comment, string, block, and whether an answer parses there.

One `Syntax` belongs to one document and one thread. It holds the tree of the text it saw last, and moves it to the
snapshot it is asked about by one edit that covers everything that differs, found by bisection; the document need not
report its edits. What is parsed of a large file is said in `dg_lsp.window`. Where a grammar is missing or broken there
is no `Syntax`, and the server goes by indentation.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from typing import NamedTuple

from tree_sitter import Language as Grammar
from tree_sitter import Node, Parser, Tree

from dg_lsp.document import Point, Snapshot, encoded
from dg_lsp.languages import Language, language_of
from dg_lsp.lines import Lines
from dg_lsp.nodes import BLOCKS, COMMENTS, FUNCTIONS, INTERPOLATIONS, JUMPS, LITERALS, STRINGS, UNPARSED
from dg_lsp.window import Window, window_at

_log = logging.getLogger(__name__)


STAND_IN = b"_"
"""Parsed in the place of what is to be written. Without it the statement at the cursor is mostly broken off, and the
parser's recovery costs ten times the parse: 3.7 ms against 0.3 after `x = ` before a definition, in 8 KiB of Python."""


class Place(NamedTuple):
    """What surrounds a point."""

    in_comment: bool = False
    in_string: bool = False
    broken: bool = False
    """Whether the parser had to guess at this place; what it says about open strings is then worth little."""


class Trial(NamedTuple):
    """How a text would parse in place; offsets count characters of that text."""

    new_errors: int
    first_error: int | None
    """Where the first error within the text, or at its end, begins."""
    block_end: int | None
    """Where the block that holds the start of the text ends, if that is within the text."""


class Syntax:
    """The incrementally parsed tree of one document. Every question takes the snapshot it is about."""

    def __init__(self, language: Language, grammar: Grammar) -> None:
        self.language = language
        self._parser = Parser(grammar)
        self.window: Window | None = None
        """The part of the document that the tree covers, None before the first question and for a giant line."""
        self._source = b""
        self._tree: Tree | None = None

    def place(self, snapshot: Snapshot, point: Point) -> Place:
        """Whether `point` lies in a comment or a string; all False but `broken` where nothing could be parsed."""
        path, offset = self._path_before(snapshot, point)
        for node in reversed(path):
            if node.type in UNPARSED:
                return Place(broken=True)
            if node.type in COMMENTS:
                return Place(in_comment=_reaches_past(node, offset, self._source))
            if node.type in INTERPOLATIONS:
                return Place()
            if node.type in STRINGS:
                return Place(in_string=node.start_byte < offset < node.end_byte, broken=node.has_error)
        return Place(broken=any(node.has_error for node in path[1:][-3:]))

    def opens_block(self, snapshot: Snapshot, point: Point) -> bool:
        """Whether the token that ends at `point` can open a block, as against a literal, a slice or a lambda."""
        path, _ = self._path_before(snapshot, point)
        is_literal = len(path) > 1 and path[-2].type in LITERALS and not _is_body(path[-2])
        return not is_literal and not self.place(snapshot, point).in_string

    def in_function(self, snapshot: Snapshot, point: Point) -> bool:
        """Whether the token before `point` is part of a function, which may begin above the window."""
        path, _ = self._path_before(snapshot, point)
        if any(node.type in FUNCTIONS for node in path):
            return True
        begins_above = self.window is not None and self.window.first > 0
        return begins_above and len(path) > 1 and path[1].start_point.column > 0

    def is_behind_jump(self, snapshot: Snapshot, point: Point, end: Point) -> bool:
        """Whether the line that ends at `end`, above the blank one of `point`, leaves the block in which that is."""
        path, offset = self._path_before(snapshot, point, end)
        return any(
            _leaves(node) for node in path if node.start_point.column == point.column and node.end_byte <= offset
        )

    def trial(self, snapshot: Snapshot, start: Point, end: Point, text: str) -> Trial | None:
        """Parse the snapshot with `text` in place of what lies from `start` to `end`; None where nothing is parsed."""
        tree = self._parsed(snapshot, start)
        if tree is None or self.window is None:
            return None
        first, last = (self.window.offset(snapshot.lines, point) for point in (start, end))
        inserted = encoded(text)
        source = self._source[:first] + inserted + self._source[last + len(STAND_IN) :]
        tried = self._reparsed(tree, self._source, source)
        errors = sorted(node.start_byte for node in _errors(tried.root_node))
        new_errors = len(errors) - _error_count(tree)
        stop = first + len(inserted)
        inside = next((at for at in errors if first <= at <= stop), None)
        block_end = _block_end(tried.root_node, first, stop)
        return Trial(
            new_errors,
            None if inside is None else _characters(inserted, inside - first),
            None if block_end is None else _characters(inserted, block_end - first),
        )

    def _path_before(self, snapshot: Snapshot, point: Point, end: Point | None = None) -> tuple[list[Node], int]:
        """The nodes that hold the byte before `end`, outermost first, and its offset in bytes.

        It is `point`, where something is to be written, or a place above.
        """
        tree = self._parsed(snapshot, point)
        if tree is None or self.window is None:
            return [], 0
        offset = self.window.offset(snapshot.lines, end or point)
        return (_path(tree.root_node, offset - 1) if offset else []), offset

    def _parsed(self, snapshot: Snapshot, point: Point) -> Tree | None:
        before = self.window
        self.window = window_at(snapshot.lines, point.row, before, self.language)
        if self.window is None:
            self._tree = None
            return None
        if before is None or self.window.first != before.first:
            self._begin_anew(snapshot.lines, point, self.window)
        source = self._with_stand_in(snapshot.lines, point, self.window)
        if self._tree is None:
            self._tree = self._parser.parse(source)
        elif source != self._source:
            self._tree = self._reparsed(self._tree, self._source, source)
        self._source = source
        return self._tree

    def _begin_anew(self, lines: Lines, point: Point, window: Window) -> None:
        """Parse a new window; if that goes badly and a later beginning goes better, take the later one."""
        self._source = self._with_stand_in(lines, point, window)
        self._tree = self._parser.parse(self._source)
        later = window.behind_delimiter(lines, point.row) if self._tree.root_node.has_error else None
        if later is None:
            return
        source = self._with_stand_in(lines, point, later)
        tree = self._parser.parse(source)
        if _error_count(tree) < _error_count(self._tree):
            self.window, self._source, self._tree = later, source, tree

    @staticmethod
    def _with_stand_in(lines: Lines, point: Point, window: Window) -> bytes:
        source, offset = window.source(lines), window.offset(lines, point)
        return source[:offset] + STAND_IN + source[offset:]

    def _reparsed(self, tree: Tree, old: bytes, new: bytes) -> Tree:
        start = _common_prefix(old, new)
        same = _common_suffix(old[start:], new[start:])
        old_end, new_end = len(old) - same, len(new) - same
        edited = tree.copy()
        edited.edit(start, old_end, new_end, _at(old, start), _at(old, old_end), _at(new, new_end))
        return self._parser.parse(new, edited)


def syntax_for(language_id: str, path: str) -> Syntax | None:
    """A `Syntax` for a document of this language, or None where it has no grammar that loads."""
    language = language_of(language_id, path)
    grammar = _grammar(language)
    return None if grammar is None else Syntax(language, grammar)


@lru_cache(maxsize=64)
def _grammar(language: Language) -> Grammar | None:
    if not language.module:
        return None
    try:
        return Grammar(getattr(import_module(language.module), language.function)())
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        _log.warning("no grammar from %s, going by indentation: %s", language.module, error)
        return None


def _path(root: Node, byte: int) -> list[Node]:
    """The nodes that hold `byte`, outermost first. `Node.parent` would search from the root anew at each step."""
    path, cursor = [root], root.walk()
    while cursor.goto_first_child_for_byte(byte) is not None:
        node = cursor.node
        if node is None or node.start_byte > byte:
            break
        path.append(node)
    return path


def _reaches_past(comment: Node, offset: int, source: bytes) -> bool:
    """A comment to the end of the line holds its own end, where typing goes on; a delimited one does not."""
    if offset < comment.end_byte:
        return True
    return not source[comment.start_byte : comment.end_byte].rstrip().endswith((b"*/", b"-->", b"=end"))


def _errors(root: Node) -> Iterator[Node]:
    pending = [root]
    while pending:
        node = pending.pop()
        if node.is_error or node.is_missing:
            yield node
        elif node.has_error:
            pending.extend(node.children)


def _error_count(tree: Tree) -> int:
    return sum(1 for _ in _errors(tree.root_node))


def _block_end(root: Node, start: int, stop: int) -> int | None:
    for node in reversed(_path(root, start)):
        if node.type in BLOCKS and node.start_byte <= start:
            return node.end_byte if node.end_byte < stop else None
    return None


def _characters(data: bytes, size: int) -> int:
    return len(data[:size].decode("utf-8", "replace"))


def _at(source: bytes, offset: int) -> tuple[int, int]:
    return source.count(b"\n", 0, offset), offset - (source.rfind(b"\n", 0, offset) + 1)


def _common_prefix(left: bytes, right: bytes) -> int:
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _common_suffix(left: bytes, right: bytes) -> int:
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[len(left) - middle : len(left) - low] == right[len(right) - middle : len(right) - low]:
            low = middle
        else:
            high = middle - 1
    return low


def _leaves(node: Node) -> bool:
    """Whether a node is a statement behind which its block does not go on; in Rust it holds the expression that is."""
    parts = [node, *node.children[:1]] if node.type == "expression_statement" else [node]
    return any(part.type in JUMPS for part in parts)


def _is_body(node: Node) -> bool:
    """Whether a list of initial values is a function's body, for which C++ takes it until a `;` stands in it."""
    before = node.prev_named_sibling
    return node.type == "initializer_list" and before is not None and before.type == "function_declarator"
