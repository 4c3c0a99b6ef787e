"""What a client can show of the server: one state, worked out from all that happens, told whenever it has changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from datetime import datetime
from typing import Literal, NamedTuple

from dg_engine.api import Draft, Infill, InfillRequest
from dg_engine.errors import EngineError
from dg_lsp.backends import Backend, BackendClosed, Loading, Report

State = Literal["idle", "loading", "ready", "working", "snoozed", "off", "error"]

WORKING_AFTER_S = 0.2
"""Work that is over sooner is not told: most is, and at each key two redraws of a status bar would flicker."""

REMEDY = "Run `dg-lsp doctor` to see what is missing, then restart the engine (dg.restartEngine)."
SETTINGS_REMEDY = "Put it right in the settings; until then those from before hold."


class Status(NamedTuple):
    """The state, in words for people; `fraction` (0 to 1) while loading, `remedy` after a failure."""

    state: State
    message: str
    fraction: float | None = None
    remedy: str | None = None


Tell = Callable[[Status], None]


class Monitor:
    """Hears of settings, snoozing and the engine, and tells the state that follows from them."""

    def __init__(self, tell: Tell, working_after_s: float = WORKING_AFTER_S) -> None:
        self._tell = tell
        self._working_after_s = working_after_s
        self._told: Status | None = None
        self._enabled = True
        self._snoozed_until: datetime | None = None
        self._loading: Loading | None = None
        self._refused = self._failure = ""
        self._is_ready = False
        self._lasting: set[object] = set()

    def renewed(self) -> None:
        """Another engine takes the place of the one before."""
        self._loading, self._failure, self._is_ready = None, "", False
        self.tell()

    def refused(self, problem: str) -> None:
        """The client's settings are not taken for this reason; empty where they are."""
        self._refused = problem
        self.tell()

    def enabled(self, enabled: bool) -> None:  # noqa: FBT001  (the one thing it says)
        """Completions were switched on or off."""
        self._enabled = enabled
        self.tell()

    def snoozed(self, until: datetime | None) -> None:
        """Automatic completions pause until then, or go on."""
        self._snoozed_until = until
        self.tell()

    def loading(self, loading: Loading | None) -> None:
        """The engine loads its model, or is over with that."""
        self._loading = loading
        self.tell()

    def ready(self) -> None:
        """The engine answers."""
        self._is_ready, self._failure = True, ""
        self.tell()

    def failed(self, reason: str) -> None:
        """The engine could not be started, or broke, or does not answer."""
        if self._loading is not None:
            return  # somebody was impatient; how the start ends is told to who waits for it
        self._is_ready, self._failure = False, reason
        self.tell()

    @contextmanager
    def _hearing(self) -> Iterator[None]:
        try:
            yield
        except BackendClosed:
            raise  # that was another engine
        except EngineError as error:
            self.failed(str(error))
            raise

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Within this the engine starts."""
        with self._hearing():
            yield
        self.ready()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Within this a request is at the engine; told if it lasts."""
        run = object()
        timer = asyncio.get_running_loop().call_later(self._working_after_s, self._lasts, run)
        try:
            with self._hearing():
                yield
        finally:
            timer.cancel()
            self._lasting.discard(run)
            self.tell()

    def _lasts(self, run: object) -> None:
        self._lasting.add(run)
        self.tell()

    def tell(self, *, again: bool = False) -> None:
        """Tell the state if it is another than was told last, or in any case `again`."""
        status = self.status()
        if again or status != self._told:
            self._told = status
            self._tell(status)

    def status(self) -> Status:
        """The state as it is now; where settings are not taken, others hold than a user believes, off or not."""
        if not self._enabled and not self._refused:
            return Status("off", "Completions are switched off.")
        if self._loading is not None:
            return Status("loading", self._loading.message or "Loading the model.", self._loading.fraction)
        if self._refused:
            return Status("error", f"The settings are not taken. {self._refused}", remedy=SETTINGS_REMEDY)
        if self._failure:
            return Status("error", self._failure, remedy=REMEDY)
        if self._snoozed_until is not None:
            return Status("snoozed", f"No automatic completions until {self._snoozed_until:%H:%M}.")
        if self._lasting:
            return Status("working", "A completion is being written.")
        if self._is_ready:
            return Status("ready", "The engine is ready.")
        return Status("idle", "The engine starts with the first document.")


class MonitoredBackend:
    """A backend of which a monitor hears."""

    def __init__(self, backend: Backend, monitor: Monitor) -> None:
        self._backend = backend
        self._monitor = monitor

    async def start(self, report: Report) -> None:
        """As the backend does."""
        with self._monitor.starting():
            await self._backend.start(report)

    async def restart(self) -> None:
        """As the backend does."""
        self._monitor.renewed()
        with self._monitor.starting():
            await self._backend.restart()

    async def infill(self, request: InfillRequest) -> AsyncGenerator[Draft | Infill, None]:
        """As the backend does."""
        with self._monitor.working():
            async with aclosing(self._backend.infill(request)) as events:
                async for event in events:
                    self._monitor.ready()
                    yield event

    async def close(self) -> None:
        """As the backend does."""
        await self._backend.close()
