"""Where documents come from: the Python files of wheels and of the running interpreter's standard library."""

from __future__ import annotations

import sysconfig
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from dg_engine.errors import EngineError
from dg_engine.training.licences import permissive_licence
from dg_engine.training.projects import STANDARD_LIBRARY, Split


class Document(NamedTuple):
    """One source file of a project."""

    project: str
    path: str
    """As importers see it: `http/client.py`."""
    text: str


class Project(NamedTuple):
    """What is known of a project before its files are read."""

    name: str
    version: str
    licence: str
    split: Split
    location: Path


# Files that are input of tests, not code: deliberately broken, or huge.
_TEST_DATA = frozenset(("data", "testdata", "test_data", "fixtures", "snapshots", "bad_coding", "cjkencodings"))


def open_wheel(name: str, split: Split, wheel: Path) -> Project:
    """Read a wheel's metadata.

    Raises:
        LicenceRefused: its licence is not permissive.
        EngineError: the file is no wheel.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            about = next(entry for entry in names if entry.endswith(".dist-info/METADATA"))
            metadata = Parser().parsestr(archive.read(about).decode("utf-8", "replace"))
            texts = [archive.read(entry).decode("utf-8", "replace") for entry in names if _is_licence(entry)]
    except (zipfile.BadZipFile, OSError, StopIteration) as error:
        raise EngineError(
            f"{wheel}: is not a readable wheel ({error!r}); delete it to have it fetched again"
        ) from error
    return Project(name, str(metadata["Version"]), permissive_licence(metadata, texts), split, wheel)


def standard_library() -> Project:
    """The running interpreter's standard library, under the Python licence."""
    location = Path(sysconfig.get_paths()["stdlib"])
    return Project(STANDARD_LIBRARY, sysconfig.get_python_version(), "PSF-2.0", "train", location)


def read_documents(project: Project) -> Iterator[Document]:
    """The project's Python files in the order of their names; what is not UTF-8 is passed over."""
    read = _wheel_files if project.location.suffix == ".whl" else _library_files
    for path, raw in read(project.location):
        if not _TEST_DATA & set(PurePosixPath(path).parts[:-1]):
            try:
                text = raw.decode("utf-8")
            except UnicodeDecodeError:
                continue
            yield Document(project.name, path, text.removeprefix("\ufeff").replace("\r\n", "\n"))


def _is_licence(entry: str) -> bool:
    upper = entry.upper()
    return ".DIST-INFO/" in upper and ("LICEN" in upper or "COPYING" in upper)


def _wheel_files(wheel: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(wheel) as archive:
        for entry in sorted(archive.namelist()):
            if entry.endswith(".py"):
                yield entry, archive.read(entry)


def _library_files(root: Path) -> Iterator[tuple[str, bytes]]:
    for file in sorted(root.rglob("*.py")):
        path = file.relative_to(root)
        if not {"site-packages", "dist-packages", "tests"} & set(path.parts):
            yield path.as_posix(), file.read_bytes()
