"""Vim in a terminal: keys go through tmux, state comes over a channel that Vim opens to the test."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import socket
from pathlib import Path
from typing import Any

from driver import Editor, Known, Launch, until
from programs import installed, missing
from terminal import ROWS, Terminal

PLUGIN = Path(__file__).parents[2] / "editors" / "vim"
PATIENCE_S = 60.0

HARNESS = """
set nocompatible nobackup noswapfile hidden
filetype plugin indent on
{user}
let g:channel = ch_open('127.0.0.1:{port}', {{'waittime': 10000}})
"""

USER = """
set runtimepath^={plugin}
let g:dg_lsp_command = {command}
let g:dg_lsp_settings = {settings}
set laststatus=2 statusline=%f\\ %=%{{dg_lsp#Status()}}
"""


def setup(launch: Launch) -> str:
    """What a user has in .vimrc who has followed the documentation."""
    return USER.format(
        plugin=str(PLUGIN), command=json.dumps(list(launch.server)), settings=_vim(dict(launch.settings))
    )


class Vim(Editor):
    """One Vim in one terminal."""

    name = "Vim 9"

    def __init__(self, program: Path, launch: Launch, user: str = "") -> None:
        """Start it; `user` is the user's own .vimrc."""
        self.workspace = launch.workspace
        with socket.create_server(("127.0.0.1", 0)) as listener:
            vimrc = launch.home / ".vimrc"
            vimrc.write_text(HARNESS.format(user=user or setup(launch), port=listener.getsockname()[1]))
            self._terminal = Terminal(
                [str(program), "-u", str(vimrc)],
                directory=launch.workspace,
                environment={"HOME": str(launch.home), **launch.environment},
                socket=launch.home / "tmux.sock",
            )
            listener.settimeout(PATIENCE_S)
            self._channel, _ = listener.accept()
        self._channel.settimeout(PATIENCE_S)
        self._answers = self._channel.makefile("r", encoding="utf-8")
        self._numbers = itertools.count(-1, -1)
        self._pid = 0

    def evaluate(self, expression: str) -> Any:
        """The value of a Vim expression."""
        number = next(self._numbers)
        self._channel.sendall(json.dumps(["expr", expression, number]).encode())
        received, value = json.loads(self._answers.readline())
        assert received == number
        return value

    def command(self, command: str) -> None:
        """Run a command of the command line, in whatever mode it is."""
        self.evaluate(f"execute({_vim(command)})")

    def keys(self, *names: str) -> None:
        """Press keys by tmux's names."""
        self._terminal.keys(*names)

    def mode(self) -> str:
        """The mode, as `mode()` names it."""
        mode: str = self.evaluate("mode()")
        return mode

    def normal(self) -> None:
        """Leave Insert mode. Only then may a key follow: directly after Escape it would be another key."""
        if self.mode() != "n":
            self.keys("Escape")
        until(lambda: self.mode() == "n", lambda: f"Vim stays in mode {self.mode()}:\n{self.screen()}")

    def open(self, path: Path) -> None:
        self.normal()
        self.command(f"edit! {path}")
        self._wait_for_server()

    def _wait_for_server(self) -> None:
        until(lambda: self.evaluate("dg_lsp#Serves()"), lambda: f"the server does not come:\n{self.screen()}")

    def go_to(self, line: int, column: int) -> None:
        self.normal()
        text = self.evaluate(f"getline({line + 1})")
        self.evaluate(f"cursor({line + 1}, {len(text[:column].encode()) + 1})")
        self.keys("A" if column == len(text) else "i")
        until(lambda: self.mode() == "i", "Insert mode does not begin")

    def type(self, text: str) -> None:
        self._terminal.literal(text)

    def backspace(self, times: int = 1) -> None:
        self.keys(*["BSpace"] * times)

    def _drawn(self, kind: str) -> str:
        # Vim tells that there is virtual text, not what it says: that the plugin keeps beside it.
        places = f"prop_list(1, {{'end_lnum': -1, 'types': [{_vim(kind)}]}})"
        (drawn, text), there = self.evaluate(f"[dg_lsp#ghost#Drawn(), {places}]")
        assert (drawn == kind) == bool(there)
        return text if there else ""

    def ghost(self) -> str:
        return self._drawn("dg_lsp_ghost")

    def draft(self) -> str:
        return self._drawn("dg_lsp_draft")

    def accept(self) -> None:
        self.keys("Tab")

    def accept_word(self) -> None:
        self.keys("M-Right")

    def accept_line(self) -> None:
        self.keys("C-M-Right")

    def dismiss(self) -> None:
        self.keys("C-]")

    def trigger(self) -> None:
        self.keys("C-x", "C-g")

    def show_next(self) -> None:
        self.trigger()

    def undo(self) -> None:
        self.normal()
        self.keys("u", "A")
        until(lambda: self.mode() == "i", "Insert mode does not begin")

    def save(self) -> None:
        self.command("silent write")

    def text(self) -> str:
        lines: list[str] = self.evaluate("getline(1, '$')")
        return "".join(f"{line}\n" for line in lines)

    def screen(self) -> str:
        return self._terminal.screen()

    def status(self) -> str:
        # The line above the command line.
        return self.screen().split("\n")[ROWS - 2]

    def popups(self) -> str:
        messages = self.evaluate("execute('messages')").split("\n")
        return "\n".join(line for line in messages if re.search(r"^E\d+|\berror\b", line, re.IGNORECASE))

    def configure(self, **settings: Any) -> None:
        self.evaluate(f"dg_lsp#Configure({_vim(settings)})")

    def snooze(self, minutes: int) -> None:
        self.command(f"DgLsp snooze {minutes}")

    def server_pid(self) -> int:
        pid: int = self.evaluate("dg_lsp#server#Pid()")
        return pid

    def restart_server(self) -> None:
        self.command("DgLsp restart")
        self._wait_for_server()

    def is_running(self) -> bool:
        return self._terminal.is_running()

    def capture(self, path: Path) -> Path:
        return self._terminal.capture(path)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._channel.sendall(json.dumps(["ex", "qall!"]).encode())
        self._answers.close()
        self._channel.close()
        self._terminal.close()


def _vim(value: Any) -> str:
    """A value as a Vim expression."""
    match value:
        case None:
            return "v:null"
        case bool():
            return f"v:{str(value).lower()}"
        case dict():
            return "{" + ", ".join(f"{_vim(name)}: {_vim(item)}" for name, item in value.items()) + "}"
        case str():
            return "'" + value.replace("'", "''") + "'"
        case _:
            return json.dumps(value)


def _missing() -> str | None:
    if installed("tmux") is None:
        return "no tmux"
    return missing("vim", Vim.name.removeprefix("Vim "), installed("vim"))


def start(launch: Launch, user: str = "") -> Vim:
    """Start the Vim that is on the PATH, with a .vimrc of its own if one is given."""
    program = installed("vim")
    assert program is not None
    return Vim(program, launch, user)


EDITORS = {Vim.name: Known(_missing, start)}
