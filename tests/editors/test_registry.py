"""Which editors are here: told by what the programs say of themselves, and a failure where one must be."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import programs
import pytest
import registry

PROGRAM = Path(registry.__file__)


def fake(directory: Path, name: str, says: str) -> Path:
    """A program that says what version it is."""
    program = directory / name
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(
    ("says", "wanted", "is_it"),
    [
        ("NVIM v0.7.2", "0.7", True),
        ("NVIM v0.12.4", "0.12", True),
        ("NVIM v0.70.0", "0.7", False),
        ("NVIM v0.12.4", "0.1", False),
        ("GNU Emacs 28.2", "28", True),
        ("GNU Emacs 30.1", "28", False),
        ("VIM - Vi IMproved 9.1 (2024 Jan 02)", "9", True),
        ("I do not tell", "9", False),
    ],
)
def test_a_version_is_what_the_program_says(tmp_path: Path, says: str, wanted: str, is_it: bool) -> None:
    assert programs.is_of(wanted, fake(tmp_path, "editor", says)) is is_it


def test_of_several_places_the_right_version_is_taken(tmp_path: Path) -> None:
    old, new = fake(tmp_path, "old", "NVIM v0.7.2"), fake(tmp_path, "new", "NVIM v0.12.4")
    assert programs.of_version("0.12", old, None, new) == new
    assert programs.of_version("0.7", old, None, new) == old
    assert programs.of_version("0.11", old, None, new) is None


def test_another_version_is_said_to_be_another(tmp_path: Path) -> None:
    new = fake(tmp_path, "nvim", "NVIM v0.12.4")
    assert programs.missing("nvim", "0.12", new) is None
    assert programs.missing("nvim", "0.7", new) == "nvim is 0.12.4, not 0.7"
    assert programs.missing("nvim", "0.7", None) == "no nvim"


def said(reason: str | None) -> str | None:
    """What `Known.missing` is to answer."""
    return reason


def check(path: str, cache: Path) -> subprocess.CompletedProcess[str]:
    """Run the check that ends `make editors`, for a user with this PATH and cache."""
    environment = {**os.environ, "PATH": path, "XDG_CACHE_HOME": str(cache)}
    return subprocess.run([sys.executable, PROGRAM], capture_output=True, text=True, check=False, env=environment)


def test_without_an_editor_that_must_be_there_the_check_fails_and_names_it(tmp_path: Path) -> None:
    for name, says in {"tmux": "tmux 3.3", "nvim": "NVIM v0.9.5", "emacs": "GNU Emacs 28.2"}.items():
        fake(tmp_path, name, says)
    done = check(str(tmp_path), tmp_path)
    assert done.returncode == 1
    assert "Neovim 0.7: not here (nvim is 0.9.5, not 0.7)\n" in done.stdout
    assert "Emacs 28: here\n" in done.stdout
    assert done.stderr.startswith("MISSING: VS Code, Neovim 0.7.")


def test_with_those_that_must_be_there_the_check_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, known in registry.EDITORS.items():
        reason = None if name in registry.ALWAYS else "not fetched"
        monkeypatch.setitem(registry.EDITORS, name, known._replace(missing=partial(said, reason)))
    assert registry.main() == 0


def test_make_editors_ends_with_the_check() -> None:
    makefile = (PROGRAM.parents[2] / "Makefile").read_text(encoding="utf-8")
    recipe = makefile.split("\neditors:")[1].split("\n\n")[0]
    assert recipe.endswith("tests/editors/registry.py")
