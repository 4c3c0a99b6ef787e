"""The tensors of a checkpoint's safetensors files: names, types and shapes from the headers, the data one by one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dg_engine.errors import CheckpointError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

_BITS = {"F4": 4, "U8": 8, "I8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8}
_BITS |= {"BF16": 16, "F16": 16, "I16": 16, "U16": 16, "F32": 32, "I32": 32, "U32": 32, "F64": 64, "I64": 64, "U64": 64}


TORCH_TYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "U8": torch.uint8,
    "I32": torch.int32,
}
"""Of what weights and scales are stored in."""


class Stored(NamedTuple):
    """A tensor in a file."""

    path: Path
    name: str
    dtype: str
    """As safetensors calls it: BF16, F8_E4M3, U8, ..."""
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Of its data."""
        return math.prod(self.shape) * _BITS.get(self.dtype, 8) // 8

    def refused(self, why: str) -> CheckpointError:
        """The error that names this tensor."""
        return CheckpointError(f"{self.path}: {self.name}: {why}")


def read_headers(directory: Path) -> dict[str, Stored]:
    """Every tensor of a checkpoint by its name, in the order of files and names.

    Args:
        directory: holds `model.safetensors`, or shards with `model.safetensors.index.json`.

    Raises:
        CheckpointError: a file is missing, truncated or no safetensors file, or lacks what the index promises.
    """
    found: dict[str, Stored] = {}
    for path, promised in _files(directory):
        try:
            with safe_open(path, "numpy") as file:
                stored = set(file.keys())
                for name in sorted(stored if promised is None else promised):
                    if name not in stored:
                        raise CheckpointError(f"{path}: {name}: the index promises it here, found none")
                    header = file.get_slice(name)
                    found[name] = Stored(path, name, header.get_dtype(), tuple(header.get_shape()))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: is not a readable safetensors file ({error})") from error
    return found


def _files(directory: Path) -> Iterable[tuple[Path, set[str] | None]]:
    """The safetensors files, each with the tensors to take from it (None: all)."""
    index = directory / INDEX
    if not index.exists():
        single = directory / SINGLE
        if not single.exists():
            raise CheckpointError(f"{directory}: expected {SINGLE} or {INDEX}, found neither")
        return [(single, None)]
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards: dict[str, set[str]] = {}
        for name, shard in weight_map.items():
            if not isinstance(shard, str):
                raise TypeError(f"{name}: {shard!r} is no file name")
            shards.setdefault(shard, set()).add(name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: expected a JSON object with a weight_map ({error!r})") from error
    for shard in shards:
        if Path(shard).name != shard:
            raise CheckpointError(f"{index}: shard {shard!r} is not a plain file name")
        if not (directory / shard).exists():
            raise CheckpointError(f"{directory / shard}: the index names this shard, found no such file")
    return [(directory / shard, names) for shard, names in sorted(shards.items())]


@contextmanager
def reading(device: str) -> Iterator[Callable[[Stored], Tensor]]:
    """What reads tensors to a device, one at a time; the files stay open, mapped and unread, until it ends."""
    with ExitStack() as stack:
        opened = cache(lambda path: stack.enter_context(safe_open(path, "pt")))

        def fetch(stored: Stored) -> Tensor:
            try:
                tensor: Tensor = opened(stored.path).get_tensor(stored.name)
            except (SafetensorError, OSError) as error:
                raise stored.refused(f"cannot be read ({error})") from error
            return tensor.to(device)

        yield fetch
