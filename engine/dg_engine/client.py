"""The engine's client: asynchronous, torch-free, over a Unix socket or loopback HTTP with a token.

    async with aclosing(EngineClient("unix:/run/user/1000/dg-lsp/engine-….sock")) as client: ...
        async with aclosing(client.infill(InfillRequest(prefix="def f(", drafts=True))) as events:
            async for event in events: ...

Leaving `infill` early closes its connection, which stops the engine's work within one denoising step.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar
from urllib.parse import SplitResult, urlsplit

import httpx
import msgspec

from dg_engine.api import Draft, Event, Failure, Health, Infill, InfillRequest, ModelInfo, Score, ScoreRequest
from dg_engine.errors import MALFORMED, EngineFailed, EngineUnavailable, RequestError
from dg_engine.paths import is_loopback

T = TypeVar("T")

CONNECT_TIMEOUT_S = 2.0
"""A local connect takes microseconds; only a machine that swaps comes near this."""
QUICK_CALL_TIMEOUT_S = 5.0
"""For health and model information, which the engine answers between two denoising steps."""
MAX_LINE_BYTES = 16 * 1024 * 1024
"""No honest event comes near it: a guard against a server that never ends its line."""

# An empty context: loading the CA bundle takes 20 ms and plain HTTP never uses it.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_events: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


class Address(NamedTuple):
    """Where an engine listens: `socket` is set for a Unix socket, otherwise `url` holds a loopback address."""

    url: str
    socket: str | None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `unix:/path/to.sock` or `http://127.0.0.1:PORT`.

        Raises:
            ValueError: any other form or no port, or a host beyond this machine (the token would travel in the clear).
        """
        if text.startswith("unix:/"):
            return cls("http://engine", text.removeprefix("unix:"))
        parts = urlsplit(text)
        if parts.scheme == "http" and parts.hostname and is_loopback(parts.hostname) and _is_port(parts):
            return cls(text.rstrip("/"), None)
        raise ValueError(f"the engine's address must be unix:/PATH or http://127.0.0.1:PORT, not {text!r}")


def _is_port(parts: SplitResult) -> bool:
    try:
        return bool(parts.port)
    except ValueError:
        return False


class EngineClient:
    """Calls to one engine.

    Each has a connection of its own, which costs 0.3 ms: httpcore 1.0.9 never gives one back to its pool that was
    cancelled while it connected or closed, and when the pool's hundred have gone, every call waits for ever.

    Every call raises `EngineUnavailable` when nothing answers, `RequestError` when the engine refuses the request, and
    `EngineFailed` when it breaks on the way.
    """

    def __init__(self, address: str | Address, token: str = "") -> None:
        self.address = Address.parse(address) if isinstance(address, str) else address
        self._headers = {b"authorization": f"Bearer {token}".encode()} if token else {}
        self._open: set[httpx.AsyncClient] = set()
        self._is_closed = False

    async def health(self) -> Health:
        """Whether the engine is loading, ready or failed."""
        return await self._get("/health", Health)

    async def model(self) -> ModelInfo:
        """What the engine has loaded and where it runs."""
        return await self._get("/v1/model", ModelInfo)

    async def score(self, request: ScoreRequest) -> Score:
        """How likely the causal twin finds a text, in nats."""
        async with self._connection() as http:
            response = await http.post("/v1/score", content=encode(request), headers=_JSON)
            _check(response.status_code, response.content)
            return _decoded(response.content, Score)

    async def infill(self, request: InfillRequest) -> AsyncGenerator[Draft | Infill, None]:
        """Yield the drafts, when the request asks for them, then the one answer.

        Close the iterator (`contextlib.aclosing`) to stop early.
        """
        async with self._stream("/v1/infill", encode(request)) as response:
            async for line in _lines(response):
                event = _event(line)
                yield event
                if isinstance(event, Infill):
                    return
        raise EngineFailed("The engine ended its answer before it was complete.")

    async def aclose(self) -> None:
        """Close every connection; calls still running end with `EngineUnavailable` or `EngineFailed`."""
        self._is_closed = True
        await asyncio.gather(*(http.aclose() for http in self._open))

    async def _get(self, path: str, kind: type[T]) -> T:
        async with self._connection() as http:
            response = await http.get(path, timeout=QUICK_CALL_TIMEOUT_S)
            _check(response.status_code, response.content)
            return _decoded(response.content, kind)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[httpx.AsyncClient]:
        place = self.address.socket or self.address.url
        if self._is_closed:
            raise EngineUnavailable("The connection to the engine has been closed.")
        try:
            async with self._http() as http:
                self._open.add(http)
                try:
                    yield http
                finally:
                    self._open.discard(http)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise EngineUnavailable(f"No engine answers at {place}.") from error
        except httpx.TimeoutException as error:
            raise EngineUnavailable(f"The engine at {place} does not answer in time.") from error
        except httpx.TransportError as error:
            raise EngineUnavailable(f"The engine at {place} went away without an answer.") from error

    def _http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=self.address.socket, verify=_NO_TLS),
            base_url=self.address.url,
            headers=self._headers,
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT_S),
            trust_env=False,
        )

    @asynccontextmanager
    async def _stream(self, path: str, body: bytes) -> AsyncIterator[httpx.Response]:
        async with self._connection() as http, http.stream("POST", path, content=body, headers=_JSON) as response:
            if response.status_code != httpx.codes.OK:
                _check(response.status_code, await response.aread())
            yield response


_JSON = {"content-type": "application/json"}


def encode(request: msgspec.Struct) -> bytes:
    """The request as JSON. A lone surrogate, which UTF-8 cannot hold, becomes U+FFFD as in any decoder."""
    try:
        return msgspec.json.encode(request)
    except UnicodeEncodeError:
        return msgspec.json.encode(_clean(msgspec.to_builtins(request)))


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _clean(one) for name, one in value.items()}
    return _LONE_SURROGATE.sub("\ufffd", value) if isinstance(value, str) else value


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    # Not `aiter_lines`: it splits at U+2028, form feed and the like, which JSON leaves as they are inside strings.
    pending = b""
    async for chunk in _chunks(response):
        *whole, pending = (pending + chunk).split(b"\n")
        for line in whole:
            if line.strip():
                yield line
        if len(pending) > MAX_LINE_BYTES:
            raise EngineFailed(f"The engine sent a line of more than {MAX_LINE_BYTES} bytes.")
    if pending.strip():
        yield pending


async def _chunks(response: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in response.aiter_bytes():
            yield chunk
    except httpx.TransportError as error:
        raise EngineFailed("The connection to the engine broke before the answer was complete.") from error


def _event(line: bytes) -> Draft | Infill:
    try:
        event = _events.decode(line)
    except MALFORMED as error:
        raise EngineFailed(f"The engine sent a line that is not an event: {error}.") from error
    if isinstance(event, Failure):
        raise EngineFailed(event.message)
    return event


def _decoded(content: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except MALFORMED as error:
        raise EngineFailed(f"The engine's answer is not a {kind.__name__}: {error}.") from error


def _check(status: int, content: bytes) -> None:
    if status == httpx.codes.OK:
        return
    try:
        message = msgspec.json.decode(content, type=Failure).message
    except MALFORMED:
        message = f"The engine answered with status {status}."
    if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        raise EngineUnavailable("The engine refused the token; set the same token for the engine and its client.")
    if status == httpx.codes.SERVICE_UNAVAILABLE:
        raise EngineUnavailable(message)
    if httpx.codes.is_client_error(status):
        raise RequestError(message)
    raise EngineFailed(message)
