"""`dg-lsp bench`: the server's own share of a completion, with the scripted engine in place of the real one.

Every figure is a round trip over the real pipes of a real server process, the client's own work included.
"""

from __future__ import annotations

import math
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dg_lsp.testing_client import INLINE, RawClient, inline_params, scripted

LARGE = 1024 * 1024
ROUNDS = 200
STARTS = 7
ANSWER = "first_value + second_value"
MODULES = ("argparse", "inspect", "typing", "zipfile")
"""Modules of the standard library; the large file is made of them, over and over."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table, in milliseconds."""

    name: str
    times: tuple[float, ...]

    def quantile(self, share: float) -> float:
        """The time that this share of the rounds takes at most."""
        ordered = sorted(self.times)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def run(console: Console | None = None) -> None:
    """Measure and print."""
    console = console or Console()
    with tempfile.TemporaryDirectory() as directory:
        arguments = scripted(Path(directory), {"after": "= ", "text": ANSWER}, {"after": "", "text": ANSWER})
        figures = [Figure("process start to the answer to initialize", tuple(_starts(arguments)))]
        with RawClient(arguments) as client:
            client.initialize(INLINE, initializationOptions={"debounceMs": 0})
            figures += [
                Figure(f"edit and completion, file of {name}", tuple(_edits(client, size))) for name, size in SIZES
            ]
            figures.append(Figure("typing along what is shown, file of 1 MiB", tuple(_typing(client))))
            peak = _peak_megabytes(client.process.pid)
            client.shut_down()
    console.print(_table(figures))
    console.print(f"Peak memory of the server: {peak}.")


SIZES = (("20 KiB", 20 * 1024), ("1 MiB", LARGE))


def source(size: int) -> str:
    """Real Python of at least `size` characters, cut at a line."""
    texts = [Path(sysconfig.get_path("stdlib"), f"{name}.py").read_text(encoding="utf-8") for name in MODULES]
    text = "\n".join(texts * (1 + size // sum(map(len, texts))))
    return text[: text.index("\n", size - 1) + 1]


def _starts(arguments: list[str]) -> Iterator[float]:
    for _ in range(STARTS):
        started = time.perf_counter()
        with RawClient(arguments) as client:
            client.initialize(INLINE)
            yield 1000 * (time.perf_counter() - started)
            client.shut_down()


def _edits(client: RawClient, size: int) -> Iterator[float]:
    """Type a new assignment each time, so that nothing is answered from memory."""
    text = source(size)
    row = _place(text)
    uri = client.open(text, f"file:///bench/{size}.py")
    client.call("textDocument/inlineCompletion", inline_params(uri, row, 0))
    _replace(client, uri, 2, (row, 0), 0, "\n\n")
    before = ""
    for number in range(ROUNDS):
        line = f"value_{number} = "
        started = time.perf_counter()
        _replace(client, uri, number + 3, (row, 0), len(before), line)
        result = client.call("textDocument/inlineCompletion", inline_params(uri, row, len(line)))
        yield 1000 * (time.perf_counter() - started)
        assert result is not None, "the scripted engine answers every assignment"  # noqa: S101
        before = line


def _typing(client: RawClient) -> Iterator[float]:
    """Type what is shown, letter by letter."""
    text = source(LARGE)
    row = _place(text)
    uri = client.open(text, "file:///bench/typing.py")
    _replace(client, uri, 2, (row, 0), 0, "\n\n")
    version, before = 3, ""
    for round_ in range(ROUNDS // len(ANSWER) + 1):
        line = f"other_{round_} = "
        _replace(client, uri, version, (row, 0), len(before), line)
        client.call("textDocument/inlineCompletion", inline_params(uri, row, len(line)))
        for typed, letter in enumerate(ANSWER[:-1]):
            version += 1
            started = time.perf_counter()
            _replace(client, uri, version, (row, len(line) + typed), 0, letter)
            place = len(line) + typed + 1
            result = client.call("textDocument/inlineCompletion", inline_params(uri, row, place, trigger=2))
            yield 1000 * (time.perf_counter() - started)
            assert result["items"][0]["insertText"] == ANSWER[typed + 1 :], "answered from memory"  # noqa: S101
        version, before = version + 1, line + ANSWER[:-1]


def _place(text: str) -> int:
    """The blank line before a definition that is nearest to the middle of the file."""
    lines = text.split("\n")
    middle = len(lines) // 2
    places = [n for n, line in enumerate(lines[1:]) if not lines[n] and line.startswith(("def ", "class "))]
    return min(places, key=lambda place: abs(place - middle))


def _replace(client: RawClient, uri: str, version: int, start: tuple[int, int], length: int, text: str) -> None:
    row, column = start
    places = {"start": {"line": row, "character": column}, "end": {"line": row, "character": column + length}}
    document = {"uri": uri, "version": version}
    change = {"textDocument": document, "contentChanges": [{"range": places, "text": text}]}
    client.notify("textDocument/didChange", change)


def _peak_megabytes(pid: int) -> str:
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return "not known on this system"
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return f"{int(line.split()[1]) * 1024 // 1_000_000} MB"


def _table(figures: list[Figure]) -> Table:
    table = Table("", "rounds", "p50 ms", "p95 ms")
    for figure in figures:
        rounds = str(len(figure.times))
        table.add_row(figure.name, rounds, f"{figure.quantile(0.5):.2f}", f"{figure.quantile(0.95):.2f}")
    return table
