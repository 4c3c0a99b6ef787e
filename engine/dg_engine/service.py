"""The engine as an HTTP service on a Unix socket or on loopback: admit, hand to the worker, stream what comes back."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from dg_engine import __version__
from dg_engine.api import Draft, EngineState, Failure, Health, Infill, InfillRequest, ModelInfo, Score, ScoreRequest
from dg_engine.errors import MALFORMED
from dg_engine.worker import Item, Worker

if TYPE_CHECKING:
    from dg_engine.engine import Engine

T = TypeVar("T")
Report = Callable[[str, float], None]
"""Told what is being loaded, and the fraction of the loading that is done."""

MAX_BODY_BYTES = 4 * 1024 * 1024
"""Far more text than any model reads; a larger body is a mistake of the client."""

_log = logging.getLogger(__name__)


class Service:
    """What the handlers share: the worker, the engine once it is loaded, and when it was last used."""

    def __init__(self, load: Callable[[Report], Engine]) -> None:
        self._load = load
        self._engine: Engine | None = None
        self._state: EngineState = "loading"
        self._message = "importing torch"
        self._progress = 0.0
        self._started = time.monotonic()
        self.last_used = time.monotonic()
        self.worker = Worker()

    def start(self) -> None:
        """Load the model in the worker's thread; requests that come before it is done wait for it."""
        self.worker.start()
        self.worker.submit(self._loading(), "", lambda item: None)

    def health(self) -> Health:
        """Whether the engine is up."""
        return Health(
            state=self._state,
            message=self._message,
            progress=self._progress,
            version=__version__,
            pid=os.getpid(),
            uptime_s=time.monotonic() - self._started,
            active_requests=self.worker.active,
        )

    def model(self) -> ModelInfo | Failure:
        """What is loaded, or why nothing is."""
        return self._engine.info if self._engine is not None else Failure(message=self._message)

    def infill(self, request: InfillRequest) -> Iterator[Item]:
        """The work of a request. The engine is asked for at the first unit, when it is loaded."""
        yield from self._loaded().infill(request)

    def score(self, request: ScoreRequest) -> Iterator[Item]:
        """The work of a score: one unit."""
        yield self._loaded().score(request)

    def _report(self, message: str, progress: float) -> None:
        self._message, self._progress = message, progress

    def _loaded(self) -> Engine:
        if self._engine is None:
            raise ValueError(self._message)
        return self._engine

    def _loading(self) -> Iterator[Item]:
        try:
            engine = self._load(self._report)
            self._report("warming up", 0.9)
            engine.warm_up()
        except Exception as error:  # reported by /health and to every request, until somebody mends the checkpoint
            _log.exception("the model could not be loaded")
            self._state, self._message, self.last_used = "failed", str(error) or repr(error), time.monotonic()
            return
        self._report("", 1.0)
        # Idle time begins here: an engine that loads for long would otherwise be gone before its starter sees it ready.
        self._engine, self._state, self.last_used = engine, "ready", time.monotonic()
        _log.info("ready: %s", engine.info)
        return
        yield  # makes this a generator: a job whose one unit is the loading


def create_app(service: Service, token: str = "") -> Starlette:
    """The HTTP interface of `api`'s docstring. With a token, every request must carry it as a bearer."""

    async def health(request: Request) -> Response:
        del request
        return _json(service.health())

    async def model(request: Request) -> Response:
        del request
        info = service.model()
        return _json(info, 200 if isinstance(info, ModelInfo) else 503)

    async def infill(request: Request) -> Response:
        wanted = await _body(request, InfillRequest)
        if isinstance(wanted, Response):
            return wanted
        events = _events(service, service.infill(wanted), wanted.document)
        return StreamingResponse(_lines(events, drafts=wanted.drafts), media_type="application/x-ndjson")

    async def score(request: Request) -> Response:
        wanted = await _body(request, ScoreRequest)
        if isinstance(wanted, Response):
            return wanted
        scored = asyncio.ensure_future(_only(_events(service, service.score(wanted), "")))
        gone = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait({scored, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not scored.done():
                return Response(status_code=499)  # nobody reads it
        finally:
            scored.cancel()
            gone.cancel()
            await asyncio.wait({scored, gone})
        item = scored.result()
        return _json(item, 200 if isinstance(item, Score) else 500)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        del app
        service.start()
        yield
        await asyncio.to_thread(service.worker.close)

    routes = [
        Route("/health", health),
        Route("/v1/model", model),
        Route("/v1/infill", infill, methods=["POST"]),
        Route("/v1/score", score, methods=["POST"]),
    ]
    middleware = [Middleware(_BearerToken, token=token)] if token else []
    return Starlette(routes=routes, middleware=middleware, lifespan=lifespan)


class _BearerToken:
    """Refuses requests without the token: unlike a socket, loopback is open to every user and web page of a machine."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(scope.get("headers", ())).get(b"authorization", b"")
        if scope["type"] == "http" and not hmac.compare_digest(given, self._expected):
            await _json(Failure(message="this engine wants its token as a bearer"), 401)(scope, receive, send)
            return
        await self._app(scope, receive, send)


async def _events(service: Service, work: Iterator[Item], document: str) -> AsyncGenerator[Item | Failure, None]:
    """The worker's items for one request, in the event loop. Leaving early cancels the work."""
    loop = asyncio.get_running_loop()
    items: asyncio.Queue[Item | Failure] = asyncio.Queue()
    job = service.worker.submit(work, document, lambda item: _hand_over(loop, items, item))
    try:
        while True:
            item = await items.get()
            yield item
            if not isinstance(item, Draft):
                return
    finally:
        service.worker.cancel(job)
        service.last_used = time.monotonic()


async def _only(events: AsyncGenerator[Item | Failure, None]) -> Item | Failure:
    async with aclosing(events):
        return await anext(events)


async def _gone(request: Request) -> None:
    """Return when the client has closed the connection; the body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _hand_over(loop: asyncio.AbstractEventLoop, items: asyncio.Queue[Item | Failure], item: Item | Failure) -> None:
    try:
        loop.call_soon_threadsafe(items.put_nowait, item)
    except RuntimeError:
        # The loop is closed: the service is going down, and with it whoever would have read this.
        _log.debug("an item came after the service's end")


async def _lines(events: AsyncIterator[Item | Failure], *, drafts: bool) -> AsyncIterator[bytes]:
    async for event in events:
        if isinstance(event, Infill | Failure) or (drafts and isinstance(event, Draft) and event.step):
            yield msgspec.json.encode(event) + b"\n"


async def _body(request: Request, kind: type[T]) -> T | Response:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return _json(Failure(message=f"the request is larger than {MAX_BODY_BYTES} bytes"), 413)
    try:
        return msgspec.json.decode(bytes(body), type=kind)
    except MALFORMED as error:
        return _json(Failure(message=str(error)), 400)


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
