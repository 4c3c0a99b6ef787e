"""The inner half of the sandbox: a script of the standard library alone, run as a process of its own.

It takes its limits from the command line and the program from standard input, shuts itself in, runs the program and
writes the word that it was given. Whatever else happens, the word is not written.
"""

import ctypes
import os
import resource
import sys

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
FORBIDDEN = ("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.kill", "ctypes.")


def shut_in(cpu_s: int, memory: int, file_size: int) -> None:
    """Give away the network, most of the memory and the time. What the kernel refuses the audit hook still forbids."""
    if sys.platform == "linux":
        # A network namespace of its own has no interface but a loopback that is down. Needs a user namespace unless
        # root, and some kernels allow none; then the hook below is all there is.
        ctypes.CDLL(None).unshare(CLONE_NEWNET if os.geteuid() == 0 else CLONE_NEWUSER | CLONE_NEWNET)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    sys.addaudithook(refuse)


def refuse(event: str, _: object) -> None:
    """An audit hook (PEP 578), which cannot be taken away again."""
    if event.startswith(FORBIDDEN):
        raise PermissionError(f"{event} is not for programs in the sandbox")


def main() -> None:
    """`sandboxed.py WORD CPU_SECONDS MEMORY_BYTES FILE_BYTES`, the program on standard input."""
    word, *limits = sys.argv[1:]
    out = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    program = compile(sys.stdin.buffer.read(), "<program>", "exec", dont_inherit=True)
    shut_in(*map(int, limits))
    sys.argv[:] = ["program"]
    exec(program, {"__name__": "__main__"})  # noqa: S102  (its purpose)
    os.write(out, word.encode())


main()
