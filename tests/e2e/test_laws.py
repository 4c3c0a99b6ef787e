"""Laws 2, 3 and 6, failing engines, and settings: the real process with the test double behind it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dg_lsp.testing_client import INLINE, Message, RawClient, framed, inline_params, scripted

INLINE_COMPLETION = "textDocument/inlineCompletion"
CANCELLED = -32800
TEXT = "hang = \ncrash = \ndie = \ndef add(a, b):\n    return "
HANG, CRASH, DIE, RETURN = (0, 7), (1, 8), (2, 6), (4, 11)


def ask(client: RawClient, uri: str, place: tuple[int, int], trigger: int = 1) -> int:
    return client.ask(INLINE_COMPLETION, inline_params(uri, *place, trigger=trigger))


def offered(answer: Message) -> str | None:
    result = answer["result"]
    return None if result is None else result["items"][0]["insertText"]


def explain(client: RawClient, uri: str) -> Message:
    explained: Message = client.call("workspace/executeCommand", {"command": "dg.explain", "arguments": [uri]})
    return explained


def idle(client: RawClient, uri: str) -> bool:
    """Whether all work has ended; each question gives the server time for it."""
    return any(explain(client, uri)["running"] == 0 for _ in range(200))


def edit(uri: str, version: int, text: str) -> Message:
    change = {"range": {"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": 0}}, "text": text}
    return {"textDocument": {"uri": uri, "version": version}, "contentChanges": [change]}


def popups(client: RawClient) -> list[Message]:
    return [message for message in client.received if message.get("method", "").startswith("window/showMessage")]


def test_the_newest_request_of_a_document_wins_and_the_older_ones_are_answered_null_once(client: RawClient) -> None:
    uri = client.open(TEXT)
    older = [ask(client, uri, HANG) for _ in range(5)]
    newest = ask(client, uri, RETURN)
    assert offered(client.answer(newest)) == "a + b"
    assert explain(client, uri)["state"] == "offered"
    for asked in older:
        assert client.answer(asked)["result"] is None
        assert len(client.answers(asked)) == 1
    assert idle(client, uri)


def test_requests_of_other_documents_do_not_disturb_each_other(client: RawClient) -> None:
    hanging = client.open(TEXT, "file:///hanging")
    other = client.open(TEXT, "file:///other")
    waiting = ask(client, hanging, HANG)
    assert offered(client.answer(ask(client, other, RETURN))) == "a + b"
    assert explain(client, other)["running"] == 1
    client.notify("textDocument/didClose", {"textDocument": {"uri": hanging}})
    assert client.answer(waiting)["result"] is None


def test_a_request_whose_text_changes_meanwhile_is_answered_null_at_once(client: RawClient) -> None:
    uri = client.open(TEXT)
    asked = ask(client, uri, HANG)
    client.notify("textDocument/didChange", edit(uri, 2, "x"))
    assert client.answer(asked)["result"] is None
    assert explain(client, uri)["reason"] == "The text changed before the answer came."
    assert idle(client, uri)


def test_an_edit_right_behind_a_request_cannot_move_its_position_into_the_newer_text(client: RawClient) -> None:
    uri = client.open(TEXT)
    request = {"jsonrpc": "2.0", "id": "raced", "method": INLINE_COMPLETION, "params": inline_params(uri, *RETURN)}
    change = {"jsonrpc": "2.0", "method": "textDocument/didChange", "params": edit(uri, 2, "x")}
    client.write(b"".join(framed(json.dumps(message).encode()) for message in (request, change)))
    assert client.answer("raced")["result"] is None
    assert len(client.answers("raced")) == 1


def test_cancelling_frees_the_engine_and_is_answered_once(client: RawClient) -> None:
    uri = client.open(TEXT)
    asked = ask(client, uri, HANG)
    assert explain(client, uri)["running"] == 1
    client.notify("$/cancelRequest", {"id": asked})
    assert client.answer(asked)["error"]["code"] == CANCELLED
    assert len(client.answers(asked)) == 1
    assert idle(client, uri)
    assert offered(client.answer(ask(client, uri, RETURN))) == "a + b"


@pytest.mark.parametrize("place", [CRASH, DIE])
def test_an_engine_that_breaks_or_is_gone_is_null_and_a_reason_and_the_next_request_works(
    client: RawClient, place: tuple[int, int]
) -> None:
    uri = client.open(TEXT)
    assert client.answer(ask(client, uri, place))["result"] is None
    explained = explain(client, uri)
    assert explained["state"] == "failed"
    assert explained["reason"].startswith("The scripted engine")
    assert offered(client.answer(ask(client, uri, RETURN))) == "a + b"
    assert not popups(client)


def test_an_engine_that_hangs_is_given_up_after_its_time(serve: Any) -> None:
    client = serve()
    client.initialize(initializationOptions={"engine": {"answerTimeoutS": 0.2}})
    uri = client.open(TEXT)
    assert client.answer(ask(client, uri, HANG))["result"] is None
    assert explain(client, uri)["reason"] == "The engine did not answer within 0.2 s."
    assert idle(client, uri)
    assert offered(client.answer(ask(client, uri, RETURN))) == "a + b"


def test_an_engine_that_will_not_start_is_null_with_its_reason_in_the_log_and_no_popup(serve: Any) -> None:
    client = serve(startError="the checkpoint is not there")
    client.initialize()
    uri = client.open(TEXT)
    client.until(lambda m: m.get("method") == "window/logMessage" and "checkpoint is not" in m["params"]["message"])
    for _ in range(2):
        assert client.answer(ask(client, uri, RETURN))["result"] is None
        assert explain(client, uri)["reason"] == "the checkpoint is not there"
    restarted = client.call("workspace/executeCommand", {"command": "dg.restartEngine"})
    assert restarted == "the checkpoint is not there"
    assert not popups(client)


def test_a_real_engine_that_is_not_there_is_null_with_its_reason(tmp_path: Path) -> None:
    with RawClient() as client:
        address = f"unix:{tmp_path}/none.sock"
        client.initialize(initializationOptions={"engine": {"address": address, "autostart": False}})
        uri = client.open(TEXT)
        assert client.answer(ask(client, uri, RETURN))["result"] is None
        assert "No engine answers" in explain(client, uri)["reason"]
        assert client.answer(ask(client, uri, RETURN))["result"] is None
        assert client.shut_down() == 0
        assert not popups(client)


def test_the_engine_can_be_restarted_by_command(client: RawClient) -> None:
    assert client.call("workspace/executeCommand", {"command": "dg.restartEngine"}) == "The engine runs."


@pytest.mark.parametrize("arguments", [None, [], [1], ["a", "b"]])
def test_explain_refuses_wrong_arguments(client: RawClient, arguments: Any) -> None:
    asked = client.ask("workspace/executeCommand", {"command": "dg.explain", "arguments": arguments})
    assert "URI of one document" in client.answer(asked)["error"]["message"]


def test_loading_is_shown_as_progress_to_clients_that_show_progress(serve: Any) -> None:
    client = serve(loading=[0.25, 0.75], replies=lambda message: None)
    client.initialize({**INLINE, "window": {"workDoneProgress": True}})
    client.open(TEXT)
    client.until(lambda m: m.get("method") == "$/progress" and m["params"]["value"]["kind"] == "end")
    shown = [m["params"]["value"] for m in client.received if m.get("method") == "$/progress"]
    assert shown[0]["title"] == "Loading model"
    assert [value["kind"] for value in shown] == ["begin", *["report"] * (len(shown) - 2), "end"]


def test_no_progress_is_sent_to_clients_that_show_none(serve: Any) -> None:
    client = serve(loading=[0.5])
    client.initialize()
    uri = client.open(TEXT)
    assert offered(client.answer(ask(client, uri, RETURN))) == "a + b"
    assert not [m for m in client.received if "rogress" in m.get("method", "")]


def test_wrong_settings_are_named_in_the_log_and_the_last_good_ones_stay(serve: Any) -> None:
    answers: list[Any] = [{"enabled": False}, {"enabled": True, "debounce": 3}, {"enabled": True}]
    client = serve(replies=lambda m: [answers.pop(0)] if m["method"] == "workspace/configuration" else None)
    client.initialize({**INLINE, "workspace": {"configuration": True}}, initializationOptions={"debounceMs": 1})
    uri = client.open(TEXT)

    def asked() -> str | None:
        return offered(client.answer(ask(client, uri, RETURN)))

    assert next(True for _ in range(200) if asked() is None)
    client.notify("workspace/didChangeConfiguration", {"settings": None})
    told = client.until(lambda m: m.get("method") == "window/logMessage" and "dg.debounce " in m["params"]["message"])
    assert "debounceMs" in told["params"]["message"]
    assert asked() is None
    client.notify("workspace/didChangeConfiguration", {"settings": None})
    assert next(True for _ in range(200) if asked() == "a + b")
    assert not popups(client)


@pytest.mark.parametrize(("options", "is_told"), [({}, True), ({"logLevel": "error"}, False)])
def test_the_log_level_of_the_command_line_holds_until_the_client_sets_one(
    tmp_path: Path, options: dict[str, str], *, is_told: bool
) -> None:
    log = tmp_path / "log"
    with RawClient([*scripted(tmp_path), "--log-level", "debug", "--log-file", str(log)]) as client:
        client.initialize(initializationOptions=options)
        client.notify("dg/unheard-of")
        client.shut_down()
    assert ("dg/unheard-of is not known here" in log.read_text(encoding="utf-8")) is is_told


def test_a_log_level_above_warning_keeps_warnings_from_the_client(serve: Any) -> None:
    client = serve()
    client.initialize(initializationOptions={"logLevel": "error"})
    client.notify("workspace/didChangeConfiguration", {"settings": {"dg": {"nonsense": 1}}})
    uri = client.open(TEXT)
    assert offered(client.answer(ask(client, uri, RETURN))) == "a + b"
    assert not [m for m in client.received if m.get("method") == "window/logMessage"]


@pytest.mark.parametrize(
    ("options", "words"), [([], "must be an object"), ("dg", "must be an object"), ({"colour": 1}, "dg.colour is not")]
)
def test_wrong_initialization_options_are_refused_by_name_and_the_defaults_hold(
    serve: Any, options: Any, words: str
) -> None:
    client = serve()
    client.initialize(initializationOptions=options)
    client.until(lambda m: m.get("method") == "window/logMessage" and words in m["params"]["message"])
    uri = client.open(TEXT)
    assert offered(client.answer(ask(client, uri, RETURN))) == "a + b"


def test_clients_that_cannot_be_asked_push_their_settings(serve: Any) -> None:
    client = serve()
    client.initialize()
    uri = client.open(TEXT)
    client.notify("workspace/didChangeConfiguration", {"settings": {"dg": {"languages": {"python": False}}}})
    assert offered(client.answer(ask(client, uri, RETURN))) is None
    assert explain(client, uri)["reason"] == "Completions are switched off for python."
    client.notify("workspace/didChangeConfiguration", {"settings": {"dg": {}}})
    assert offered(client.answer(ask(client, uri, RETURN))) == "a + b"


def test_the_server_registers_for_changed_settings_where_that_is_asked_for(serve: Any) -> None:
    client = serve(replies=lambda message: [None])
    client.initialize({**INLINE, "workspace": {"didChangeConfiguration": {"dynamicRegistration": True}}})
    registered = client.until(lambda m: m.get("method") == "client/registerCapability")
    assert registered["params"]["registrations"][0]["registerOptions"] == {"section": "dg"}


def test_ignored_files_and_secrets_are_answered_null_with_the_reason(serve: Any, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / ".dglspignore").write_text("generated/\n")
    client = serve()
    client.initialize(
        workspaceFolders=[{"uri": project.as_uri(), "name": "p"}], initializationOptions={"exclude": ["*.private"]}
    )
    for name in ("generated/a.py", ".env", "x.private"):
        uri = client.open(TEXT, (project / name).as_uri())
        assert client.answer(ask(client, uri, RETURN))["result"] is None, name
        assert explain(client, uri)["reason"]
    uri = client.open(TEXT, (project / "a.py").as_uri())
    assert offered(client.answer(ask(client, uri, RETURN))) == "a + b"


def test_memory_stays_bounded_by_what_is_open(client: RawClient) -> None:
    for number in range(200):
        uri = client.open("x = 1\n" * 1000, f"file:///{number}.py")
        client.notify("textDocument/didClose", {"textDocument": {"uri": uri}})
    assert explain(client, uri)["reason"].startswith("The document was never opened")
    status = Path(f"/proc/{client.process.pid}/status")
    if status.exists():
        resident = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmRSS"))
        assert resident < 120 * 1024
