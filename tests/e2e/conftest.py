"""What the end-to-end tests share: a server with the test double behind it."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from dg_engine.testing import health_of, tiny_checkpoint
from dg_lsp.testing_client import RawClient, scripted

RULES = (
    {"after": "return ", "text": "a + b", "steps": 2},
    {"after": "hang = ", "then": "hang"},
    {"after": "crash = ", "then": "crash"},
    {"after": "die = ", "then": "die"},
)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A checkpoint, and a user of our own whose engine nobody else can have started; it is ended with the test."""
    with tempfile.TemporaryDirectory(prefix="dg") as home:
        (Path(home) / "run").mkdir(mode=0o700)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(Path(home) / "run"))
        monkeypatch.setenv("XDG_STATE_HOME", home)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        (Path(home) / "model").mkdir()
        name = str(tiny_checkpoint(Path(home) / "model"))
        yield name
        with suppress(Exception):
            os.kill(health_of(name).pid, signal.SIGKILL)


Serve = Callable[..., RawClient]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a server with the scripted backend; keywords go to the script, `replies` and `python` to the client."""
    with ExitStack() as stack:

        def start(*, replies: Any = None, python: tuple[str, ...] = (), **script: Any) -> RawClient:
            arguments = scripted(tmp_path, *RULES, **script)
            return stack.enter_context(RawClient(arguments, replies=replies, python=python))

        yield start


@pytest.fixture(scope="module")
def _initialized(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RawClient]:
    with RawClient(scripted(tmp_path_factory.mktemp("script"), *RULES)) as client:
        client.initialize()
        yield client


@pytest.fixture
def client(_initialized: RawClient) -> RawClient:
    """An initialized server that the tests of one file share; none of them may end it."""
    _initialized.received.clear()
    return _initialized
