"""Who fills the hole: the engine, or a script that stands in for it in tests.

A backend yields the engine's own events (`dg_engine.api`) and raises the engine's own errors (`dg_engine.errors`), so
nothing above it knows which one is at work.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from dg_engine.api import Draft, Health, Infill, InfillRequest
from dg_engine.errors import EngineError, EngineFailed, EngineUnavailable
from dg_lsp import __version__
from dg_lsp.settings import EngineSettings

if TYPE_CHECKING:
    from dg_engine.launcher import Engine, LaunchSpec

log = logging.getLogger(__name__)


class BackendClosed(EngineUnavailable):
    """The backend was let go of while somebody waited for it."""

    def __init__(self) -> None:
        super().__init__("This engine is not asked any more: other settings name another one.")


class Loading(NamedTuple):
    """How far the model is: what happens now, and a fraction from 0 to 1."""

    message: str
    fraction: float


Report = Callable[[Loading | None], None]
"""Called with each state while a model loads, and with None once that is over, well or badly."""


class Backend(Protocol):
    """Something that fills holes."""

    def infill(self, request: InfillRequest) -> AsyncGenerator[Draft | Infill, None]:
        """Yield drafts, if asked for, and then the answer. Closing the generator stops the work.

        Raises EngineError.
        """
        ...

    async def start(self, report: Report) -> None:
        """Make ready, starting what must be started. Raises EngineError; a later call of either method tries again."""
        ...

    async def restart(self) -> None:
        """End what runs, forget past failures and start again. Raises EngineError."""
        ...

    async def close(self) -> None:
        """Let go of everything. What other clients share runs on."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """How often an engine that fails is started again: `attempts` in a row, with a pause that doubles between them.

    An engine that somebody else starts is only asked again, without a limit.
    """

    attempts: int = 3
    first_pause_s: float = 1.0
    longest_pause_s: float = 30.0

    def pause_s(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        return min(self.first_pause_s * 2.0 ** (failures - 1), self.longest_pause_s)


Launch = Callable[[EngineSettings, Callable[[Health], None]], Awaitable["Engine"]]
End = Callable[[EngineSettings], Awaitable[None]]


async def launch_engine(settings: EngineSettings, report: Callable[[Health], None]) -> Engine:
    """Find or start the engine that the settings ask for, as `dg_engine.launcher` does."""
    # Imported on first use: httpx alone takes a fifth of the time in which `initialize` is to be answered.
    from dg_engine.launcher import ensure_engine

    return await ensure_engine(_spec(settings), report)


async def end_engine(settings: EngineSettings) -> None:
    """End what serves the settings' socket, though it may load or hang, as `dg_engine.launcher` does."""
    from dg_engine import launcher

    await launcher.end_engine(_spec(settings))


def _spec(settings: EngineSettings) -> LaunchSpec:
    from dg_engine.launcher import LaunchSpec

    return LaunchSpec(
        model=settings.model,
        adapter=settings.adapter,
        address=settings.address,
        token=settings.token,
        autostart=settings.autostart,
        idle_timeout_s=settings.idle_timeout_s,
    )


class EngineBackend:
    """The engine that all windows share: found or started on first use, started again when it has gone."""

    def __init__(
        self,
        settings: EngineSettings,
        launch: Launch = launch_engine,
        policy: RestartPolicy = RestartPolicy(),
        clock: Callable[[], float] = time.monotonic,
        end: End = end_engine,
    ) -> None:
        self._settings = settings
        self._launch, self._end = launch, end
        self._policy = policy
        self._clock = clock
        self._engine: Engine | None = None
        self._starting: asyncio.Task[Engine] | None = None
        self._failures = 0
        self._last_failure = ""
        self._rest_until = 0.0
        self._report: Report = lambda loading: None
        self._is_closed = False

    async def start(self, report: Report) -> None:
        """Connect, and keep `report` for every later start as well."""
        self._report = report
        await self._connected()

    async def infill(self, request: InfillRequest) -> AsyncGenerator[Draft | Infill, None]:
        """Pass the request on. An engine that stopped while it was idle is started again first."""
        engine = await self._connected()
        try:
            async with aclosing(self._events(engine, request)) as events:
                async for event in events:
                    yield event
            return
        except EngineUnavailable:
            # Raised before the first event if at all, so nothing is yielded twice.
            await self._drop(engine)
        engine = await self._connected()
        try:
            async with aclosing(self._events(engine, request)) as events:
                async for event in events:
                    yield event
        except EngineUnavailable as error:
            self._count(error)
            await self._drop(engine)
            raise

    async def _events(self, engine: Engine, request: InfillRequest) -> AsyncGenerator[Draft | Infill, None]:
        try:
            async with aclosing(engine.client.infill(request)) as events:
                async for event in events:
                    if isinstance(event, Infill):  # before it is passed on: who has it asks for nothing more
                        self._failures = 0
                    yield event
        except EngineFailed as error:
            await self._after_failure(engine, error)
            raise

    async def restart(self) -> None:
        """End this user's engine, whoever started it, and start another."""
        engine, starting = self._engine, self._starting
        if engine is not None:
            await engine.end()
            await self._drop(engine)
        else:
            if starting is not None:
                starting.cancel()
                await asyncio.wait({starting})
            await self._end(self._settings)  # one that still loads, or hung before this window reached it
        # Not before the end, which a request that runs takes for a failure.
        self._failures = 0
        self._rest_until = 0.0
        await self._connected()

    async def close(self) -> None:
        """Close the connections; the engine runs on until it is idle. Whoever waits for it gets `BackendClosed`."""
        self._is_closed = True
        if self._starting is not None:
            self._starting.cancel()
            with suppress(asyncio.CancelledError, EngineError):
                await self._starting
        if self._engine is not None:
            await self._drop(self._engine)

    async def _connected(self) -> Engine:
        if self._is_closed:
            raise BackendClosed
        if self._engine is not None:
            return self._engine
        if self._starting is None:
            self._refuse_while_resting()
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(_retrieve)
        # A request that is given up must not take the start down with it: the next one waits for the same start.
        starting = self._starting
        await asyncio.wait({starting})
        return await self._connected() if starting.cancelled() else starting.result()

    async def _start(self) -> Engine:
        try:
            self._engine = await self._launch(self._settings, self._on_health)
        except EngineError as error:
            self._count(error)
            raise
        else:
            _log_ready(self._engine)
            return self._engine
        finally:
            self._starting = None
            self._report(None)

    def _on_health(self, health: Health) -> None:
        self._report(Loading(health.message, health.progress))

    def _refuse_while_resting(self) -> None:
        if self._settings.autostart and self._failures >= self._policy.attempts:
            raise EngineUnavailable(
                f"The engine failed {self._failures} times in a row and is left alone until you run the command "
                f"dg.restartEngine. Last failure: {self._last_failure}"
            )
        rest = self._rest_until - self._clock()
        if rest > 0:
            raise EngineUnavailable(f"The engine is tried again in {rest:.1f} s. Last failure: {self._last_failure}")

    async def _after_failure(self, engine: Engine, error: EngineError) -> None:
        try:
            await engine.client.health()
        except EngineError:
            if self._engine is engine:  # or it was ended on purpose
                self._count(error)
            await self._drop(engine)

    def _count(self, error: EngineError) -> None:
        self._failures += 1
        self._last_failure = str(error)
        self._rest_until = self._clock() + self._policy.pause_s(self._failures)
        log.warning("The engine failed, %d times in a row now: %s", self._failures, error)

    async def _drop(self, engine: Engine) -> None:
        if self._engine is engine:
            self._engine = None
        await engine.aclose()


def _log_ready(engine: Engine) -> None:
    log.info("The engine is ready.")
    if engine.version != __version__:
        # Only one that the user serves can be: each release looks for sockets of its own.
        log.warning(
            "The engine is dg-lsp %s and this server %s: what they offer together may be nothing. Serve both from one "
            "installation.",
            engine.version or "of an unknown release",
            __version__,
        )


def _retrieve(task: asyncio.Task[Engine]) -> None:
    # Whoever waited for the start may have gone; the failure has been logged by then.
    if not task.cancelled():
        task.exception()
