"""Where a scenario takes place: an editor, one file, and what may be asserted of the two."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from driver import POLL_S, Editor, Launch, until
from registry import EDITORS

SERVER = (sys.executable, "-m", "dg_lsp")
SCRIPT = Path(__file__).with_name("scenarios.json")
ARTIFACTS = Path(os.environ.get("DG_ARTIFACTS", Path(__file__).parents[2] / ".work" / "artifacts"))
"""Where screenshots and captures are kept."""

FAILED = pytest.StashKey[bool]()

QUIET_S = 0.8
"""For so long nothing must show; where something does, it takes a tenth of this."""


class Desk:
    """An editor, and the one file on which a scenario works."""

    def __init__(self, editor: Editor, scenario: str) -> None:
        self.editor = editor
        self.scenario = scenario
        self.workspace = editor.workspace
        self.file = editor.workspace / f"{scenario}.py"

    def open(self, marked: str, name: str = "", newline: str = "\n") -> None:
        """Open a file with this text, the cursor at the `|`."""
        before, after = marked.split("|")
        if name:
            self.file = self.workspace / name
        self.file.write_bytes((before + after).replace("\n", newline).encode())
        self.editor.open(self.file)
        self.go_to(before)

    def go_to(self, before: str) -> None:
        """Put the cursor behind this text."""
        self.editor.go_to(before.count("\n"), len(before) - before.rfind("\n") - 1)

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

    def shows(self, *lines: str) -> None:
        """The screen shows these lines, blanks at their ends aside."""
        until(
            lambda: all(line in self.editor.screen() for line in lines),
            lambda: f"not all on the screen: {lines}\n{self.editor.screen()}",
        )

    def stays_quiet(self) -> None:
        """No ghost text shows for a while."""
        end = time.monotonic() + QUIET_S
        while time.monotonic() < end:
            assert not self.editor.ghost()
            time.sleep(POLL_S)

    def keep(self) -> None:
        """Keep what is on the screen as an artifact."""
        directory = ARTIFACTS / self.editor.name.replace(" ", "-")
        directory.mkdir(parents=True, exist_ok=True)
        self.editor.capture(directory / self.scenario)


def launch(name: str, base: Path, server: Sequence[str], **settings: object) -> Editor:
    """Start an editor as a user of its own under `base`; a second one there is that user's second window."""
    window = Path(tempfile.mkdtemp(prefix="w", dir=base))
    home, workspace, run = window / "home", window / "work", base / "run"
    home.mkdir()
    workspace.mkdir()
    run.mkdir(mode=0o700, exist_ok=True)
    environment = {"XDG_RUNTIME_DIR": str(run), "OMP_NUM_THREADS": "1"}
    return EDITORS[name].launch(
        Launch(server=server, home=home, workspace=workspace, environment=environment, settings=settings)
    )
