"""`dg-lsp replay`: real code typed again, key by key, with a real server and engine: what is offered, how often it is
right, and how many keys it spares.

A few lines are taken out of a file and typed where they were. After each key the server is asked as an editor asks on
its own account. An offer is right if what is still to be typed begins with it, and comes to the closers that it leaves
behind the cursor; one of two characters or more is read and then taken, by one key. A line break and the indentation
behind it are one key, too, and so is each closer that an editor wrote and that has to be deleted.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from dg_engine.errors import EngineFailed
from dg_engine.exclusion import Exclusions
from dg_engine.own_files import own_files_within
from dg_lsp.bench import Figure
from dg_lsp.convert import EXPLAIN
from dg_lsp.document import column, units
from dg_lsp.fitting import in_order
from dg_lsp.languages import PLAIN, language_of
from dg_lsp.pairs import Cursor, visible
from dg_lsp.showing import KEY
from dg_lsp.testing_client import INLINE, LOADING_S, RawClient, inline_params

LINES = 4
"""Of a passage, at most."""
CHARACTERS = 160
"""Of a passage at most, indentation aside."""
AROUND = 5
"""Lines before a passage and behind it, at least."""
_TRIES = 100


@dataclass(frozen=True, slots=True)
class Passage:
    """A few lines of a file, and what stands around them. The first line's indentation is there already."""

    path: Path
    before: str
    text: str
    behind: str


@dataclass(slots=True)
class Tally:
    """What came of it."""

    by_hand: int = 0
    """Keys that the passages take without offers."""
    keys: int = 0
    """That were hit, those that took an offer among them."""
    offers: int = 0
    """Those that were not what was offered already, typed further."""
    right: int = 0
    showing: int = 0
    """Keys after which something was offered."""
    milliseconds: list[float] = field(default_factory=list)
    """From each key to its answer."""
    milliseconds_behind: list[float] = field(default_factory=list)
    """From each key that took an offer to its answer."""


class Unreadable(Exception):
    """A file that is no text in UTF-8, or cannot be opened."""


def code_in(folder: Path) -> Iterator[tuple[Path, str]]:
    """The user's own files below a folder of which the language is known, without what is excluded or unreadable, each
    with its text."""
    folder = folder.resolve()
    exclusions = Exclusions((folder,))
    for path in (folder / name for name in own_files_within(folder) if language_of("", name) is not PLAIN):
        if exclusions.reason(path, path.as_uri()) is None:
            with suppress(Unreadable):
                yield path, _text(path)


def passages(files: Mapping[Path, str], count: int, seed: int = 0) -> list[Passage]:
    """So many passages of the files' texts, drawn at random; fewer where they are too short."""
    rng, found = random.Random(seed), dict[tuple[Path, int], Passage]()  # noqa: S311  (a choice, no secret)
    texts = [(path, text.split("\n")) for path, text in sorted(files.items())]
    long = [(path, lines) for path, lines in texts if len(lines) > 2 * AROUND + LINES]
    for _ in range(_TRIES * count if long else 0):
        path, lines = rng.choice(long)
        row = rng.randrange(AROUND, len(lines) - AROUND - LINES)
        taken = lines[row : row + rng.randint(1, LINES)]
        if taken[0].strip() and sum(len(line.strip()) for line in taken) <= CHARACTERS:
            found[path, row] = _passage(path, lines, row, taken)
        if len(found) == count:
            break
    return list(found.values())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Unreadable(f"{path}: cannot be read: {error}") from error


def _passage(path: Path, lines: list[str], row: int, taken: list[str]) -> Passage:
    text = "\n".join(taken)
    indentation = text[: len(text) - len(text.lstrip())]
    before = "\n".join([*lines[:row], indentation])
    return Passage(path, before, text[len(indentation) :], "\n".join(["", *lines[row + len(taken) :]]))


class Typist:
    """Types passages into a server, and counts.

    Args:
        client: speaks to the server.
        reading_s: seconds from the sight of an offer to the key that takes it.
        pairs: whether the editor closes brackets and quotes by itself.
    """

    def __init__(self, client: RawClient, reading_s: float = 0.0, *, pairs: bool = False) -> None:
        self._client = client
        self._reading_s = reading_s
        self._pairs = pairs
        self.tally = Tally()
        self.failure = ""
        """What the engine failed of, where nothing was offered so far."""

    def type(self, passage: Passage) -> None:
        """Type a passage where it was, taking what is right."""
        cursor, rest = Cursor(passage.before, "", passage.behind, self._pairs), passage.text
        uri = passage.path.resolve().as_uri()
        language = next(iter(language_of("", uri).ids), "")
        self._client.open(cursor.text, uri, language)
        version, offered, takes = 1, "", False
        while rest:
            new, replaced = self._offer(uri, cursor)
            if takes:
                self.tally.milliseconds_behind.append(self.tally.milliseconds[-1])
            taken = cursor.accepted(new, replaced)
            right = bool(new) and rest.startswith(new) and _fits(cursor, taken, rest)
            if new and taken.before != offered:
                self.tally.offers += 1
                self.tally.right += right
            self.tally.showing += bool(new)
            offered = taken.before if new else ""
            takes = right and len(new) > 1
            if takes:
                time.sleep(self._reading_s)
            key = new if takes else next(KEY.finditer(rest)).group()
            cursor, rest, version = taken if takes else cursor.typed(key), rest[len(key) :], version + 1
            self._client.change(uri, version, cursor.text)
            self.tally.keys += 1
        self.tally.keys += cursor.deleted + visible(cursor.closers)
        self.tally.by_hand += len(KEY.findall(passage.text))
        if not self.tally.offers:
            told = self._client.call("workspace/executeCommand", {"command": EXPLAIN, "arguments": [uri]})
            self.failure = told["reason"] if told["state"] == "failed" else ""
        self._client.notify("textDocument/didClose", {"textDocument": {"uri": uri}})

    def _offer(self, uri: str, cursor: Cursor) -> tuple[str, int]:
        """What is offered, without blanks at its end, and how many characters behind the cursor it replaces."""
        line = cursor.line
        here = units(line, "utf-16")
        parameters = inline_params(uri, cursor.before.count("\n"), here, trigger=2)
        started = time.perf_counter()
        items = (self._client.call("textDocument/inlineCompletion", parameters) or {"items": []})["items"]
        self.tally.milliseconds.append(1000 * (time.perf_counter() - started))
        if not items:
            return "", 0
        start, end = (items[0]["range"][name]["character"] for name in ("start", "end"))
        text = str(items[0]["insertText"])[len(line) - column(line, start, "utf-16") :].rstrip()
        return text, column(cursor.closers + cursor.behind, end - here, "utf-16")


def _fits(cursor: Cursor, taken: Cursor, rest: str) -> bool:
    """Whether what is still to be typed, `rest`, comes to the closers that an offer leaves behind the cursor.

    Where it does not come to those that were there before, as the passage ends before they are due, an offer must leave
    all of them as they were.
    """
    if in_order(cursor.closers, rest):
        return in_order(taken.closers, rest[len(taken.before) - len(cursor.before) :])
    return taken.closers == cursor.closers


def replay(
    found: Sequence[Passage],
    client: RawClient,
    settings: dict[str, Any],
    reading_s: float = 0.0,
    *,
    pairs: bool = False,
) -> Tally:
    """Type passages again; the client's server has not been spoken to yet, and is shut down.

    Args:
        found: the passages.
        client: to type with.
        settings: of the server.
        reading_s: seconds before an offer is taken.
        pairs: whether the editor closes brackets and quotes by itself.

    Raises:
        EngineFailed: nothing was offered, and the engine failed.
    """
    root = Path(os.path.commonpath([passage.path.resolve().parent for passage in found]))
    client.initialize(INLINE, rootUri=root.as_uri(), initializationOptions=settings)
    typist = Typist(client, reading_s, pairs=pairs)
    for passage in track(found, "typing", console=Console(stderr=True), transient=True):
        typist.type(passage)
        if typist.failure:
            raise EngineFailed(typist.failure)
    client.shut_down()
    return typist.tally


def print_replayed(
    paths: Sequence[Path],
    count: int,
    seed: int,
    settings: dict[str, Any],
    reading_s: float,
    *,
    pairs: bool,
) -> int:
    """Replay passages of files, and of the code in folders, with the engine and print the tally.

    Returns:
        The exit status.

    Raises:
        Unreadable: a file cannot be read.
    """
    files = dict(file for path in paths for file in (code_in(path) if path.is_dir() else [(path, _text(path))]))
    if not (found := passages(files, count, seed)):
        Console(stderr=True).print("There is no passage to type: name files of code of more than a few lines.")
        return 1
    with RawClient(patience_s=LOADING_S) as client:
        try:
            Console().print(table(replay(found, client, settings, reading_s, pairs=pairs)))
        except EngineFailed as error:
            Console(stderr=True).print(f"The engine offers nothing: {error}", highlight=False)
            return 3
    return 0


def table(tally: Tally) -> Table:
    """The tally, for people."""
    spared = 100 * (1 - tally.keys / max(1, tally.by_hand))
    right, shown = 100 * tally.right / max(1, tally.offers), 100 * tally.showing / max(1, len(tally.milliseconds))
    found = Table("", "", show_header=False)
    found.add_row("keys by hand", f"{tally.by_hand:,}")
    found.add_row("keys with what is offered", f"{tally.keys:,} ({spared:.1f} % fewer)")
    found.add_row("offers", f"{tally.offers:,}")
    found.add_row("of those right", f"{tally.right:,} ({right:.1f} %)")
    found.add_row("keys behind which something is shown", f"{shown:.1f} %")
    for name, times in (
        ("key to answer, ms", tally.milliseconds),
        ("the same where the key took an offer", tally.milliseconds_behind),
    ):
        figure = Figure(name, tuple(times))
        told = f"p50 {figure.quantile(0.5):.0f}, p95 {figure.quantile(0.95):.0f}" if times else "none"
        found.add_row(name, told)
    return found
