"""Files of a project, wherever they lie: a folder, a zip archive (wheel, jar), a tar archive; each read by its path."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from io import BufferedIOBase
from pathlib import Path, PurePosixPath
from typing import Protocol

from dg_engine.errors import NO_ROOM, EngineError
from dg_engine.own_files import own_files_within

_ZIP = (".whl", ".zip", ".jar")
_TAR = (".tar", ".tar.gz", ".tgz", ".crate", ".tar.bz2", ".tar.xz")
ARCHIVES = (*_ZIP, *_TAR)
"""How the names of readable archives end."""

MOST_PACKED = 200
"""An archive that unpacks to more times its size is there to fill a disk; source code packs to a tenth."""
# Zeros at the end of a small archive, and what a project may hold of them.
_ANY_BYTES = 1 << 26
_PART = 1 << 20

UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,  # zipfile's for an encrypted entry, and Python's for JSON or TOML that is nested too deeply
    NotImplementedError,
    IndexError,  # zipfile's for an entry without a name
    ValueError,  # for names and numbers that are none
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What opening an archive or reading a file of a tree can raise."""


class Tree(Protocol):
    """The regular files of a project, without those whose names are no text."""

    def sizes(self) -> Mapping[str, int]:
        """Path and bytes of every file; paths are relative, with `/`."""
        ...

    def read(self, path: str) -> bytes:
        """The bytes of a file."""
        ...


class FolderTree:
    """Files below a folder. Links are not followed; what may not be looked at is passed over."""

    def __init__(self, root: Path, paths: Iterable[str] | None = None) -> None:
        """Take the given paths, or all of a project's own files."""
        self._root = root
        found = ((path, _status(root / path)) for path in (own_files_within(root) if paths is None else paths))
        self._stats = {path: status for path, status in found if status is not None and is_text(path)}

    def sizes(self) -> Mapping[str, int]:
        """Path and bytes of every file."""
        return {path: status.st_size for path, status in self._stats.items()}

    def read(self, path: str) -> bytes:
        """The bytes of a file."""
        return (self._root / path).read_bytes()

    def stamp(self) -> str:
        """A digest that changes when a file does, of names, sizes and times."""
        lines = sorted(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n" for path, status in self._stats.items())
        return sha256("".join(lines).encode()).hexdigest()


def _status(file: Path) -> os.stat_result | None:
    """Of a regular file that may be looked at."""
    try:
        status = file.lstat()
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def is_text(path: str) -> bool:
    """Whether a name can be printed, and written as UTF-8: of other bytes Python makes characters that cannot."""
    return path.isprintable()


class _ZipTree:
    def __init__(self, archive: zipfile.ZipFile, *, keep_root: bool) -> None:
        self._archive = archive
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        paths = _paths([entry.filename for entry in entries], keep_root=keep_root)
        self._entries = {path: entry for path, entry in zip(paths, entries, strict=True) if is_text(path)}

    def sizes(self) -> Mapping[str, int]:
        return {path: entry.file_size for path, entry in self._entries.items()}

    def read(self, path: str) -> bytes:
        entry = self._entries[path]
        with self._archive.open(entry) as file:
            # No more than it says it has: asked for everything, zipfile unpacks first and cuts then.
            return file.read(entry.file_size)


class _TarTree:
    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        entries = [entry for entry in archive.getmembers() if entry.isfile()]
        paths = _paths([entry.name for entry in entries])
        self._entries = {path: entry for path, entry in zip(paths, entries, strict=True) if is_text(path)}

    def sizes(self) -> Mapping[str, int]:
        return {path: entry.size for path, entry in self._entries.items()}

    def read(self, path: str) -> bytes:
        member = self._archive.extractfile(self._entries[path])
        assert member is not None  # noqa: S101  (a regular file, as chosen above)
        return member.read()


@contextmanager
def open_archive(path: Path) -> Iterator[Tree]:
    """Open a zip or tar archive. The one folder that everything lies in, if there is one, is no part of the paths.

    Raises:
        EngineError: the file cannot be read as what its name says.
        OSError: there is no room to unpack it.
    """
    with ExitStack() as opened:
        try:
            tree = _open_zip(path, opened) if path.name.endswith(_ZIP) else _open_tar(path, opened)
        except UNREADABLE as error:
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise
            raise EngineError(f"{path}: is no readable archive ({error}); delete it or get it anew") from error
        yield tree


def _open_zip(path: Path, opened: ExitStack) -> Tree:
    return _ZipTree(opened.enter_context(zipfile.ZipFile(path)), keep_root=path.suffix == ".whl")


def _open_tar(path: Path, opened: ExitStack) -> Tree:
    """Spread out first: a compressed archive cannot be read out of order without beginning again each time."""
    spread = opened.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  (closed by `opened`)
    most = max(_ANY_BYTES, MOST_PACKED * path.stat().st_size)
    with _unpacking(path) as packed:
        while part := packed.read(_PART):
            spread.write(part)
            if spread.tell() > most:
                raise tarfile.ReadError(f"it unpacks to more than {MOST_PACKED} times its size")
    spread.seek(0)
    return _TarTree(opened.enter_context(tarfile.open(fileobj=spread)))


def _unpacking(path: Path) -> BufferedIOBase:
    match path.suffix:
        case ".bz2":
            return bz2.open(path)
        case ".xz":
            return lzma.open(path)
        case ".tar":
            return path.open("rb")
        case _:
            return gzip.open(path)


def _paths(names: list[str], *, keep_root: bool = False) -> list[str]:
    """The names of an archive's entries as relative paths, without the longest folder that all lie in."""
    paths = [PurePosixPath(name.lstrip("/")) for name in names]
    root = os.path.commonpath([path.parent for path in paths]) if paths and not keep_root else ""
    return [path.relative_to(root).as_posix() for path in paths]
