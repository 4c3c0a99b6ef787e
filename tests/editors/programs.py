"""Where the editors are: unpacked by `make editors` in the user's cache, or installed on the PATH."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
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


@functools.cache
def version(program: Path) -> str:
    """What a program says that its version is, such as `28.2`; empty where it does not say."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=60)
    found = re.search(r"\d+(\.\d+)+", done.stdout)
    return found[0] if found else ""


def is_of(wanted: str, program: Path) -> bool:
    """Whether a program is of this version, or of one below it: 0.7.2 is of 0.7."""
    parts = wanted.split(".")
    return version(program).split(".")[: len(parts)] == parts


def of_version(wanted: str, *places: Path | None) -> Path | None:
    """The first of these programs that is of this version."""
    return next((program for program in places if program is not None and is_of(wanted, program)), None)


def missing(program: str, wanted: str, *places: Path | None) -> str | None:
    """Why none of these programs will do, in a few words; None if one does."""
    if of_version(wanted, *places) is not None:
        return None
    others = [version(place) for place in places if place is not None]
    return f"{program} is {', '.join(others)}, not {wanted}" if others else f"no {program}"
