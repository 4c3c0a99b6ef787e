"""Documents and positions as they should not be: each gets null or a completion, once, and the next request works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dg_lsp.testing_client import INLINE, Message, RawClient, inline_params

INLINE_COMPLETION = "textDocument/inlineCompletion"


def answer(client: RawClient, uri: str, line: int, character: int, trigger: int = 1) -> Message:
    asked = client.ask(INLINE_COMPLETION, inline_params(uri, line, character, trigger=trigger))
    message = client.answer(asked)
    assert len(client.answers(asked)) == 1
    assert "error" not in message
    return message


def text(message: Message) -> str | None:
    return None if message["result"] is None else message["result"]["items"][0]["insertText"]


def works(client: RawClient) -> None:
    uri = client.open("def add(a, b):\n    return ", "file:///good.py")
    assert text(answer(client, uri, 1, 11)) == "a + b"


def test_a_document_that_was_never_opened_is_null_even_if_it_lies_on_disk(client: RawClient, tmp_path: Path) -> None:
    path = tmp_path / "closed.py"
    path.write_text("def add(a, b):\n    return ")
    assert text(answer(client, path.as_uri(), 1, 11)) is None
    works(client)


def test_an_address_that_cannot_be_read_as_one_gets_an_answer(client: RawClient) -> None:
    answer(client, client.open("def add(a, b):\n    return ", "file://["), 1, 11)
    works(client)


@pytest.mark.parametrize("uri", ["untitled:1", "file:///", "", "\0", "x" * 10_000, "git:/a.py?ref=1"])
def test_any_address_will_do_for_a_document(client: RawClient, uri: str) -> None:
    client.open("def add(a, b):\n    return ", uri)
    assert text(answer(client, uri, 1, 11)) == "a + b"


def test_a_document_that_is_not_on_disk_is_completed(client: RawClient, tmp_path: Path) -> None:
    uri = client.open("def add(a, b):\n    return ", (tmp_path / "new.py").as_uri())
    assert text(answer(client, uri, 1, 11)) == "a + b"


def test_a_file_deleted_or_broken_under_the_server_is_completed_from_the_editors_text(
    client: RawClient, tmp_path: Path
) -> None:
    path = tmp_path / "soon.py"
    path.write_bytes(b"\xff\xfe invalid utf-8 \x80")
    uri = client.open("def add(a, b):\n    return ", path.as_uri())
    assert text(answer(client, uri, 1, 11)) == "a + b"
    path.unlink()
    tmp_path.joinpath("soon.py").mkdir()
    assert text(answer(client, uri, 1, 11)) == "a + b"


def test_an_empty_document_gets_an_answer(client: RawClient) -> None:
    uri = client.open("")
    answer(client, uri, 0, 0, trigger=2)
    answer(client, uri, 0, 0)
    works(client)


def test_five_megabytes_are_completed(client: RawClient) -> None:
    line = "value = compute(value, 12345)  # a line of ordinary length\n"
    head = line * (5_000_000 // len(line))
    uri = client.open(head + "def add(a, b):\n    return ")
    rows = head.count("\n")
    assert text(answer(client, uri, rows + 1, 11)) == "a + b"
    works(client)


def test_one_line_of_200_000_characters_is_completed(client: RawClient) -> None:
    uri = client.open("x" * 200_000 + " return ", language="plaintext")
    assert text(answer(client, uri, 0, 200_008)) == "a + b"
    works(client)


@pytest.mark.parametrize("source", ["a\ud800b return ", "\udfff return ", "\U0001f600\ud83d return "])
def test_lone_surrogates_are_carried(client: RawClient, source: str) -> None:
    uri = client.open(source)
    units = len(source.encode("utf-16-le", "surrogatepass")) // 2
    answer(client, uri, 0, units)
    works(client)


def test_crlf_is_understood_and_never_sent_back(serve: Any) -> None:
    client = serve()
    client.initialize()
    uri = client.open("def add(a, b):\r\n    return \r\n")
    result = answer(client, uri, 1, 11)["result"]
    assert "\r" not in result["items"][0]["insertText"]
    assert result["items"][0]["range"]["start"]["line"] == result["items"][0]["range"]["end"]["line"] == 1


@pytest.mark.parametrize(("line", "character"), [(1, 999), (99, 0), (2**31 - 1, 2**31 - 1)])
def test_a_cursor_past_the_end_is_rounded_to_it(client: RawClient, line: int, character: int) -> None:
    uri = client.open("def add(a, b):\n    return ")
    assert text(answer(client, uri, line, character)) == "a + b"


def test_a_position_inside_a_surrogate_pair_is_rounded(client: RawClient) -> None:
    uri = client.open("s = '\U0001f600'\n")
    answer(client, uri, 0, 6)
    works(client)


@pytest.mark.parametrize("language", ["", "klingon", "x" * 1000, "\0"])
def test_an_unknown_language_is_completed(client: RawClient, language: str) -> None:
    uri = client.open("def add(a, b):\n    return ", "file:///a.unknown", language)
    assert text(answer(client, uri, 1, 11)) == "a + b"


def test_edits_out_of_range_or_reversed_leave_the_server_at_work(client: RawClient) -> None:
    uri = client.open("abc\n")
    far, near = {"line": 500, "character": 500}, {"line": 0, "character": 1}
    changes = [
        {"range": {"start": far, "end": near}, "text": "x"},
        {"range": {"start": far, "end": far}, "text": "\ud800"},
    ]
    client.notify("textDocument/didChange", {"textDocument": {"uri": uri, "version": -5}, "contentChanges": changes})
    answer(client, uri, 0, 1)
    works(client)


FAR = 2**32 - 1


@pytest.mark.parametrize(
    "span",
    [None, {"start": {"line": 0, "character": 0}, "end": {"line": FAR, "character": 0}}, {"start": 1.5, "end": 2}],
)
def test_a_document_with_an_edit_that_cannot_be_read_is_forgotten(client: RawClient, span: Any) -> None:
    uri = client.open("def add(a, b):\n    return ")
    change = {"range": span, "text": "x"}
    client.notify("textDocument/didChange", {"textDocument": {"uri": uri, "version": 2}, "contentChanges": [change]})
    assert answer(client, uri, 1, 11)["result"] is None
    explained = client.call("workspace/executeCommand", {"command": "dg.explain", "arguments": [uri]})
    assert "its text was lost" in explained["reason"]
    works(client)


@pytest.mark.parametrize("encodings", [["utf-8"], ["utf-16"], ["utf-32"], None])
def test_edits_and_cursor_are_counted_in_the_encoding_agreed_on(serve: Any, encodings: list[str] | None) -> None:
    client = serve()
    general = {} if encodings is None else {"general": {"positionEncodings": encodings}}
    agreed = client.initialize({**INLINE, **general})["capabilities"]["positionEncoding"]
    assert agreed == (encodings or ["utf-16"])[0]
    uri = client.open("s = '\U0001f600'; \u2028\n")
    before = "s = '\U0001f600'; "
    units = {"utf-8": len(before.encode()), "utf-16": len(before) + 1, "utf-32": len(before)}[agreed]
    place = {"line": 0, "character": units}
    client.notify(
        "textDocument/didChange",
        {
            "textDocument": {"uri": uri, "version": 2},
            "contentChanges": [
                {"range": {"start": place, "end": {"line": 0, "character": units + 9}}, "text": "return "}
            ],
        },
    )
    result = answer(client, uri, 0, units + 7)["result"]
    assert result["items"][0]["insertText"] == "a + b"
    assert result["items"][0]["range"]["start"] == {"line": 0, "character": units + 7}
