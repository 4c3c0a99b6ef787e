"""VS Code, as code-server in a browser: keys are pressed in the page, and what shows is read from its DOM."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import driver_vscode_host as vscode
from driver import Editor, Known, Launch, until

QUICK_INPUT = ".quick-input-widget:not([style*='display: none'])"
STATUS = '[id="dg-lsp.dg-lsp.status"] a'


class VSCode(Editor):
    """One window."""

    name = "VS Code"

    def __init__(
        self, launch: Launch, host: vscode.Host | None = None, settings: Mapping[str, Any] | None = None
    ) -> None:
        """Open it; `settings` are those of the folder, by default whatever starts the server of the tests."""
        self.workspace = launch.workspace
        directory = launch.workspace / ".vscode"
        directory.mkdir(exist_ok=True)
        chosen = {**_server(launch), **_flat("dg", launch.settings)} if settings is None else settings
        (directory / "settings.json").write_text(json.dumps(chosen))
        self._window = (host or vscode.host()).open_window(launch.workspace)
        self._wait_for_server()
        self._wait_for_ghost_text(launch.home / "first.py")

    def open(self, path: Path) -> None:
        # What was open is closed as it stands on disk, or a file that was open before would be shown as it was then.
        while self._window.has(".tab"):
            self._window.execute("workbench.action.revertAndCloseActiveEditor")
        until(lambda: str(path) not in self._window.ask("documents"), f"{path.name} stays open")
        self._window.ask("open", path=str(path))
        until(lambda: self._window.ask("active") == str(path), f"{path.name} is not shown")

    def go_to(self, line: int, column: int) -> None:
        text = self.text().split("\n")[line][:column]
        self._window.ask("goTo", line=line, character=len(text.encode("utf-16-le")) // 2)

    def type(self, text: str) -> None:
        self._window.press(*("Enter" if character == "\n" else character for character in text))

    def backspace(self, times: int = 1) -> None:
        self._window.press(*["Backspace"] * times)

    def ghost(self) -> str:
        drawn = self._drawn()
        return "\n".join(line["ghost"] for line in drawn if line["ghost"] or line["isPreview"])

    def draft(self) -> str:
        return "\n".join(line["draft"] for line in self._drawn() if line["draft"])

    def accept(self) -> None:
        self._window.press("Tab")

    def accept_word(self) -> None:
        self._window.press("Control+ArrowRight")

    def accept_line(self) -> None:
        self._window.press("Control+Alt+ArrowRight")

    def dismiss(self) -> None:
        self._window.press("Escape")

    def trigger(self) -> None:
        self._window.press("Alt+Backslash")

    def show_next(self) -> None:
        self._window.press("Alt+BracketRight")

    def undo(self) -> None:
        self._window.press("Control+z")

    def save(self) -> None:
        self._window.press("Control+s")
        until(lambda: not self._buffer()["isDirty"], "the file is not saved")

    def text(self) -> str:
        text: str = self._buffer()["text"]
        return text.replace("\r\n", "\n")

    def screen(self) -> str:
        return "\n".join(line["text"].rstrip() for line in self._drawn())

    def status(self) -> str:
        label: str | None = self._window.evaluate("(item) => document.querySelector(item)?.ariaLabel", STATUS)
        return label or ""

    def popups(self) -> str:
        return "\n".join(self._window.evaluate("[...window.dgPopups]"))

    def configure(self, **settings: Any) -> None:
        self._window.ask("configure", settings=_flat("dg", settings))

    def snooze(self, minutes: int) -> None:
        self._window.execute("dg-lsp.snooze", minutes)

    def server_pid(self) -> int:
        host = self._window.ask("process")
        return until(lambda: next(_servers(host), 0), "no language server runs")

    def restart_server(self) -> None:
        # It comes back by itself.
        self.server_pid()
        self._wait_for_server()

    def is_running(self) -> bool:
        return not self._window.do(lambda page: page.is_closed())

    def capture(self, path: Path) -> Path:
        file = path.with_suffix(".png")
        self._window.do(lambda page: page.screenshot(path=file))
        return file

    def palette(self, title: str) -> None:
        """Run a command of dg-lsp as users find it."""
        self._window.press("F1")
        self.pick(f"dg-lsp: {title}", prefix=">")

    def pick(self, label: str, prefix: str = "") -> None:
        """Choose an entry of the list that is open."""
        until(lambda: self._window.has(QUICK_INPUT), "no list is open")
        self._window.fill(f"{QUICK_INPUT} input", prefix + label)
        entry = f'{QUICK_INPUT} .monaco-list-row.focused[aria-label*="{label}"]'
        until(lambda: self._window.has(entry), lambda: f"{label} is not offered:\n{self._window.visible_text()}")
        self._window.press("Enter")
        until(lambda: not self._window.has(entry), f"{label} stays open")

    def fill(self, text: str) -> None:
        """Answer the question that is open."""
        until(lambda: self._window.has(QUICK_INPUT), "no question is open")
        self._window.fill(f"{QUICK_INPUT} input", text)
        self._window.press("Enter")

    def choose_folder(self, folder: Path) -> None:
        """Choose a folder in the dialog that is open."""
        where, wanted = f"{QUICK_INPUT} .quick-input-box input", f"{folder}/"
        until(lambda: self.has('.monaco-button:text-is("Use This Model")'), "no dialog is open")

        def named() -> bool:
            # The dialog writes its own folder there when it has read it.
            if self._window.do(lambda page: page.input_value(where)) == wanted:
                return True
            self._window.fill(where, wanted)
            return False

        until(named, "the folder cannot be named")
        self.press_button("Use This Model")

    def press_button(self, label: str) -> None:
        """Click the button with this label, in a notification or a dialog."""
        self._window.do(lambda page: page.click(f'.monaco-button:visible:text-is("{label}")'))

    def forget_popups(self) -> None:
        """Close all notifications, and count none of them any more."""
        self._window.execute("notifications.clearAll")
        self._window.evaluate("window.dgPopups.clear()")

    def click_status(self) -> None:
        """Click the item of the status bar."""
        self._window.do(lambda page: page.click(STATUS))

    def has(self, selector: str) -> bool:
        """Whether the page shows such an element."""
        return self._window.has(f"{selector} >> visible=true")

    def visible_text(self) -> str:
        """All that can be read in the window."""
        return self._window.visible_text()

    def active(self) -> str:
        """The path of what the active editor shows; empty where none is active."""
        return self._window.ask("active") or ""

    def setting(self, key: str) -> Any:
        """A setting's value."""
        return self._window.ask("setting", key=key)

    def evaluate(self, script: str) -> Any:
        """Evaluate JavaScript in the page."""
        return self._window.evaluate(script)

    def execute(self, command: str, *arguments: Any) -> Any:
        """Run a command of VS Code."""
        return self._window.execute(command, *arguments)

    def close(self) -> None:
        self._window.do(lambda page: page.close())

    def _wait_for_server(self) -> None:
        # The client makes the server's commands VS Code's just when it begins to ask for completions.
        until(
            lambda: "dg.explain" in self._window.ask("commands") and self.status() and "starting" not in self.status(),
            lambda: f"the server does not come up: {self.status()}\n{self._window.visible_text()}",
            vscode.STARTING_S,
        )

    def _wait_for_ghost_text(self, file: Path) -> None:
        # A new window makes what shows ghost text when it is idle; what is typed before that is not asked about.
        file.write_text("first = 1\n")
        self.open(file)

        def has_asked() -> bool:
            self.trigger()
            reason: str = self._window.execute("dg.explain", file.as_uri())["reason"]
            return not reason.startswith("Nothing has been asked")

        until(has_asked, "VS Code does not ask for completions", vscode.STARTING_S)

    def _buffer(self) -> dict[str, Any]:
        buffer: dict[str, Any] = self._window.ask("buffer")
        return buffer

    def _drawn(self) -> list[dict[str, Any]]:
        """The lines of the editor from top to bottom, those of ghost text among them."""
        drawn: list[dict[str, Any]] = self._window.evaluate(DRAWN)
        buffer = self._buffer() if any(line["isPreview"] for line in drawn) else None
        if buffer is not None and not buffer["insertSpaces"]:
            # Tabs are drawn as blanks; in the lines that ghost text adds, they stand at the beginning.
            for line in drawn:
                if line["isPreview"]:
                    line["ghost"] = _with_tabs(line["ghost"], buffer["tabSize"])
        return drawn


# The lines that ghost text adds and what it adds to the cursor's own line are drawn one after the other, a frame each.
DRAWN = r"""
async () => {
    const frame = () => new Promise((next) => requestAnimationFrame(next));
    await frame();
    await frame();
    const written = (span) => span.textContent.replaceAll("\u00a0", " ").replaceAll(/[\u200b-\u200c]/g, "");
    const attached = (span) => {
        const content = getComputedStyle(span, "::after").content;
        return content.startsWith('"') ? content.slice(1, -1).replaceAll(/\\(.)/g, "$1") : "";
    };
    const editor = document.querySelector(".editor-instance .monaco-editor");
    const lines = [...(editor?.querySelectorAll(".view-lines > .view-line, .suggest-preview-text .view-line") ?? [])];
    return lines
        .map((line) => {
            const spans = [...line.querySelectorAll(":scope > span > span")];
            const chosen = (wanted, read) => spans.filter(wanted).map(read).join("");
            return {
                top: line.getBoundingClientRect().top,
                isPreview: line.closest(".suggest-preview-text") !== null,
                text: chosen(() => true, (span) => written(span) + attached(span)),
                ghost: chosen((span) => /(^| )ghost-text/.test(span.className), written),
                draft: chosen(() => true, attached),
            };
        })
        .sort((one, other) => one.top - other.top);
}
"""


def _server(launch: Launch) -> dict[str, Any]:
    """The settings that start the server; `env` gives it an environment that is not that of code-server."""
    variables = {
        "HOME": str(launch.home),
        **{f"XDG_{name}_HOME": str(launch.home / name.lower()) for name in ("CACHE", "CONFIG", "DATA", "STATE")},
        **launch.environment,
    }
    arguments = [*(f"{name}={value}" for name, value in variables.items()), *launch.server]
    return {"dg.server.path": "/usr/bin/env", "dg.server.arguments": arguments}


def _flat(prefix: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their full names; `engine` is a group, and so is the extension's own `server`."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}.{key}"
        flat |= _flat(name, value) if key in {"engine", "server"} else {name: value}
    return flat


def _servers(host: int) -> Iterator[int]:
    """The language servers among the processes that an extension host has started."""
    for directory in Path("/proc").iterdir():
        try:
            if directory.name.isdecimal() and int((directory / "stat").read_text().rsplit(")")[-1].split()[1]) == host:
                words = (directory / "cmdline").read_bytes().split(b"\0")
                if any(word.rsplit(b"/")[-1] in {b"dg-lsp", b"dg_lsp"} for word in words):
                    yield int(directory.name)
        except OSError:
            continue  # it has ended meanwhile


def _with_tabs(line: str, width: int) -> str:
    blanks = len(line) - len(line.lstrip(" "))
    return "\t" * (blanks // width) + line[blanks - blanks % width :]


EDITORS = {VSCode.name: Known(vscode.missing, VSCode, VSCode.cannot)}
