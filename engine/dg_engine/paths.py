"""Where one user's engines meet their clients: socket, lock and log, one of each per model, adapter and release.

    <runtime directory>/dg-lsp/engine-<key>.sock         the service, readable by the user alone
    <runtime directory>/dg-lsp/engine-<key>.sock.lock    held by the one engine that serves it
    <log directory>/dg-lsp/engine-<key>.log              what that engine wrote

The key is a digest of the names or paths of model and adapter, so every editor window that asks for the same two finds
the same engine. Release and wire types are in it too: an engine that was running when the package was replaced is left
to the windows that began with it, and ends when they are gone.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import os
import stat
import sys
from pathlib import Path

import platformdirs

from dg_engine import __version__
from dg_engine.errors import EngineUnavailable

APPLICATION = "dg-lsp"
MOST_PORT = 65_535
SOCKET_PATH_LIMIT = 103
"""Bytes that fit into `sockaddr_un.sun_path` with its final NUL: 104 on macOS and the BSDs, 108 on Linux."""


def runtime_directory() -> Path:
    """The directory of sockets and locks, created with mode 0700.

    Without a usable `XDG_RUNTIME_DIR` (a login over ssh, a container) the user's cache directory takes its place, not
    `/tmp`: there another user could have made the directory first.

    Raises:
        EngineUnavailable: the directory cannot be created, or belongs to somebody else, or others may enter it.
    """
    directory = _runtime_base()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
    except OSError as error:
        raise EngineUnavailable(f"Cannot create {directory} for the engine's socket: {error.strerror}.") from error
    if status.st_uid != os.getuid():
        raise EngineUnavailable(f"{directory} belongs to another user; set XDG_RUNTIME_DIR to a directory of yours.")
    if stat.S_IMODE(status.st_mode) & 0o077:
        directory.chmod(stat.S_IRWXU)
    return directory


def socket_path(model: str, adapter: str = "") -> Path:
    """The Unix socket on which the engine of model and adapter listens; empty names mean the shipped model, and none.

    Raises:
        EngineUnavailable: the directory is unusable, or the path is longer than a socket address can hold.
    """
    path = runtime_directory() / f"engine-{engine_key(model, adapter)}.sock"
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_LIMIT:
        raise EngineUnavailable(
            f"The socket path {path} has {length} bytes, more than the {SOCKET_PATH_LIMIT} a Unix socket allows; "
            "set XDG_RUNTIME_DIR to a shorter directory."
        )
    return path


def lock_path(socket: Path) -> Path:
    """The file that the engine serving `socket` keeps locked for as long as it runs."""
    return socket.with_name(socket.name + ".lock")


def log_path(model: str, adapter: str = "") -> Path:
    """The engine's log file, whose directory need not be there yet."""
    return platformdirs.user_log_path(APPLICATION) / f"engine-{engine_key(model, adapter)}.log"


def shipped_model() -> Path:
    """The directory of the checkpoint that comes with the package."""
    return Path(__file__).parent / "checkpoints" / "small"


def adapter_directory(repository: Path, *, full: bool = False) -> Path:
    """Where the adapter (or whole model) that learnt a repository lies: with the user's data, not the user's files."""
    where = repository.resolve()
    key = hashlib.sha256(os.fsencode(where)).hexdigest()[:8]
    return platformdirs.user_data_path(APPLICATION) / ("models" if full else "adapters") / f"{where.name}-{key}"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine's own: its tokens and its users' text travel to no other."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_and_port(text: str) -> tuple[str, int] | None:
    """`HOST:PORT`, an IPv6 host without its brackets; None where it is something else."""
    host, colon, port = text.rpartition(":")
    return (host.strip("[]"), int(port)) if colon and port.isdecimal() and int(port) <= MOST_PORT else None


def full_name(name: str) -> str:
    """The name of a model or adapter; for a path on disk the same wherever it is said: the engine runs elsewhere."""
    return str(Path(name).resolve()) if name and Path(name).exists() else name


def engine_key(model: str, adapter: str = "") -> str:
    """Twelve hex digits that stand for model and adapter; a path on disk counts as the same however it is written.

    They change with the release and with what goes over the wire.
    """
    names = [__version__, _wire(), full_name(model), *([full_name(adapter)] if adapter else [])]
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()[:12]


@functools.cache
def _wire() -> str:
    """A digest of what engine and clients say to each other: of its source, since a release may have many states."""
    return hashlib.sha256(Path(__file__).with_name("api.py").read_bytes()).hexdigest()


def _runtime_base() -> Path:
    if sys.platform != "linux":
        return platformdirs.user_runtime_path(APPLICATION)
    given = os.environ.get("XDG_RUNTIME_DIR")
    if given and _is_private(Path(given)):
        return Path(given) / APPLICATION
    return platformdirs.user_cache_path(APPLICATION) / "run"


def _is_private(directory: Path) -> bool:
    # The XDG base directory specification wants it owned by the user with mode 0700, and ignored otherwise.
    try:
        status = directory.stat()
    except OSError:
        return False
    return status.st_uid == os.getuid() and stat.S_IMODE(status.st_mode) == stat.S_IRWXU
