"""The user's own repository as data: which of its files a model may learn from, and which are held out to judge it.

Only files that the user's tools would show are read: what git ignores, what `.dglspignore` names and what looks like a
secret stays unread, and nothing vendored or generated is learnt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dg_engine.errors import EngineError
from dg_engine.exclusion import Exclusions
from dg_engine.training.duplicates import Duplicates
from dg_engine.training.hygiene import MAX_BYTES, path_fault, text_fault
from dg_engine.training.languages import LANGUAGE_NAMES, language_of
from dg_engine.training.sources import Document, unit_digest
from dg_engine.training.trees import FolderTree

HELD_OUT_SHARE = 0.1
LEAST_HELD_OUT = 3
LEAST_FILES = 8
"""With fewer there is little to learn and nothing to judge it by."""


class Repository(NamedTuple):
    """The documents of a repository in two parts, and how many files were left out for which reason."""

    train: list[Document]
    held_out: list[Document]
    dropped: Counter[str]


def read_repository(root: Path, globs: Sequence[str] = ()) -> Repository:
    """Read and split the source files below a folder.

    A file is held out by a digest of its path within the folder, so that the same files are held out tomorrow. A file
    that resembles a held-out one is left out of training. Paths in the documents are absolute, as editors send them.

    Args:
        root: the folder.
        globs: more files to leave unread, as in the setting `exclude`.

    Raises:
        EngineError: the folder has too few files to learn from that differ from each other.
    """
    root = root.resolve()
    dropped: Counter[str] = Counter()
    exclusions = Exclusions((root,), globs)
    fit: dict[str, Document] = {}
    files = FolderTree(root)
    sizes = files.sizes()
    for name in filter(language_of, sizes):
        document, fault = (None, "too long") if sizes[name] > MAX_BYTES else _read(root, name, files, exclusions)
        if document is None:
            dropped[fault] += 1
        else:
            fit[name] = document
    held_out = _held_out(list(fit))
    known = Duplicates()
    parts: tuple[list[Document], list[Document]] = [], []
    for name in sorted(fit, key=lambda name: (name not in held_out, name)):
        if fault := known.fault(fit[name].text):
            dropped[fault] += 1
        else:
            parts[name in held_out].append(fit[name])
    found = Repository(*parts, dropped)
    if fault := _too_little(found):
        left_out = "; ".join(f"{count} for: {why}" for why, count in sorted(dropped.items())) or "none"
        if not fit and not dropped:
            left_out += f"; what can be learnt is {', '.join(LANGUAGE_NAMES)}"
        raise EngineError(f"{root}: {fault}. Left out: {left_out}")
    return found


def _too_little(found: Repository) -> str:
    """What is wrong with so few files; empty where there are enough."""
    train, held_out = len(found.train), len(found.held_out)
    if train + held_out < LEAST_FILES:
        return f"has {train + held_out} files to learn from, and at least {LEAST_FILES} are needed"
    return "" if train else f"all but the {held_out} held-out files resemble these, so there is nothing to learn"


def _read(root: Path, name: str, files: FolderTree, exclusions: Exclusions) -> tuple[Document | None, str]:
    """The document, or None and why there is none."""
    path, language = root / name, language_of(name)
    if why := exclusions.reason(path, path.as_uri()):
        return None, why
    if fault := path_fault(name):
        return None, fault
    try:
        text = files.read(name).decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError):
        return None, "unreadable"
    if fault := text_fault(text, language, own=True):
        return None, fault
    return Document(root.name, path.as_posix(), text, language), ""


def _held_out(names: list[str]) -> set[str]:
    """A tenth by digest, and at least a few: those whose digests are the smallest."""
    few = sorted(names, key=unit_digest)[:LEAST_HELD_OUT]
    return {*few, *(name for name in names if unit_digest(name) < HELD_OUT_SHARE)}
