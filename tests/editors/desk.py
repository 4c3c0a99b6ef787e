"""Where a scenario takes place: an editor, an engine, one file, and what may be asserted of them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from driver import POLL_S, Editor, Launch, until
from registry import EDITORS

if TYPE_CHECKING:
    from engines import Engine

SERVER = (sys.executable, "-m", "dg_lsp")
SCRIPT = Path(__file__).with_name("scenarios.json")
ARTIFACTS = Path(os.environ.get("DG_ARTIFACTS", Path(__file__).parents[2] / ".work" / "artifacts"))
"""Where screenshots and captures are kept."""

FAILED = pytest.StashKey[bool]()

QUIET_S = 0.8
"""For so long nothing must show; where something does, it takes a tenth of this."""


class Desk:
    """An editor, the one file on which a scenario works, and the engine behind, by default the scripted one."""

    def __init__(self, editor: Editor, scenario: str, engine: Engine | None = None) -> None:
        self.editor = editor
        self.scenario = scenario
        self._engine = engine
        self._before = self._after = ""
        self.workspace = editor.workspace
        self.file = editor.workspace / f"{scenario}.py"

    def open(self, marked: str, name: str = "", newline: str = "\n") -> None:
        """Open a file with this text, the cursor at the `|`."""
        before, after = marked.split("|")
        if name:
            self.file = self.workspace / name
        self.file.write_bytes((before + after).replace("\n", newline).encode())
        self.editor.open(self.file)
        self._before, self._after = before, after
        self.go_to(before)

    def go_to(self, before: str) -> None:
        """Put the cursor behind this text."""
        self.editor.go_to(before.count("\n"), len(before) - before.rfind("\n") - 1)

    def type(self, text: str) -> None:
        """Type behind what was typed since the file was opened, and wait until it is in the buffer."""
        self.editor.type(text)
        self._before += text
        self.editor.wait_for_text(self._before + self._after)

    def backspace(self) -> None:
        """Delete the last character that was typed."""
        self.editor.backspace()
        self._before = self._before[:-1]
        self.editor.wait_for_text(self._before + self._after)

    def retype(self) -> None:
        """Delete the last character and type it anew."""
        last = self._before[-1]
        self.backspace()
        self.type(last)

    def accept(self, shown: str) -> None:
        """Take the whole ghost text, and wait until it is in the buffer and nothing else has changed."""
        self.editor.accept()
        self._before += shown
        self.editor.wait_for_text(self._before + self._after)

    def offers(self, text: str) -> str:
        """Wait for ghost text, from a script this very one; returns it."""
        wanted = text if self._engine is None else self._engine.says(text)
        if wanted is not None:
            return self.editor.wait_for_ghost(wanted)
        # What is drawn in several goes is read when it is complete.
        return until(
            lambda: shown if (shown := self.editor.wait_for_ghost()) == self.editor.ghost() else "",
            "the ghost text is not the same for two moments",
        )

    def offers_nothing(self) -> None:
        """Wait until there is no ghost text, if it is a script that has nothing to say."""
        if self._engine is None or self._engine.says("") is not None:
            self.editor.wait_for_no_ghost()

    def holds(self, text: str, newline: str = "\n") -> None:
        """The buffer holds `text`, and so does the file once it is saved."""
        self.editor.wait_for_text(text)
        self.editor.save()
        wanted = text.replace("\n", newline).encode()
        until(lambda: self.file.read_bytes() == wanted, lambda: f"on disk: {self.file.read_bytes()!r}")

    def is_saved_as_it_is(self) -> None:
        """The buffer lands in the file as it is, whatever may be shown in it."""
        text = self.editor.text()
        self.editor.save()
        until(
            lambda: self.file.read_bytes().decode().replace("\r\n", "\n") == text,
            lambda: f"on disk: {self.file.read_bytes()!r}, in the buffer: {text!r}",
        )

    def shows(self, text: str) -> None:
        """The screen shows this text, blanks at the ends of lines aside."""
        until(lambda: self.draws(text), lambda: f"{text!r} is not on the screen:\n{self.editor.screen()}")

    def draws(self, text: str) -> bool:
        """Whether the screen shows this text now."""
        return _trimmed(text) in _trimmed(self.editor.screen())

    def stays_quiet(self) -> None:
        """No ghost text shows for a while."""
        end = time.monotonic() + QUIET_S
        while time.monotonic() < end:
            assert not self.editor.ghost()
            time.sleep(POLL_S)

    def shows_the_next_by_hand(self) -> None:
        """Where asking again by hand shows the next of several completions: one after the other shows, and stays."""
        self.editor.type("size = ")
        self.editor.wait_for_ghost("width")
        for shown in ("height", "width * height", "width", "height"):
            self.editor.trigger()
            self.editor.wait_for_ghost(shown)
        self.editor.type("h")
        self.editor.wait_for_ghost("eight")

    def keep(self) -> None:
        """Keep what is on the screen as an artifact."""
        directory = ARTIFACTS / self.editor.name.replace(" ", "-")
        directory.mkdir(parents=True, exist_ok=True)
        self.editor.capture(directory / self.scenario)


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.split("\n"))


def present(name: str) -> None:
    """Skip what needs an editor that is not here; pytest's summary names it."""
    if (missing := EDITORS[name].missing()) is not None:
        pytest.skip(f"{name} is not here ({missing}): make editors")


def launch(name: str, base: Path, server: Sequence[str], **settings: object) -> Editor:
    """Start an editor as a user of its own under `base`; a second one there is that user's second window."""
    window = _window(base, name.replace(" ", "-"))
    home, workspace, run = window / "home", window / "work", base / "run"
    home.mkdir(parents=True)
    workspace.mkdir()
    run.mkdir(mode=0o700, exist_ok=True)
    environment = {"XDG_RUNTIME_DIR": str(run), "OMP_NUM_THREADS": "1"}
    return EDITORS[name].launch(
        Launch(server=server, home=home, workspace=workspace, environment=environment, settings=settings)
    )


def _window(base: Path, name: str) -> Path:
    """A folder that is not there yet, not named by chance: a model is told it as a part of each file's path."""
    return next(window for number in count(1) if not (window := base / f"{name}-{number}").exists())


class Shared:
    """The editor of many tests; one that crashed is started again for the next, lest its crash is a failure of all."""

    def __init__(self, start: Callable[[], Editor]) -> None:
        self._start = start
        self._editor = start()

    def running(self) -> Editor:
        """The editor, as it runs."""
        if not self._editor.is_running():
            self.close()
            self._editor = self._start()
        return self._editor

    def close(self) -> None:
        """End it."""
        self._editor.close()
