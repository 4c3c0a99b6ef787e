"""The engine's client against a real HTTP server on a Unix socket."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from dg_engine.api import Copy, Draft, Failure, Health, Infill, InfillRequest, Piece, Score, ScoreRequest
from dg_engine.client import Address, EngineClient, encode
from dg_engine.errors import EngineFailed, EngineUnavailable, RequestError

ANSWER = Infill(
    text="a\u2028b\x0cc", tokens=2, steps=3, milliseconds=4.0, score=-0.5, stop_reason="converged", prefix_tokens=7,
    cached_tokens=6,
)  # fmt: skip


class Service:
    """A service whose behaviour the request's prefix chooses; it notices when a client leaves."""

    def __init__(self) -> None:
        self.left = threading.Event()
        self.seen: list[InfillRequest] = []
        routes = [
            Route("/health", self.health),
            Route("/v1/model", self.model),
            Route("/v1/infill", self.infill, methods=["POST"]),
            Route("/v1/score", self.score, methods=["POST"]),
        ]
        self.app = Starlette(routes=routes)

    async def health(self, request: Request) -> Response:
        known = dict(request.scope["headers"]).get(b"authorization") in {b"Bearer secret", "Bearer gehäim".encode()}
        return JSONResponse(msgspec.to_builtins(Health(state="ready" if known else "loading")))

    async def model(self, request: Request) -> Response:
        return Response("not json", status_code=200)

    async def score(self, request: Request) -> Response:
        asked = msgspec.json.decode(await request.body(), type=ScoreRequest)
        score = Score(text=-1.0, text_tokens=len(asked.text), suffix=0.0, suffix_tokens=0)
        return Response(msgspec.json.encode(score))

    async def infill(self, request: Request) -> Response:
        asked = msgspec.json.decode(await request.body(), type=InfillRequest)
        self.seen.append(asked)
        if status := {"refused": 400, "locked": 401, "busy": 503, "broken": 500}.get(asked.prefix):
            return Response(msgspec.json.encode(Failure(message=f"status {status}")), status_code=status)
        return StreamingResponse(self.events(asked.prefix), media_type="application/x-ndjson")

    async def events(self, prefix: str) -> AsyncIterator[bytes]:
        draft = Draft(step=1, pieces=(Piece("a", settled=True), Piece("?", settled=False)), milliseconds=1.0)
        try:
            yield msgspec.json.encode(draft) + b"\n"
            if prefix == "forever":
                await asyncio.Event().wait()
            elif prefix == "fails":
                yield msgspec.json.encode(Failure(message="out of memory")) + b"\n"
            elif prefix == "garbage":
                yield b'{"event": "infill", \xff\n'
            elif prefix != "short":
                whole = msgspec.json.encode(ANSWER) + b"\n"
                yield whole[:10]
                yield whole[10:]
        finally:
            self.left.set()


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """A directory whose path leaves room for a socket's name, which pytest's own does not on every machine."""
    directory = Path(tempfile.mkdtemp(prefix="dg"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def service(short_directory: Path) -> Iterator[tuple[Service, str]]:
    state = Service()
    path = short_directory / "s"
    started = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: object = None) -> None:
            await super().startup()
            started.set()

    server = Server(
        uvicorn.Config(state.app, uds=str(path), log_level="error", lifespan="off", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    assert started.wait(60)
    yield state, f"unix:{path}"
    server.should_exit = True
    thread.join()


async def collect(address: str, prefix: str) -> list[Draft | Infill]:
    async with (
        aclosing(EngineClient(address)) as client,
        aclosing(client.infill(InfillRequest(prefix=prefix))) as events,
    ):
        return [event async for event in events]


@pytest.mark.asyncio
async def test_an_infill_yields_its_drafts_and_then_the_answer_with_every_line_separator_intact(
    service: tuple[Service, str],
) -> None:
    draft, answer = await collect(service[1], "x")
    assert isinstance(draft, Draft)
    assert draft.text == "a?"
    assert answer == ANSWER


@pytest.mark.asyncio
async def test_leaving_the_stream_closes_the_connection_so_that_the_engine_stops(service: tuple[Service, str]) -> None:
    state, address = service
    async with aclosing(EngineClient(address)) as client:
        async with aclosing(client.infill(InfillRequest(prefix="forever"))) as events:
            assert isinstance(await anext(events), Draft)
            assert not state.left.is_set()
        assert await asyncio.to_thread(state.left.wait, 10)
        assert (await client.health()).state == "loading"


@pytest.mark.asyncio
async def test_cancelling_the_task_closes_the_connection_so_that_the_engine_stops(service: tuple[Service, str]) -> None:
    state, address = service
    first = asyncio.Event()

    async def watch(client: EngineClient) -> None:
        async with aclosing(client.infill(InfillRequest(prefix="forever"))) as events:
            async for _ in events:
                first.set()

    async with aclosing(EngineClient(address)) as client:
        task = asyncio.create_task(watch(client))
        await first.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(state.left.wait, 10)


@pytest.mark.asyncio
async def test_a_call_that_is_cancelled_at_any_moment_leaves_no_connection_behind(service: tuple[Service, str]) -> None:
    async with aclosing(EngineClient(service[1])) as client:

        async def ask() -> list[Draft | Infill]:
            async with aclosing(client.infill(InfillRequest(prefix="x"))) as events:
                return [event async for event in events]

        await ask()
        before = len([*Path("/dev/fd").iterdir()])
        for turn in range(300):
            task = asyncio.create_task(ask())
            for _ in range(turn % 60):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        # Both ends are in this process, and the service closes its own when it has noticed.
        async with asyncio.timeout(30):
            while len([*Path("/dev/fd").iterdir()]) > before:
                await asyncio.sleep(0)
        assert (await ask())[-1] == ANSWER


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("prefix", "error", "message"),
    [
        ("refused", RequestError, "status 400"),
        ("locked", EngineUnavailable, "token"),
        ("busy", EngineUnavailable, "status 503"),
        ("broken", EngineFailed, "status 500"),
        ("fails", EngineFailed, "out of memory"),
        ("garbage", EngineFailed, "not an event"),
        ("short", EngineFailed, "before it was complete"),
    ],
)
async def test_each_way_to_fail_has_its_own_error(
    service: tuple[Service, str], prefix: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        await collect(service[1], prefix)


@pytest.mark.asyncio
async def test_a_missing_socket_is_engine_unavailable(short_directory: Path) -> None:
    with pytest.raises(EngineUnavailable, match="No engine answers"):
        await collect(f"unix:{short_directory}/absent", "x")


@pytest.mark.asyncio
async def test_a_closed_client_is_engine_unavailable(service: tuple[Service, str]) -> None:
    client = EngineClient(service[1])
    await client.aclose()
    with pytest.raises(EngineUnavailable, match="has been closed"):
        await client.health()


@pytest.mark.asyncio
@pytest.mark.parametrize("token", ["secret", "gehäim"])
async def test_the_token_is_sent_as_bearer(service: tuple[Service, str], token: str) -> None:
    async with aclosing(EngineClient(service[1], token=token)) as client:
        assert (await client.health()).state == "ready"


@pytest.mark.asyncio
async def test_an_answer_of_another_kind_is_engine_failed(service: tuple[Service, str]) -> None:
    async with aclosing(EngineClient(service[1])) as client:
        with pytest.raises(EngineFailed, match="not a ModelInfo"):
            await client.model()


@pytest.mark.asyncio
async def test_score_returns_the_sums_of_the_engine(service: tuple[Service, str]) -> None:
    async with aclosing(EngineClient(service[1])) as client:
        assert (await client.score(ScoreRequest(prefix="a", text="bcd"))).text_tokens == 3


@pytest.mark.asyncio
async def test_a_lone_surrogate_reaches_the_engine_as_the_replacement_character(service: tuple[Service, str]) -> None:
    await collect(service[1], "a\ud800b")
    assert service[0].seen[0].prefix == "a\ufffdb"


def test_encoding_keeps_every_field_when_it_replaces_a_surrogate() -> None:
    def request(sign: str) -> InfillRequest:
        copy = Copy(text=f"a{sign}", matched=3)
        return InfillRequest(prefix=sign, suffix="s", max_new_tokens=9, drafts=True, copied=copy)

    assert msgspec.json.decode(encode(request("\udc00")), type=InfillRequest) == request("\ufffd")


@pytest.mark.parametrize(
    "text",
    [
        "http://example.com:80",
        "https://127.0.0.1",
        "unix:relative",
        "",
        "ftp://x",
        "http://",
        "http://[::1]:x",
        "http://127.0.0.1:99999",
        "http://127.0.0.1",
    ],
)
def test_an_address_beyond_this_machine_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="unix:/PATH or http"):
        Address.parse(text)


@pytest.mark.parametrize("text", ["http://127.0.0.1:8000", "http://localhost:1/", "http://[::1]:9"])
def test_a_loopback_address_is_accepted(text: str) -> None:
    assert Address.parse(text) == Address(text.rstrip("/"), None)
