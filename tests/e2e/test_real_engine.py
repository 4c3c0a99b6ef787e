"""The language server with a real engine behind it: a tiny random checkpoint, started on demand, shared, replaced."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from dg_engine import launcher, paths
from dg_engine.testing import health_of, model_of, tiny_adapter
from dg_lsp.testing_client import INLINE, RawClient, inline_params

ANSWERED = {"offered", "nothing"}
"""What an engine that works leaves behind; of what random weights write, little is fit to be offered."""

TEXT = "def add(first, second):\n    return "


def introduce(client: RawClient, model: str, adapter: str = "") -> None:
    options = {"engine": {"model": model, "adapter": adapter, "answerTimeoutS": 60, "idleTimeoutS": 60}}
    client.initialize({**INLINE, "window": {"workDoneProgress": True}}, initializationOptions=options)


def state(client: RawClient) -> str:
    """What came of a request in a document that is new each time, so that nothing is answered from memory."""
    uri = client.open(TEXT, f"file:///no/such/place/{len(client.received)}.py")
    asked = client.ask("textDocument/inlineCompletion", inline_params(uri, 1, 11))
    assert "error" not in client.answer(asked)
    assert len(client.answers(asked)) == 1
    explained: dict[str, Any] = client.call("workspace/executeCommand", {"command": "dg.explain", "arguments": [uri]})
    return str(explained["state"])


def wait_until_gone(model: str, pid: int) -> None:
    """A process that is killed may answer for some more tenths of a second."""
    while launcher.listener(str(paths.socket_path(model))) == pid:
        pass


def test_one_engine_is_started_on_demand_shared_by_two_windows_and_replaced_when_it_dies(model: str) -> None:
    with RawClient(replies=lambda message: None) as first, RawClient(replies=lambda message: None) as second:
        for client in (first, second):
            introduce(client, model)
            assert state(client) in ANSWERED
        born = health_of(model)
        assert born.state == "ready"
        os.kill(born.pid, signal.SIGKILL)
        wait_until_gone(model, born.pid)
        assert state(first) in ANSWERED
        reborn = health_of(model)
        assert reborn.pid != born.pid
        assert first.shut_down() == 0
        assert state(second) in ANSWERED
        assert health_of(model).pid == reborn.pid
        assert second.call("workspace/executeCommand", {"command": "dg.restartEngine"}) == "The engine runs."
        assert health_of(model).pid != reborn.pid
        assert not [m for m in first.received + second.received if m.get("method") == "window/showMessage"]


def test_an_adapter_is_served_by_an_engine_of_its_own(model: str, tmp_path: Path) -> None:
    adapter = str(tiny_adapter(Path(model), tmp_path / "adapter"))
    with RawClient(replies=lambda message: None) as plain, RawClient(replies=lambda message: None) as adapted:
        introduce(plain, model)
        introduce(adapted, model, adapter)
        assert state(plain) in ANSWERED
        assert state(adapted) in ANSWERED
    own = health_of(model, adapter)
    try:
        assert own.state == "ready"
        assert own.pid != health_of(model).pid
        assert model_of(model, adapter).adapter == adapter
        assert model_of(model).adapter == ""
    finally:
        os.kill(own.pid, signal.SIGKILL)
