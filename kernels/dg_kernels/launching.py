"""How a kernel is started: what it is given and how it is tiled.

An operation plans its launches before it runs them, so that the same plan is run on a device, timed, or compiled for a
device that is not there. This module does not import triton; only the modules called `kernel` do.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dg_kernels.configurations import Tile

Argument = Tensor | int | float
"""What a kernel takes."""


@dataclass(frozen=True)
class Launch:
    """One kernel over one grid, with everything that it is given."""

    kernel: Any
    """A function under `triton.jit`."""
    grid: tuple[int, ...]
    arguments: Mapping[str, Argument]
    constants: Mapping[str, int | float | str]
    """What is compiled into the kernel."""
    warps: int
    stages: int

    def __call__(self) -> None:
        """Start it on the current stream; an empty grid is nothing to do."""
        if all(self.grid):
            self.kernel[self.grid](**self.arguments, **self.constants, num_warps=self.warps, num_stages=self.stages)


def launch(
    kernel: Any, grid: tuple[int, ...], arguments: Mapping[str, Argument], tile: Tile, **constants: int | str
) -> Launch:
    """A launch with the warps and the stages of its tile."""
    return Launch(kernel, grid, arguments, constants, tile.warps, tile.stages)


def run(launches: Sequence[Launch]) -> None:
    """Start launches one after the other, on one stream."""
    for one in launches:
        one()


def served(*tensors: Tensor, dtype: torch.dtype = torch.bfloat16) -> bool:
    """Whether kernels can take these: in a type on a CUDA device, with triton installed and no gradient wanted."""
    return (
        all(tensor.is_cuda and tensor.dtype is dtype for tensor in tensors)
        and not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))
        and _installed()
        and _wanted.get()  # last: torch's compiler cannot trace it, and elsewhere need not
    )


@contextlib.contextmanager
def pytorch_only() -> Iterator[None]:
    """Every operation is PyTorch's inside, to compare with."""
    token = _wanted.set(False)
    try:
        yield
    finally:
        _wanted.reset(token)


_wanted = ContextVar("wanted", default=True)


@functools.cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


class Device(NamedTuple):
    """What plans ask of a device."""

    name: str
    """By which `configurations.json` knows it."""
    processors: int


@contextlib.contextmanager
def planned_for(device: Device) -> Iterator[None]:
    """Inside, tensors without memory are planned for as those of that device."""
    token = _planned.set(device)
    try:
        yield
    finally:
        _planned.reset(token)


_NOWHERE = Device("", 1)
_planned = ContextVar("planned", default=_NOWHERE)


def device_name(tensor: Tensor) -> str:
    """The name by which `configurations.json` knows the device of a tensor; empty for a CPU."""
    if tensor.is_meta:
        return _planned.get().name
    return torch.cuda.get_device_name(tensor.device) if tensor.is_cuda else ""


def processors(tensor: Tensor) -> int:
    """Of the device of a tensor; a single one for a CPU."""
    if tensor.is_meta:
        return _planned.get().processors
    return torch.cuda.get_device_properties(tensor.device).multi_processor_count if tensor.is_cuda else 1


def blocks(length: int, size: int) -> int:
    """How many runs of `size` cover `length`."""
    return -(-length // size)


def padded(length: int, least: int = 1) -> int:
    """The smallest power of two that is at least both: how many places a program holds for `length` of something."""
    return max(least, 1 << (length - 1).bit_length())
