"""Neovim in a terminal: keys go through tmux, state comes from Neovim's own API, over its socket."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import programs
from driver import Editor, Known, Launch, until
from nvim_socket import NeovimError, NeovimSocket
from terminal import ROWS, Terminal

PLUGIN = Path(__file__).parents[2] / "editors" / "nvim"
GHOST = frozenset({"DgLspGhost"})
DRAFT = frozenset({"DgLspDraft", "DgLspDraftSettled"})

INIT = """
vim.opt.runtimepath:prepend({plugin})
vim.o.statusline = "%f %=%{{v:lua.require'dg_lsp'.status()}}"
vim.o.laststatus = 2
require('dg_lsp').setup({options})
"""


def lua(value: Any) -> str:
    """A value as a Lua expression."""
    match value:
        case None:
            return "vim.NIL"
        case bool():
            return str(value).lower()
        case dict():
            return "{" + ", ".join(f"[{lua(name)}] = {lua(item)}" for name, item in value.items()) + "}"
        case list() | tuple():
            return "{" + ", ".join(map(lua, value)) + "}"
        case str():
            return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
        case _:
            return str(value)


def setup(launch: Launch) -> str:
    """The init.lua of a user who has followed the documentation."""
    options = {"cmd": list(launch.server), "settings": dict(launch.settings)}
    return INIT.format(plugin=lua(str(PLUGIN)), options=lua(options))


class Neovim(Editor):
    """One Neovim in one terminal."""

    def __init__(self, name: str, program: Path, launch: Launch, init: str = "") -> None:
        self.name = name
        self.workspace = launch.workspace
        configuration = launch.home / ".config" / "nvim"
        configuration.mkdir(parents=True)
        (configuration / "init.lua").write_text(init or setup(launch))
        socket = launch.home / "nvim.sock"
        environment = {
            **launch.environment,
            "HOME": str(launch.home),
            "XDG_CONFIG_HOME": str(launch.home / ".config"),
            "XDG_DATA_HOME": str(launch.home / ".local" / "share"),
            "XDG_STATE_HOME": str(launch.home / ".local" / "state"),
            "XDG_CACHE_HOME": str(launch.home / ".cache"),
        }
        self._terminal = Terminal(
            [str(program), "--listen", str(socket)],
            directory=launch.workspace,
            environment=environment,
            socket=launch.home / "tmux.sock",
        )
        self._socket = until(lambda: _connected(socket), lambda: f"{name} did not start: {self._terminal.screen()}")
        until(lambda: self.call("get_vvar", "vim_did_enter") == 1, f"{name} did not finish its start")

    def call(self, function: str, *arguments: Any) -> Any:
        """Call Neovim's API, once no prompt such as "Press ENTER" keeps it from answering."""
        until(lambda: not self._socket.call("get_mode")["blocking"], lambda: f"{self.name} waits:\n{self.screen()}")
        return self._socket.call(function, *arguments)

    def lua(self, code: str, *arguments: Any) -> Any:
        """Run Lua inside."""
        return self.call("exec_lua", code, arguments)

    def command(self, command: str) -> None:
        """Run a command of the command line, in whatever mode it is."""
        self.call("command", command)

    def keys(self, *names: str) -> None:
        """Press keys by tmux's names."""
        self._terminal.keys(*names)

    def mode(self) -> str:
        """The mode, as `mode()` names it."""
        mode: str = self._socket.call("get_mode")["mode"]
        return mode

    def normal(self) -> None:
        """Leave whatever mode it is. Only then may a key follow: directly after Escape it would be another key."""
        if self.mode() != "n":
            self.keys("Escape")
        until(lambda: self.mode() == "n", lambda: f"{self.name} stays in mode {self.mode()}:\n{self.screen()}")

    def open(self, path: Path) -> None:
        self.normal()
        self.lua("vim.cmd('edit! ' .. vim.fn.fnameescape(...))", str(path))
        self._wait_for_server()

    def _wait_for_server(self) -> None:
        until(lambda: self.lua("return require('dg_lsp').status()") != "", f"{self.name}: the server does not come")

    def go_to(self, line: int, column: int) -> None:
        self.normal()
        text = self.call("buf_get_lines", 0, line, line + 1, True)[0]
        self.call("win_set_cursor", 0, [line + 1, len(text[:column].encode())])
        self.keys("A" if column == len(text) else "i")
        until(lambda: self.mode() == "i", "Insert mode does not begin")

    def type(self, text: str) -> None:
        self._terminal.literal(text)

    def backspace(self, times: int = 1) -> None:
        self.keys(*["BSpace"] * times)

    def shown(self, groups: frozenset[str], namespace: str = "dg_lsp") -> str:
        """What is drawn into the buffer in these highlight groups and is not in it."""
        spaces = self.call("get_namespaces")
        if namespace not in spaces:
            return ""
        marks = self.call("buf_get_extmarks", 0, spaces[namespace], 0, -1, {"details": True})
        lines = [""]
        below: list[str] = []
        for *_, details in marks:
            lines[0] += _text(details.get("virt_text", []), groups)
            below += [_text(line, groups) for line in details.get("virt_lines", [])]
        return "\n".join(lines + below)

    def ghost(self) -> str:
        return self.shown(GHOST)

    def draft(self) -> str:
        return self.shown(DRAFT)

    def accept(self) -> None:
        self.keys("Tab")

    def accept_word(self) -> None:
        self.keys("M-Right")

    def accept_line(self) -> None:
        self.keys("C-M-Right")

    def dismiss(self) -> None:
        self.keys("C-]")

    def trigger(self) -> None:
        self.keys("M-\\")

    def show_next(self) -> None:
        self.trigger()

    def undo(self) -> None:
        self.normal()
        self.keys("u", "A")
        until(lambda: self.mode() == "i", "Insert mode does not begin")

    def save(self) -> None:
        self.command("silent write")

    def text(self) -> str:
        end = "\n" if self.call("buf_get_option", 0, "endofline") else ""
        return "\n".join(self.call("buf_get_lines", 0, 0, -1, True)) + end

    def screen(self) -> str:
        return self._terminal.screen()

    def status(self) -> str:
        # The line above the command line.
        return self.screen().split("\n")[ROWS - 2] if self.mode() != "c" else ""

    def popups(self) -> str:
        messages = self.call("exec", "messages", True).split("\n")
        return "\n".join(line for line in messages if re.search(r"^E\d+|\berror\b", line, re.IGNORECASE))

    def configure(self, **settings: Any) -> None:
        self.lua("require('dg_lsp').configure(...)", settings)

    def snooze(self, minutes: int) -> None:
        self.command(f"DgLsp snooze {minutes}")

    def server_pid(self) -> int:
        # None before the first file is opened.
        parent = self.call("call_function", "getpid", [])
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return next((int(pid) for pid in children if b"dg_lsp" in Path(f"/proc/{pid}/cmdline").read_bytes()), 0)

    def restart_server(self) -> None:
        self.command("DgLsp restart")
        self._wait_for_server()

    def is_running(self) -> bool:
        return self._terminal.is_running()

    def capture(self, path: Path) -> Path:
        return self._terminal.capture(path)

    def close(self) -> None:
        with contextlib.suppress(NeovimError, OSError):
            self._socket.call("command", "qall!")
        self._socket.close()
        self._terminal.close()


def _connected(path: Path) -> NeovimSocket | None:
    """The API of a Neovim that listens; one that starts makes its socket a moment before it listens there."""
    try:
        return NeovimSocket(path)
    except OSError:
        return None


def _text(chunks: list[list[str]], groups: frozenset[str]) -> str:
    return "".join(chunk[0] for chunk in chunks if len(chunk) > 1 and chunk[1] in groups)


def _places() -> tuple[Path | None, ...]:
    return programs.installed("nvim"), programs.unpacked("neovim-0.12", "nvim")


def _program(version: str) -> Path | None:
    return programs.of_version(version, *_places())


PROGRAMS: dict[str, Callable[[], Path | None]] = {
    f"Neovim {version}": partial(_program, version) for version in ("0.7", "0.12")
}
"""The oldest version that is served, as Debian 12 has it, and the one that has a client of its own."""


def _missing(name: str) -> str | None:
    if (reason := programs.missing("nvim", name.removeprefix("Neovim "), *_places())) is not None:
        return reason
    return None if programs.installed("tmux") else "no tmux"


def start(name: str, launch: Launch, init: str = "") -> Neovim:
    """Start one of `PROGRAMS`, with an init.lua of its own if one is given."""
    program = PROGRAMS[name]()
    assert program is not None
    return Neovim(name, program, launch, init)


EDITORS = {name: Known(partial(_missing, name), partial(start, name)) for name in PROGRAMS}
