"""What the server offers beyond the standard: its state, its drafts, its commands."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dg_lsp.testing_client import INLINE, Message, RawClient, inline_params, scripted

WITH_STATUS = {**INLINE, "experimental": {"dg": {"status": True}}}
TEXT = "def add(first, second):\n    return "


def execute(client: RawClient, command: str, *arguments: Any) -> Any:
    return client.call("workspace/executeCommand", {"command": command, "arguments": list(arguments)})


def states(client: RawClient) -> list[str]:
    return [message["params"]["state"] for message in client.received if message.get("method") == "dg/status"]


def is_state(state: str) -> Callable[[Message], bool]:
    return lambda message: message.get("method") == "dg/status" and message["params"]["state"] == state


def test_the_state_is_told_from_loading_to_ready(serve: Any) -> None:
    client = serve(loading=[0.5])
    client.initialize(WITH_STATUS)
    uri = client.open(TEXT)
    loading = client.until(is_state("loading"))["params"]
    assert (loading["fraction"], loading["model"], loading["remedy"]) == (0.5, "small", None)
    client.until(is_state("ready"))
    client.call("textDocument/inlineCompletion", inline_params(uri, 1, 11))
    assert states(client)[-1] == "ready"


def test_a_request_is_told_as_working_when_it_lasts(serve: Any) -> None:
    client = serve()
    client.initialize(WITH_STATUS)
    uri = client.open("hang = ")
    request = client.ask("textDocument/inlineCompletion", inline_params(uri, 0, 7))
    client.until(is_state("working"))
    client.notify("$/cancelRequest", {"id": request})
    assert next(filter(is_state("ready"), client.stream()))


def test_a_failed_start_is_told_with_what_to_do(serve: Any) -> None:
    client = serve(startError="There is no card.")
    client.initialize(WITH_STATUS)
    client.open(TEXT)
    error = client.until(is_state("error"))["params"]
    assert error["message"] == "There is no card."
    assert "dg-lsp doctor" in error["remedy"]


def test_a_client_that_shows_no_state_is_told_of_none(serve: Any) -> None:
    client = serve()
    client.initialize(INLINE)
    uri = client.open(TEXT)
    client.call("textDocument/inlineCompletion", inline_params(uri, 1, 11))
    assert states(client) == []


def test_snoozing_silences_what_is_asked_unasked_and_says_until_when(serve: Any) -> None:
    client = serve()
    client.initialize(WITH_STATUS)
    uri = client.open(TEXT)
    until = datetime.fromisoformat(execute(client, "dg.snooze", 30)["until"])
    assert timedelta(minutes=29) < until - datetime.now().astimezone() < timedelta(minutes=31)
    client.until(is_state("snoozed"))
    assert client.call("textDocument/inlineCompletion", inline_params(uri, 1, 11, trigger=2)) is None
    assert "snoozed until" in execute(client, "dg.explain", uri)["reason"]
    assert client.call("textDocument/inlineCompletion", inline_params(uri, 1, 11)) is not None
    assert execute(client, "dg.snooze", 0) == {"until": None}


@pytest.mark.parametrize("arguments", [[], ["5"], [-1], [5, 5], [1e9]])
def test_a_snooze_without_sense_is_refused(client: RawClient, arguments: list[Any]) -> None:
    answer = client.answer(client.ask("workspace/executeCommand", {"command": "dg.snooze", "arguments": arguments}))
    assert answer["error"]["message"].startswith("dg.snooze takes a number of minutes")


def test_the_models_to_choose_from_are_the_one_that_ships_and_the_one_in_force(serve: Any) -> None:
    client = serve()
    client.initialize(WITH_STATUS, initializationOptions={"engine": {"model": "/models/large"}})
    shipped, chosen = execute(client, "dg.models")
    assert (shipped["name"], shipped["model"], shipped["current"]) == ("small", "", False)
    assert (chosen["name"], chosen["model"], chosen["current"]) == ("large", "/models/large", True)


def test_what_another_model_offered_is_not_offered_again(tmp_path: Path) -> None:
    rules = [
        {"after": "return ", "text": "first + second", "model": ""},
        {"after": "return ", "text": "second + first", "model": "other"},
    ]
    with RawClient(scripted(tmp_path, *rules)) as client:
        client.initialize()
        uri = client.open(TEXT)
        asked = inline_params(uri, 1, 11)
        answers = [client.call("textDocument/inlineCompletion", asked)]
        client.notify("workspace/didChangeConfiguration", {"settings": {"dg": {"engine": {"model": "other"}}}})
        answers.append(client.call("textDocument/inlineCompletion", asked))
    assert [answer["items"][0]["insertText"] for answer in answers] == ["first + second", "second + first"]
