"""What was started to work for a process ends with it, and leaves its terminal in peace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has neither SIGKILL nor groups of processes")

WORDS = ["--shape", "tiny", "--mode", "eager", "--chunks", "1", "--accumulate", "1", "--minutes", "0.5"]
STUDY = """
import os, sys
from dg_engine.studies import running
running._status([sys.executable, "-m", running.child.__name__, *sys.argv[1:]], dict(os.environ), sys.stdout)
"""


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A process in a group of its own; whoever of the group lives holds its output open."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
        # Where the tests run in the background SIGINT may be ignored, which a process inherits.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    try:
        with process:
            yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def until(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    assert any(word in line for line in process.stdout)


@pytest.mark.parametrize("command", [["-m", "dg_engine"], ["-c", STUDY]], ids=["workers", "study"])
def test_what_a_killed_process_started_ends_too(tmp_path: Path, library_corpus: Path, command: list[str]) -> None:
    words = ["train", "--corpus", str(library_corpus), "--run", str(tmp_path / "run"), *WORDS]
    if "-m" in command:
        words += ["--workers", "2"]
    with started(*command, *words) as process:
        until(process, "tokens/s")
        process.kill()
        rest, _ = process.communicate(timeout=20)
    assert "the model is in" not in rest


@pytest.mark.parametrize(
    ("word", "status", "told"),
    [
        ("matrix products", 1, ["Aborted!"]),
        ("tokens/s", 128 + signal.SIGINT, ["stopping behind", "updates", "goes on"]),
    ],
    ids=["before its first update", "while it learns"],
)
def test_an_interrupted_training_says_so_and_no_more(
    tmp_path: Path, library_corpus: Path, word: str, status: int, told: list[str]
) -> None:
    words = ["train", "--corpus", str(library_corpus), "--run", str(tmp_path / "run"), *WORDS, "--workers", "2"]
    with started("-m", "dg_engine", *words) as process:
        until(process, word)
        os.killpg(process.pid, signal.SIGINT)
        rest, _ = process.communicate(timeout=20)
    assert process.returncode == status
    lines = [line for line in rest.splitlines() if line]
    assert len(lines) == len(told), rest
    assert all(part in line for part, line in zip(told, lines, strict=True)), rest
