"""Find the user's engine, or start it: one per model and adapter, shared by all windows, detached from its starter.

Two clients may come at the same moment. Both start a process; the engine takes the file lock beside its socket, the one
that loses exits with status 0 at once, and both clients go on asking the socket until the winner answers.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import IO

from filelock import FileLock, Timeout

from dg_engine import paths
from dg_engine.api import Health
from dg_engine.client import EngineClient
from dg_engine.errors import EngineError, EngineUnavailable

Report = Callable[[Health], None]

LOG_TAIL_LINES = 12
FAREWELL_S = 5.0
"""So long an engine may take to end by itself: between two denoising steps it takes milliseconds."""
HEALTH_S = 1.0
"""An engine that does not tell its health in this time hangs: it is told between any two units of work."""
KILLED_S = 10.0
"""So long the system may take to clear a process away that was killed."""
UNTOLD = 0
"""In place of a process, where the system does not say which."""
ELSEWHERE = -1
"""In place of a process that has no number here, as one in another container."""
_CREDENTIALS = struct.Struct("3i")  # Linux' ucred: process, user, group
LOG_LIMIT_BYTES = 4 * 1024 * 1024
"""A log longer than this is emptied before the next start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """Which engine is wanted and how patient to be with it.

    `address` is empty for the user's own engine of `model` and `adapter`; an explicit one is only asked, never started,
    unless it is a Unix socket.
    """

    model: str = ""
    adapter: str = ""
    address: str = ""
    token: str = ""
    autostart: bool = True
    idle_timeout_s: float = 900.0
    start_timeout_s: float = 300.0
    poll_interval_s: float = 0.05
    command: Sequence[str] = field(default=(sys.executable, "-P", "-m", "dg_engine", "serve"))
    """`-P` keeps the working directory, which is the user's project, off the engine's import path."""


class Engine:
    """An engine that answered `ready`, and the process that was started for it, if this client started one."""

    def __init__(self, client: EngineClient, process: subprocess.Popen[bytes] | None, health: Health) -> None:
        self.client = client
        self.version = health.version
        """The release that it says it is."""
        self._process = process
        self._pid = health.pid

    async def end(self) -> None:
        """End its process, whoever started it, and though it may hang; not one that only passes on what it is told."""
        path = self.client.address.socket
        pid = await self._served_by()
        if pid <= 0:  # to the system that is a group of processes, or all of them
            return
        for sign, patience_s in ((signal.SIGTERM, FAREWELL_S), (signal.SIGKILL, KILLED_S)):
            if path is None or listener(path) not in {UNTOLD, pid}:
                return
            with suppress(ProcessLookupError, PermissionError, TimeoutError):
                os.kill(pid, sign)
                async with asyncio.timeout(patience_s):
                    while listener(path) in {UNTOLD, pid}:
                        await asyncio.sleep(0.05)

    async def _served_by(self) -> int:
        """The process that answers now: another window may have started one since. One that hangs is as it was."""
        with suppress(EngineError, TimeoutError):
            async with asyncio.timeout(HEALTH_S):
                return (await self.client.health()).pid
        return self._pid

    async def aclose(self) -> None:
        """Let go of the engine. It runs on for the other windows until it is idle long enough."""
        await self.client.aclose()
        if self._process is not None and self._process.poll() is None:
            # It runs on; whenever it ends, somebody must have waited for it, or it stays in the system's table.
            Thread(target=self._process.wait, name="engine", daemon=True).start()


async def end_engine(spec: LaunchSpec) -> None:
    """End the engine that serves a specification's socket, though it may load or hang; nothing where none does."""
    client = _client(spec)
    path = client.address.socket
    holder = listener(path) if path is not None and _is_served(Path(path)) else None
    async with aclosing(Engine(client, None, Health(state="loading", pid=holder or UNTOLD))) as engine:
        await engine.end()


def _is_served(path: Path) -> bool:
    """Whether an engine holds the socket's lock, as none does that only passes on what it is told."""
    try:
        with FileLock(paths.lock_path(path), timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return False


def listener(path: str) -> int | None:
    """The process that listens on a Unix socket, or `UNTOLD` or `ELSEWHERE`; None where none does."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(0)
        try:
            probe.connect(path)
        except BlockingIOError:
            return UNTOLD  # too many wait for it already
        except OSError:
            return None
        if not hasattr(socket, "SO_PEERCRED"):
            return UNTOLD
        pid, *_ = _CREDENTIALS.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        return int(pid) or ELSEWHERE


def resolve_address(spec: LaunchSpec) -> str:
    """The address to ask: the explicit one, or the socket of the user's engine for model and adapter.

    Raises:
        EngineUnavailable: the socket's directory is unusable.
    """
    return spec.address or f"unix:{paths.socket_path(spec.model, spec.adapter)}"


async def ensure_engine(spec: LaunchSpec, report: Report = lambda health: None) -> Engine:
    """Return the engine once it is ready, starting it when nothing answers.

    `report` is called with each `Health` while the engine loads.

    Raises:
        EngineUnavailable: none answers and none may or can be started; the message ends with the tail of its log.
    """
    client = _client(spec)
    waiting = _Waiting(spec, client, report)
    try:
        async with asyncio.timeout(spec.start_timeout_s) as limit:
            health = await waiting.until_ready(limit)
    except TimeoutError as error:
        await waiting.terminate()
        await waiting.give_up()
        raise EngineUnavailable(
            f"The engine was not ready after {spec.start_timeout_s:g} s in which it came no further."
        ) from error
    except BaseException:
        await waiting.give_up()
        raise
    return Engine(client, waiting.process, health)


def _client(spec: LaunchSpec) -> EngineClient:
    try:
        return EngineClient(resolve_address(spec), spec.token)
    except ValueError as error:
        raise EngineUnavailable(f"{str(error)[0].upper()}{str(error)[1:]}.") from error


class _Waiting:
    """One wait for one engine; it holds the process it started until that process is known to serve."""

    def __init__(self, spec: LaunchSpec, client: EngineClient, report: Report) -> None:
        self._spec = spec
        self._client = client
        self._report = report
        self._silent_after_exit = 0
        self._trouble = ""
        """Why there was no health the last time."""
        self.process: subprocess.Popen[bytes] | None = None

    async def until_ready(self, limit: asyncio.Timeout) -> Health:
        loop, progress = asyncio.get_running_loop(), 0.0
        while True:
            health = await self._health()
            if health is not None and health.progress > progress:
                progress = health.progress
                limit.reschedule(loop.time() + self._spec.start_timeout_s)
            if health is None:
                self._start_or_check()
            elif health.state == "ready":
                return health
            elif health.state == "failed":
                raise EngineUnavailable(f"The engine could not load its model: {health.message}")
            else:
                self._report(health)
            await asyncio.sleep(self._spec.poll_interval_s)

    async def terminate(self) -> None:
        # A hung engine would keep the lock, and no later start could ever succeed.
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                await asyncio.to_thread(self.process.wait, FAREWELL_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                await asyncio.to_thread(self.process.wait)

    async def give_up(self) -> None:
        await Engine(self._client, self.process, Health(state="failed")).aclose()

    async def _health(self) -> Health | None:
        try:
            return await self._client.health()
        except EngineError as error:
            # None is there, or it broke off: a dying engine, or one that restarts. The next poll tells.
            self._trouble = str(error)
            return None

    def _start_or_check(self) -> None:
        socket = self._client.address.socket
        if not self._spec.autostart or socket is None:
            raise EngineUnavailable(f"{self._trouble} Starting one is not allowed here; run `dg-engine serve`.")
        if self.process is None:
            self.process = _spawn(self._spec, Path(socket))
        elif (status := self.process.poll()) is not None:
            self._on_exit(status)

    def _on_exit(self, status: int) -> None:
        # Status 0 without an answer: another engine holds the lock and still imports, or one was idle and has gone.
        self._silent_after_exit += 1
        if status != 0 or self._silent_after_exit * self._spec.poll_interval_s > GRACE_S:
            tail = log_tail(paths.log_path(self._spec.model, self._spec.adapter))
            raise EngineUnavailable(f"The engine stopped while it started (status {status}). Its log ends:\n{tail}")
        if self._silent_after_exit % SILENT_POLLS == 0:
            self.process = None


GRACE_S = 30.0
"""How long the winner of the lock may import torch before it listens: 2 s from a warm disk cache, far more cold."""


SILENT_POLLS = 20
"""After so many without an answer another start is tried; while the winner of the lock imports, it ends at once."""


def log_tail(path: Path) -> str:
    """The last lines of a log file; empty when there is none."""
    try:
        data = path.read_bytes()[-16 * 1024 :]
    except OSError:
        return ""
    return "\n".join(data.decode("utf-8", "replace").splitlines()[-LOG_TAIL_LINES:])


def serve_command(spec: LaunchSpec, socket: Path) -> list[str]:
    """The command line that serves model and adapter on `socket`."""
    command = [*spec.command, "--socket", str(socket), "--idle-timeout", f"{spec.idle_timeout_s:g}"]
    named = {"--model": spec.model, "--adapter": spec.adapter}
    return [*command, *(part for option, name in named.items() if name for part in (option, paths.full_name(name)))]


def _opened(log: Path) -> IO[bytes]:
    """The log, or nowhere if it cannot be written, as with a home that is read-only: that is no reason not to start."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return log.open("ab" if not log.exists() or log.stat().st_size < LOG_LIMIT_BYTES else "wb")
    except OSError:
        return Path(os.devnull).open("wb")


def _spawn(spec: LaunchSpec, socket: Path) -> subprocess.Popen[bytes]:
    try:
        with _opened(paths.log_path(spec.model, spec.adapter)) as output:
            return subprocess.Popen(
                serve_command(spec, socket),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd="/",
            )
    except OSError as error:
        raise EngineUnavailable(f"Cannot start the engine: {error}.") from error
