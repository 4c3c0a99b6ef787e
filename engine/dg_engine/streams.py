"""Standard output and error as terminals are: some know ASCII alone."""

from __future__ import annotations

import io
import sys


def print_anything() -> None:
    """Write `?` for characters that the encoding of a standard stream lacks, where Python would raise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
