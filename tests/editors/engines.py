"""The engines with which the scenarios are run: one that says what is in its script, and the one that ships.

What the script says is known beforehand. What the model writes is its own affair; that what shows is what is accepted,
and that processes live and die as they should, is not. The files of the scenarios hold what a model can go by.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from desk import SCRIPT, SERVER
from driver import Editor, until

from dg_engine import paths
from dg_engine.api import Health
from dg_engine.errors import EngineError
from dg_engine.testing import health_of

UNSURE = -1000.0
"""A `minScore` with which everything is shown."""

RUN_S = 0.02
"""How long a stepped engine runs at a time: one or two denoising steps of the model that ships."""


class Engine(ABC):
    """An engine, and the user whose windows share it."""

    server: Sequence[str]
    """The command of the language server."""
    settings: Mapping[str, Any] = {}
    """The server's settings at the start of an editor."""
    cannot: Mapping[str, str] = {}
    """Scenarios that this engine makes impossible, each with the reason."""
    home: Path
    """A directory with a short path, as Unix sockets live below it."""
    other_model: str
    """Another value for the setting `engine.model`."""

    def __init__(self, home: Path) -> None:
        self.home = home

    @abstractmethod
    def says(self, text: str) -> str | None:
        """What is offered where the script says `text`; None where that cannot be known."""

    @abstractmethod
    def held(self) -> AbstractContextManager[None]:
        """Within this no request is answered, unless the script says so."""

    @abstractmethod
    def stepped(self) -> AbstractContextManager[Callable[[], None]]:
        """Within this the engine works a moment whenever it is told to, if the script does not take care of that."""

    @abstractmethod
    def dying(self, editor: Editor) -> AbstractContextManager[None]:
        """Within this a request is made, of which the engine dies."""

    @abstractmethod
    def processes(self, model: str = "") -> list[int]:
        """The processes that serve a model."""

    @abstractmethod
    def close(self) -> None:
        """End what runs."""


class Scripted(Engine):
    """`scenarios.json`, read by the server itself."""

    server = (*SERVER, "--backend", "scripted", "--script", str(SCRIPT))
    other_model = "other"
    cannot: Mapping[str, str] = {
        "two_windows_share_one_engine": "the scripted engine is a part of each server; run with the model that ships"
    }

    def says(self, text: str) -> str | None:
        return text

    def held(self) -> AbstractContextManager[None]:
        return nullcontext()

    def stepped(self) -> AbstractContextManager[Callable[[], None]]:
        return nullcontext(lambda: None)

    @contextmanager
    def dying(self, editor: Editor) -> Iterator[None]:
        yield
        editor.wait_for_status("error")
        assert not editor.ghost()

    def processes(self, model: str = "") -> list[int]:
        return []

    def close(self) -> None:
        pass


class Shipped(Engine):
    """The engine and the model that ship, as a user has them, but set to show whatever the model writes."""

    server = SERVER
    settings: Mapping[str, Any] = {"minProbability": 0, "minScore": UNSURE, "engine": {"answerTimeoutS": 60}}
    cannot: Mapping[str, str] = {"the_next_of_several_completions": "how many the model has is not known beforehand"}

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        (home / "run").mkdir(mode=0o700)
        self.other_model = str(shutil.copytree(paths.shipped_model(), home / "copy"))

    def says(self, text: str) -> str | None:
        return None

    @contextmanager
    def held(self) -> Iterator[None]:
        (pid,) = self.processes()
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def stepped(self) -> AbstractContextManager[Callable[[], None]]:
        (pid,) = self.processes()
        return stepped(pid)

    @contextmanager
    def dying(self, editor: Editor) -> Iterator[None]:
        (dead,) = self.processes()
        os.kill(dead, signal.SIGSTOP)
        try:
            yield
            editor.wait_for_status("working")
        finally:
            os.kill(dead, signal.SIGKILL)
        # It comes back without another key: nothing had been answered yet, so the request is made once more.
        until(lambda: self.processes() not in ([], [dead]), "no other engine has been started")

    def processes(self, model: str = "") -> list[int]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_RUNTIME_DIR", str(self.home / "run"))
            health = _health(model)
        return [] if health is None else [health.pid]

    def close(self) -> None:
        for model in ("", self.other_model):
            for pid in self.processes(model):
                os.kill(pid, signal.SIGKILL)


def _health(model: str) -> Health | None:
    """What an engine says of itself; None where none answers, for want of one or on its way down."""
    try:
        return health_of(model) if paths.socket_path(model).exists() else None
    except EngineError:
        return None


ENGINES: dict[str, Callable[[Path], Engine]] = {"scripted": Scripted, "shipped": Shipped}


@contextmanager
def running(name: str) -> Iterator[Engine]:
    """One of `ENGINES`, for a user of its own."""
    with tempfile.TemporaryDirectory(prefix="dg", ignore_cleanup_errors=True) as home:
        engine = ENGINES[name](Path(home))
        try:
            yield engine
        finally:
            engine.close()


@contextmanager
def stepped(pid: int, run_s: float = RUN_S) -> Iterator[Callable[[], None]]:
    """Within this a process is held, but for `run_s` at each call of what this yields."""

    def step() -> None:
        os.kill(pid, signal.SIGCONT)
        time.sleep(run_s)
        os.kill(pid, signal.SIGSTOP)

    os.kill(pid, signal.SIGSTOP)
    try:
        yield step
    finally:
        os.kill(pid, signal.SIGCONT)
