"""Where the log goes: standard error or a file, and the client's log window; never a popup, never document text."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOGGER = "dg_lsp"
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

Send = Callable[[int, str], None]


def configure(level: str, file: Path | None) -> None:
    """Send the log to `file`, or to standard error, from `level` on.

    A lone surrogate in a message (a file name, say) is written as an escape instead of failing.

    Raises:
        OSError: the file cannot be written.
    """
    handler: logging.Handler
    if file is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        handler = logging.FileHandler(file, encoding="utf-8", errors="backslashreplace", delay=False)
    handler.setFormatter(logging.Formatter(FORMAT))
    root = logging.getLogger()
    root.addHandler(handler)
    # pygls logs every message it handles from INFO down, text of the user included.
    root.setLevel(logging.WARNING)
    set_level(level)


def set_level(level: str) -> None:
    """Log the server's own messages from `level` on (`debug`, `info`, `warning` or `error`)."""
    logging.getLogger(LOGGER).setLevel(level.upper())


def on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Handle what nobody caught as the loop does, but for a race of anyio 4.16 that one key in 3,000 runs into.

    There a socket becomes readable in the very turn in which the wait for it is cancelled.
    """
    if not isinstance(context.get("exception"), asyncio.InvalidStateError):
        loop.default_exception_handler(context)


class ClientHandler(logging.Handler):
    """Passes each record of the server to the client's log window through `send(level number, message)`."""

    def __init__(self, send: Send) -> None:
        super().__init__(logging.INFO)
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record; the traceback stays in the local log."""
        self._send(record.levelno, record.getMessage())
