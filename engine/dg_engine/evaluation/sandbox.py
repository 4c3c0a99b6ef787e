"""Runs what a model wrote: in a process of its own, without network, with little time, memory and disk.

It keeps accidents in: endless loops, programs that eat the memory, files removed or written elsewhere; and takes away
the network. It is no prison for code that somebody wrote to break out.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Literal

Verdict = Literal["passed", "failed", "timeout"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one program may use."""

    wall_s: float = 5.0
    cpu_s: int = 3
    """The usual three seconds of HumanEval (arXiv 2107.03374)."""
    memory_bytes: int = 1 << 30
    file_bytes: int = 1 << 20


def run(program: str, limits: Limits = Limits()) -> Verdict:
    """Whether a Python program runs to its end without an error.

    One that leaves early, by `sys.exit` or `os._exit`, has failed whatever its exit status says.
    """
    word = secrets.token_hex(16)
    inner = str(Path(__file__).with_name("sandboxed.py"))
    bounds = map(str, (ceil(limits.wall_s) + 1, limits.cpu_s, limits.memory_bytes, limits.file_bytes))
    # Not isolated by -I, which would ignore the hash seed: there is nothing else in the environment to ignore.
    command = [sys.executable, "-s", "-P", "-S", "-B", inner, word, *bounds]
    # The word comes back in a file, as long as any other may be: a pipe would be read to its end.
    with tempfile.TemporaryDirectory(prefix="dg-sandbox-") as directory, tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env={"PYTHONHASHSEED": "0"},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.communicate(program.encode("utf-8", "replace"), timeout=limits.wall_s)
        except subprocess.TimeoutExpired:
            return "timeout"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        output.seek(0)
        return "passed" if output.read(len(word) + 1) == word.encode() else "failed"
