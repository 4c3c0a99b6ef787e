"""A program in a real terminal: tmux shows it, takes its keys and tells what is on the screen."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from driver import until

COLUMNS, ROWS = 110, 36


class Terminal:
    """One program in one pane of a tmux server of its own."""

    def __init__(
        self, command: Sequence[str], *, directory: Path, environment: Mapping[str, str], socket: Path
    ) -> None:
        """Start `command`; `socket` is where the private tmux server listens, a path of less than 100 bytes."""
        self._socket = socket
        self._environment = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **environment}
        self._environment.pop("TMUX", None)
        configuration = socket.with_suffix(".conf")
        # Without the first line an Escape key waits half a second for a second half.
        configuration.write_text("set -g escape-time 0\nset -g default-terminal tmux-256color\nset -g status off\n")
        size = ["-x", str(COLUMNS), "-y", str(ROWS)]
        start = ["new-session", "-d", *size, "-c", str(directory), "--", *command]
        self._tmux("-f", str(configuration), *start)

    def keys(self, *names: str) -> None:
        """Press keys by tmux's names, such as `Escape`, `C-x`, `Tab`."""
        self._tmux("send-keys", *names)

    def literal(self, text: str) -> None:
        """Press the keys of a text, each by itself."""
        for character in text:
            if character == "\n":
                self.keys("Enter")
            else:
                # A lone semicolon would end tmux's own command.
                self._tmux("send-keys", "-l", "--", "\\;" if character == ";" else character)

    def screen(self, *, coloured: bool = False) -> str:
        """What is on the screen, without blanks at line ends; with escape sequences if `coloured`."""
        return self._tmux("capture-pane", "-p", *(["-e"] if coloured else []))

    def wait_for(self, text: str) -> None:
        """Wait until a text is on the screen."""
        until(lambda: text in self.screen(), lambda: f"{text!r} never came on the screen:\n{self.screen()}")

    def is_running(self) -> bool:
        """Whether the program has not ended yet."""
        command = ["tmux", "-S", str(self._socket), "has-session"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def capture(self, path: Path) -> Path:
        """Keep the screen, in colour, as a text file with escape sequences (`cat` shows it)."""
        file = path.with_suffix(".ansi")
        file.write_text(self.screen(coloured=True), encoding="utf-8")
        return file

    def close(self) -> None:
        """End the program, if it still runs, and its tmux server."""
        subprocess.run(["tmux", "-S", str(self._socket), "kill-server"], capture_output=True, check=False)

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-S", str(self._socket), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=self._environment)
        if done.returncode:
            raise AssertionError(f"tmux {arguments[0]}: {done.stderr.strip()}")
        return done.stdout
