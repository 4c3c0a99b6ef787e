"""Keys and values of an encoded prefix, in buffers with room behind them.

What is computed next, more tokens or a canvas, puts its own keys into that room, so that attention reads prefix and own
keys as one run without a copy: on one core of a CPU the copies were a third of the time of one more token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

SPARE = 128
"""Places that a new buffer has beyond those asked for."""


class Seen(NamedTuple):
    """What a layer sees beside its own keys: [B, key heads, P, width], or with `room` P + C of which C are free."""

    keys: Tensor
    values: Tensor
    room: bool = False

    def joined(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values [B, key heads, P + C, width], the layer's own C last."""
        if not self.room:
            return torch.cat((self.keys, key), dim=2), torch.cat((self.values, value), dim=2)
        places = key.shape[2]
        self.keys[:, :, -places:] = key
        self.values[:, :, -places:] = value
        return self.keys, self.values


class Room:
    """The buffers of one or several caches that begin alike, [B, key heads, capacity, width] for each layer."""

    def __init__(self, cache: PrefixCache, capacity: int) -> None:
        self.keys = [_larger(one, capacity) for one in cache.keys]
        self.values = [_larger(one, capacity) for one in cache.values]
        self.filled = cache.length
        """Tokens of the longest cache in them; what lies behind belongs to nobody."""

    @property
    def capacity(self) -> int:
        """Places."""
        return self.keys[0].shape[2]


@dataclass(frozen=True, slots=True)
class PrefixCache:
    """Keys and values of an encoded prefix, one [B, key heads, length, head width] tensor per layer."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    room: Room | None = None

    @property
    def length(self) -> int:
        """Encoded tokens."""
        return self.keys[0].shape[2]

    def truncated(self, length: int) -> PrefixCache:
        """The cache of the first `length` tokens; a view, nothing is copied."""
        keys, values = (tuple(one[:, :, :length] for one in part) for part in (self.keys, self.values))
        return PrefixCache(keys, values, self.room)

    def repeated(self, rows: int) -> PrefixCache:
        """One row as several; a view, nothing is copied."""
        if rows == 1:
            return self
        keys, values = (tuple(one.expand(rows, -1, -1, -1) for one in part) for part in (self.keys, self.values))
        return PrefixCache(keys, values)

    def of_rows(self, rows: list[int]) -> PrefixCache:
        """Some of several rows; a copy."""
        keys, values = (tuple(one[rows] for one in part) for part in (self.keys, self.values))
        return PrefixCache(keys, values)

    def with_room(self, places: int) -> PrefixCache:
        """The same with so many free places behind it: itself, or a copy where they are not there or not its own."""
        room = self.room
        if room is not None and room.filled == self.length and self.length + places <= room.capacity and _usable(room):
            return self
        return _in(Room(self, self.length + places + SPARE), self.length)

    def seen(self, layer: int, places: int, start: int = 0) -> Seen:
        """The cache from token `start` on, with so many free places; only of a cache that has them."""
        assert self.room is not None  # noqa: S101  (`with_room` gave it)
        part = slice(start, self.length + places)
        return Seen(self.room.keys[layer][:, :, part], self.room.values[layer][:, :, part], room=True)

    def grown(self, places: int) -> PrefixCache:
        """The cache with the tokens in so many places behind it, which are then no longer free."""
        assert self.room is not None  # noqa: S101
        self.room.filled = self.length + places
        return _in(self.room, self.room.filled)


def _in(room: Room, length: int) -> PrefixCache:
    keys, values = (tuple(one[:, :, :length] for one in part) for part in (room.keys, room.values))
    return PrefixCache(keys, values, room)


def _usable(room: Room) -> bool:
    """Buffers made in inference mode cannot be written outside of it."""
    return torch.is_inference_mode_enabled() or not room.keys[0].is_inference()


def _larger(tensor: Tensor, capacity: int) -> Tensor:
    batch, heads, length, width = tensor.shape
    buffer = tensor.new_empty(batch, heads, capacity, width)
    buffer[:, :, :length] = tensor
    return buffer
