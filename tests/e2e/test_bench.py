"""`dg-lsp bench` measures to its end."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from dg_lsp import bench


def test_every_line_of_the_table_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "STARTS", 1)
    monkeypatch.setattr(bench, "ROUNDS", 2)
    shown = io.StringIO()
    bench.run(Console(file=shown, width=120))
    for line in ("process start", "file of 20 KiB", "file of 1 MiB", "typing along", "Peak memory"):
        assert line in shown.getvalue()
