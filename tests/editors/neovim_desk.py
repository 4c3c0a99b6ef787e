"""What the tests of the Neovim plugin work on: one function before its statement, and the scripted engine's answer."""

from __future__ import annotations

from desk import Desk

HEAD = "def area(width, height):\n    "
RESULT = "width * height"


def offered(desk: Desk) -> None:
    """Type until ghost text shows."""
    desk.editor.type("return ")
    desk.editor.wait_for_ghost(RESULT)
