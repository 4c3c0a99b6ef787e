"""The languages that a corpus can hold: known by a file's name, parsed by tree-sitter grammars."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import PurePosixPath
from typing import NamedTuple

from tree_sitter import Language as Grammar
from tree_sitter import Node, Parser, Tree


class Language(NamedTuple):
    """One language."""

    name: str
    suffixes: tuple[str, ...]
    module: str
    """The grammar's module."""
    function: str = "language"
    """The function of `module` that returns the grammar."""


LANGUAGES = (
    Language("python", (".py",), "tree_sitter_python"),
    Language("typescript", (".ts", ".mts", ".cts"), "tree_sitter_typescript", "language_typescript"),
    Language("tsx", (".tsx",), "tree_sitter_typescript", "language_tsx"),
    Language("javascript", (".js", ".jsx", ".mjs", ".cjs"), "tree_sitter_javascript"),
    Language("go", (".go",), "tree_sitter_go"),
    Language("rust", (".rs",), "tree_sitter_rust"),
    Language("java", (".java",), "tree_sitter_java"),
    Language("c", (".c", ".h"), "tree_sitter_c"),
    Language("cpp", (".cc", ".cpp", ".cxx", ".hh", ".hpp", ".hxx"), "tree_sitter_cpp"),
)
"""An encoded document's language is its number in here, so new ones go to the end."""

LANGUAGE_NAMES = tuple(language.name for language in LANGUAGES)

_BY_SUFFIX = {suffix: language.name for language in LANGUAGES for suffix in language.suffixes}
_BY_NAME = {language.name: language for language in LANGUAGES}


def language_of(path: str, headers: str = "c") -> str:
    """The name of the language that a file's suffix stands for, empty for any other file; `headers` is that of `.h`."""
    suffix = PurePosixPath(path).suffix
    return headers if suffix == ".h" else _BY_SUFFIX.get(suffix, "")


def language_of_headers(paths: Iterable[str]) -> str:
    """What the `.h` files among a project's files are: C++ where most of its sources are."""
    sources = Counter(language_of(path, headers="") for path in paths)
    return "cpp" if sources["cpp"] > sources["c"] else "c"


@cache
def grammar(language: str) -> Grammar:
    """The grammar of a language of `LANGUAGES`."""
    _, _, module, function = _BY_NAME[language]
    return Grammar(getattr(importlib.import_module(module), function)())


def parse(source: bytes, language: str) -> Tree:
    """The syntax tree of a file's bytes; never fails, but the tree may hold errors."""
    return _parser(language).parse(source)


def broken_share(source: bytes, language: str) -> float:
    """The share of a file's bytes that its grammar cannot make sense of; 0 for a sound one."""
    broken = 0
    rest: list[Node] = [parse(source, language).root_node]
    while rest:
        node = rest.pop()
        if node.is_error or node.is_missing:
            broken += max(1, node.end_byte - node.start_byte)
        elif node.has_error:
            rest.extend(node.children)
    return broken / max(1, len(source))


@cache
def _parser(language: str) -> Parser:
    return Parser(grammar(language))
