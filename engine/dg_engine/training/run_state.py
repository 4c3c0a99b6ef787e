"""A run on disk: one file that holds all that the next update depends on, and a line of metrics per update.

The file is safetensors, its counters JSON in the header, written beside its place and renamed: whenever a run is
killed, what is there is whole.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dg_engine.errors import CheckpointError

STATE_FILE = "state.safetensors"
METRICS_FILE = "metrics.jsonl"


def save_state(directory: Path, tensors: dict[str, Tensor], counters: dict[str, Any]) -> None:
    """Write the state of a run."""
    partial = directory / f"{STATE_FILE}.partial"
    save_file(
        {name: value.contiguous() for name, value in tensors.items()}, partial, {"counters": json.dumps(counters)}
    )
    partial.replace(directory / STATE_FILE)


def load_state(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The tensors and counters of a run, or None where none was begun.

    Raises:
        CheckpointError: the file is malformed.
    """
    path = directory / STATE_FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            counters = json.loads((file.metadata() or {})["counters"])
            return {name: file.get_tensor(name) for name in file.keys()}, counters  # noqa: SIM118  (no mapping)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: is not the state of a run ({error!r}); delete it to begin anew") from error


class Metrics:
    """The metrics of a run, one JSON object a line."""

    def __init__(self, directory: Path, updates: int) -> None:
        """Open the file; lines of updates after `updates`, which a killed run made and lost, are removed."""
        self._path = directory / METRICS_FILE
        kept = [line for line in read_metrics(directory) if line["update"] <= updates]
        partial = directory / f"{METRICS_FILE}.partial"
        partial.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        partial.replace(self._path)

    def add(self, line: dict[str, Any]) -> None:
        """Append a line."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def read_metrics(directory: Path) -> list[dict[str, Any]]:
    """All lines of a run's metrics; what is none, as a last line that was cut short, is left out."""
    path = directory / METRICS_FILE
    if not path.exists():
        return []
    lines = []
    for raw in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(raw)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("update"), int):
            lines.append(line)
    return lines
