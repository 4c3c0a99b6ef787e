"""Law 1: every request gets exactly one answer, whatever the bytes."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dg_lsp.testing_client import INLINE, Message, RawClient, framed, inline_params, scripted

TEXT = "def add(a, b):\n    return "
RETURN = (1, 11)

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, NOT_INITIALIZED, CANCELLED = (
    -32700, -32600, -32601, -32602, -32002, -32800,
)  # fmt: skip


def works(client: RawClient) -> None:
    """The next request works."""
    uri = client.open(TEXT)
    result = client.call("textDocument/inlineCompletion", inline_params(uri, *RETURN))
    assert [item["insertText"] for item in result["items"]] == ["a + b"]


def code(answer: Message) -> int:
    assert "data" not in answer["error"]
    return int(answer["error"]["code"])


POSITION = {"line": 0, "character": 0}
CONTEXT = {"triggerKind": 1}


@pytest.mark.parametrize(
    "params",
    [
        None,
        [],
        "text",
        {},
        {"textDocument": {"uri": 1}},
        {"textDocument": {}, "position": POSITION, "context": CONTEXT},
        {"textDocument": {"uri": "file:///a"}, "position": {"line": -1, "character": 0}, "context": CONTEXT},
        {"textDocument": {"uri": "file:///a"}, "position": {"line": 2**40, "character": 0}, "context": CONTEXT},
        {"textDocument": {"uri": "file:///a"}, "position": {"line": "x", "character": 0}, "context": CONTEXT},
        {"textDocument": {"uri": "file:///a"}, "position": POSITION, "context": {"triggerKind": 0}},
        {"textDocument": {"uri": "file:///a"}, "position": POSITION},
    ],
)
def test_malformed_parameters_are_answered_once_with_invalid_params(client: RawClient, params: Any) -> None:
    asked = client.ask("textDocument/inlineCompletion", params)
    assert code(client.answer(asked)) == INVALID_PARAMS
    assert len(client.answers(asked)) == 1
    works(client)


def test_a_key_named_jsonrpc_inside_the_parameters_is_only_a_key(client: RawClient) -> None:
    uri = client.open(TEXT)
    params = {**inline_params(uri, *RETURN), "extra": {"jsonrpc": "2.0", "id": 7, "method": "shutdown"}}
    asked = client.ask("textDocument/inlineCompletion", params)
    assert client.answer(asked)["result"]["items"]
    assert len(client.answers(asked)) == 1


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{", PARSE_ERROR),
        (b"\xff\xfe", PARSE_ERROR),
        (b"[" * 100_000, PARSE_ERROR),
        (b'{"jsonrpc": "2.0", "id": 1' + b"0" * 5000 + b"}", PARSE_ERROR),
        (b"[]", INVALID_REQUEST),
        (b"3", INVALID_REQUEST),
        (b"null", INVALID_REQUEST),
        (b"{}", INVALID_REQUEST),
        (b'{"jsonrpc": "2.0", "id": null, "method": "shutdown"}', INVALID_REQUEST),
        (b'{"jsonrpc": "2.0", "id": {}, "method": "shutdown"}', INVALID_REQUEST),
        (b'{"jsonrpc": "2.0", "id": 1.5, "method": "shutdown"}', INVALID_REQUEST),
        (b'{"jsonrpc": "2.0", "id": true, "method": "shutdown"}', INVALID_REQUEST),
    ],
)
def test_what_is_no_message_is_answered_without_an_id(client: RawClient, body: bytes, expected: int) -> None:
    client.body(body)
    assert code(client.answer(None)) == expected
    works(client)


@pytest.mark.parametrize(
    "message",
    [
        {"id": "five", "method": "shutdown"},
        {"jsonrpc": "1.0", "id": "five", "method": "shutdown"},
        {"jsonrpc": "2.0", "id": "five", "method": 7},
        {"jsonrpc": "2.0", "id": "five"},
    ],
)
def test_a_flawed_message_with_an_id_is_answered_under_that_id(client: RawClient, message: Message) -> None:
    client.send(message)
    assert code(client.answer("five")) == INVALID_REQUEST
    works(client)


@pytest.mark.parametrize(
    "noise", [b"garbage\r\n\r\n", b"\r\n\r\n", b"X: y\r\nContent-Length: minus\r\n\r\n", b"z" * 100_000 + b"\n"]
)
def test_noise_between_messages_is_read_past(client: RawClient, noise: bytes) -> None:
    client.write(noise)
    works(client)


def test_header_names_count_in_any_case_and_other_headers_are_allowed(client: RawClient) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": "x", "method": "dg/none"}).encode()
    client.write(
        b"content-type: application/vscode-jsonrpc; charset=utf-8\r\nCONTENT-LENGTH: %d \r\n\r\n" % len(body) + body
    )
    assert code(client.answer("x")) == METHOD_NOT_FOUND


def test_messages_may_arrive_in_any_pieces(client: RawClient) -> None:
    message = framed(json.dumps({"jsonrpc": "2.0", "id": "x", "method": "dg/none"}).encode())
    for index in range(len(message)):
        client.write(message[index : index + 1])
    assert code(client.answer("x")) == METHOD_NOT_FOUND
    client.write(message.replace(b'"x"', b'"y"') + message.replace(b'"x"', b'"z"'))
    assert code(client.answer("y")) == code(client.answer("z")) == METHOD_NOT_FOUND


def test_a_request_before_initialize_is_answered_not_initialized_and_initialize_still_works(serve: Any) -> None:
    client = serve()
    for method in ("textDocument/inlineCompletion", "shutdown", "dg/none", "workspace/executeCommand"):
        assert code(client.answer(client.ask(method, {}))) == NOT_INITIALIZED
    client.notify("textDocument/didOpen", {"textDocument": {}})
    client.initialize()
    works(client)


def test_initialize_with_malformed_parameters_can_be_repeated_and_a_second_good_one_is_refused(serve: Any) -> None:
    client = serve()
    assert code(client.answer(client.ask("initialize", {"capabilities": 3}))) == INVALID_PARAMS
    client.initialize()
    assert code(client.answer(client.ask("initialize", {"processId": None, "capabilities": {}}))) == INVALID_REQUEST
    works(client)


def test_nothing_but_the_log_comes_before_the_answer_to_initialize(serve: Any) -> None:
    client = serve()
    shown = {"experimental": {"dg": {"status": True}}}
    asked = client.ask(
        "initialize", {"processId": None, "capabilities": shown, "initializationOptions": {"drafts": True}}
    )
    client.answer(asked)
    assert {message.get("method") for message in client.received[:-1]} <= {"window/logMessage"}
    client.notify("initialized", {})
    client.until(lambda message: message.get("method") == "dg/status")


def test_malformed_notifications_are_logged_and_never_shown(client: RawClient) -> None:
    client.notify("textDocument/didOpen", {"textDocument": 3})
    client.notify(
        "textDocument/didChange", {"textDocument": {"uri": "file:///x", "version": 1}, "contentChanges": [{}]}
    )
    client.notify("textDocument/didChange", None)
    client.notify("$/cancelRequest", {"id": []})
    client.notify("$/cancelRequest", {"id": 999})
    client.notify("$/unknown", {})
    works(client)
    assert not [message for message in client.received if message.get("method") == "window/showMessage"]


def test_responses_that_nobody_asked_for_are_ignored(client: RawClient) -> None:
    uri = client.open("hang = ", "file:///hanging")
    asked = client.ask("textDocument/inlineCompletion", inline_params(uri, 0, 7))
    for response in ({"result": 1}, {"error": {"code": 1, "message": "x"}}, {"error": 3}):
        client.send({"jsonrpc": "2.0", "id": asked, **response})
        client.send({"jsonrpc": "2.0", "id": "none", **response})
    works(client)
    client.notify("$/cancelRequest", {"id": asked})
    assert code(client.answer(asked)) == CANCELLED
    assert len(client.answers(asked)) == 1


def test_a_cancellation_that_comes_after_the_answer_is_no_warning(serve: Any) -> None:
    client = serve()
    client.initialize()
    asked = client.ask("textDocument/inlineCompletion", inline_params(client.open(TEXT), *RETURN))
    client.answer(asked)
    client.notify("$/cancelRequest", {"id": asked})
    assert client.shut_down() == 0
    assert "WARNING" not in client.stderr


def test_a_settings_answer_that_is_malformed_leaves_the_server_at_work(serve: Any) -> None:
    client = serve(replies=lambda message: {"not": "a list"})
    client.initialize({**INLINE, "workspace": {"configuration": True}})
    works(client)


@pytest.mark.parametrize("later", [{"not": "a list"}, ["x"]])
def test_settings_that_cannot_be_learnt_later_are_those_from_before(serve: Any, later: Any) -> None:
    told: list[Any] = [[{"enabled": False}], later]
    client = serve(replies=lambda message: told.pop(0) if message["method"] == "workspace/configuration" else None)
    client.initialize({**INLINE, "workspace": {"configuration": True}})
    client.notify("workspace/didChangeConfiguration", {"settings": None})
    client.until(
        lambda message: "settings" in str(message.get("params", "")).lower() and "Message" in message["method"]
    )
    uri = client.open(TEXT)
    assert client.call("textDocument/inlineCompletion", inline_params(uri, *RETURN)) is None


def test_a_client_that_no_longer_reads_ends_the_server(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dg_lsp", *scripted(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        assert server.stderr is not None
        for number, method in enumerate(("initialize", "no/method", "no/method")):
            message = {"jsonrpc": "2.0", "id": number, "method": method, "params": {"capabilities": {}}}
            server.stdin.write(framed(json.dumps(message).encode()))
            server.stdin.flush()
            if number == 0:
                assert server.stdout.readline()
                server.stdout.close()
        assert server.wait(60) == 1
        assert server.stderr.read().count(b"The client has gone.") <= 1


def test_requests_after_shutdown_are_refused_and_exit_ends_with_status_0(serve: Any) -> None:
    client = serve()
    client.initialize()
    client.call("shutdown")
    assert code(client.answer(client.ask("textDocument/inlineCompletion", {}))) == INVALID_REQUEST
    client.notify("exit")
    assert client.wait() == 0


@pytest.mark.parametrize("initialized", [True, False])
def test_exit_without_shutdown_ends_with_status_1(serve: Any, initialized: bool) -> None:
    client = serve()
    if initialized:
        client.initialize()
    client.notify("exit")
    assert client.wait() == 1


def test_the_end_of_the_input_ends_the_server(serve: Any) -> None:
    client = serve()
    client.initialize()
    assert client.wait() == 1


def test_a_termination_signal_ends_the_server(serve: Any) -> None:
    client = serve()
    client.initialize()
    client.process.send_signal(signal.SIGTERM)
    assert client.process.wait(60) == 1


def test_shutdown_answers_what_still_runs_and_does_not_wait_for_it(serve: Any) -> None:
    client = serve()
    client.initialize()
    hanging = [
        client.ask("textDocument/inlineCompletion", inline_params(client.open("hang = ", f"file:///{n}"), 0, 7))
        for n in range(20)
    ]
    client.call("shutdown")
    assert [code(client.answer(asked)) for asked in hanging] == [CANCELLED] * 20
    client.notify("exit")
    assert client.wait() == 0


def test_exit_without_shutdown_still_answers_what_runs(serve: Any) -> None:
    client = serve()
    client.initialize()
    asked = client.ask("textDocument/inlineCompletion", inline_params(client.open("hang = "), 0, 7))
    client.notify("exit")
    assert code(client.answer(asked)) == CANCELLED
    assert client.wait() == 1


def test_the_death_of_the_client_ends_the_server_though_its_input_stays_open(serve: Any) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as parent:
        client = serve()
        client.initialize(processId=parent.pid)
        works(client)
        parent.kill()
        parent.wait()
        assert client.process.wait(60) == 1


def test_a_client_whose_process_cannot_be_seen_is_served(serve: Any) -> None:
    client = serve()
    client.initialize(processId=2**22 + 1)
    works(client)
    assert client.shut_down() == 0


def test_neither_torch_nor_what_only_the_engine_needs_is_ever_imported(serve: Any) -> None:
    client = serve(python=("-X", "importtime"))
    client.initialize()
    works(client)
    client.shut_down()
    imported = {
        line.rpartition("|")[2].strip() for line in client.stderr.splitlines() if line.startswith("import time:")
    }
    assert "lsprotocol.types" in imported
    assert not imported & {"torch", "numpy", "transformers", "tokenizers", "starlette", "uvicorn", "httpx", "rich"}


def test_one_client_is_served_over_tcp_on_loopback(tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "dg_lsp", "--tcp", "127.0.0.1:0", *scripted(tmp_path)]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        port = int(process.stderr.readline().rpartition(b":")[2])
        with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rb") as answers:
            request = {
                "jsonrpc": "2.0",
                "id": 1,
                "method": "initialize",
                "params": {"processId": None, "capabilities": {}},
            }
            connection.sendall(framed(json.dumps(request).encode()))
            length = int(answers.readline().partition(b":")[2])
            answers.readline()
            assert json.loads(answers.read(length))["result"]["serverInfo"]["name"] == "dg-lsp"
            connection.sendall(framed(b'{"jsonrpc": "2.0", "method": "exit"}'))
            assert process.wait(60) == 1


@pytest.mark.parametrize("address", ["0.0.0.0:1", "example.com:1", "1", "127.0.0.1:99999"])
def test_an_address_beyond_this_machine_is_refused(address: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dg_lsp", "--tcp", address], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 2
    assert "--tcp" in done.stderr
