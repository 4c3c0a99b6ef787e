"""Helix in a terminal. It has no ghost text: the completion is an entry of its menu, which `test_helix.py` tries."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from driver import Editor, Known, Launch, until
from programs import installed, unpacked
from terminal import ROWS, Terminal

LANGUAGES = """
[language-server.dg-lsp]
command = {command}
args = {arguments}

[language-server.dg-lsp.config]
{settings}

[[language]]
name = "python"
language-servers = ["dg-lsp"]
"""

NO_GHOST = "Helix asks for no in-line completion and draws no ghost text; its menu has the completion (test_helix.py)"
NEEDS_GHOST = (
    "one_line",
    "several_lines",
    "typing_along",
    "accepting_all",
    "accepting_word_by_word",
    "accepting_line_by_line",
    "taking_the_place_of_the_rest_of_the_line",
    "emoji_and_cjk_before_the_cursor",
    "a_file_with_crlf",
    "a_file_indented_with_tabs",
    "undo_takes_an_accepted_text_back_in_one_step",
    "typing_on_cancels_a_request",
    "an_engine_that_dies_in_the_middle",
    "a_server_that_is_killed",
    "two_windows_share_one_engine",
    "an_ignored_file",
    "snoozing",
    "switching_the_model",
    "switching_off_and_on",
    "watching_it_crystallise",
    "asking_by_hand",
    "the_next_of_several_completions",
    "dismissing",
    "moving_away",
)


class Helix(Editor):
    """One Helix in one terminal."""

    name = "Helix"
    cannot = dict.fromkeys(NEEDS_GHOST, NO_GHOST)

    def __init__(self, program: Path, launch: Launch) -> None:
        self.workspace = launch.workspace
        configuration = launch.home / ".config" / "helix"
        configuration.mkdir(parents=True)
        command, *arguments = launch.server
        (configuration / "languages.toml").write_text(
            LANGUAGES.format(
                command=json.dumps(str(command)),
                arguments=json.dumps(arguments),
                settings="\n".join(f"{name} = {_toml(value)}" for name, value in launch.settings.items()),
            )
        )
        self._home = launch.home
        self._file = Path()
        self._terminal = Terminal(
            [str(program)],
            directory=launch.workspace,
            environment={
                **launch.environment,
                "HOME": str(launch.home),
                "XDG_CONFIG_HOME": str(launch.home / ".config"),
                "XDG_CACHE_HOME": str(launch.home / ".cache"),
            },
            socket=launch.home / "tmux.sock",
        )
        self._terminal.wait_for("NOR")

    def keys(self, *names: str) -> None:
        """Press keys by tmux's names."""
        self._terminal.keys(*names)

    def command(self, command: str) -> None:
        """Type a command of the command line."""
        self._normal()
        self.type(f":{command}\n")

    def _normal(self) -> None:
        def left() -> bool:
            if "NOR" in self._status_line():
                return True
            self.keys("Escape")
            return False

        until(left, lambda: f"Helix stays in its mode:\n{self.screen()}")

    def _status_line(self) -> str:
        return self.screen().split("\n")[ROWS - 2]

    def open(self, path: Path) -> None:
        self._file = path
        self.command(f"open {path}")
        until(lambda: path.name in self._status_line(), lambda: f"{path.name} does not open:\n{self.screen()}")
        # A file that was open before is shown as it was then.
        self.command("reload")

    def go_to(self, line: int, column: int) -> None:
        self.command(f"goto {line + 1}")
        self.type("gh" + "l" * column + "i")
        until(lambda: "INS" in self._status_line(), "Insert mode does not begin")

    def type(self, text: str) -> None:
        self._terminal.literal(text)

    def backspace(self, times: int = 1) -> None:
        self.keys(*["BSpace"] * times)

    def ghost(self) -> str:
        return ""

    def draft(self) -> str:
        return ""

    def accept(self) -> None:
        self.keys("Tab")

    def accept_word(self) -> NoReturn:
        raise NotImplementedError(NO_GHOST)

    def accept_line(self) -> NoReturn:
        raise NotImplementedError(NO_GHOST)

    def dismiss(self) -> None:
        self._normal()
        self.keys("i")

    def trigger(self) -> None:
        self.keys("C-x")

    def show_next(self) -> NoReturn:
        raise NotImplementedError(NO_GHOST)

    def undo(self) -> None:
        self._normal()
        self.keys("u", "i")

    def save(self) -> None:
        # Two savings at once look to Helix as if somebody else had written the file.
        self.command("write!")

    def text(self) -> str:
        # Helix tells nobody what a buffer holds.
        self.save()
        # It saves by renaming, and so for a moment there is no file.
        with contextlib.suppress(FileNotFoundError):
            return self._file.read_text(encoding="utf-8")
        return ""

    def screen(self) -> str:
        return self._terminal.screen()

    def status(self) -> str:
        return self._status_line()

    def popups(self) -> str:
        return ""

    def configure(self, **settings: Any) -> NoReturn:
        raise NotImplementedError("Helix reads settings from its file when it starts a server.")

    def snooze(self, minutes: int) -> NoReturn:
        raise NotImplementedError("Helix passes no arguments to commands of a server.")

    def server_pid(self) -> int:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                environment = (process / "environ").read_bytes()
                is_server = b"dg_lsp" in (process / "cmdline").read_bytes()
            except OSError:
                continue
            if is_server and f"HOME={self._home}".encode() in environment.split(b"\0"):
                return int(process.name)
        return 0

    def restart_server(self) -> None:
        dead = self.server_pid()
        self.command("lsp-restart")
        until(lambda: self.server_pid() not in {0, dead}, "the server does not come")

    def is_running(self) -> bool:
        return self._terminal.is_running()

    def capture(self, path: Path) -> Path:
        return self._terminal.capture(path)

    def close(self) -> None:
        try:
            self.command("quit-all!")
        finally:
            self._terminal.close()


def _toml(value: Any) -> str:
    """A value as TOML has it on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name} = {_toml(inner)}" for name, inner in value.items()) + "}"
    return json.dumps(value)


def _missing() -> str | None:
    if program() is None:
        return "no hx"
    return None if installed("tmux") else "no tmux"


def program() -> Path | None:
    """Helix beside the system, or on the PATH."""
    return unpacked("helix", "hx") or installed("hx")


def start(launch: Launch) -> Helix:
    """Start it."""
    found = program()
    assert found is not None
    return Helix(found, launch)


EDITORS = {Helix.name: Known(_missing, start, Helix.cannot)}
