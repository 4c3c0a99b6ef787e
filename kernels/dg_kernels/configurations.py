"""Tile sizes, as data: `configurations.json` names devices, and for each kernel how its work is cut on them."""

from __future__ import annotations

import functools
from pathlib import Path

import msgspec

__all__ = ["Configurations", "Tile", "read_configurations", "tile_for"]

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


class _Family(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    devices: list[str]
    tiles: dict[str, Tile]


class Configurations(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The tiles of every kernel on any device, and those that differ on families of devices."""

    default: dict[str, Tile]
    families: list[_Family]

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


def tile_for(kernel: str, device: str) -> Tile:
    """The tile that is in the file that ships.

    Raises:
        KeyError: no such kernel.
    """
    return _shipped().tile(kernel, device)


@functools.cache
def _shipped() -> Configurations:
    return read_configurations(FILE.read_bytes())
