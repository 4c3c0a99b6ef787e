"""One completion in the terminal, on the server's path: plain, as JSON, or watched while it crystallises."""

from __future__ import annotations

import json
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from dg_engine.api import Draft
from dg_engine.errors import EngineError
from dg_engine.exclusion import Exclusions
from dg_lsp.backends import Backend
from dg_lsp.document import Document, Point
from dg_lsp.place import Place
from dg_lsp.planning import Plan, Silence
from dg_lsp.session import Ask, EngineTrouble, Offer, Outcome, Services, Session, Watch
from dg_lsp.settings import Settings

EXIT_SILENCE = 1
EXIT_ENGINE = 3


class Display(Protocol):
    """How a completion is shown."""

    watch: Watch | None
    """Called with each draft, if drafts are wanted."""

    def frame(self) -> AbstractContextManager[Any]:
        """Held open while the engine works."""
        ...

    def show(self, offer: Offer, milliseconds: float) -> None:
        """Show the completion and the time that it took as a whole."""
        ...


class Plain:
    """The text alone, for pipes."""

    watch: Watch | None = None

    def frame(self) -> AbstractContextManager[Any]:
        """Nothing is shown meanwhile."""
        return nullcontext()

    def show(self, offer: Offer, milliseconds: float) -> None:
        """Print the text."""
        click.echo(offer.suggestion.text)


class Json:
    """One object: text, range (from 1, as on the command line), steps, milliseconds, score, stop reason."""

    watch: Watch | None = None

    def frame(self) -> AbstractContextManager[Any]:
        """Nothing is shown meanwhile."""
        return nullcontext()

    def show(self, offer: Offer, milliseconds: float) -> None:
        """Print the object."""
        suggestion, infill = offer.suggestion, offer.infill
        values = {
            "text": suggestion.text,
            "range": {"start": _shown(suggestion.start), "end": _shown(suggestion.end)},
            "steps": infill.steps if infill else 0,
            "milliseconds": round(milliseconds, 1),
            "engineMilliseconds": infill.milliseconds if infill else 0.0,
            "score": infill.score if infill else None,
            "stopReason": infill.stop_reason if infill else None,
        }
        click.echo(json.dumps(values, ensure_ascii=False))


class Watched:
    """Each draft in the place of the one before: settled text bright, noise dim."""

    def __init__(self, console: Console | None = None) -> None:
        self._live = Live(console=console or Console(highlight=False), auto_refresh=False)
        self.watch: Watch | None = self._draft

    def frame(self) -> AbstractContextManager[Any]:
        """The lines of the terminal that are drawn over."""
        return self._live

    def _draft(self, planned: Plan, draft: Draft) -> None:
        text = Text(planned.line_prefix)
        for piece in draft.pieces:
            text.append(piece.text, "bold green" if piece.settled else "dim magenta")
        text.append(planned.rest_of_line)
        text.append(f"\nstep {draft.step}, {draft.milliseconds:.0f} ms", "dim")
        self._live.update(text, refresh=True)

    def show(self, offer: Offer, milliseconds: float) -> None:
        """Leave the finished text with its figures."""
        suggestion, lines = offer.suggestion, offer.snapshot.lines
        line = lines[suggestion.start.row].rstrip("\r\n")
        text = Text(line[: suggestion.start.column]).append(suggestion.text, "bold green")
        text.append(line[suggestion.end.column :])
        if offer.infill is not None:
            figures = f"\n{offer.infill.steps} steps, {offer.infill.milliseconds:.0f} ms in the engine, "
            text.append(f"{figures}{milliseconds:.0f} ms in all", "dim")
        self._live.update(text, refresh=True)


async def complete(place: Place, backend: Backend, settings: Settings, display: Display) -> int:
    """Ask for the completion at `place` and show it; returns the exit status.

    Raises:
        click.UsageError: the file cannot be read or the place is not in it.
    """
    document = _document(place)
    session = Session(document, place.path.resolve())
    start = time.perf_counter()
    try:
        await _start(backend)
        start = time.perf_counter()
        with display.frame():
            services = Services(settings, backend, Exclusions((Path.cwd(),), settings.exclude))
            ask = Ask(document.snapshot().position(Point(place.line - 1, place.column - 1)), automatic=False)
            outcome = await session.complete(ask, services, display.watch)
            if isinstance(outcome, Offer):
                display.show(outcome, 1000 * (time.perf_counter() - start))
    except EngineError as error:
        outcome = EngineTrouble(str(error))
    finally:
        await backend.close()
    return _status(outcome)


async def _start(backend: Backend) -> None:
    console = Console(stderr=True)
    with console.status("Starting the engine") if sys.stderr.isatty() else nullcontext() as status:

        def report(loading: Any) -> None:
            if status is not None and loading is not None:
                status.update(f"Loading model: {loading.message} {loading.fraction:.0%}")

        await backend.start(report)


def _status(outcome: Outcome) -> int:
    if not isinstance(outcome, Silence):
        return 0
    click.echo(outcome.reason, err=True)
    return EXIT_ENGINE if isinstance(outcome, EngineTrouble) else EXIT_SILENCE


def _document(place: Place) -> Document:
    try:
        text = place.path.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise click.UsageError(f"{place.path} cannot be read: {error.strerror}.") from error
    document = Document(place.path.resolve().as_uri(), "", 0, text, "utf-32")
    lines = document.snapshot().lines
    if place.line > len(lines):
        raise click.UsageError(f"{place.path} has {len(lines)} lines, so there is no line {place.line}.")
    columns = len(lines[place.line - 1].rstrip("\r\n")) + 1
    if place.column > columns:
        raise click.UsageError(f"Line {place.line} ends at column {columns}, so there is no column {place.column}.")
    return document


def _shown(point: Point) -> dict[str, int]:
    return {"line": point.row + 1, "column": point.column + 1}
