"""What the VS Code extension adds to the editor: its commands by the palette, its status, and how it bears failures."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import driver_vscode_host as vscode
import pytest
from desk import FAILED, SCRIPT, SERVER, Desk, launch
from driver import until
from driver_vscode import VSCode

HEAD = "def area(width, height):\n    "
RESULT = "width * height"
CRASHES = 5
"""With the fifth crash within three minutes a server stays down."""
GIVING_UP_S = 30
"""A server that has not answered for so long is given up."""


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """Where a user of VS Code lives."""
    if (missing := vscode.missing()) is not None:
        pytest.skip(f"VS Code is not here ({missing}): make editors")
    with tempfile.TemporaryDirectory(prefix="dg", ignore_cleanup_errors=True) as path:
        yield Path(path)


class Windows:
    """One window with the scripted engine for all tests, until one fails and may leave it in any state."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._open: VSCode | None = None

    def shared(self) -> VSCode:
        """The window, opened when there is none."""
        if self._open is None:
            server = [*SERVER, "--backend", "scripted", "--script", str(SCRIPT)]
            window = launch(VSCode.name, self._base, server)
            assert isinstance(window, VSCode)
            self._open = window
        return self._open

    def close(self) -> None:
        """Close it; the next test gets a new one."""
        if self._open is not None:
            self._open.close()
            self._open = None


@pytest.fixture(scope="module")
def windows(base: Path) -> Iterator[Windows]:
    """What is open in this module."""
    windows = Windows(base)
    yield windows
    windows.close()


@pytest.fixture
def window(windows: Windows, request: pytest.FixtureRequest) -> Iterator[VSCode]:
    """The window that all tests share that leave it as it was."""
    yield windows.shared()
    if request.node.stash.get(FAILED, True):
        windows.close()


@pytest.fixture
def desk(window: VSCode, request: pytest.FixtureRequest) -> Iterator[Desk]:
    """The window and a file of the test's own; no error was shown."""
    desk = Desk(window, request.node.originalname)
    desk.open(HEAD + "|\n")
    yield desk
    window.dismiss()
    assert window.popups() == ""


def test_switching_off_and_on(desk: Desk, window: VSCode) -> None:
    window.palette("Switch On or Off")
    window.wait_for_status("off")
    window.palette("Switch On or Off")
    window.wait_for_status("ready")


def test_settings_that_the_server_does_not_take_are_shown(desk: Desk, window: VSCode) -> None:
    window.configure(debounceMs="soon")
    assert "dg.debounceMs must be a number" in window.wait_for_status("error")
    window.configure(debounceMs=None)
    window.wait_for_status("ready")


def test_switching_off_for_one_language(desk: Desk, window: VSCode) -> None:
    window.palette("Switch On or Off for This Language")
    window.wait_for_status("off for python")
    window.type("return ")
    desk.stays_quiet()
    desk.open("Some text to go by, of a language that is still on.\nreturn|\n", name="other.txt")
    window.wait_for_status("ready")
    window.type(" ")
    window.wait_for_ghost(RESULT)
    desk.open(HEAD + "|\n", name="again.py")
    window.palette("Switch On or Off for This Language")
    window.wait_for_status("ready")
    window.type("return ")
    window.wait_for_ghost(RESULT)


def test_snoozing_by_the_picker(desk: Desk, window: VSCode) -> None:
    window.palette("Snooze")
    window.pick("15 minutes")
    window.wait_for_status("snoozed")
    window.palette("Snooze")
    window.pick("End the snooze")
    window.wait_for_status("ready")


def test_a_snooze_can_be_ended_while_completions_are_off(desk: Desk, window: VSCode) -> None:
    window.snooze(15)
    window.wait_for_status("snoozed")
    window.configure(enabled=False)
    window.wait_for_status("off")
    window.palette("Snooze")
    window.pick("End the snooze")
    window.configure(enabled=None)
    window.wait_for_status("ready")


def test_watching_drafts_is_one_switch(desk: Desk, window: VSCode) -> None:
    window.palette("Watch Completions Crystallise")
    until(lambda: window.setting("dg.drafts") is True, "drafts stay off")
    window.type("draft = ")
    until(window.draft, "no draft is shown")
    window.palette("Watch Completions Crystallise")
    until(lambda: window.setting("dg.drafts") is False, "drafts stay on")


def test_a_draft_goes_when_the_cursor_does(desk: Desk, window: VSCode) -> None:
    window.configure(drafts=True)
    window.type("draft = ")
    until(window.draft, "no draft is shown")
    window.go_to(0, 0)
    until(lambda: not window.draft(), "the draft stays")
    window.configure(drafts=None)


def test_choosing_the_steps(desk: Desk, window: VSCode) -> None:
    window.palette("Choose the Denoising Steps")
    window.pick("16")
    until(lambda: window.setting("dg.maxDenoisingSteps") == 16, "16 was not taken")
    window.palette("Choose the Denoising Steps")
    window.pick("Another number")
    window.fill("0")
    assert window.has(".quick-input-message"), "0 is not refused"
    window.fill("12")
    until(lambda: window.setting("dg.maxDenoisingSteps") == 12, "12 was not taken")
    window.palette("Choose the Denoising Steps")
    window.pick("The model's own")
    until(lambda: window.setting("dg.maxDenoisingSteps") is None, "the model's own was not taken")


def test_choosing_the_model(desk: Desk, window: VSCode) -> None:
    window.configure(engine={"model": "other"})
    window.palette("Choose the Model")
    window.pick("small")
    until(lambda: window.setting("dg.engine.model") == "", "the shipped model was not taken")
    window.type("return ")
    window.wait_for_ghost(RESULT)


def test_choosing_a_model_by_its_folder(desk: Desk, window: VSCode, base: Path) -> None:
    checkpoint = base / "other-checkpoint"
    checkpoint.mkdir(exist_ok=True)
    window.palette("Choose the Model")
    window.pick("Browse for a folder")
    window.choose_folder(checkpoint)
    until(lambda: window.setting("dg.engine.model") == str(checkpoint), "the folder was not taken")
    window.configure(engine={"model": None})


def test_completing_by_hand(desk: Desk, window: VSCode) -> None:
    desk.open(HEAD + "return |\n", name="by_hand.py")
    desk.stays_quiet()
    window.palette("Complete Here")
    window.wait_for_ghost(RESULT)


def test_restarting_the_engine_says_what_came_of_it(desk: Desk, window: VSCode) -> None:
    pid = window.server_pid()
    window.palette("Restart the Engine")
    until(lambda: "The engine runs." in window.visible_text(), "nothing is said")
    assert window.server_pid() == pid
    window.wait_for_status("ready")
    window.execute("notifications.clearAll")


def test_the_settings_are_those_of_the_extension(desk: Desk, window: VSCode) -> None:
    window.palette("Open Settings")
    until(lambda: window.has(".settings-editor"), "no settings are shown")
    until(
        lambda: "Keys that follow one another within so many milliseconds" in window.visible_text(),
        "not those of dg-lsp",
    )


def test_the_menu_by_the_palette(desk: Desk, window: VSCode) -> None:
    window.palette("Show the Menu")
    window.pick("Run the doctor")
    until(lambda: "doctor" in window.text(), "no report is shown")


def test_why_nothing_was_offered(desk: Desk, window: VSCode) -> None:
    window.type("return ")
    window.wait_for_ghost(RESULT)
    window.palette("Why Was Nothing Offered")
    until(lambda: "A completion was offered." in window.visible_text(), "no reason is given")
    window.execute("notifications.clearAll")


def test_the_doctor_reports_in_a_document(desk: Desk, window: VSCode) -> None:
    # As settings are once one was set and put back; the doctor is told of no model then.
    window.configure(engine={"model": None})
    window.palette("Run the Doctor")
    until(
        lambda: re.search(r"doctor\n\n.*python", window.text(), re.IGNORECASE | re.DOTALL),
        lambda: f"no report is shown:\n{window.visible_text()}",
    )


def test_the_log_is_shown(desk: Desk, window: VSCode) -> None:
    window.palette("Show the Log")
    until(lambda: window.active().endswith("dg-lsp.log"), "no log is shown")
    window.execute("workbench.action.closePanel")


def test_what_is_no_file_is_not_taken_for_one(desk: Desk, window: VSCode) -> None:
    window.palette("Show the Log")
    until(lambda: window.active().endswith("dg-lsp.log"), "no log is shown")
    window.palette("Why Was Nothing Offered")
    until(lambda: "Open a file first" in window.visible_text(), "the log is taken for a file")
    window.click_status()
    until(lambda: "Switch off" in window.visible_text(), "no menu is shown")
    assert "Switch off for" not in window.visible_text()
    window.dismiss()
    window.execute("notifications.clearAll")
    window.execute("workbench.action.closePanel")


def test_restarting_the_server(desk: Desk, window: VSCode) -> None:
    pid = window.server_pid()
    window.palette("Restart the Server")
    until(lambda: window.server_pid() != pid, "the server is the same")
    window.restart_server()
    window.type("return ")
    window.wait_for_ghost(RESULT)


def test_the_menu_of_the_status_bar(desk: Desk, window: VSCode) -> None:
    window.click_status()
    window.pick("Switch off for python")
    window.wait_for_status("off for python")
    window.click_status()
    window.pick("Switch on for python")
    window.wait_for_status("ready")


@pytest.mark.parametrize(
    ("path", "reason"), [("/nowhere/dg-lsp", "names no program"), ("/bin/false", "It left no message")]
)
def test_a_server_that_cannot_run_is_shown_and_no_popup(window: VSCode, path: str, reason: str) -> None:
    good = window.setting("dg.server.path")
    window.configure(server={"path": path})
    assert reason in window.wait_for_status("has stopped")
    assert window.popups() == ""
    window.configure(server={"path": good})
    window.restart_server()


def _program(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return str(path)


REFUSING = f"""#!{sys.executable}
import json, sys
length = int(sys.stdin.buffer.readline().split(b":")[1])
while sys.stdin.buffer.readline().strip():
    pass
request = json.loads(sys.stdin.buffer.read(length))
error = {{"code": -32603, "message": "This server is too old."}}
answer = json.dumps({{"jsonrpc": "2.0", "id": request["id"], "error": error}}).encode()
sys.stdout.buffer.write(b"Content-Length: %d\\r\\n\\r\\n" % len(answer) + answer)
sys.stdout.flush()
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("text", "reason"), [("#!/nowhere/python\n", "ENOENT"), (REFUSING, "This server is too old.")], ids=["gone", "old"]
)
def test_a_program_that_is_no_server_is_shown_and_no_popup(window: VSCode, base: Path, text: str, reason: str) -> None:
    good = window.setting("dg.server.path")
    window.configure(server={"path": _program(base / "broken", text)})
    assert reason in window.wait_for_status("has stopped")
    assert window.popups() == ""
    window.configure(server={"path": good})
    window.restart_server()


@pytest.mark.parametrize("wrong", [{"path": 5}, {"arguments": "--version"}], ids=["path", "arguments"])
def test_a_setting_of_the_wrong_type_is_shown_by_its_name(window: VSCode, wrong: dict[str, Any]) -> None:
    ((name, _),) = wrong.items()
    good = window.setting(f"dg.server.{name}")
    window.configure(server=wrong)
    assert f"dg.server.{name} must be" in window.wait_for_status("has stopped")
    assert window.popups() == ""
    window.configure(server={name: good})
    window.restart_server()


def test_a_server_whose_program_is_gone_when_it_crashes(window: VSCode, base: Path) -> None:
    good = window.setting("dg.server.path")
    path = base / "changing"
    window.configure(server={"path": _program(path, '#!/bin/sh\nexec /usr/bin/env "$@"\n')})
    window.restart_server()
    path.write_text("#!/nowhere/python\n", encoding="utf-8")
    os.kill(window.server_pid(), signal.SIGKILL)
    assert "ENOENT" in window.wait_for_status("has stopped")
    assert window.popups() == ""
    window.configure(server={"path": good})
    window.restart_server()


def test_a_server_that_never_answers_is_given_up_and_makes_nobody_wait(window: VSCode, base: Path) -> None:
    good = window.setting("dg.server.path")
    silent, pids = base / "silent", base / "pids"
    silent.write_text(f"#!/bin/sh\necho $$ >> {pids}\ncat > {base / 'heard'}\n", encoding="utf-8")
    silent.chmod(0o755)
    window.configure(server={"path": str(silent)})
    assert "has not answered" in window.wait_for_status("has stopped")
    window.palette("Restart the Server")
    window.wait_for_status("starting")
    window.configure(server={"path": good})
    until(lambda: "starting" not in window.status(), "the next server waits", patience_s=GIVING_UP_S / 2)
    window.restart_server()
    for pid in pids.read_text(encoding="utf-8").split():
        until(lambda pid=pid: not Path("/proc", pid).exists(), "a silent server goes on")  # type: ignore[misc]
    assert window.popups() == ""


def test_a_server_that_keeps_crashing_stays_down_and_says_why(window: VSCode) -> None:
    for _ in range(CRASHES - 1):
        pid = window.server_pid()
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: window.server_pid() != pid, "it did not come back")  # type: ignore[misc]
        window.restart_server()
    os.kill(window.server_pid(), signal.SIGKILL)
    window.wait_for_status("has stopped")
    assert window.popups() == ""
    window.palette("Restart the Server")
    window.restart_server()


def test_a_command_that_finds_no_server_offers_help(window: VSCode) -> None:
    good = window.setting("dg.server.path")
    window.configure(server={"path": "/nowhere/dg-lsp"})
    window.wait_for_status("has stopped")
    window.palette("Restart the Engine")
    until(lambda: "The dg-lsp server is not running." in window.popups(), "no warning is shown")
    window.configure(server={"path": good})
    window.press_button("Restart")
    window.restart_server()
    window.forget_popups()


def test_an_installation_that_fails_says_what_to_do(window: VSCode, base: Path) -> None:
    window.configure(server={"package": str(base / "no-such-checkout")})
    before = window.status()
    window.palette("Install or Update the Server")
    window.wait_for_status("installing")
    shown = until(window.popups, "no error is shown", patience_s=60)
    assert "could not be installed" in shown
    assert "dg.server.package" in shown
    window.wait_for_status(before)


def test_one_installation_at_a_time(window: VSCode, base: Path) -> None:
    window.configure(server={"package": str(base / "no-such-checkout")})
    window.palette("Install or Update the Server")
    window.wait_for_status("installing")
    window.palette("Install or Update the Server")
    until(lambda: "is being installed already" in window.visible_text(), "a second one was begun")
    until(lambda: "could not be installed" in window.popups(), "no error is shown")
    window.forget_popups()
    window.configure(server={"package": None})


def test_every_command_of_the_palette_is_tried() -> None:
    manifest = json.loads((vscode.EXTENSION / "package.json").read_text(encoding="utf-8"))
    tried = re.findall(r'\.palette\("([^"]+)"\)', Path(__file__).read_text(encoding="utf-8"))
    for command in manifest["contributes"]["commands"]:
        assert any(command["title"].startswith(title) for title in tried), command["title"]
