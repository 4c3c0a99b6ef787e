"""The demonstration, and the drafts that it shows: over the protocol, from a real engine and from the script."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import pytest
from rich.console import Console

from dg_lsp.convert import DRAFT
from dg_lsp.demo import FILE, SCENES, Scene, cut, run
from dg_lsp.testing_client import INLINE, RawClient, inline_params

TEXT = "def add(a, b):\n    return "


@pytest.mark.parametrize("scene", SCENES)
def test_every_scene_is_in_the_file_once_and_its_hole_can_be_put_back(scene: Scene) -> None:
    text = FILE.read_text(encoding="utf-8")
    found = cut(text, scene)
    lines = found.text.splitlines(keepends=True)
    start = sum(map(len, lines[: found.line])) + found.character
    assert found.taken.strip()
    assert found.text[:start] + found.taken + found.text[start:] == text
    assert found.taken.count("\n") == scene.lines


def test_a_scene_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="is in the file 0 times"):
        cut("nothing", Scene("something"))


def test_the_demonstration_shows_every_step_of_a_real_engine(model: str) -> None:
    output = io.StringIO()
    settings = {"engine": {"model": model, "answerTimeoutS": 60, "idleTimeoutS": 60}}
    status = run(settings, Console(file=output, width=100))
    shown = output.getvalue()
    answered = re.search(r"(\d) of 5 places answered", shown)
    assert answered is not None
    assert status == (0 if int(answered[1]) else 1)
    # The tiny checkpoint takes four steps at most, and random weights are never sure after two.
    assert len(re.findall(r"^ *\d+ ms", shown, re.MULTILINE)) >= 3 * len(SCENES)


def drafts(client: RawClient) -> list[object]:
    uri = client.open(TEXT)
    client.call("textDocument/inlineCompletion", inline_params(uri, 1, 11))
    return [message["params"] for message in client.received if message.get("method") == DRAFT]


def test_drafts_come_before_the_answer_to_a_client_that_asked_for_them(serve: Callable[..., RawClient]) -> None:
    client = serve()
    client.initialize(INLINE, initializationOptions={"drafts": True})
    found = drafts(client)
    assert [draft["step"] for draft in found] == [1, 2]  # type: ignore[index]
    last = found[-1]
    assert isinstance(last, dict)
    assert last["textDocument"] == {"uri": "file:///no/such/place/a.py", "version": 1}
    assert last["position"] == {"line": 1, "character": 11}
    assert "".join(piece["text"] for piece in last["pieces"]) == "a + b"


def test_nobody_is_told_of_drafts_unasked(serve: Callable[..., RawClient]) -> None:
    client = serve()
    client.initialize(INLINE)
    assert drafts(client) == []
