"""Spans of a file that are something: expressions, call arguments, statements, blocks. As token numbers.

The spans are those of AST-FIM (arXiv 2506.00204) and SAFIM (arXiv 2403.04814), found by one rule for all languages: the
tables below join the node types of all grammars.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tree_sitter import Node, TreeCursor

from dg_engine.training.languages import grammar, parse

KINDS = ("expression", "arguments", "statement", "block")
"""A node's kind is its number in here."""

MAX_NODE_TOKENS = 64


def _types(names: str) -> frozenset[str]:
    return frozenset(names.split())


ARGUMENTS = _types("argument_list arguments")
BLOCKS = _types(
    """block class_body compound_statement constructor_body declaration_list enum_body enum_variant_list
    field_declaration_list interface_body match_block statement_block statement_list switch_block switch_body"""
)
"""Their children are statements."""
EXPRESSIONS = _types(
    """array attribute await call char_literal composite_literal concatenated_string dictionary
    dictionary_comprehension ellipsis expression_list false field_access float func_literal identifier integer
    jsx_element jsx_self_closing_element lambda list list_comprehension macro_invocation method_invocation nil none null
    number object regex self set set_comprehension slice string subscript super template_string this true tuple yield"""
)
EXPRESSION_ENDINGS = ("_expression", "_literal", "_operator")
DECLARING = _types(
    """aliased_import closure_parameters dotted_name formal_parameter formal_parameters global_statement import_clause
    import_specifier lambda_parameters nonlocal_statement package_clause parameters scoped_identifier use_declaration"""
)
"""Identifiers right in them are declared or named, not evaluated."""

# So are those in these fields of any node.
_DECLARING_FIELDS = frozenset(("alias", "attribute", "declarator", "field", "label", "name", "parameter", "property"))

_Place = tuple[int, int, int]  # first byte, byte behind the last, kind


class Nodes(NamedTuple):
    """The N syntactic spans of a document, by their first token."""

    start: NDArray[np.int32]
    """[N] number of the first token."""
    length: NDArray[np.uint8]
    """[N] tokens, 1 to 64."""
    kind: NDArray[np.uint8]
    """[N] index into `KINDS`."""


def find_nodes(text: str, starts: NDArray[np.int64], language: str = "python") -> Nodes:
    """The syntactic spans of a text, grown to whole tokens. What the grammar cannot read has none.

    Args:
        text: the file.
        starts: [T] offset in characters of each of its tokens.
        language: a name of `languages.LANGUAGES`.
    """
    source = text.encode()
    places = list(_places(parse(source, language).walk(), _roles(language)))
    if not places:
        return Nodes(np.empty(0, np.int32), np.empty(0, np.uint8), np.empty(0, np.uint8))
    begin, end, kind = np.array(places, dtype=np.int64).T
    # A byte that does not continue a UTF-8 sequence begins a character.
    character = np.cumsum((np.frombuffer(source, dtype=np.uint8) & 0xC0) != 0x80) - 1
    first = np.searchsorted(starts, character[begin], side="right") - 1
    last = np.searchsorted(starts, character[end - 1], side="right") - 1
    length = last - first + 1
    fits = (length >= 1) & (length <= MAX_NODE_TOKENS)
    order = np.argsort(first[fits], kind="stable")
    chosen = (values[fits][order] for values in (first, length, kind))
    return Nodes(next(chosen).astype(np.int32), next(chosen).astype(np.uint8), next(chosen).astype(np.uint8))


# What a node type is to us, as bits: a corpus has hundreds of millions of nodes.
_NAMED, _EXPRESSION, _IDENTIFIER, _ARGUMENTS, _BLOCK, _COMMENT, _DECLARING = (1 << bit for bit in range(7))


@cache
def _roles(language: str) -> tuple[int, ...]:
    """The roles of every node type of a grammar, by its id: a walk compares no strings."""
    known = grammar(language)
    kinds = range(known.node_kind_count)
    return tuple(_role(known.node_kind_for_id(kind) or "") if known.node_kind_is_named(kind) else 0 for kind in kinds)


def _role(name: str) -> int:
    expression = name in EXPRESSIONS or (name.endswith(EXPRESSION_ENDINGS) and name != "parenthesized_expression")
    return (
        _NAMED
        | (_EXPRESSION * expression)
        | (_IDENTIFIER * (name == "identifier"))
        | (_ARGUMENTS * (name in ARGUMENTS))
        | (_BLOCK * (name in BLOCKS))
        | (_COMMENT * name.endswith("comment"))
        | (_DECLARING * (name in DECLARING))
    )


def _places(cursor: TreeCursor, roles: tuple[int, ...]) -> Iterator[_Place]:
    """The spans of a tree, in its order."""
    # A file's own statements are those of a block that is not one.
    parents = [_BLOCK]
    more = cursor.goto_first_child()
    while more:
        node = cursor.node
        assert node is not None  # noqa: S101  (a cursor stands on a node)
        role = roles[node.kind_id] if node.kind_id < len(roles) else 0
        if role and not node.has_error:
            yield from _spans(node, role, parents[-1], cursor, roles)
        if cursor.goto_first_child():
            parents.append(role)
            continue
        while not (more := cursor.goto_next_sibling()) and len(parents) > 1:
            cursor.goto_parent()
            parents.pop()


def _spans(node: Node, role: int, parent: int, cursor: TreeCursor, roles: tuple[int, ...]) -> Iterator[_Place]:
    begin, end = node.start_byte, node.end_byte
    if begin == end:
        return
    declared = role & _IDENTIFIER and (parent & _DECLARING or cursor.field_name in _DECLARING_FIELDS)
    if role & _EXPRESSION and not declared:
        yield begin, end, 0
    if parent & _BLOCK and not role & (_COMMENT | _BLOCK):
        yield begin, end, 2
    if role & (_ARGUMENTS | _BLOCK):
        inner = [one for one in node.named_children if not roles[one.kind_id] & (_COMMENT | _BLOCK)]
        if inner:
            yield inner[0].start_byte, inner[-1].end_byte, 1 if role & _ARGUMENTS else 3
