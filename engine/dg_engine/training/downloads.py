"""Wheels of named projects, fetched by pip without their dependencies, once."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

AT_ONCE = 2
"""Downloads side by side: a package index is shared with everybody."""

_PARTIAL = ".partial-"

# One slow project must not hold up all others; the largest wheel asked for takes seconds.
_TIMEOUT_S = 180


class Fetched(NamedTuple):
    """A project's wheel, or why there is none."""

    name: str
    wheel: Path | None
    reason: str = ""


def fetch_wheels(names: list[str], directory: Path) -> Iterator[Fetched]:
    """Have a wheel of every project in `directory`, in the order of `names`; what is there already is not asked for."""
    directory.mkdir(parents=True, exist_ok=True)
    for left in directory.glob(f"{_PARTIAL}*"):
        shutil.rmtree(left, ignore_errors=True)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(lambda name: _fetch(name, directory), names)


def find_wheel(name: str, directory: Path) -> Path | None:
    """The wheel of a project in a directory; names compare as in PEP 503."""
    wheels = directory.glob("*.whl")
    return next((wheel for wheel in sorted(wheels) if normalised(wheel.name.split("-")[0]) == normalised(name)), None)


def normalised(name: str) -> str:
    """A project's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _fetch(name: str, directory: Path) -> Fetched:
    if wheel := find_wheel(name, directory):
        return Fetched(name, wheel)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    # pip copies to where it is told: killed, or without room, it leaves a part of a wheel there.
    with TemporaryDirectory(prefix=_PARTIAL, dir=directory) as partial:
        command += ["--only-binary=:all:", "--dest", partial, name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            return Fetched(name, None, f"no answer within {_TIMEOUT_S} s")
        wheel = None if done.returncode else find_wheel(name, Path(partial))
        if wheel:
            wheel = wheel.rename(directory / wheel.name)
    lines = done.stderr.strip().splitlines()
    return Fetched(name, wheel, "" if wheel else (lines[-1] if lines else f"pip left with {done.returncode}"))
