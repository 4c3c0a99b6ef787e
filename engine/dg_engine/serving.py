"""Running the service: one instance per socket, readable by its user alone, gone when nobody needs it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import uvicorn
from filelock import FileLock, Timeout

from dg_engine.errors import EngineUnavailable
from dg_engine.paths import is_loopback, lock_path
from dg_engine.service import Service, create_app

_log = logging.getLogger(__name__)

FAILED_LINGER_S = 5.0
"""An engine without a model stays so long for its clients to read why; the next start then tries anew."""

ALREADY_SERVED = "another engine serves this socket already"


def serve_socket(service: Service, path: Path, idle_timeout_s: float) -> bool:
    """Serve on a Unix socket until idle for so long; False at once when another engine holds its lock.

    The lock, not the socket file, says who serves: a socket file outlives a crashed engine, a lock does not.

    Raises:
        EngineUnavailable: no socket can be made there.
    """
    try:
        lock = _locked(path)
    except Timeout:
        _log.info(ALREADY_SERVED)
        return False
    except (OSError, ValueError) as error:
        raise EngineUnavailable(f"cannot listen on {path}: {error}") from error
    try:
        listener = _bind(path)
        own = _identity(path)
        try:
            asyncio.run(_run(service, listener, "", idle_timeout_s, lambda: _identity(path) == own))
        finally:
            listener.close()
            if _identity(path) == own:  # or it is another engine's: who removes the socket may remove the lock, too
                path.unlink(missing_ok=True)
    finally:
        lock.release()
    return True


def _locked(path: Path) -> FileLock:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Where no file can be made filelock 3 tries until its time is up.
    lock_path(path).touch(mode=0o600)
    lock = FileLock(lock_path(path), timeout=0)
    lock.acquire()
    return lock


def serve_loopback(service: Service, host: str, port: int, token: str, idle_timeout_s: float) -> None:
    """Serve on a loopback address; every request must carry the token.

    Raises:
        EngineUnavailable: the address is not this machine's own, the token is empty, or the port is taken.
    """
    if not is_loopback(host):
        raise EngineUnavailable(f"the engine listens on this machine alone (127.0.0.1 or ::1), not on {host}")
    if not token:
        raise EngineUnavailable("a loopback engine needs a token; put one into DG_ENGINE_TOKEN")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise EngineUnavailable(f"cannot listen on {host}:{port}: {error.strerror}") from error
    with listener:
        _log.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, listener.getsockname()[1])
        asyncio.run(_run(service, listener, token, idle_timeout_s))


async def _run(
    service: Service,
    listener: socket.socket,
    token: str,
    idle_timeout_s: float,
    is_found: Callable[[], bool] = lambda: True,
) -> None:
    # uvicorn shuts down on SIGTERM and then raises it again: without a handler the process would end before its
    # socket is removed.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    config = uvicorn.Config(
        create_app(service, token), log_config=None, access_log=False, timeout_graceful_shutdown=1, ws="none"
    )
    server = uvicorn.Server(config)
    watch = asyncio.create_task(_stop_when_idle(service, server, idle_timeout_s, is_found))
    try:
        await server.serve(sockets=[listener])
    finally:
        watch.cancel()


async def _stop_when_idle(
    service: Service, server: uvicorn.Server, idle_timeout_s: float, is_found: Callable[[], bool]
) -> None:
    while not server.should_exit:
        if not is_found() and not service.worker.active:
            _log.info("exiting: the socket was removed, so nobody finds this engine any more")
            server.should_exit = True
            return
        failed = service.health().state == "failed"
        left = service.last_used + (FAILED_LINGER_S if failed else idle_timeout_s) - time.monotonic()
        if left <= 0 and not service.worker.active:
            _log.info("exiting: %s", "the model could not be loaded" if failed else f"idle for {idle_timeout_s:g} s")
            server.should_exit = True
            return
        await asyncio.sleep(min(max(left, 0.05), 1.0))


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells this socket from a later one of its name."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino  # a bound socket holds its inode, so no later one has the same


def _bind(path: Path) -> socket.socket:
    if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
        raise EngineUnavailable(f"{path} exists and is no socket; remove it or choose another --socket")
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Created with mode 0600 rather than changed to it: between the two anybody could connect.
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise EngineUnavailable(f"cannot listen on {path}: {error}") from error
    finally:
        os.umask(before)
    return listener
