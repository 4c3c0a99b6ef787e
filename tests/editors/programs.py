"""Where the editors are: unpacked by `make editors` in the user's cache, or installed on the PATH."""

from __future__ import annotations

import shutil
from pathlib import Path

import platformdirs

CACHE = platformdirs.user_cache_path("dg-lsp") / "editors"
"""`.ci/install/<name>.sh` fills `CACHE / <name>`, with the program under `bin`."""


def unpacked(name: str, program: str) -> Path | None:
    """A program that `make editors` unpacked beside the system; None if it did not."""
    path = CACHE / name / "bin" / program
    return path if path.exists() else None


def installed(program: str) -> Path | None:
    """A program on the PATH."""
    found = shutil.which(program)
    return Path(found) if found else None
