"""What a running server sends, asks and answers is what `editors/README.md` says, to whom it says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page import code, fields, rows

from dg_lsp.testing_client import INLINE, Message, RawClient, inline_params, scripted

TEXT = "def area(width, height):\n    draft = "
PROGRESS = {"workDoneProgress": True}
STATUS = {"dg": {"status": True}}
ASKABLE = {"configuration": True, "didChangeConfiguration": {"dynamicRegistration": True}}

CLIENTS: dict[str, Message] = {
    "nothing": {},
    "dg/status": {"experimental": STATUS},
    "$/progress": {"window": PROGRESS},
    "dg/status and progress": {"experimental": STATUS, "window": PROGRESS},
    "everything": {"experimental": STATUS, "window": PROGRESS, "workspace": ASKABLE},
}


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """A server that loads a while, refines a while and knows one answer."""
    return scripted(tmp_path, {"after": "draft = ", "text": "width", "steps": 3}, loading=[0.5, 1.0])


@pytest.fixture
def client(arguments: list[str]) -> Iterator[RawClient]:
    """A client that can do nothing but show completions."""
    with RawClient(arguments) as client:
        client.initialize()
        yield client


def conversation(arguments: list[str], capabilities: Message, **options: Any) -> list[Message]:
    """All that a server sends by itself to such a client, which makes one request and, pushed or asked, one mistake."""
    mistake = {"nonsense": 1}

    def reply(message: Message) -> Any:
        return [mistake] if message["method"] == "workspace/configuration" else None

    with RawClient(arguments, replies=reply) as client:
        client.initialize({**INLINE, **capabilities}, initializationOptions=options)
        client.notify("workspace/didChangeConfiguration", {"settings": {"dg": mistake}})
        uri = client.open(TEXT)
        assert client.call("textDocument/inlineCompletion", inline_params(uri, 1, 12)) is not None
        client.shut_down()
        # What was on its way at the end is read as well.
        return [message for message in [*client.received, *client.rest()] if "method" in message]


def names(messages: list[Message], *, requests: bool = False) -> set[str]:
    """The methods of the notifications, or of the requests."""
    return {message["method"] for message in messages if ("id" in message) is requests}


@pytest.mark.parametrize("client_name", CLIENTS)
def test_each_client_is_told_what_the_page_says(arguments: list[str], client_name: str) -> None:
    capabilities = CLIENTS[client_name]
    expected = {"window/logMessage", "dg/draft"}
    if "experimental" in capabilities:
        expected.add("dg/status")
    elif "window" in capabilities:
        expected.add("$/progress")
    assert names(conversation(arguments, capabilities, drafts=True)) == expected
    assert expected <= {code(row[0])[0] for row in rows("Notifications from the server")}


def test_every_notification_of_the_page_is_sent_to_somebody(arguments: list[str]) -> None:
    sent = [conversation(arguments, CLIENTS[name], drafts=True) for name in ("dg/status", "$/progress")]
    assert names(sent[0] + sent[1]) == {code(row[0])[0] for row in rows("Notifications from the server")}


def test_drafts_are_told_to_nobody_who_does_not_set_them(arguments: list[str]) -> None:
    assert "dg/draft" not in names(conversation(arguments, CLIENTS["everything"]))


@pytest.mark.parametrize("name", [code(row[0])[0] for row in rows("Notifications from the server")])
def test_the_parameters_of_a_notification_are_those_of_the_page(arguments: list[str], name: str) -> None:
    (described,) = [fields(row[2]) for row in rows("Notifications from the server") if code(row[0]) == [name]]
    capabilities = CLIENTS["$/progress" if name == "$/progress" else "dg/status"]
    sent = [m["params"] for m in conversation(arguments, capabilities, drafts=True) if m["method"] == name]
    assert sent
    for parameters in sent:
        assert list(parameters) == list(described)
        for field, inner in described.items():
            for value in parameters[field] if isinstance(parameters[field], list) else [parameters[field]]:
                assert not inner or list(value) == inner


def test_drafts_settle_piece_by_piece_as_the_page_says(arguments: list[str]) -> None:
    drafts = [m["params"] for m in conversation(arguments, {}, drafts=True) if m["method"] == "dg/draft"]
    assert [draft["step"] for draft in drafts] == [1, 2, 3]
    assert all(draft["position"] == {"line": 1, "character": 12} for draft in drafts)
    settled = [[piece["text"] for piece in draft["pieces"] if piece["settled"]] for draft in drafts]
    assert "".join(settled[-1]) == "width"


def test_loading_is_told_as_work_done_progress_from_its_begin_to_its_end(arguments: list[str]) -> None:
    messages = conversation(arguments, CLIENTS["$/progress"])
    values = [m["params"]["value"] for m in messages if m["method"] == "$/progress"]
    kinds = [value["kind"] for value in values]
    assert (kinds[0], kinds[-1], set(kinds[1:-1])) == ("begin", "end", {"report"} if kinds[1:-1] else set())
    (create,) = [m for m in messages if m["method"] == "window/workDoneProgress/create"]
    assert {m["params"]["token"] for m in messages if m["method"] == "$/progress"} == {create["params"]["token"]}


def test_the_log_names_what_was_refused(arguments: list[str]) -> None:
    logged = [m["params"]["message"] for m in conversation(arguments, {}) if m["method"] == "window/logMessage"]
    assert any("nonsense" in message for message in logged)


def test_who_can_do_nothing_is_asked_nothing(arguments: list[str]) -> None:
    assert names(conversation(arguments, CLIENTS["nothing"]), requests=True) == set()


def test_every_request_of_the_page_is_made_and_no_other(arguments: list[str]) -> None:
    asked = names(conversation(arguments, CLIENTS["everything"]), requests=True)
    asked |= names(conversation(arguments, CLIENTS["$/progress"]), requests=True)
    assert asked == {code(row[0])[0] for row in rows("Requests from the server")}


ARGUMENTS: dict[str, list[Any]] = {"a document's URI": ["file:///a.py"], "minutes, 0 to end it": [5], "": []}
"""What each description of arguments means."""


@pytest.mark.parametrize("row", rows("Commands"), ids=lambda row: code(row[0])[0])
def test_a_command_takes_and_gives_what_the_page_says(client: RawClient, row: list[str]) -> None:
    (name,), described = code(row[0]), fields(row[2])
    result = client.call("workspace/executeCommand", {"command": name, "arguments": ARGUMENTS[row[1]]})
    if not described:
        assert isinstance(result, str)
    for value in result if isinstance(result, list) else [result] if described else []:
        assert list(value) == list(described)


@pytest.mark.parametrize("row", [row for row in rows("Commands") if row[1]], ids=lambda row: code(row[0])[0])
@pytest.mark.parametrize("given", [[], [None], ["file:///a.py", 5]])
def test_other_arguments_are_refused(client: RawClient, row: list[str], given: list[Any]) -> None:
    asked = client.ask("workspace/executeCommand", {"command": code(row[0])[0], "arguments": given})
    assert client.answer(asked)["error"]["code"] == -32602


def test_the_states_of_an_explanation_are_those_of_the_page(tmp_path: Path) -> None:
    rules = [{"after": "draft = ", "text": "width"}, {"after": "empty = "}, {"after": "crash = ", "then": "crash"}]
    found = []
    with RawClient(scripted(tmp_path, *rules)) as client:
        client.initialize()
        for number, word in enumerate(("draft", "empty", "crash")):
            uri = client.open(f"{word} = ", f"file:///{number}.py")
            client.call("textDocument/inlineCompletion", inline_params(uri, 0, 8))
            found.append(
                client.call("workspace/executeCommand", {"command": "dg.explain", "arguments": [uri]})["state"]
            )
    (described,) = [fields(row[2]) for row in rows("Commands") if code(row[0]) == ["dg.explain"]]
    assert found == described["state"]
