"""A folder that one process at a time may write into."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dg_engine.errors import EngineError


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Have a folder, made if it is not there, for this process until it ends, however that happens.

    Raises:
        EngineError: another process has it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    # The folder itself is locked, so that no file is left in it.
    opened = os.open(directory, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems know no locks
            _lock(opened, directory)
        yield
    finally:
        os.close(opened)


def _lock(opened: int, directory: Path) -> None:
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise EngineError(f"{directory}: another process is at work there; wait for it, or choose another") from error
