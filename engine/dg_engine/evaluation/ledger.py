"""What was measured, on disk: one JSON object a line, so that a run killed at any moment goes on where it was.

Each line names the run that it belongs to. Lines of other models, machines or settings may stand in the same file.
"""

from __future__ import annotations

import errno
import os
from hashlib import file_digest, sha256
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from dg_engine import __version__
from dg_engine.adapters import CONFIG_FILE, WEIGHTS_FILE
from dg_engine.bench import machine
from dg_engine.engine import Engine
from dg_engine.errors import MALFORMED, EngineError
from dg_engine.evaluation.harness import Known, Outcome

# Says nothing of how the model decodes.
_NOT_DECODING = {"name", "calibration"}

_BEGINNING = b'{"run":'

_GO_ON = "make room, and the same command goes on with what was measured"


class _Line(msgspec.Struct, frozen=True):
    run: str
    outcome: Outcome


def run_name(engine: Engine) -> str:
    """A digest of all that an outcome depends on besides case, system and seed: weights, settings, machine, version."""
    digest = sha256()
    adapter = [engine.adapter / name for name in (CONFIG_FILE, WEIGHTS_FILE)] if engine.adapter else []
    for path in [*sorted(engine.directory.glob("*.safetensors")), engine.directory / "tokenizer.json", *adapter]:
        with path.open("rb") as file:
            digest.update(file_digest(file, "sha256").digest())
    config = msgspec.to_builtins(engine.config)
    info = msgspec.structs.replace(engine.info, name="", path="", adapter="")
    decoding = {key: value for key, value in config.items() if key not in _NOT_DECODING}
    about = decoding, repr(engine.denoising), repr(engine.model.config), info, machine(), __version__
    digest.update(msgspec.json.encode(about))
    return digest.hexdigest()[:16]


class Ledger:
    """The outcomes of one run in a file. A context manager; what is added is on disk when `add` returns."""

    def __init__(self, path: Path, run: str) -> None:
        """Open the file, or make it; a last line that was cut short is removed.

        Raises:
            EngineError: the file cannot be written or is something else; the message names the line.
        """
        self._run = run
        self.known: Known = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._read(path)
            # Unbuffered: a line is one write, and an interrupt comes before it or after it.
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise EngineError(f"{path}: {error.strerror or error}; choose another ledger with --ledger") from error

    def _read(self, path: Path) -> None:
        content = path.read_bytes() if path.exists() else b""
        *lines, rest = content.split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                found = msgspec.json.decode(line, type=_Line)
            except MALFORMED as error:
                raise EngineError(f"{path}, line {number}: is no line of a ledger ({error}); move it away") from error
            if found.run == self._run:
                self.known[found.outcome.key] = found.outcome
        if not rest.startswith(_BEGINNING[: len(rest)]):
            raise EngineError(f"{path}: is no ledger; choose another with --ledger")
        if rest:
            os.truncate(path, len(content) - len(rest))

    def add(self, outcome: Outcome) -> Outcome:
        """Keep an outcome, unless it is there, and give it back.

        Raises:
            EngineError: the disk is full, or fails; what was added before is kept.
        """
        if outcome.key not in self.known:
            self._write(msgspec.json.encode(_Line(self._run, outcome)) + b"\n")
            self.known[outcome.key] = outcome
        return outcome

    def _write(self, line: bytes) -> None:
        """Append a line, whole or not at all: a disk that is nearly full takes a part of it without an error."""
        try:
            written = self._file.write(line)
            if written < len(line):
                self._file.truncate(self._file.tell() - written)
        except OSError as error:
            raise EngineError(f"{self._file.name}: {error.strerror or error}; {_GO_ON}") from error
        if written < len(line):
            raise EngineError(f"{self._file.name}: {os.strerror(errno.ENOSPC)}; {_GO_ON}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
