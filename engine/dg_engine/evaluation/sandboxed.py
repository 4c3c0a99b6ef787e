"""The inner half of the sandbox: a script of the standard library alone, run as a process of its own.

It takes its limits from the command line and the program from standard input, shuts itself in, runs the program and
writes the word that it was given. Whatever else happens, the word is not written.

Each wall stands twice where it can: the kernel's (namespaces, Landlock, resource limits), which some kernels lack or
refuse, and an audit hook (PEP 578), which every Python has and no program can take away.
"""

import _posixsubprocess
import _signal  # type: ignore[import-not-found]  # typeshed leaves it out
import ctypes
import os
import posix
import resource
import struct
import sys
from collections.abc import Callable
from typing import Any

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
PR_SET_NO_NEW_PRIVS = 38
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
EXECUTE, WRITE_FILE, TRUNCATE = 1 << 0, 1 << 1, 1 << 14
CHANGE = 0b1111111110000 | WRITE_FILE
"""Landlock's rights to write, remove and make, of its first version."""

SPECIAL = 0b111001000000
"""Of these, the rights to make devices, sockets and pipes."""
SCOPED = 0b11
"""No signal and no abstract socket reaches another process (Landlock's sixth version)."""

FORBIDDEN = (
    "ctypes.",
    "os.exec",
    "os.fork",
    "os.kill",
    "os.posix_spawn",
    "os.system",
    "resource.prlimit",
    "socket.",
    "subprocess.",
)
UNHEARD = (
    "fork_exec",
    "mkfifo",
    "mknod",
    "pidfd_send_signal",
    "sched_setaffinity",
    "sched_setparam",
    "sched_setscheduler",
    "setpriority",
)
"""Functions to another process, and to more files, that tell no audit hook."""
CHANGING = {
    "os.chdir": (1, 0),
    "os.chflags": (1, 0),
    "os.chmod": (1, 1),
    "os.chown": (1, 1),
    "os.link": (2, 2),
    "os.mkdir": (1, 1),
    "os.remove": (1, 1),
    "os.removexattr": (1, 0),
    "os.rename": (2, 2),
    "os.rmdir": (1, 1),
    "os.setxattr": (1, 0),
    "os.symlink": (2, 1),
    "os.truncate": (1, 0),
    "os.utime": (1, 1),
    "shutil.rmtree": (1, 0),
}
"""Events, how many of their first arguments are paths (or descriptors), and how many of the last are descriptors of the
folders that those begin in, -1 for the current one."""
MAKING = ("os.link", "os.mkdir", "os.symlink")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
MOST_FILES = 64
"""That a program may make or open for writing: the limit on a file's size alone bounds no disk."""


def shut_in(wall_s: int, cpu_s: int, memory: int, file_size: int) -> None:
    """Give away the network, other processes, other directories, most of the memory and the time."""
    # Whoever waits for an idle program may be killed before.
    _signal.alarm(wall_s)
    here = os.path.realpath(".")
    if sys.platform == "linux":
        # A network namespace of its own has no interface but a loopback that is down. Needs a user namespace unless
        # root, and some kernels allow none.
        ctypes.CDLL(None).unshare(CLONE_NEWNET if os.geteuid() == 0 else CLONE_NEWUSER | CLONE_NEWNET)
        confine(here)
    bound(resource.RLIMIT_CPU, cpu_s)
    bound(resource.RLIMIT_AS, memory)
    bound(resource.RLIMIT_FSIZE, file_size)
    bound(resource.RLIMIT_CORE, 0)
    bound(resource.RLIMIT_NPROC, 0)
    for module in (_posixsubprocess, _signal, os, posix):
        for name in UNHEARD:
            if hasattr(module, name):
                setattr(module, name, refused)
    sys.addaudithook(guard(here))


def bound(kind: int, value: int) -> None:
    """Set a limit for good, unless a lower one is set: only root may raise that."""
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def confine(directory: str) -> None:
    """Let the kernel allow changes in one directory alone, and no execution anywhere, where it has Landlock (5.13)."""
    version = landlock_version()
    if version < 1:
        return
    libc = ctypes.CDLL(None)
    change = CHANGE | (TRUNCATE if version >= 3 else 0)
    handled = change | EXECUTE
    rights = struct.pack("=QQQ", handled, 0, SCOPED) if version >= 6 else struct.pack("=Q", handled)
    rules = libc.syscall(LANDLOCK_CREATE_RULESET, rights, ctypes.c_size_t(len(rights)), 0)
    for path, allowed in ((directory, change & ~SPECIAL), (os.devnull, WRITE_FILE)):
        beneath = struct.pack("=Qi", allowed, os.open(path, os.O_PATH))
        libc.syscall(LANDLOCK_ADD_RULE, rules, 1, beneath, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.syscall(LANDLOCK_RESTRICT_SELF, rules, 0)


def landlock_version() -> int:
    """What the kernel has of Landlock; below one is nothing."""
    return int(ctypes.CDLL(None).syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), 1))


def refused(*_: object, **__: object) -> None:
    """Stands for what no audit hook hears of."""
    raise PermissionError("this is not for programs in the sandbox")


def guard(directory: str) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook that lets a program write a few files in one directory, and keeps all else as it is."""
    made = 0

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal made
        if event.startswith(FORBIDDEN):
            raise PermissionError(f"{event} is not for programs in the sandbox")
        writes = event == "open" and arguments[2] & WRITING
        if writes or event in CHANGING:
            made += bool(writes or event in MAKING)
            ours = (f"{path}/".startswith(f"{directory}/") for path in changed(event, arguments))
            if made > MOST_FILES or not all(ours):
                raise PermissionError(f"{event} beyond its directory is not for programs in the sandbox")

    return refuse


def changed(event: str, arguments: tuple[Any, ...]) -> list[str]:
    """The real paths that an event writes or changes; of one that is open already, and so was allowed, none."""
    if event == "open":
        return [] if isinstance(arguments[0], int) else [real_path(arguments[0])]
    paths, folders = CHANGING[event]
    begins = arguments[-folders:] if folders else (-1,)
    return [real_path(path, begins[min(i, len(begins) - 1)]) for i, path in enumerate(arguments[:paths])]


def real_path(path: str | bytes | int, folder: int = -1) -> str:
    """Where a path leads from a folder that is open, or from here; a descriptor leads to what it is open on."""
    if isinstance(path, int):
        return os.path.realpath(f"/proc/self/fd/{path}")
    name = os.fsdecode(path)
    return os.path.realpath(name if folder < 0 or name.startswith("/") else f"/proc/self/fd/{folder}/{name}")


def main() -> None:
    """`sandboxed.py WORD SECONDS CPU_SECONDS MEMORY_BYTES FILE_BYTES`, the program on standard input."""
    word, *limits = sys.argv[1:]
    out = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    program = compile(sys.stdin.buffer.read(), "<program>", "exec", dont_inherit=True)
    shut_in(*map(int, limits))
    sys.argv[:] = ["program"]
    # A module like any other, in which what is pickled finds its own classes.
    sys.modules["__main__"] = module = type(sys)("__main__")
    exec(program, module.__dict__)  # noqa: S102  (its purpose)
    os.write(out, word.encode())


if __name__ == "__main__":
    main()
