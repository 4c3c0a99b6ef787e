"""Helix shows the completion in its menu: what a user sees there and gets in the file."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import SCRIPT, SERVER, Desk, launch
from driver import until
from driver_helix import EDITORS, Helix

HEAD = "def area(width, height):\n    "
ENTRY = "width * height text"
"""The entry as the menu shows it: the completion, and that it is text."""

pytestmark = pytest.mark.skipif(
    (missing := EDITORS[Helix.name].missing()) is not None, reason=f"Helix is not here ({missing}): make editors"
)


@pytest.fixture(scope="module")
def helix() -> Iterator[Helix]:
    """Helix with the scripted engine."""
    with tempfile.TemporaryDirectory(prefix="dg", ignore_cleanup_errors=True) as base:
        editor = launch(Helix.name, Path(base), [*SERVER, "--backend", "scripted", "--script", str(SCRIPT)])
        assert isinstance(editor, Helix)
        try:
            yield editor
        finally:
            editor.close()


@pytest.fixture
def desk(helix: Helix, request: pytest.FixtureRequest) -> Desk:
    """Helix and a file of the test's own."""
    return Desk(helix, request.node.originalname)


def wait_for_entry(desk: Desk, entry: str) -> None:
    """Ask for the menu until it shows an entry: a server that has just been started does not answer yet."""

    def shows() -> bool:
        desk.editor.trigger()
        with contextlib.suppress(AssertionError):
            return until(lambda: entry in desk.editor.screen(), "not yet", patience_s=2)
        return False

    until(shows, lambda: f"no {entry!r} in the menu:\n{desk.editor.screen()}")


def take(desk: Desk, wanted: str) -> None:
    """Select the first entry of the menu, which Helix previews, and take it."""
    desk.editor.accept()
    desk.shows(wanted)
    desk.editor.type("\n")


@pytest.mark.parametrize(
    ("before", "name"), [(HEAD, "plain.py"), (HEAD + 'label = "😀漢字é"; ', "emoji.py")], ids=["plain", "emoji and CJK"]
)
def test_the_menu_has_the_completion(desk: Desk, before: str, name: str) -> None:
    desk.open(f"{before}|\n", name=name)
    desk.editor.type("return ")
    wait_for_entry(desk, ENTRY)
    desk.keep()
    take(desk, "return width * height")
    desk.editor.save()
    written = f"{before}return width * height\n"
    until(
        lambda: desk.file.exists() and desk.file.read_text() == written, lambda: f"not saved:\n{desk.editor.screen()}"
    )


def test_a_server_that_is_killed_comes_back_by_hand(desk: Desk, helix: Helix) -> None:
    desk.open(HEAD + "|\n")
    desk.editor.type("return ")
    wait_for_entry(desk, ENTRY)
    os.kill(helix.server_pid(), signal.SIGKILL)
    helix.restart_server()
    helix.go_to(1, len("    return "))
    wait_for_entry(desk, ENTRY)


def test_the_page_s_configuration_is_what_helix_reads() -> None:
    page = Path(__file__).parents[2] / "editors" / "helix" / "README.md"
    (shown,) = re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    configuration = tomllib.loads(shown)
    assert configuration["language-server"] == {"dg-lsp": {"command": "dg-lsp"}}
    assert "dg-lsp" in configuration["language"][0]["language-servers"]
