"""Keys and values of an encoded prefix, in buffers with room behind them.

What is computed next, more tokens or a canvas, puts its own keys into that room, so that attention reads prefix and own
keys as one run without a copy: on one core of a CPU the copies were a third of the time of one more token.

Layers that see a window forget what lies far before it: of 16,384 tokens of the released model that is six sevenths of
all keys and values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

SPARE = 128
"""Places that a new buffer has beyond those asked for."""
BEHIND = 512
"""Tokens before its window that a layer still knows in a new buffer: so many can be taken back."""

Reach = Sequence[int | None]
"""Of each layer, the last tokens of a prefix that what follows may see; None for all."""


class Seen(NamedTuple):
    """What a layer sees beside its own keys: [B, key heads, P, width], or with `room` P + C of which C are free.

    Several rows may see one prefix: then it is there once, [1, key heads, P + B C, width], with room for all behind it.
    """

    keys: Tensor
    values: Tensor
    room: bool = False

    def count(self, own: int) -> int:
        """Of all keys, with so many of the layer's own."""
        return self.keys.shape[2] + (0 if self.room else own)

    def places(self, rows: int, slots: int) -> tuple[Tensor, Tensor] | None:
        """Where the layer's own keys and values belong, [B, key heads, C, width]; None where there is no room."""
        return (_free(self.keys, rows, slots), _free(self.values, rows, slots)) if self.room else None

    def around(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values [B, key heads, P + C, width], the layer's own C last; with room they are in its places.

        Of rows that see one prefix P + B C: the own of one row lie behind those of the row before.
        """
        if not self.room:
            return torch.cat((self.keys, key), dim=2), torch.cat((self.values, value), dim=2)
        return self.keys.expand(len(key), -1, -1, -1), self.values.expand(len(value), -1, -1, -1)

    def joined(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """`around`, of keys and values that are nowhere yet."""
        for place, own in zip(self.places(len(key), key.shape[2]) or (), (key, value), strict=False):
            place.copy_(own)
        return self.around(key, value)


def _free(seen: Tensor, rows: int, slots: int) -> Tensor:
    """The free places of so many rows, [B, key heads, C, width], a view; of one prefix they are behind one another."""
    if rows == len(seen):
        return seen[:, :, seen.shape[2] - slots :]
    free = seen[0, :, seen.shape[2] - rows * slots :]
    return free.view(len(free), rows, slots, -1).transpose(0, 1)


class Room:
    """The buffers of one or several caches that begin alike, [B, key heads, places, width] for each layer.

    Args:
        cache: what is in them first.
        capacity: tokens for which there are places, those that a layer has forgotten included.
        reach: what no layer's reach has, nor BEHIND tokens before, is forgotten.
    """

    def __init__(self, cache: PrefixCache, capacity: int, reach: Reach) -> None:
        self.capacity, self.reach = capacity, reach
        self.first = [
            max(cache.first(layer), 0 if last is None else cache.length - last - BEHIND)
            for layer, last in enumerate(reach)
        ]
        """Of each layer, the token at its first place."""
        kept = [cache.length - first for first in self.first]
        places = [capacity - first for first in self.first]
        self.keys = [_larger(*each) for each in zip(cache.keys, kept, places, strict=True)]
        self.values = [_larger(*each) for each in zip(cache.values, kept, places, strict=True)]
        self.filled = cache.length
        """Tokens of the longest cache in them; what lies behind belongs to nobody."""


@dataclass(frozen=True, slots=True)
class PrefixCache:
    """Keys and values of an encoded prefix, one [B, key heads, tokens, head width] tensor per layer.

    The last layer, which sees everything, has all tokens; others have at least those that what follows may see.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    room: Room | None = None

    @property
    def length(self) -> int:
        """Encoded tokens."""
        return self.keys[-1].shape[2]

    def first(self, layer: int) -> int:
        """The first token that a layer knows."""
        return self.length - self.keys[layer].shape[2]

    def holds(self, length: int) -> bool:
        """Whether of the first `length` tokens everything is known that what follows them may see."""
        reach = [None] * len(self.keys) if self.room is None else self.room.reach
        needed = [0 if last is None else max(0, length - last) for last in reach]
        return all(self.first(layer) <= first for layer, first in enumerate(needed))

    def truncated(self, length: int) -> PrefixCache:
        """The cache of the first `length` tokens, which it holds; a view, nothing is copied."""
        assert self.holds(length)  # noqa: S101
        ends = [length - self.first(layer) for layer in range(len(self.keys))]
        keys, values = (
            tuple(one[:, :, :end] for one, end in zip(part, ends, strict=True)) for part in (self.keys, self.values)
        )
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

    def with_room(self, places: int, reach: Reach) -> PrefixCache:
        """The same with so many free places behind it: itself, or a copy where they are not there or not its own.

        A copy is of what layers of that reach may see, and some more.
        """
        room = self.room
        if room is not None and room.filled == self.length and self.length + places <= room.capacity and _usable(room):
            return self
        return _in(Room(self, self.length + places + SPARE, reach), self.length)

    def seen(self, layer: int, places: int, start: int = 0) -> Seen:
        """What a layer knows from token `start` on, with so many free places; only of a cache that has them."""
        assert self.room is not None  # noqa: S101  (`with_room` gave it)
        first = self.room.first[layer]
        part = slice(max(0, start - first), self.length + places - first)
        return Seen(self.room.keys[layer][:, :, part], self.room.values[layer][:, :, part], room=True)

    def grown(self, places: int) -> PrefixCache:
        """The cache with the tokens in so many places behind it, which are then no longer free."""
        assert self.room is not None  # noqa: S101
        self.room.filled = self.length + places
        return _in(self.room, self.room.filled)


def _in(room: Room, length: int) -> PrefixCache:
    ends = [length - first for first in room.first]
    keys, values = (
        tuple(one[:, :, :end] for one, end in zip(part, ends, strict=True)) for part in (room.keys, room.values)
    )
    return PrefixCache(keys, values, room)


def _usable(room: Room) -> bool:
    """Buffers made in inference mode cannot be written outside of it."""
    return torch.is_inference_mode_enabled() or not room.keys[0].is_inference()


def _larger(tensor: Tensor, kept: int, places: int) -> Tensor:
    """The last of its tokens in a buffer."""
    batch, heads, length, width = tensor.shape
    buffer = tensor.new_empty(batch, heads, places, width)
    buffer[:, :, :kept] = tensor[:, :, length - kept :]
    return buffer
