"""The scenarios once more, in each editor, with the engine and the model that ship.

What the model writes is its own affair; that what shows is what is accepted, and that processes live and die as they
should, is not.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from desk import SERVER, Desk, launch
from driver import Editor, until
from registry import EDITORS

from dg_engine import paths
from dg_engine.testing import health_of

HEAD = "def area(width, height):\n    "
UNSURE = -1000.0
"""A `minScore` with which everything is shown."""


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """Where the windows of one user live, whose engine nobody else can have started; it is ended with the tests."""
    with (
        tempfile.TemporaryDirectory(prefix="dg", ignore_cleanup_errors=True) as base,
        pytest.MonkeyPatch.context() as patch,
    ):
        (Path(base) / "run").mkdir(mode=0o700)
        patch.setenv("XDG_RUNTIME_DIR", str(Path(base) / "run"))
        yield Path(base)
        for model in ("", str(Path(base) / "copy")):
            if paths.socket_path(model).exists():
                os.kill(health_of(model).pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def window(home: Path, editor_name: str) -> Iterator[Editor]:
    """The editor, set up to show whatever the model writes."""
    if (reason := EDITORS[editor_name].cannot.get("one_line")) is not None:
        pytest.skip(f"impossible in {editor_name}: {reason}")
    editor = launch(editor_name, home, SERVER, minProbability=0, minScore=UNSURE, engine={"answerTimeoutS": 60})
    try:
        yield editor
    finally:
        editor.close()


@pytest.fixture
def desk(window: Editor, request: pytest.FixtureRequest) -> Desk:
    """The editor and a file of the test's own."""
    return Desk(window, request.node.originalname)


def offered(desk: Desk, before: str = HEAD, after: str = "\n", newline: str = "\n", typed: str = "return ") -> str:
    """Open a file, type something and wait for ghost text."""
    desk.open(f"{before}|{after}", newline=newline)
    desk.editor.type(typed)
    return desk.editor.wait_for_ghost()


def asked_again(desk: Desk) -> str:
    """Ask by hand until there is ghost text: while an engine starts, a request may be answered with nothing."""

    def answer() -> str:
        if not desk.editor.ghost():
            desk.editor.trigger()
            with suppress(AssertionError):
                return desk.editor.wait_for_ghost()
        return desk.editor.ghost()

    return until(answer, "no answer from a new engine", patience_s=60)


@pytest.mark.parametrize(
    ("before", "newline"),
    [(HEAD, "\n"), (HEAD + 'label = "😀漢字é"; ', "\n"), (HEAD, "\r\n"), (HEAD.replace("    ", "\t"), "\n")],
    ids=["plain", "emoji and CJK", "CRLF", "tabs"],
)
def test_what_shows_is_what_is_accepted(desk: Desk, before: str, newline: str) -> None:
    shown = offered(desk, before, newline=newline)
    desk.shows(*(line.strip() for line in shown.split("\n")))
    desk.editor.accept()
    desk.holds(f"{before}return {shown}\n", newline)


def test_typing_along_words_and_undo(desk: Desk) -> None:
    # In the middle of a name, so that the answer is not of one letter: the model is told the file's random folder.
    typed = "return wi"
    shown = offered(desk, typed=typed)
    desk.editor.type(shown[0])
    desk.editor.wait_for_ghost(shown[1:])
    desk.editor.accept_word()
    until(lambda: desk.editor.text() != f"{HEAD}{typed}{shown[0]}\n", "no word was accepted")
    taken = desk.editor.text().removeprefix(f"{HEAD}{typed}").removesuffix("\n")
    assert shown.startswith(taken)
    desk.editor.undo()
    desk.editor.wait_for_text(f"{HEAD}{typed}{shown[0]}\n")


def test_an_engine_that_is_killed_comes_back(desk: Desk) -> None:
    offered(desk)
    pid = health_of("").pid
    os.kill(pid, signal.SIGKILL)
    # Another text: the answer to the one before is remembered by the server.
    desk.editor.type("width + ")
    asked_again(desk)
    assert health_of("").pid != pid
    assert desk.editor.popups() == ""


def test_a_server_that_is_killed_comes_back(desk: Desk) -> None:
    offered(desk)
    os.kill(desk.editor.server_pid(), signal.SIGKILL)
    desk.editor.restart_server()
    desk.editor.backspace()
    desk.editor.type(" ")
    desk.editor.wait_for_ghost()


def test_two_windows_share_one_engine(desk: Desk, home: Path, editor_name: str) -> None:
    offered(desk)
    pid = health_of("").pid
    other = launch(editor_name, home, SERVER, minProbability=0, minScore=UNSURE, engine={"answerTimeoutS": 60})
    try:
        offered(Desk(other, "second_window"))
        assert other.server_pid() != desk.editor.server_pid()
        assert health_of("").pid == pid
        desk.editor.backspace()
        desk.editor.type(" ")
        desk.editor.wait_for_ghost()
    finally:
        other.close()


def test_an_ignored_file_and_snoozing(desk: Desk) -> None:
    (desk.workspace / ".dglspignore").write_text("hidden_*.py\n")
    desk.open(HEAD + "|\n", name="hidden_plan.py")
    desk.editor.type("return ")
    desk.stays_quiet()
    desk.open(HEAD + "|\n", name="open_plan.py")
    desk.editor.snooze(5)
    desk.editor.type("return ")
    desk.stays_quiet()
    desk.editor.snooze(0)
    desk.editor.backspace()
    desk.editor.type(" ")
    desk.editor.wait_for_ghost()


def test_switching_the_model_starts_its_engine(desk: Desk, home: Path) -> None:
    copy = home / "copy"
    shutil.copytree(paths.shipped_model(), copy, dirs_exist_ok=True)
    offered(desk)
    pid = health_of("").pid
    desk.editor.configure(engine={"model": str(copy), "answerTimeoutS": 60})
    desk.editor.type("width + ")
    asked_again(desk)
    assert health_of(str(copy)).pid != pid
    desk.editor.configure(engine={"model": "", "answerTimeoutS": 60})
