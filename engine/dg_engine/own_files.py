"""Which files of a folder are its owner's work."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from dg_engine.errors import EngineError

# Never a project's own code, and large.
_FOREIGN = frozenset(("__pycache__", "bower_components", "node_modules", "site-packages", "dist-packages"))


def own_files_within(folder: Path) -> list[str]:
    """The paths of a folder's own files, relative to it and sorted: what git tracks or would, of each repository that
    the folder lies in or holds, and of all other folders what `own_files` tells.

    A folder that its repository ignores altogether was still asked for by name: all of its files are told.

    Raises:
        EngineError: git keeps a folder and does not say what is in it: what it ignores must stay unread.
    """
    folder = folder.resolve()
    is_within = any(_holds(place, ".git") for place in (folder, *folder.parents))
    told = _of_git(folder) if is_within else []
    return sorted(told or own_files(folder))


def own_files(root: Path) -> Iterator[str]:
    """The same of a folder that no repository holds, as they are found: all but hidden folders, virtual environments
    and installed packages, and of each repository below what git tells. What may not be listed is passed over.

    Raises:
        EngineError: as above.
    """
    for folder, folders, names in os.walk(root):
        place = Path(folder)
        if _holds(place, ".git"):
            folders.clear()
            names = _of_git(place)
        inner = (name for name in folders if name not in _FOREIGN and not name.startswith("."))
        folders[:] = sorted(name for name in inner if not _holds(place / name, "pyvenv.cfg"))
        yield from ((place / name).relative_to(root).as_posix() for name in sorted(names))


def _holds(folder: Path, name: str) -> bool:
    """Whether there is such a file. Where that may not be asked, nothing may be read either."""
    return os.path.lexists(folder / name)


def _of_git(root: Path) -> list[str]:
    """What git tracks or would of a folder in a repository, and of the repositories below."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    elsewhere = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX"}
    environment = {name: value for name, value in os.environ.items() if name not in elsewhere}
    try:
        done = subprocess.run(command, capture_output=True, check=True, env=environment)
    except OSError as error:
        raise EngineError(f"{root}: only git knows which files it ignores, and git does not run: {error}") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode("utf-8", "replace").strip().partition("\n")[0]
        raise EngineError(f"{root}: git does not say which files it ignores: {said}") from error
    told = {os.fsdecode(name).rstrip("/") for name in done.stdout.split(b"\0") if name}
    # Of a submodule, and of a repository that lies there untracked, the folder alone is told.
    held = {name for name in told if _holds(root / name, ".git") and not (root / name).is_symlink()}
    return [*(told - held), *(f"{folder}/{name}" for folder in held for name in _of_git(root / folder))]
