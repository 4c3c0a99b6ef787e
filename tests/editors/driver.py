"""What a scenario may do to an editor, and see of it: the actions of a person, and the state behind the screen.

Each editor has a driver module that implements `Editor` on the real program: `type` and the accepting methods press
real keys, `ghost` reads the structures that the editor draws from, `screen` reads what it drew. The module ends with
`EDITORS`, one `Known` for each program that it drives, under the name that reports use: "VS Code", "Neovim 0.12".
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

PATIENCE_S = 60.0
POLL_S = 0.02


def until(wanted: Callable[[], T | None], failure: Callable[[], str] | str, patience_s: float = PATIENCE_S) -> T:
    """Poll until `wanted` returns something true, and return that; an AssertionError with `failure` after a while."""
    deadline = time.monotonic() + patience_s
    while True:
        value = wanted()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(failure if isinstance(failure, str) else failure())
        time.sleep(POLL_S)


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How an editor is to be started for the tests."""

    server: Sequence[str]
    """The command of the language server."""
    home: Path
    """An empty directory that becomes HOME and holds every configuration and cache of the editor."""
    workspace: Path
    """The folder that is opened."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables for the editor and so for the server, over the usual ones."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the server at the start, camelCase."""


class Editor(ABC):
    """A running editor with dg-lsp set up as its documentation says."""

    name: str
    workspace: Path
    cannot: Mapping[str, str] = {}
    """Scenarios that this editor makes impossible, by the name of their test without `test_`, each with the reason."""

    @abstractmethod
    def open(self, path: Path) -> None:
        """Show a file of the workspace, and wait until the server has it."""

    @abstractmethod
    def go_to(self, line: int, column: int) -> None:
        """Put the cursor before a code point, both counted from 0, ready to type (insert mode)."""

    @abstractmethod
    def type(self, text: str) -> None:
        """Press the keys of a text, one by one."""

    @abstractmethod
    def backspace(self, times: int = 1) -> None:
        """Press Backspace."""

    @abstractmethod
    def ghost(self) -> str:
        """The ghost text that is shown for the cursor, lines separated by line feeds; empty where there is none."""

    @abstractmethod
    def draft(self) -> str:
        """The draft that is shown for the cursor, on one or more lines; empty where there is none."""

    @abstractmethod
    def accept(self) -> None:
        """Press the key that takes the whole ghost text, or does what it always does where there is none."""

    @abstractmethod
    def accept_word(self) -> None:
        """Press the key that takes the ghost text's next word."""

    @abstractmethod
    def accept_line(self) -> None:
        """Press the key that takes the ghost text's next line."""

    @abstractmethod
    def dismiss(self) -> None:
        """Press the key that hides the ghost text, the editor being ready to type afterwards."""

    @abstractmethod
    def trigger(self) -> None:
        """Ask for completions by hand."""

    @abstractmethod
    def show_next(self) -> None:
        """Press the key that shows the next completion, where only the likeliest came unasked."""

    @abstractmethod
    def undo(self) -> None:
        """Undo one step, ready to type afterwards."""

    @abstractmethod
    def save(self) -> None:
        """Write the file to disk."""

    @abstractmethod
    def text(self) -> str:
        """The text of the buffer, its lines separated by line feeds."""

    @abstractmethod
    def screen(self) -> str:
        """The lines that can be seen, as they are drawn: file and ghost text alike."""

    @abstractmethod
    def status(self) -> str:
        """What the editor shows of the server's state (status bar, status line, mode line)."""

    @abstractmethod
    def popups(self) -> str:
        """Error messages that the user has been shown since the start; empty where there were none."""

    @abstractmethod
    def configure(self, **settings: Any) -> None:
        """Change settings of the server (camelCase) as a user does while the editor runs."""

    @abstractmethod
    def snooze(self, minutes: int) -> None:
        """The client's snooze command; 0 ends it."""

    @abstractmethod
    def server_pid(self) -> int:
        """The process of the language server that serves the current file."""

    @abstractmethod
    def restart_server(self) -> None:
        """Bring a server back that has died, as the client's documentation says; returns when it serves the file."""

    @abstractmethod
    def is_running(self) -> bool:
        """Whether the editor has neither ended nor crashed."""

    @abstractmethod
    def capture(self, path: Path) -> Path:
        """Keep what is on the screen as an artifact; returns the file, `path` with a suffix of the driver's choice."""

    @abstractmethod
    def close(self) -> None:
        """End the editor and everything it started."""

    def wait_for_ghost(self, text: str | None = None) -> str:
        """Wait until ghost text is shown, or this very one; returns it."""
        return until(
            lambda: shown if (shown := self.ghost()) and text in {None, shown} else "",
            lambda: f"{self.name}: no ghost text {text or ''!r}, but {self.ghost()!r}; screen:\n{self.screen()}",
        )

    def wait_for_no_ghost(self) -> None:
        """Wait until no ghost text is shown."""
        until(lambda: not self.ghost(), lambda: f"{self.name}: ghost text stays: {self.ghost()!r}")

    def wait_for_text(self, text: str) -> None:
        """Wait until the buffer holds this text."""
        until(lambda: self.text() == text, lambda: f"{self.name}: the buffer holds {self.text()!r}, not {text!r}")

    def wait_for_status(self, word: str) -> str:
        """Wait until the state that is shown contains a word, in any case; returns it."""
        return until(
            lambda: shown if word.lower() in (shown := self.status()).lower() else "",
            lambda: f"{self.name}: the status shows {self.status()!r}, not {word!r}",
        )


class Known(NamedTuple):
    """An editor that the tests know."""

    missing: Callable[[], str | None]
    """What of it is not on this machine, in a few words; None if all is here."""
    launch: Callable[[Launch], Editor]
    """Start it; the answer is ready to `open` a file. Calling it twice with different homes gives two windows."""
    cannot: Mapping[str, str] = {}
    """The same as the editor's `cannot`, known without starting it."""
