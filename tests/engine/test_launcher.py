"""The launcher against real processes that speak the service's health call on a Unix socket."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from dg_engine import launcher, paths
from dg_engine.api import Health
from dg_engine.errors import EngineUnavailable
from dg_engine.launcher import Engine, LaunchSpec, end_engine, ensure_engine, resolve_address, serve_command

ENGINE = """
import json, os, signal, sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer
from filelock import FileLock, Timeout

socket = sys.argv[sys.argv.index("--socket") + 1]
mode = sys.argv[1]
if mode == "stays":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if mode == "dies":
    sys.exit("the checkpoint is not there")
if mode == "leaves" and not Path(socket + ".left").exists():
    Path(socket + ".left").touch()
    sys.exit(0)
lock = FileLock(socket + ".lock")
try:
    lock.acquire(timeout=0)
except Timeout:
    sys.exit(0)
with open(socket + ".pids", "a") as pids:
    pids.write(f"{os.getpid()}\\n")
answers = iter(["loading"] * (20 if mode == "advances" else 2))
progresses = iter(number / 20 for number in range(21))

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        state = {"fails": "failed", "hangs": "loading", "stays": "loading"}.get(mode) or next(answers, "ready")
        progress = next(progresses, 1.0) if mode == "advances" else 0.5
        health = {"state": state, "message": "no such tensor", "progress": progress, "pid": os.getpid()}
        body = json.dumps(health).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "unix"

    def log_message(self, *args):
        pass

Path(socket).unlink(missing_ok=True)
UnixStreamServer(socket, Handler).serve_forever()
"""


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user of our own: runtime and state directories that nothing else uses. Engines left behind are ended."""
    directory = Path(tempfile.mkdtemp(prefix="dg"))
    (directory / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory / "run"))
    monkeypatch.setenv("XDG_STATE_HOME", str(directory / "state"))
    yield directory
    for pids in directory.rglob("*.pids"):
        for pid in pids.read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(int(pid), 0)
    shutil.rmtree(directory)


def spec(home: Path, mode: str, *, start_timeout_s: float = 60.0, autostart: bool = True) -> LaunchSpec:
    script = home / "engine.py"
    script.write_text(ENGINE)
    return LaunchSpec(
        command=(sys.executable, str(script), mode), start_timeout_s=start_timeout_s, autostart=autostart
    )  # fmt: skip


def started(home: Path) -> list[str]:
    return [pid for pids in home.rglob("*.pids") for pid in pids.read_text().split()]


@pytest.mark.asyncio
async def test_an_engine_is_started_when_nothing_answers_and_its_loading_is_reported(home: Path) -> None:
    seen: list[Health] = []
    engine = await ensure_engine(spec(home, "serves"), seen.append)
    async with aclosing(engine):
        assert (await engine.client.health()).state == "ready"
    assert [health.state for health in seen] == ["loading", "loading"]
    assert len(started(home)) == 1


@pytest.mark.asyncio
async def test_a_running_engine_is_found_and_none_is_started(home: Path) -> None:
    await (await ensure_engine(spec(home, "serves"))).aclose()
    await (await ensure_engine(spec(home, "serves", autostart=False))).aclose()
    assert len(started(home)) == 1


@pytest.mark.asyncio
async def test_two_clients_at_the_same_moment_end_up_with_one_engine(home: Path) -> None:
    engines: list[Engine] = await asyncio.gather(*(ensure_engine(spec(home, "serves")) for _ in range(2)))
    pids = {(await engine.client.health()).pid for engine in engines}
    for engine in engines:
        await engine.aclose()
    assert len(pids) == 1
    assert len(started(home)) == 1


@pytest.mark.asyncio
async def test_an_engine_that_was_idle_and_left_before_it_was_seen_is_started_again(home: Path) -> None:
    async with aclosing(await ensure_engine(replace(spec(home, "leaves"), poll_interval_s=0.01))) as engine:
        assert (await engine.client.health()).state == "ready"


@pytest.mark.asyncio
async def test_an_engine_that_dies_at_start_is_reported_with_the_tail_of_its_log(home: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"(?s)status 1.*the checkpoint is not there"):
        await ensure_engine(spec(home, "dies"))


@pytest.mark.asyncio
async def test_an_engine_that_cannot_load_its_model_is_reported_with_its_message(home: Path) -> None:
    with pytest.raises(EngineUnavailable, match="no such tensor"):
        await ensure_engine(spec(home, "fails"))


@pytest.mark.asyncio
@pytest.mark.parametrize("mode", ["hangs", "stays"])
async def test_an_engine_that_never_becomes_ready_is_given_up_and_ended(
    home: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "FAREWELL_S", 0.2)
    with pytest.raises(EngineUnavailable, match="not ready after"):
        await ensure_engine(spec(home, mode, start_timeout_s=1.0))
    for pid in started(home):
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


@pytest.mark.asyncio
async def test_an_engine_whose_loading_advances_may_take_longer_than_one_that_stands_still(home: Path) -> None:
    patient = replace(spec(home, "advances", start_timeout_s=3.0), poll_interval_s=0.2)
    async with aclosing(await ensure_engine(patient)) as engine:
        assert (await engine.client.health()).state == "ready"


@pytest.mark.asyncio
async def test_an_engine_that_was_let_go_of_leaves_no_zombie(home: Path) -> None:
    await (await ensure_engine(spec(home, "serves"))).aclose()
    (pid,) = map(int, started(home))
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        with suppress(ProcessLookupError):
            while True:
                os.kill(pid, 0)
                await asyncio.sleep(0.01)


@pytest.mark.asyncio
async def test_an_engine_that_hung_before_it_was_reached_can_be_ended(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "FAREWELL_S", 0.2)
    one = spec(home, "serves")
    await (await ensure_engine(one)).aclose()
    (pid,) = map(int, started(home))
    os.kill(pid, signal.SIGSTOP)
    await end_engine(one)
    assert launcher.listener(resolve_address(one).removeprefix("unix:")) is None
    await end_engine(one)  # and where there is none, nothing happens


@pytest.mark.asyncio
@pytest.mark.parametrize("hangs", [False, True])
async def test_an_engine_can_be_ended_even_if_it_hangs(
    home: Path, monkeypatch: pytest.MonkeyPatch, *, hangs: bool
) -> None:
    if hangs:
        monkeypatch.setattr(launcher, "FAREWELL_S", 0.2)
    async with aclosing(await ensure_engine(spec(home, "serves"))) as engine:
        (pid,) = map(int, started(home))
        assert engine.client.address.socket is not None
        assert launcher.listener(engine.client.address.socket) in {pid, launcher.UNTOLD}
        if hangs:
            os.kill(pid, signal.SIGSTOP)
        await engine.end()
        assert launcher.listener(engine.client.address.socket) is None


@pytest.mark.asyncio
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who listens")
@pytest.mark.parametrize("elsewhere", [False, True], ids=["passed on", "another container"])
async def test_a_process_that_is_not_the_one_that_listens_is_left_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch, *, elsewhere: bool
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:

        async def told() -> Health:
            return Health(state="ready", pid=other.pid)

        async with aclosing(await ensure_engine(spec(home, "serves"))) as engine:
            with monkeypatch.context() as passing_on:
                passing_on.setattr(engine.client, "health", told)
                if elsewhere:  # where a process has no number here the system says 0
                    nobody = struct.pack("3i", 0, 0, 0)
                    passing_on.setattr(socket.socket, "getsockopt", lambda *_: nobody, raising=False)
                await engine.end()
            assert (await engine.client.health()).state == "ready"
        assert other.poll() is None


@pytest.mark.asyncio
async def test_an_engine_that_another_window_started_since_can_be_ended_too(home: Path) -> None:
    async with aclosing(await ensure_engine(spec(home, "serves"))) as first:
        path = first.client.address.socket
        assert path is not None
        await first.end()
        async with aclosing(await ensure_engine(spec(home, "serves"))) as second:
            assert (await first.client.health()).pid == (await second.client.health()).pid
            await first.end()
            assert launcher.listener(path) is None


@pytest.mark.asyncio
async def test_nothing_is_started_where_that_is_not_allowed(home: Path) -> None:
    with pytest.raises(EngineUnavailable, match="dg-engine serve"):
        await ensure_engine(spec(home, "serves", autostart=False))
    assert started(home) == []


@pytest.mark.asyncio
async def test_an_engine_starts_though_its_log_cannot_be_written(home: Path) -> None:
    (home / "state").write_text("no directory")
    async with aclosing(await ensure_engine(spec(home, "serves"))) as engine:
        assert (await engine.client.health()).state == "ready"


@pytest.mark.asyncio
async def test_a_command_that_does_not_exist_is_engine_unavailable(home: Path) -> None:
    with pytest.raises(EngineUnavailable, match="Cannot start the engine"):
        await ensure_engine(LaunchSpec(command=(str(home / "absent"),)))


@pytest.mark.asyncio
async def test_a_wrong_address_is_engine_unavailable(home: Path) -> None:
    with pytest.raises(EngineUnavailable, match="must be unix:/PATH"):
        await ensure_engine(LaunchSpec(address="tcp:99"))


def test_the_command_names_socket_idle_time_and_model(home: Path) -> None:
    command = serve_command(LaunchSpec(model="m", idle_timeout_s=60, command=("e",)), Path("/s"))
    assert command == ["e", "--socket", "/s", "--idle-timeout", "60", "--model", "m"]


def test_the_command_names_the_adapter_by_its_full_path(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "mine").mkdir()
    monkeypatch.chdir(home)
    command = serve_command(LaunchSpec(adapter="mine", command=("e",)), Path("/s"))
    assert command[-2:] == ["--adapter", str((home / "mine").resolve())]
    assert "--model" not in command


def test_each_adapter_of_a_model_has_an_engine_and_a_log_of_its_own(home: Path) -> None:
    pairs = [("", ""), ("", "a"), ("m", "a"), ("m", "b"), ("m", ""), ("a", "")]
    for path in (paths.socket_path, paths.log_path):
        assert len({path(*pair) for pair in pairs}) == len(pairs)
    assert resolve_address(LaunchSpec(model="m", adapter="a")) == f"unix:{paths.socket_path('m', 'a')}"


def test_an_engine_that_runs_on_from_before_an_update_is_not_asked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = paths.socket_path("")
    monkeypatch.setattr(paths, "__version__", "99")
    other_release = paths.socket_path("")
    monkeypatch.setattr(paths, "_wire", lambda: "other types")
    assert len({before, other_release, paths.socket_path("")}) == 3


def test_the_socket_directory_is_closed_to_others_even_if_it_was_open(home: Path) -> None:
    directory = paths.runtime_directory()
    directory.chmod(0o755)
    assert stat.S_IMODE(paths.socket_path("").parent.stat().st_mode) == 0o700


@pytest.mark.skipif(sys.platform != "linux", reason="XDG_RUNTIME_DIR is Linux's")
@pytest.mark.parametrize("given", [None, "absent", "open"])
def test_without_a_private_runtime_directory_the_socket_lies_in_the_users_cache(
    home: Path, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    (home / "open").mkdir(mode=0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    if given is None:
        monkeypatch.delenv("XDG_RUNTIME_DIR")
    else:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / given))
    assert paths.socket_path("").is_relative_to(home / "cache")


def test_a_path_too_long_for_a_socket_is_refused_with_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = home / ("x" * 90)
    long.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    with pytest.raises(EngineUnavailable, match="set XDG_RUNTIME_DIR to a shorter"):
        paths.socket_path("")


def test_each_model_has_its_own_socket_and_one_directory_has_one_name(home: Path) -> None:
    model = home / "model"
    model.mkdir()
    assert paths.socket_path("a") != paths.socket_path("b")
    assert paths.socket_path(str(model)) == paths.socket_path(f"{home}/./model/")
