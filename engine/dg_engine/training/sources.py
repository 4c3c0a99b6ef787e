"""Where documents come from: folders, archives, installed packages, the package index, the standard library."""

from __future__ import annotations

import importlib.metadata
import re
import sysconfig
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from dg_engine.errors import EngineError
from dg_engine.own_files import own_files
from dg_engine.training.downloads import normalised
from dg_engine.training.licences import permissive_licence
from dg_engine.training.metadata import licence_texts, read_metadata
from dg_engine.training.projects import NAMES, SPLITS, STANDARD_LIBRARY, Split
from dg_engine.training.trees import ARCHIVES, FolderTree, Tree, is_text, open_archive

SourceKind = Literal["archive", "folder", "index", "installed", "standard library"]

DEFAULT = "default"
"""The source that stands for the projects of the shipped model."""
INSTALLED = "installed:"

_INDEX_NAME = re.compile(r"\w[\w.-]*")

HELD_OUT_SHARE, VALIDATION_SHARE = 0.03, 0.02
"""Of projects that nobody has put into a split, by a digest of their names: a new project moves no other one."""


class Document(NamedTuple):
    """One source file of a project."""

    project: str
    path: str
    """As importers see it: `http/client.py`."""
    text: str
    language: str = "python"
    """A name of `languages.LANGUAGES`."""


class Source(NamedTuple):
    """A project that is wanted in a corpus, before anything of it is read."""

    name: str
    kind: SourceKind
    split: Split
    path: Path | None = None
    """Of a folder or an archive; of a wheel of the package index once it is fetched."""


class Splits(NamedTuple):
    """Projects by name that the user puts into a split; all others have theirs by default."""

    validation: Collection[str] = ()
    held_out: Collection[str] = ()

    def chosen(self) -> dict[Split, Collection[str]]:
        """The names by their split; the first that has a name counts."""
        return {"held_out": self.held_out, "validation": self.validation}

    def of(self, name: str) -> Split:
        """The split of a project."""
        name = normalised(name)
        for split, names in self.chosen().items():
            if name in map(normalised, names):
                return split
        if name in _DEFAULT_SPLITS:
            return _DEFAULT_SPLITS[name]
        draw = unit_digest(name)
        return (
            "held_out"
            if draw < HELD_OUT_SHARE
            else "validation"
            if draw < HELD_OUT_SHARE + VALIDATION_SHARE
            else "train"
        )


_DEFAULT_SPLITS: dict[str, Split] = {normalised(name): split for split in SPLITS for name in NAMES[split]}


def unit_digest(text: str) -> float:
    """A number in [0, 1) that is always the same for a text and as if random otherwise."""
    return int.from_bytes(sha256(text.encode()).digest()[:6]) / 2**48


def read_sources(texts: Iterable[str], splits: Splits) -> list[Source]:
    """The sources that a user names: held-out projects first, then by name.

    Args:
        texts: each a folder, an archive, `installed:NAME`, `default`, or a name in the package index.
        splits: where the user wants some of them.

    Raises:
        EngineError: two of them have one name, a path is neither a folder nor an archive, its name is no text, or a
            name that the user puts into a split is none of theirs.
    """
    found: dict[str, Source] = {}
    for source in (one for text in texts for one in _read_source(text, splits)):
        if normalised(source.name) in found:
            raise EngineError(f"two sources are called {source.name}: rename one, or leave it out")
        found[normalised(source.name)] = source
    for split, names in splits.chosen().items():
        for name in names:
            if normalised(name) not in found:
                there = ", ".join(sorted(source.name for source in found.values()))
                raise EngineError(f"{name}: no source for the split {split} is called that; there are {there}")
    return sorted(found.values(), key=lambda source: (-SPLITS.index(source.split), source.name))


@contextmanager
def open_source(source: Source) -> Iterator[Tree]:
    """Open the files of a source.

    Raises:
        EngineError: it is not there, or is no readable archive.
    """
    if source.path is not None and source.path.is_file():
        with open_archive(source.path) as tree:
            yield tree
    else:
        yield _folder(source)


def stamp(source: Source) -> str:
    """A digest that changes when a source does; archives are judged by name, size and time."""
    if source.path is not None and source.path.is_file():
        stat = source.path.stat()
        return f"{source.path.name} {stat.st_size} {stat.st_mtime_ns}"
    return _folder(source).stamp()


def about(source: Source, tree: Tree) -> tuple[str, str]:
    """Version and licence of a source.

    Raises:
        LicenceRefused: the licence is not permissive.
    """
    if source.kind == "standard library":
        return sysconfig.get_python_version(), "PSF-2.0"
    metadata = read_metadata(tree)
    return str(metadata["Version"] or ""), permissive_licence(metadata, licence_texts(tree))


def _read_source(text: str, splits: Splits) -> list[Source]:
    path = Path(text)
    if text == DEFAULT:
        names = [name for split in SPLITS for name in NAMES[split]]
        library = Source(STANDARD_LIBRARY, "standard library", splits.of(STANDARD_LIBRARY))
        return [library, *(Source(name, "index", splits.of(name)) for name in names)]
    if text.startswith(INSTALLED):
        name = text.removeprefix(INSTALLED)
        if not _INDEX_NAME.fullmatch(name):
            raise EngineError(f"{text}: expected {INSTALLED}NAME, the name of an installed package")
        return [Source(name, "installed", splits.of(name))]
    if path.is_dir():
        name = _checked(path.resolve().name)
        return [Source(name, "folder", splits.of(name), path)]
    if path.is_file() and path.name.endswith(ARCHIVES):
        name = _checked(_archive_name(path))
        return [Source(name, "archive", splits.of(name), path)]
    if path.exists() or not _INDEX_NAME.fullmatch(text):
        raise EngineError(f"{text}: is no folder, no archive ({', '.join(ARCHIVES)}) and no project's name")
    return [Source(text, "index", splits.of(text))]


def _checked(name: str) -> str:
    if not is_text(name):
        raise EngineError(f"{name!a}: is no name that can be written in UTF-8 on one line; rename it")
    return name


def _archive_name(path: Path) -> str:
    """`flask-3.1.0-py3-none-any.whl`, `flask-3.1.0.tar.gz` and `flask-main.zip` are `flask`."""
    if path.suffix == ".whl":
        return path.name.split("-")[0]
    stem = path.name.removesuffix(next(ending for ending in ARCHIVES if path.name.endswith(ending)))
    return re.sub(r"[-_]v?\d[^/]*$|-(?:main|master)$", "", stem)


def _folder(source: Source) -> FolderTree:
    if source.kind == "installed":
        try:
            distribution = importlib.metadata.distribution(source.name)
        except importlib.metadata.PackageNotFoundError as error:
            raise EngineError(f"{source.name}: is not installed here") from error
        inside = [file.as_posix() for file in distribution.files or [] if ".." not in file.parts]
        return FolderTree(Path(str(distribution.locate_file(""))), inside)
    if source.kind == "standard library":
        root = Path(sysconfig.get_paths()["stdlib"])
        return FolderTree(root, (path for path in own_files(root) if "tests" not in PurePosixPath(path).parts))
    if source.path is None or not source.path.is_dir():
        raise EngineError(f"{source.name}: {source.path or 'nothing'} is no folder any more")
    return FolderTree(source.path)
