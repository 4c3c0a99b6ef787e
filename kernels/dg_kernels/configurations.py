"""Tile sizes, as data: `configurations.json` names devices, and for each kernel how its work is cut on them."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path

import msgspec

__all__ = [
    "Configurations",
    "Family",
    "Tile",
    "asked_for",
    "read_configurations",
    "replace_file",
    "tile_for",
    "tried",
    "written",
]

FILE = Path(__file__).with_name("configurations.json")
_LEAST_SIDE = 16
"""The tensor cores' smallest operand."""


class Tile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the work of a kernel is cut; each kernel says what its rows, columns and depth are."""

    rows: int
    columns: int
    depth: int
    """Of one step of the sum."""
    warps: int
    stages: int
    """Of the software pipeline."""

    def __post_init__(self) -> None:
        for name in ("rows", "columns", "depth"):
            size = getattr(self, name)
            if size < _LEAST_SIDE or size & (size - 1):
                raise ValueError(f"{name} must be a power of two from {_LEAST_SIDE}, not {size}")
        if self.warps not in (1, 2, 4, 8, 16):
            raise ValueError(f"warps must be 1, 2, 4, 8 or 16, not {self.warps}")
        if not 1 <= self.stages <= 8:
            raise ValueError(f"stages must be 1 to 8, not {self.stages}")


class Family(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Devices, by the beginnings of their names, and their tiles."""

    devices: list[str]
    tiles: dict[str, Tile]


class Configurations(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The tiles of every kernel on any device, and those that differ on families of devices."""

    default: dict[str, Tile]
    families: list[Family]

    def __post_init__(self) -> None:
        for family in self.families:
            if unknown := family.tiles.keys() - self.default.keys():
                raise ValueError(f"{family.devices} have tiles for kernels without a default: {sorted(unknown)}")

    def tile(self, kernel: str, device: str) -> Tile:
        """The tile of a kernel on the device of that name: that of the first family of which a name begins it.

        Raises:
            KeyError: no such kernel.
        """
        for family in self.families:
            if kernel in family.tiles and any(device.startswith(name) for name in family.devices):
                return family.tiles[kernel]
        return self.default[kernel]


def read_configurations(content: bytes) -> Configurations:
    """Parse and check `configurations.json`.

    Raises:
        msgspec.ValidationError: naming the place of what is wrong.
    """
    return msgspec.json.decode(content, type=Configurations)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file beside its place and rename it: a run that ends meanwhile leaves the old one."""
    temporary = path.with_suffix(f".{os.getpid()}{path.suffix}")
    temporary.write_bytes(content)
    temporary.replace(path)


def written(configurations: Configurations) -> bytes:
    """The content of `configurations.json`: what `read_configurations` reads, one tile to a line."""

    def tiles(known: Mapping[str, Tile], indent: str) -> str:
        lines = (f"{_json(name)}: {_json(known[name])}" for name in known)
        return "{\n" + ",\n".join(f"{indent}  {line}" for line in lines) + f"\n{indent}}}"

    families = (
        f'    {{\n      "devices": {_json(family.devices)},\n      "tiles": {tiles(family.tiles, " " * 6)}\n    }}'
        for family in configurations.families
    )
    default, listed = tiles(configurations.default, "  "), ",\n".join(families)
    return f'{{\n  "default": {default},\n  "families": [\n{listed}\n  ]\n}}\n'.encode()


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=0).decode()


def tile_for(kernel: str, device: str) -> Tile:
    """The tile that is in the file that ships, or the one that is tried.

    Raises:
        KeyError: no such kernel.
    """
    if (names := _asked_for.get()) is not None:
        names.add(kernel)
    return _tried.get().get(kernel) or _shipped().tile(kernel, device)


@contextlib.contextmanager
def tried(tiles: Mapping[str, Tile]) -> Iterator[None]:
    """Kernels use these tiles inside, whatever the file says."""
    token = _tried.set({**_tried.get(), **tiles})
    try:
        yield
    finally:
        _tried.reset(token)


@contextlib.contextmanager
def asked_for() -> Iterator[set[str]]:
    """The names of the kernels of which the tile is asked for inside."""
    names: set[str] = set()
    token = _asked_for.set(names)
    try:
        yield names
    finally:
        _asked_for.reset(token)


_NOTHING: Mapping[str, Tile] = {}
_tried = ContextVar("tried", default=_NOTHING)
_asked_for: ContextVar[set[str] | None] = ContextVar("asked_for", default=None)


@functools.cache
def _shipped() -> Configurations:
    return read_configurations(FILE.read_bytes())
