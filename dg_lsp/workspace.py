"""All that one client has open, and the settings, rules and backend in force for it. No protocol types.

Holds memory in proportion to the documents that are open, and nothing about those that are closed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dg_engine.errors import EngineError
from dg_engine.exclusion import Exclusions
from dg_lsp import logs
from dg_lsp.backends import Backend, BackendClosed
from dg_lsp.context import normalised
from dg_lsp.copying import REACH
from dg_lsp.document import Change, Document, Snapshot
from dg_lsp.planning import Silence
from dg_lsp.session import CHANGED, RECONFIGURED, Ask, EngineTrouble, Offer, Outcome, Services, Session, Watch
from dg_lsp.settings import Settings, SettingsError, parse
from dg_lsp.status import Monitor, MonitoredBackend, Tell

log = logging.getLogger(__name__)

BackendFactory = Callable[[Settings], Backend]

OPEN_OTHERS = 4
"""Other open documents that are copied from."""

SETTINGS_S = 2.0
"""So long a request waits for the settings, which a client tells within milliseconds of its start."""

UNCONFIGURED = Silence("The settings are not known yet.")
UNKNOWN = Silence("The document was never opened, or its text was lost; open it again.")


class Explanation(NamedTuple):
    """The end of a document's last request, for people and for an editor's status line."""

    state: Literal["offered", "nothing", "failed"]
    reason: str


class Workspace:
    """The documents of one client."""

    def __init__(self, make_backend: BackendFactory, tell: Tell) -> None:
        self._make_backend = make_backend
        self._monitor = Monitor(tell)
        self._sessions: dict[str, Session] = {}
        self._initial: Mapping[str, Any] = {}
        self._refused_at_first = ""
        self._configured = asyncio.Event()
        self._warming: asyncio.Task[str] | None = None
        self._snooze: asyncio.TimerHandle | None = None
        self._snoozed_until: datetime | None = None
        self.folders: tuple[Path, ...] = ()
        self.settings = Settings()
        self.backend = self._monitored(self.settings)
        self.set_folders(())

    def open(self, document: Document, path: Path | None) -> None:
        """Take a document; one of the same address that is open already is replaced."""
        uri = document.snapshot().uri
        self.close(uri)
        self._sessions[uri] = Session(document, path)
        self._warm_up()

    def change(self, uri: str, changes: Sequence[Change], version: int) -> None:
        """Carry out edits. If they cannot be, the document is forgotten: better no answer than one for other text."""
        session = self._sessions.get(uri)
        if session is None:
            log.warning("Edits of a document that was never opened were ignored: %s", uri)
            return
        try:
            session.change(changes, version, self._services() if self._configured.is_set() else None)
        except Exception:
            log.exception("The edits could not be carried out, and the document is closed here: %s", uri)
            self.close(uri)

    def close(self, uri: str) -> None:
        """Forget a document."""
        if (session := self._sessions.pop(uri, None)) is not None:
            session.close()

    async def complete(self, uri: str, ask: Ask, watch: Watch | None = None) -> Outcome:
        """Answer for the document as it is now; `watch` is called with each draft if the settings want drafts."""
        session = self._sessions.get(uri)
        if session is None:
            outcome: Outcome = UNKNOWN
        elif (reason := await self._unready(session)) is not None:
            session.last = outcome = reason
        else:
            outcome = await self._answer(session, ask, watch)
        if isinstance(outcome, EngineTrouble):
            self._monitor.failed(outcome.reason)
        if isinstance(outcome, Silence):
            log.debug("Nothing offered in %s: %s", uri, outcome.reason)
        return outcome

    async def _answer(self, session: Session, ask: Ask, watch: Watch | None) -> Outcome:
        """By the settings that hold when the answer is there, since clients do not ask again for other settings."""
        snapshot = session.snapshot
        while True:
            outcome = await session.complete(ask, self._services(), watch if self.settings.drafts else None)
            if outcome is not RECONFIGURED or not self._is_current(session, snapshot) or session.is_asked:
                return outcome

    async def _unready(self, session: Session) -> Silence | None:
        """Wait for the settings, lest it goes by others: a file may be excluded, the model another."""
        if self._configured.is_set():
            return None
        snapshot = session.snapshot
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTINGS_S):
                await self._configured.wait()
        if not self._configured.is_set():
            return UNCONFIGURED
        return None if self._is_current(session, snapshot) else CHANGED

    def _is_current(self, session: Session, snapshot: Snapshot) -> bool:
        """Whether a document is still open, and its text still this."""
        return self._sessions.get(snapshot.uri) is session and session.snapshot is snapshot

    def _services(self) -> Services:
        if self._snoozed_until is not None and self._snoozed_until <= datetime.now().astimezone():
            self.snooze(0)  # the timer stood still while the machine slept
        return Services(self.settings, self.backend, self.exclusions, self._snoozed(), self._others)

    def _snoozed(self) -> Silence | None:
        until = self._snoozed_until
        return None if until is None else Silence(f"Automatic completions are snoozed until {until:%H:%M}.")

    def _others(self, of: Snapshot) -> Iterator[str]:
        """Of the same language the last open documents, then the files beside this one; excluded ones are not read."""
        alike = (
            session
            for uri, session in reversed(self._sessions.items())
            if uri != of.uri and session.snapshot.language_id == of.language_id
        )
        # Last, and of few: to know what is excluded, files are looked at. Texts of snapshots are joined once.
        shown = (session.snapshot.text for session in alike if session.excluded(self.exclusions) is None)
        yield from (normalised(text[:REACH]) for text in islice(shown, OPEN_OTHERS))
        own = self._sessions.get(of.uri)
        if own is not None and own.neighbours is not None:
            open_paths = {session.path for session in self._sessions.values()}
            found = own.neighbours.now(self.folders, self.exclusions)
            yield from (one.text for one in found if one.path not in open_paths)

    def snooze(self, minutes: float) -> datetime | None:
        """Offer nothing unasked for so many minutes; 0 ends the pause. Returns when it ends."""
        if self._snooze is not None:
            self._snooze.cancel()
        self._snooze = until = None
        if minutes > 0:
            until = datetime.now().astimezone() + timedelta(minutes=minutes)
            self._snooze = asyncio.get_running_loop().call_later(60 * minutes, self.snooze, 0)
        self._snoozed_until = until
        self._monitor.snoozed(until)
        return until

    def tell_status(self) -> None:
        """Tell the state as it is, to a client that has just come."""
        self._monitor.tell(again=True)

    def explain(self, uri: str) -> Explanation:
        """What the last request of a document came to, and why."""
        session = self._sessions.get(uri)
        if session is None:
            return Explanation("nothing", UNKNOWN.reason)
        if session.last is None:
            return Explanation("nothing", "Nothing has been asked for in this document yet.")
        if isinstance(session.last, Offer):
            return Explanation("offered", "A completion was offered.")
        return Explanation("failed" if isinstance(session.last, EngineTrouble) else "nothing", session.last.reason)

    @property
    def running(self) -> int:
        """Requests whose work is not over yet, in all documents."""
        return sum(session.running for session in self._sessions.values())

    def set_folders(self, folders: Sequence[Path]) -> None:
        """Take the client's workspace folders, by which the globs of `exclude` go."""
        self.folders = tuple(folders)
        self.exclusions = Exclusions(self.folders, self.settings.exclude)

    def initialize(self, options: Mapping[str, Any]) -> None:
        """Take the client's `initializationOptions`, over which later settings are laid."""
        settings, self._refused_at_first = _taken(options)
        self._monitor.refused(self._refused_at_first)
        if settings is not None:
            self._initial = options
            self._adopt(settings)

    async def configure(self, values: Mapping[str, Any] | None) -> None:
        """Take the client's settings; wrong ones are named in log and status, and what was in force stays.

        A backend whose settings changed is replaced.

        Args:
            values: what the client says; None where it does not, for whatever reason.
        """
        if values is None and self._configured.is_set():
            return
        self._configured.set()
        settings, refused = _taken(self._initial, values)
        self._monitor.refused(refused or self._refused_at_first)
        if settings is not None:
            old = self._adopt(settings)
            if old is not self.backend:
                await old.close()
        self._warm_up()

    def _adopt(self, settings: Settings) -> Backend:
        """Put `settings` in force; returns the backend that was in use before."""
        before, self.settings = self.settings, settings
        old = self.backend
        if settings.log_level != before.log_level:  # until then what the command line says holds
            logs.set_level(settings.log_level)
        if settings.exclude != before.exclude:
            self.set_folders(self.folders)
        if settings != before:
            for session in self._sessions.values():
                session.forget()
        if settings.engine != before.engine:
            self.backend = self._monitored(settings)
            self._warming = None
            self._monitor.renewed()
        self._monitor.enabled(settings.enabled)
        return old

    def _monitored(self, settings: Settings) -> Backend:
        return MonitoredBackend(self._make_backend(settings), self._monitor)

    def _warm_up(self) -> None:
        # Not before the settings are known, lest the wrong engine is loaded, nor before a document is open.
        if self._configured.is_set() and self._sessions and self.settings.enabled and self._warming is None:
            self._warming = asyncio.create_task(self._start(self.backend.start(self._monitor.loading)))

    async def restart(self) -> str:
        """End the engine and start it again; returns what came of it, for people."""
        return await self._start(self.backend.restart()) or "The engine runs."

    async def _start(self, starting: Awaitable[None]) -> str:
        try:
            await starting
        except EngineError as error:
            level = logging.DEBUG if isinstance(error, BackendClosed) else logging.WARNING
            log.log(level, "The engine did not start: %s", error)
            return str(error)
        return ""

    async def aclose(self) -> None:
        """Settle all requests and let go of the backend."""
        for uri in list(self._sessions):
            self.close(uri)
        if self._warming is not None:
            self._warming.cancel()
        if self._snooze is not None:
            self._snooze.cancel()
        await self.backend.close()


def _taken(*layers: Mapping[str, Any] | None) -> tuple[Settings | None, str]:
    """The settings, or why there are none."""
    try:
        return parse(*layers), ""
    except SettingsError as error:
        for problem in error.problems:
            log.warning("Settings not taken: %s", problem)
        return None, error.problems[0]
