"""The editors that are on this machine, each started once and set up as its documentation says."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from desk import FAILED, Desk, Shared, launch, present
from driver import Editor
from driver_neovim import PROGRAMS, Neovim
from engines import ENGINES, Engine, Scripted, running
from neovim_desk import HEAD
from registry import EDITORS


@pytest.fixture(scope="session", params=EDITORS)
def editor_name(request: pytest.FixtureRequest) -> str:
    """Each editor; the tests of one that is not here are skipped."""
    present(request.param)
    return str(request.param)


@pytest.fixture(scope="session", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Each engine, shared by all editors of this process."""
    with running(request.param) as engine:
        yield engine


@pytest.fixture(scope="session")
def shared(editor_name: str, engine: Engine) -> Iterator[Shared]:
    """The editor with an engine, which all scenarios share."""
    shared = Shared(lambda: launch(editor_name, engine.home, engine.server, **engine.settings))
    try:
        yield shared
    finally:
        shared.close()


@pytest.fixture
def shared_editor(shared: Shared) -> Editor:
    """It, as it runs for this test."""
    return shared.running()


@pytest.fixture(scope="module", params=PROGRAMS)
def name(request: pytest.FixtureRequest) -> str:
    """Each Neovim, for the tests of its plugin."""
    present(request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def neovim(name: str) -> Iterator[Neovim]:
    """It, with the scripted engine."""
    with tempfile.TemporaryDirectory(prefix="dg", ignore_cleanup_errors=True) as base:
        editor = launch(name, Path(base), Scripted.server)
        assert isinstance(editor, Neovim)
        try:
            yield editor
        finally:
            editor.close()


@pytest.fixture
def desk(neovim: Neovim, request: pytest.FixtureRequest) -> Desk:
    """It, and a file of the test's own, before a statement."""
    desk = Desk(neovim, request.node.originalname)
    desk.open(HEAD + "|\n")
    return desk


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Try a test of a real editor again: on a loaded machine one in a thousand loses a key or draws late.

    A fault of ours fails every time. What was tried again is in pytest's summary.
    """
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.flaky(reruns=2))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let fixtures see whether the test itself failed, so that they can keep the screen."""
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report
