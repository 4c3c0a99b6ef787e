"""What this machine computes fastest with."""

from __future__ import annotations

import resource
import shutil
import sys
import time
from collections.abc import Callable

import torch

from dg_engine.errors import EngineError


def best_device() -> str:
    """A GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_here(name: str | None) -> str:
    """The device of this name, and the best one where none is named; it is this thread's current one from now on.

    Raises:
        EngineError: there is no such device.
    """
    if name is None:
        return best_device()
    known = known_device(name)
    if known.type == "cuda" and (known.index or 0) >= torch.cuda.device_count():
        raise EngineError(f"{name}: is not here; torch {torch.__version__} sees {torch.cuda.device_count()} GPUs")
    if known.index is not None and known.type == "cuda":
        torch.cuda.set_device(known)  # on the current one graphs are captured and kernels run, wherever tensors lie
    return name


def can_compile(device: str) -> bool:
    """Whether torch can compile for a device: for a CPU it asks for the compiler in its settings, `CXX` or `g++`."""
    # Here, since who only serves a model would wait a second for it.
    from torch._inductor import config as inductor

    return known_device(device).type != "cpu" or shutil.which(inductor.cpp.cxx[-1]) is not None


def known_device(name: str) -> torch.device:
    """A device by its name, here or elsewhere.

    Raises:
        EngineError: it is neither a CPU nor a GPU.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in {"cpu", "cuda"}:
        raise EngineError(f"{name}: expected a device such as cpu, cuda or cuda:1")
    return device


def fastest_dtype(device: str) -> torch.dtype:
    """bf16 on a GPU; on a CPU whichever of bf16 and fp32 multiplies a canvas faster, measured in some 5 ms.

    Names of instruction sets do not tell: bf16 is ten times faster than fp32 where there are AMX tiles, and slower than
    it where it is emulated.
    """
    if device != "cpu":
        return torch.bfloat16
    return min((torch.bfloat16, torch.float32), key=_matmul_seconds)


def multiplies_packed(device: str) -> bool:
    """Whether experts of eight and four bits stay so on a device; a CPU would make numbers of them in every step."""
    return device != "cpu"


def _matmul_seconds(dtype: torch.dtype) -> float:
    canvas, weight = torch.ones(64, 256, dtype=dtype), torch.ones(1024, 256, dtype=dtype)
    return quickest(lambda: torch.nn.functional.linear(canvas, weight))


def quickest(work: Callable[[], object]) -> float:
    """Seconds that something takes at the best of a few times."""
    best = float("inf")
    for _ in range(6):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def is_nearly_full(device: torch.device) -> bool:
    """Whether tensors take more than nine tenths of a GPU's memory; of a CPU's nobody knows who else wants it."""
    if device.type != "cuda":
        return False
    return torch.cuda.memory_allocated(device) > 0.9 * torch.cuda.get_device_properties(device).total_memory


def peak_bytes(device: torch.device) -> int:
    """The most memory that this process ever held: on a GPU in tensors, else altogether."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
