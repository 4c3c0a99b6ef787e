"""Tests that share an editor run in one process, whatever pytest and pytest-xdist are up to."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from groups import group_of

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("test", "group"),
    [
        ("tests/editors/test_scenarios.py::test_one_line[VS Code-scripted]", "VS Code"),
        ("tests/editors/test_scenarios.py::test_one_line[Emacs 30 beside Eglot-shipped]", "Emacs 30 beside Eglot"),
        ("tests/editors/test_vscode_extension.py::test_the_log_is_shown", "VS Code"),
        ("tests/editors/test_neovim.py::test_health[Neovim 0.7]", "test_neovim"),
        ("tests/engine/test_api.py::test_limits[x-1]", "tests/engine/test_api.py::test_limits[x-1]"),
    ],
)
def test_the_group_of_a_test(test: str, group: str) -> None:
    assert group_of(test) == group


def test_a_group_runs_in_one_process() -> None:
    alone = ["tests/editors/test_newcomer.py", "-k", "five_commands", "--numprocesses", "2", "--verbose"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *alone]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    processes = re.findall(r"^\[(gw\d)\].*test_it_takes_five_commands", done.stdout, re.MULTILINE)
    assert len(processes) >= 4
    assert len(set(processes)) == 1
