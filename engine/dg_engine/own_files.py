"""Which files of a folder are its owner's work."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from dg_engine.errors import EngineError

# Never a project's own code, and large.
_FOREIGN = frozenset(("__pycache__", "bower_components", "node_modules", "site-packages", "dist-packages"))


def own_files(root: Path) -> Iterator[str]:
    """The paths of a folder's own files, sorted: what git tracks or would, where it keeps the folder, or else all but
    hidden folders, virtual environments and installed packages.

    Raises:
        EngineError: git keeps the folder and does not say what is in it: what it ignores must stay unread.
    """
    if (root / ".git").exists():
        yield from sorted(os.fsdecode(name) for name in set(_of_git(root).split(b"\0")) if name)
        return
    for folder, folders, names in os.walk(root):
        inner = (name for name in folders if name not in _FOREIGN and not name.startswith("."))
        folders[:] = sorted(name for name in inner if not (Path(folder) / name / "pyvenv.cfg").exists())
        yield from ((Path(folder) / name).relative_to(root).as_posix() for name in sorted(names))


def _of_git(root: Path) -> bytes:
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
    return done.stdout


def own_files_within(folder: Path) -> list[str]:
    """The same of a folder that may lie within a repository, whose ignore files then hold for it too.

    A folder that its repository ignores altogether was still asked for by name: all of its files are told.
    """
    top = next((place for place in (folder, *folder.parents) if (place / ".git").exists()), folder)
    within = [path for name in own_files(top) if (path := top / name).is_relative_to(folder)]
    return [path.relative_to(folder).as_posix() for path in within] or list(own_files(folder))
