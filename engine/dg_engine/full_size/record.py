"""A report that grows stage by stage: what is found is on the disk before the next stage begins.

A run may be ended at any moment. Its report is named by shape, format, device and a digest of the sources, so the same
command goes on with it where nothing of that has changed, and leaves it alone where something has.
"""

from __future__ import annotations

import gc
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import torch

import dg_kernels
from dg_engine.bench import machine
from dg_engine.errors import EngineError
from dg_engine.full_size.report import markdown
from dg_engine.full_size.results import Failed, Report, Result
from dg_kernels.configurations import FILE as TILES
from dg_kernels.configurations import replace_file

Stages = Mapping[str, Callable[[], Result]]
"""By name, what measures."""
CUT_OFF = "the run was ended meanwhile"


class Record:
    """A report and where it lies.

    Args:
        shape: one of `shapes.SHAPES`.
        format_: one of `weights.BITS`.
        device: that is measured.
        directory: has the report; None keeps it in memory.
        fresh: whether one that is there is begun anew.
    """

    def __init__(self, shape: str, format_: str, device: torch.device, directory: Path | None, *, fresh: bool) -> None:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
        # Of a GPU's host nothing is asked: the next call may find the same GPU in another.
        digest = sources(name if device.type == "cuda" else machine())
        self.report = Report(
            device=name, machine=machine(), sources=digest, commit=_commit(), shape=shape, format=format_
        )
        self._device, self._stem = device, None
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
            self._stem = directory / f"{shape}-{format_}-{re.sub('[^a-z0-9]+', '-', name.lower())}-{digest}"
            before = self.path(".json")
            if before.exists() and not fresh:
                self.report = msgspec.json.decode(before.read_bytes(), type=Report)

    def path(self, suffix: str) -> Path:
        """Of a file of this report, if it has a place."""
        assert self._stem is not None  # noqa: S101  (asked where there is one)
        return self._stem.with_name(self._stem.name + suffix)

    @property
    def kept(self) -> bool:
        """Whether it has a place."""
        return self._stem is not None

    def run(self, stages: Stages, say: Callable[[str], None]) -> None:
        """Run the stages that have found nothing yet: first those never tried, then those that failed.

        Raises:
            EngineError: the device stopped answering; what was found until then is kept.
        """
        for number, name in (pending := list(enumerate(self._pending(stages), 1))):
            say(f"[{number}/{len(pending)}] {name}")
            self._keep(name, Failed(error=CUT_OFF))
            self._keep(name, _found(stages[name]))
            if error := self.report.failures.get(name):
                say(f"    failed: {error}")
            self._clear(name)

    def _pending(self, stages: Stages) -> Iterator[str]:
        failed = self.report.failures
        yield from (name for name in stages if name not in self.report.found)
        yield from (name for name in stages if name in failed)

    def _keep(self, name: str, result: Result) -> None:
        self.report.found.pop(name, None)
        self.report.found[name] = result
        if self.kept:
            replace_file(self.path(".json"), msgspec.json.format(msgspec.json.encode(self.report)) + b"\n")
            replace_file(self.path(".md"), "\n".join(markdown(self.report)).encode() + b"\n")

    def _clear(self, name: str) -> None:
        gc.collect()
        if self._device.type != "cuda":
            return
        try:
            torch.cuda.synchronize(self._device)
            torch.cuda.empty_cache()
        except RuntimeError as error:
            raise EngineError(
                f"the device no longer answers after {name}; the same command goes on: {error}"
            ) from error


def _found(measure: Callable[[], Result]) -> Result:
    try:
        return measure()
    except Exception as error:  # whatever a compiler, a device or another library may raise
        return Failed(error=f"{type(error).__name__}: {error}".strip()[:2000])


def sources(device: str) -> str:
    """A digest of the engine's and the kernels' sources, of the tiles, of the device and of other people's packages."""
    digest = sha256("\n".join((device, *map(_version, ("torch", "triton", "transformers")))).encode())
    packages = Path(__file__).parents[1], Path(dg_kernels.__file__).parent
    for path in (*(path for package in packages for path in sorted(package.rglob("*.py"))), TILES):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def _version(package: str) -> str:
    with suppress(PackageNotFoundError):
        return version(package)
    return ""


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    with suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return ""
