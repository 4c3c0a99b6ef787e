"""A newcomer with an empty home follows the README to the letter, from `make demo` to ghost text and the file on disk.

The clone is this checkout, so `make` finds installed and built what would otherwise come from the network.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import driver_emacs
import driver_neovim
import driver_vim
import driver_vscode
import driver_vscode_host as vscode
import pytest
from desk import Desk
from driver import Editor, Launch
from engines import Engine, running
from registry import EDITORS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
HEAD = "def area(width, height):\n    return width * height\n\n\ndef surface(width, height):\n    "
MOST = 5
"""So many commands may lie between nothing and ghost text, pasting a block into a file being one."""


def part(heading: str) -> str:
    """What the README says of an editor: from its name in bold to the next, or for Vim all of its own page."""
    if heading == "Vim":
        return (ROOT / "editors" / "vim" / "README.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"^\*\*\[{heading}\].*?(?=^\*\*\[|^\[Vim 9\])", README, re.MULTILINE | re.DOTALL)
    return str(found)


def blocks(text: str, language: str) -> list[str]:
    """The blocks of code in a language, with the paths of this checkout."""
    found = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [block.replace("/path/to/dg-lsp", str(ROOT)) for block in found]


LANGUAGES = {"VS Code": "sh", "Neovim": "lua", "Emacs": "elisp", "Vim": "vim"}


def heading(editor_name: str) -> str:
    """Under which name the README speaks of an editor."""
    return next((name for name in LANGUAGES if editor_name.startswith(name)), "")


@pytest.fixture(scope="module")
def newcomer() -> Iterator[Engine]:
    """Somebody who has an engine of their own, if any, and has run `make demo`."""
    up_to_date = subprocess.run(["make", "--question", ".venv/engine"], cwd=ROOT, capture_output=True, check=False)
    if up_to_date.returncode:
        pytest.skip("the virtual environment is not as make leaves it: make test")
    with running("shipped") as engine, tempfile.TemporaryDirectory() as home, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(engine.home / "run"))
        patch.setenv("HOME", home)
        command = blocks(README, "sh")[0].split("\n")[0].split("#")[0]
        assert command.split() == ["make", "demo"]
        done = subprocess.run(shlex.split(command), cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "5 of 5 places answered" in done.stdout
        yield engine


@pytest.fixture
def editor(newcomer: Engine, editor_name: str, tmp_path: Path) -> Iterator[Editor]:
    """The editor, set up by what its part of the README says and by nothing else."""
    if "Eglot" in editor_name or not (language := LANGUAGES.get(heading(editor_name))):
        pytest.skip(f"{editor_name} has no part of its own in the README")
    with tempfile.TemporaryDirectory(prefix="dg", ignore_cleanup_errors=True) as base:
        home, workspace = Path(base) / "home", Path(base) / "work"
        home.mkdir()
        workspace.mkdir()
        environment = {"XDG_RUNTIME_DIR": str(newcomer.home / "run"), "OMP_NUM_THREADS": "1"}
        launch = Launch(server=(), home=home, workspace=workspace, environment=environment)
        (pasted, *_) = blocks(part(heading(editor_name)), language)
        with_editor = in_vscode(launch, pasted) if language == "sh" else in_terminal(editor_name, launch, pasted)
        yield from with_editor


def in_terminal(name: str, launch: Launch, pasted: str) -> Iterator[Editor]:
    """An editor in whose init file the block has been pasted."""
    editor: Editor
    if name.startswith("Neovim"):
        editor = driver_neovim.start(name, launch, pasted)
    elif name.startswith("Emacs"):
        editor = driver_emacs.Emacs(name, driver_emacs.program(name), launch, pasted)
    else:
        editor = driver_vim.start(launch, pasted)
    try:
        yield editor
    finally:
        editor.close()


def in_vscode(launch: Launch, commands: str) -> Iterator[Editor]:
    """VS Code with no settings but the one that the README names, in which code-server runs for `code`."""
    make, install = (shlex.split(command) for command in commands.strip().split("\n"))
    if subprocess.run([make[0], "--question", *make[1:]], cwd=ROOT, capture_output=True, check=False).returncode:
        pytest.skip("the extension is older than its sources: make vsix")
    assert install[:2] == ["code", "--install-extension"]
    assert ROOT / install[2] == vscode.extension()
    ((setting, value),) = re.findall(r"set `([\w.]+)` to `([^`]+)`", part("VS Code"))
    with pytest.MonkeyPatch.context() as patch:
        for name, text in launch.environment.items():
            patch.setenv(name, text)
        host = vscode.Host({})
        try:
            settings = {setting: value.replace("/path/to/dg-lsp", str(ROOT))}
            yield driver_vscode.VSCode(launch, host, settings)
        finally:
            host.close()


def test_the_readme_leads_to_ghost_text(editor: Editor) -> None:
    desk = Desk(editor, "first_steps")
    desk.open(HEAD + "|\n")
    desk.type("return ")
    shown = editor.wait_for_ghost()
    editor.accept()
    desk.holds(f"{HEAD}return {shown}\n")
    assert editor.popups() == ""


@pytest.mark.parametrize("name", LANGUAGES)
def test_it_takes_five_commands_at_most(name: str) -> None:
    text = part(name)
    before = ["git clone", "make demo"]
    (pasted, *_) = blocks(text, LANGUAGES[name])
    commands = pasted.strip().split("\n") if LANGUAGES[name] == "sh" else [pasted]
    settings = re.findall(r"set `[\w.]+` to", text)
    assert 0 < len(before + commands + settings) <= MOST
    assert len(pasted.strip().split("\n")) <= MOST


def test_every_editor_with_ghost_text_is_covered() -> None:
    ghostly = {name for name, known in EDITORS.items() if "one_line" not in known.cannot}
    assert all(heading(name) for name in ghostly)
