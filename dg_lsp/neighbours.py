"""Files beside a document, from which may be copied as from those that are open: its folder's, then those around it.

Code repeats what stands in the files beside it, above all in a file that is new. They are read outside of the event
loop, at a document's first request and again when what was read is some time old. Excluded files are never read.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dg_engine.exclusion import Exclusions
from dg_lsp.context import normalised
from dg_lsp.copying import REACH

FILES = 40
"""That are read at most, the nearest first, and of one folder those that were written last."""
ALTOGETHER = 400_000
"""Characters that are kept at most: looking through them for what was typed takes 2 ms."""
ENTRIES = 4_000
"""Names in folders that are looked at, at most: a folder of a million files must not keep a core busy."""
FRESH_S = 30.0
"""For so long what was read counts as what is there."""

# Installed, generated or built: not what the user writes.
_FOREIGN = frozenset(
    ("__pycache__", "node_modules", "site-packages", "venv", "env", "dist", "build", "target", "vendor", "third_party")
)


class Neighbour(NamedTuple):
    """A file beside a document."""

    path: Path
    text: str
    """With `\\n` as its only line end."""
    stamps: object
    """Those of the ignore files above it, by which it was not excluded."""


class Neighbours:
    """The files beside one document; none until they have been read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rules: tuple[Sequence[Path], Exclusions] | None = None
        self._read_at = -FRESH_S
        self._reading: asyncio.Task[None] | None = None
        self._found: tuple[Neighbour, ...] = ()

    def now(self, folders: Sequence[Path], exclusions: Exclusions) -> tuple[Neighbour, ...]:
        """What was read last by these rules, the nearest first; where that is some time ago, a reading begins.

        The arguments are those of `read`.
        """
        rules = (folders, exclusions)
        if rules != self._rules:
            self._rules, self._found, self._read_at = rules, (), -FRESH_S
        stamps = {one.path.parent: one.stamps for one in self._found}
        if any(exclusions.stamps(folder) != before for folder, before in stamps.items()):
            self._found, self._read_at = (), -FRESH_S
        is_idle = self._reading is None or self._reading.done()
        if is_idle and time.monotonic() - self._read_at >= FRESH_S:
            self._reading = asyncio.get_running_loop().create_task(self._read(*rules))
        return self._found

    async def _read(self, folders: Sequence[Path], exclusions: Exclusions) -> None:
        found = await asyncio.to_thread(lambda: tuple(read(self._path, folders, exclusions)))
        if self._rules == (folders, exclusions):
            self._found, self._read_at = found, time.monotonic()


def read(path: Path, folders: Sequence[Path], exclusions: Exclusions) -> Iterator[Neighbour]:
    """The files beside a document that have its suffix.

    Args:
        path: of the document.
        folders: of the workspace: no file outside the one that holds the document is looked at; without one that
            does, none outside the document's own folder.
        exclusions: whose files are left alone.
    """
    left = ALTOGETHER
    for number, file in enumerate(_near(path, folders)):
        if number == FILES or left <= 0:
            return
        stamps = exclusions.stamps(file.parent)
        if exclusions.reason(file, file.as_uri()) is not None:
            continue
        try:
            with file.open(encoding="utf-8", newline="") as opened:
                text = normalised(opened.read(min(REACH, left)))
        except (OSError, UnicodeDecodeError):
            continue
        left -= len(text)
        yield Neighbour(file, text, stamps)


def _near(path: Path, folders: Sequence[Path]) -> Iterator[Path]:
    """Files of the same suffix: of the document's folder, of those in it, then of the folders around it likewise."""
    if not path.suffix:
        return
    around = max((folder for folder in folders if path.is_relative_to(folder)), key=_depth, default=path.parent)
    seen, left = set[Path](), ENTRIES
    for top in (path.parent, *path.parent.parents):
        waiting = [top]
        while waiting and left > 0:
            folder = waiting.pop(0)
            if folder in seen:
                continue
            seen.add(folder)
            entries = _entries(folder, left)
            left -= len(entries)
            files = [one for one in entries if one.name.endswith(path.suffix) and one.name != path.name]
            yield from (Path(one.path) for one in sorted(files, key=_written, reverse=True) if _is_file(one))
            inner = (one for one in entries if one.name not in _FOREIGN and not one.name.startswith("."))
            waiting += sorted(Path(one.path) for one in inner if one.is_dir(follow_symlinks=False))
        if top == around or not top.is_relative_to(around):
            return


def _entries(folder: Path, most: int) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [one for one, _ in zip(entries, range(most), strict=False)]
    except OSError:
        return []


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a loop of links
        return False


def _written(entry: os.DirEntry[str]) -> float:
    try:
        return entry.stat().st_mtime
    except OSError:
        return 0.0


def _depth(folder: Path) -> int:
    return len(folder.parts)
