"""The service as users run it: a process, a socket, real requests, and everything that goes wrong with them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

import httpx
import msgspec
import pytest
from starlette.types import Message

from dg_engine import serving as serving_module
from dg_engine.api import Draft, Infill, InfillRequest, ScoreRequest
from dg_engine.client import EngineClient
from dg_engine.engine import Engine
from dg_engine.errors import EngineFailed, EngineUnavailable
from dg_engine.launcher import LaunchSpec, ensure_engine
from dg_engine.paths import shipped_model
from dg_engine.service import MAX_BODY_BYTES, Service, create_app
from dg_engine.serving import serve_loopback
from dg_engine.testing import tiny_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture
def socket() -> Iterator[Path]:
    # Not pytest's directory: its path can be longer than the 103 bytes of a socket address.
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory) / "engine.sock"


def command(model: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "dg_engine", "serve", "--model", str(model), "--device", "cpu", *arguments]


@contextmanager
def serving(model: Path, socket: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command(model, "--socket", str(socket), *arguments), stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()
            assert process.stderr is not None
            process.stderr.close()


async def ready(socket: Path) -> EngineClient:
    client = EngineClient(f"unix:{socket}")
    async with asyncio.timeout(200):
        while True:
            try:
                if (await client.health()).state == "ready":
                    return client
            except EngineUnavailable:
                pass
            await asyncio.sleep(0.02)


async def answer(client: EngineClient, request: InfillRequest) -> list[Draft | Infill]:
    async with aclosing(client.infill(request)) as events:
        return [event async for event in events]


@pytest.mark.asyncio
async def test_a_real_engine_answers_over_a_socket_that_belongs_to_the_user_alone(model: Path, socket: Path) -> None:
    with serving(model, socket) as process:
        async with aclosing(await ready(socket)) as client:
            assert stat.S_IMODE(socket.stat().st_mode) == 0o600
            assert (await client.model()).name == "tiny-random"
            *drafts, last = await answer(client, InfillRequest(prefix="def f(", suffix=")\n", drafts=True))
            assert isinstance(last, Infill)
            assert [draft.step for draft in drafts if isinstance(draft, Draft)] == list(range(1, last.steps + 1))
            (only,) = await answer(client, InfillRequest(prefix="def f(", suffix=")\n"))
            assert isinstance(only, Infill)
            assert only.text == last.text
            score = await client.score(ScoreRequest(prefix="import ", text="os\n"))
            assert score.text < 0
        process.terminate()
        assert process.wait(60) == 0
        assert not socket.exists()


@pytest.mark.asyncio
async def test_leaving_the_stream_cancels_the_work_within_a_step(model: Path, socket: Path) -> None:
    endless = InfillRequest(prefix="x", max_denoising_steps=100_000, entropy_bound=0.0, drafts=True)
    with serving(model, socket):
        async with aclosing(await ready(socket)) as client:
            async with aclosing(client.infill(endless)) as events:
                first = await anext(events)
                assert isinstance(first, Draft)
                assert (await client.health()).active_requests == 1
            async with asyncio.timeout(60):
                while (await client.health()).active_requests:
                    await asyncio.sleep(0.01)


@pytest.mark.asyncio
async def test_leaving_before_the_first_byte_cancels_too(model: Path, socket: Path) -> None:
    endless = InfillRequest(prefix="x", max_denoising_steps=100_000, entropy_bound=0.0)
    with serving(model, socket):
        async with aclosing(await ready(socket)) as client:
            task = asyncio.create_task(answer(client, endless))
            async with asyncio.timeout(60):
                while not (await client.health()).active_requests:
                    await asyncio.sleep(0.01)
                task.cancel()
                while (await client.health()).active_requests:
                    await asyncio.sleep(0.01)


@pytest.mark.asyncio
async def test_a_newer_request_of_a_document_ends_the_older_while_another_document_goes_on(
    model: Path, socket: Path
) -> None:
    endless = InfillRequest(prefix="x", document="a", max_denoising_steps=100_000, entropy_bound=0.0)
    with serving(model, socket):
        async with aclosing(await ready(socket)) as client:
            older = asyncio.create_task(answer(client, endless))
            async with asyncio.timeout(60):
                while not (await client.health()).active_requests:
                    await asyncio.sleep(0.01)
            (other,) = await answer(client, InfillRequest(prefix="x", document="b"))
            assert isinstance(other, Infill)
            assert other.stop_reason != "superseded"
            assert not older.done()
            await answer(client, InfillRequest(prefix="xy", document="a"))
            (superseded,) = await older
            assert isinstance(superseded, Infill)
            assert superseded.stop_reason == "superseded"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        (b"{", 400, "truncated"),
        (b"[]", 400, "object"),
        (b'{"suffix": "x"}', 400, "prefix"),
        (b'{"prefix": 3}', 400, "prefix"),
        (b'{"prefix": "x", "max_new_token": 3}', 400, "max_new_token"),
        (b'{"prefix": "x", "max_denoising_steps": 0}', 400, "max_denoising_steps must be at least 1"),
        (b'{"prefix": "x", "others": -1}', 400, "others must be at least 0"),
        (b'{"prefix": "\xff"}', 400, "UTF-8"),
        (b'{"prefix": "' + b"x" * MAX_BODY_BYTES + b'"}', 413, "larger"),
    ],
    ids=range(9),
)
async def test_a_bad_request_is_refused_by_name(service_url: Path, body: bytes, status: int, named: str) -> None:
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(service_url))) as http:
        response = await http.post("http://engine/v1/infill", content=body)
        assert response.status_code == status
        assert named.lower() in response.json()["message"].lower()


@pytest.mark.asyncio
async def test_a_seed_and_a_match_beyond_all_bounds_are_refused_by_name(service_url: Path) -> None:
    copied = b'{"text": "a", "matched": 1' + b"0" * 310 + b"}"
    for field, value in ((b"seed", b"9" * 23), (b"seed", b"-" + b"9" * 23), (b"copied", copied)):
        body = b'{"prefix": "x", "' + field + b'": ' + value + b"}"
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(service_url))) as http:
            response = await http.post("http://engine/v1/infill", content=body)
        assert response.status_code == 400
        assert ("matched" if field == b"copied" else "seed") in response.json()["message"]


@pytest.mark.asyncio
async def test_a_score_is_let_go_when_the_client_leaves_even_while_it_waits() -> None:
    service = Service(lambda report: pytest.fail("never started"))
    body = msgspec.json.encode(ScoreRequest(prefix="x", text="y"))
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}, {"type": "http.disconnect"}]

    async def receive() -> Message:
        if len(messages) == 1:
            assert service.worker.active == 1
        return messages.pop(0)

    async def send(message: Message) -> None:
        assert message["type"] != "http.response.start" or message["status"] == 499

    scope = {"type": "http", "method": "POST", "path": "/v1/score", "headers": [], "query_string": b""}
    async with asyncio.timeout(60):
        await create_app(service)(scope, receive, send)
    assert service.worker.active == 0


@pytest.fixture(scope="module")
def service_url(model: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        socket = Path(directory) / "engine.sock"
        with serving(model, socket):
            client = asyncio.run(_ready_and_close(socket))
            del client
            yield socket


async def _ready_and_close(socket: Path) -> None:
    await (await ready(socket)).aclose()


@pytest.mark.asyncio
async def test_two_engines_started_at_once_are_one(model: Path, socket: Path) -> None:
    with serving(model, socket) as first, serving(model, socket) as second:
        async with aclosing(await ready(socket)) as client:
            pid = (await client.health()).pid
        loser = second if pid == first.pid else first
        assert pid in (first.pid, second.pid)
        assert loser.wait(60) == 0
        async with aclosing(await ready(socket)) as client:
            assert (await client.health()).pid == pid


@pytest.mark.asyncio
async def test_two_clients_that_find_no_engine_share_the_one_they_start(
    model: Path, socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(socket.parent))
    spec = LaunchSpec(model=str(model), address=f"unix:{socket}")
    one, two = await asyncio.gather(ensure_engine(spec), ensure_engine(spec))
    pids = {(await engine.client.health()).pid for engine in (one, two)}
    assert len(pids) == 1
    await one.aclose()
    await two.aclose()
    os.kill(pids.pop(), signal.SIGTERM)


@pytest.mark.asyncio
async def test_an_idle_engine_exits_by_itself(model: Path, socket: Path) -> None:
    with serving(model, socket, "--idle-timeout", "0.3") as process:
        assert await asyncio.to_thread(process.wait, 200) == 0
        assert not socket.exists()


def test_idle_time_begins_when_the_model_is_loaded(model: Path) -> None:
    service = Service(lambda report: Engine.load(model, device="cpu", report=report))
    service.last_used = 0.0
    service.start()
    loaded = threading.Event()

    def behind_the_loading() -> Iterator[Draft]:
        loaded.set()
        yield from ()

    service.worker.submit(behind_the_loading(), "", lambda item: None)
    assert loaded.wait(60)
    service.worker.close()
    assert service.health().state == "ready"
    assert service.last_used > 0.0


@pytest.mark.asyncio
async def test_a_killed_engine_leaves_nothing_that_stops_the_next(model: Path, socket: Path) -> None:
    with serving(model, socket) as process:
        await (await ready(socket)).aclose()
        process.kill()
        process.wait(60)
    assert socket.exists()
    with serving(model, socket):
        await (await ready(socket)).aclose()


@pytest.mark.asyncio
async def test_an_engine_whose_socket_was_removed_leaves_and_leaves_the_next_one_s_alone(
    model: Path, socket: Path
) -> None:
    directory = socket.parent / "run"
    there = directory / socket.name
    with serving(model, there) as first:
        await (await ready(there)).aclose()
        shutil.rmtree(directory)
        with serving(model, there) as second:
            async with aclosing(await ready(there)) as client:
                assert await asyncio.to_thread(first.wait, 200) == 0
                assert (await client.health()).pid == second.pid


def test_a_model_that_fails_to_load_without_a_word_is_told_by_the_name_of_the_error() -> None:
    def load(report: object) -> Engine:
        raise MemoryError

    service = Service(load)
    service.start()
    told = threading.Event()
    service.worker.submit(service.infill(InfillRequest(prefix="x")), "", lambda item: told.set())
    assert told.wait(60)
    service.worker.close()
    assert "MemoryError" in service.health().message


@pytest.mark.asyncio
async def test_a_model_that_cannot_be_loaded_is_reported_not_hidden(tmp_path: Path, socket: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with serving(tmp_path, socket):
        client = EngineClient(f"unix:{socket}")
        async with aclosing(client), asyncio.timeout(200):
            while True:
                try:
                    health = await client.health()
                except EngineUnavailable:
                    health = None
                if health is not None and health.state != "loading":
                    break
                await asyncio.sleep(0.02)
            assert health.state == "failed"
            assert "tokenizer.json" in health.message
            with pytest.raises(EngineFailed, match=r"tokenizer.json"):
                await answer(client, InfillRequest(prefix="x"))


def test_an_engine_without_a_model_exits_so_that_the_next_start_tries_anew(
    tmp_path: Path, socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_module, "FAILED_LINGER_S", 0.1)
    service = Service(lambda report: Engine.load(tmp_path))
    assert serving_module.serve_socket(service, socket, idle_timeout_s=3600)
    assert service.health().state == "failed"
    assert not socket.exists()


def test_a_file_in_the_socket_s_place_is_not_removed(model: Path, socket: Path) -> None:
    socket.write_text("precious")
    done = subprocess.run(command(model, "--socket", str(socket)), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is no socket" in done.stderr
    assert socket.read_text() == "precious"


@pytest.mark.asyncio
async def test_loopback_wants_the_token(model: Path) -> None:
    environment = os.environ | {"DG_ENGINE_TOKEN": "secret"}
    with subprocess.Popen(
        command(model, "--listen", "127.0.0.1:0"), stderr=subprocess.PIPE, env=environment, text=True
    ) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "listening on" in line)
            # Nobody reads the rest: a full pipe would block the engine.
            drain = threading.Thread(target=process.stderr.read, daemon=True)
            drain.start()
            address = line.split()[-1]
            async with httpx.AsyncClient() as http:
                assert (await http.get(f"{address}/health")).status_code == 401
                wrong = await http.get(f"{address}/health", headers={"authorization": "Bearer guess"})
                assert wrong.status_code == 401
                right = await http.get(f"{address}/health", headers={"authorization": "Bearer secret"})
                assert json.loads(right.content)["state"] in ("loading", "ready")
            with pytest.raises(EngineUnavailable, match="refused the token"):
                await ensure_engine(LaunchSpec(address=address, token="guess"))
        finally:
            process.kill()
            process.wait(60)
            drain.join(10)


@pytest.mark.parametrize(
    ("host", "token", "named"),
    [("192.0.2.1", "x", "this machine alone"), ("example.org", "x", "this machine alone"), ("127.0.0.1", "", "token")],
)
def test_an_open_door_is_refused(host: str, token: str, named: str) -> None:
    with pytest.raises(EngineUnavailable, match=named):
        serve_loopback(Service(lambda report: pytest.fail("never loaded")), host, 0, token, 1.0)


def test_the_shipped_model_is_inside_the_package() -> None:
    assert shipped_model().parent.parent.name == "dg_engine"
