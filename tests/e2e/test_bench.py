"""`dg-lsp bench` measures to its end."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NoReturn

import pytest
from rich.console import Console

from dg_lsp import bench
from dg_lsp.testing_client import INLINE, Message, RawClient, scripted


def test_every_line_of_the_table_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "STARTS", 1)
    monkeypatch.setattr(bench, "ROUNDS", 2)
    shown = io.StringIO()
    bench.run(Console(file=shown, width=120))
    for line in ("process start", "file of 20 KiB", "file of 1 MiB", "typing along", "Peak memory"):
        assert line in shown.getvalue()
    rounds = [line.split("│")[2].strip() for line in shown.getvalue().splitlines() if line.startswith("│")]
    assert rounds[:3] == ["1", "2", "2"]


def test_what_came_before_a_request_is_not_gone_through_for_its_answer(tmp_path: Path) -> None:
    with RawClient(scripted(tmp_path)) as client:
        client.received = Untouched()
        client.initialize(INLINE)
        client.shut_down()


class Untouched(list[Message]):
    def __iter__(self) -> NoReturn:
        raise AssertionError("it takes the longer, the more came before")
