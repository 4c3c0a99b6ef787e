"""What a project's tree says of itself: name, version and licence, as core metadata whatever file it stands in."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from email.message import Message
from email.parser import Parser
from pathlib import PurePosixPath
from typing import Any

from dg_engine.training.licences import is_permissive, licence_of
from dg_engine.training.trees import UNREADABLE, Tree

MAX_BYTES = 1_000_000
"""Of a file that metadata or a licence is read from."""

_CORE = re.compile(r"[^/]+\.dist-info/METADATA")
_LICENCE_NAMES = ("COPYING", "LICENCE", "LICENSE", "UNLICENSE")
# Below the top, where code that deals with licences lies too: `LICENSE-MIT`, `license.txt`, `COPYING.LESSER`.
_LICENCE_BELOW = re.compile(r"(?i:(?:un)?licen[cs]e|copying)(?:[-_][^.]*)?(?:(?i:\.md|\.rst|\.txt)|\.[^.a-z]+)?")


def read_metadata(tree: Tree) -> Message:
    """The metadata of a tree, empty if there is none.

    Read are `METADATA` of wheels and installed packages, `PKG-INFO`, `pyproject.toml`, `package.json` and `Cargo.toml`,
    the first that is there and sound.
    """
    for path, reader in _places(tree):
        try:
            return reader(_text(tree, path))
        # Malformed, or not of the form that its name promises.
        except (*UNREADABLE, TypeError, AttributeError):
            continue
    return Message()


def licence_texts(tree: Tree) -> Iterator[str]:
    """The contents of a tree's licence files: those at its top, in `LICENSES` and in a wheel's metadata.

    One that cannot be read or is too large is an empty text: nobody knows which licence that is.
    """
    for path, size in sorted(tree.sizes().items()):
        if _is_licence(PurePosixPath(path)):
            yield _text_or_nothing(tree, path, size)


def restricted_folders(tree: Tree) -> frozenset[str]:
    """The folders whose own licence files are not all permissive, whatever the project's licence is."""
    return frozenset(
        PurePosixPath(path).parent.as_posix()
        for path, size in tree.sizes().items()
        if "/" in path
        and _LICENCE_BELOW.fullmatch(PurePosixPath(path).name)
        and not is_permissive(licence_of([_text_or_nothing(tree, path, size)]))
    )


def _text_or_nothing(tree: Tree, path: str, size: int) -> str:
    try:
        return _text(tree, path) if size <= MAX_BYTES else ""
    except UNREADABLE:
        return ""


def _places(tree: Tree) -> Iterator[tuple[str, Callable[[str], Message]]]:
    sizes = {path: size for path, size in tree.sizes().items() if size <= MAX_BYTES}
    yield from ((path, _core) for path in sorted(sizes) if _CORE.fullmatch(path))
    for path, reader in _READERS.items():
        if path in sizes:
            yield path, reader


def _is_licence(path: PurePosixPath) -> bool:
    top = path.parts[0] if len(path.parts) > 1 else ""
    named = path.name.upper().startswith(_LICENCE_NAMES) and path.suffix not in (".go", ".js", ".py", ".rs")
    return top == "LICENSES" or (named and (not top or top.endswith(".dist-info")))


def _text(tree: Tree, path: str) -> str:
    return tree.read(path).decode("utf-8", "replace")


def _core(text: str) -> Message:
    return Parser().parsestr(text)


def _pyproject(text: str) -> Message:
    tables = tomllib.loads(text)
    project = tables.get("project") or tables.get("tool", {}).get("poetry", {})
    return _message(project, project.get("license"), project.get("classifiers", []))


def _package_json(text: str) -> Message:
    package = json.loads(text)
    declared = package.get("license") or [one.get("type") for one in package.get("licenses", [])]
    return _message(package, " OR ".join(declared) if isinstance(declared, list) else declared)


def _cargo(text: str) -> Message:
    package = tomllib.loads(text).get("package", {})
    return _message(package, str(package.get("license", "")).replace("/", " OR "))


def _message(fields: Mapping[str, Any], licence: object, classifiers: list[str] | None = None) -> Message:
    """Core metadata of another manifest's fields. A licence in a table is its text or its type, not an expression."""
    message = Message()
    for name in ("name", "version"):
        if isinstance(value := fields.get(name), str):
            message[name] = value
    if isinstance(licence, Mapping):
        licence = licence.get("text") or licence.get("type")
    if isinstance(licence, str) and licence:
        message["License"] = licence
    for classifier in classifiers or []:
        message["Classifier"] = classifier
    return message


_READERS = {"PKG-INFO": _core, "pyproject.toml": _pyproject, "package.json": _package_json, "Cargo.toml": _cargo}
