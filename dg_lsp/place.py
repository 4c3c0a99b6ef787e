"""A cursor as the command line names it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Place(NamedTuple):
    """A cursor as editors show it: line and column count from 1, the column in characters."""

    path: Path
    line: int
    column: int
