"""The editors that are on this machine, each started once and set up as its documentation says."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from driver import Editor, Launch
from editors import EDITORS

SCRIPT = Path(__file__).with_name("scenarios.json")
ARTIFACTS = Path(os.environ.get("DG_ARTIFACTS", Path(__file__).parents[2] / ".work" / "artifacts"))
"""Where screenshots and captures are kept."""


FAILED = pytest.StashKey[bool]()


def launch(name: str, base: Path, server: list[str], **settings: object) -> Editor:
    """Start an editor in new directories under `base`."""
    home, workspace = base / "home", base / "work"
    home.mkdir()
    workspace.mkdir()
    run = base / "run"
    run.mkdir(mode=0o700)
    environment = {"XDG_RUNTIME_DIR": str(run), "OMP_NUM_THREADS": "1"}
    return EDITORS[name].launch(
        Launch(server=server, home=home, workspace=workspace, environment=environment, settings=settings)
    )


@pytest.fixture(scope="session", params=EDITORS)
def editor_name(request: pytest.FixtureRequest) -> str:
    """Each editor; the tests of one that is not here are skipped, and pytest's summary names it."""
    name: str = request.param
    if (missing := EDITORS[name].missing()) is not None:
        pytest.skip(f"{name} is not here ({missing}): make editors")
    return name


@pytest.fixture(scope="session")
def shared_editor(editor_name: str) -> Iterator[Editor]:
    """The editor with the scripted engine, which all scenarios share."""
    # A short path: Unix sockets live below it.
    with tempfile.TemporaryDirectory(prefix="dg", ignore_cleanup_errors=True) as base:
        server = [sys.executable, "-m", "dg_lsp", "--backend", "scripted", "--script", str(SCRIPT)]
        editor = launch(editor_name, Path(base), server)
        try:
            yield editor
        finally:
            editor.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let fixtures see whether the test itself failed, so that they can keep the screen."""
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report
