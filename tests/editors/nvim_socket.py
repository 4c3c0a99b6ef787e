"""Neovim's API over its socket, one blocking call after the other.

Not pynvim, which takes over the signals of the process and so the time limits of the tests.
"""

from __future__ import annotations

import socket
from itertools import count
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]

PATIENCE_S = 60.0


class NeovimError(AssertionError):
    """Neovim refused a call."""


class NeovimSocket:
    """The functions of `:help api`, without the prefix `nvim_`."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE_S)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise
        # Handles of buffers and windows come as extension types, and are not looked at.
        self._messages = msgpack.Unpacker(raw=False, ext_hook=lambda code, data: None, unicode_errors="surrogateescape")
        self._numbers = count()

    def call(self, function: str, *arguments: Any) -> Any:
        """Call a function and wait for its result."""
        number = next(self._numbers)
        self._socket.sendall(msgpack.packb([0, number, f"nvim_{function}", arguments]))
        while True:
            for kind, *rest in self._messages:
                if kind == 1 and rest[0] == number:
                    if rest[1] is not None:
                        raise NeovimError(f"{function}: {rest[1]}")
                    return rest[2]
            data = self._socket.recv(65536)
            if not data:
                raise NeovimError(f"{function}: Neovim has ended")
            self._messages.feed(data)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()
