"""The ways in which a matrix is stored, recognised by the types of its tensors, checked by their shapes, and undone.

    plain                 `weight` BF16, F16 or F32
    fp8                   `weight` F8_E4M3, `weight_scale`: one for the matrix or one for each row
    nvfp4 (ModelOpt)      `weight` U8, `weight_scale` F8_E4M3 for 16 columns, `weight_scale_2` F32, which multiplies
    nvfp4 (compressed-tensors)  `weight_packed` U8, `weight_scale`, `weight_global_scale` F32, which divides
    int4                  `weight_packed` I32, `weight_scale` for a group of columns, `weight_shape`

The arithmetic is fp32 in the order of the formats' own packages, so the result is theirs bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dg_engine.errors import CheckpointError
from dg_engine.formats.headers import Stored
from dg_engine.formats.places import Role
from dg_kernels import dequantise_e2m1, dequantise_e4m3, dequantise_int4

FLOATS = ("BF16", "F16", "F32", "F64")

Fetch = Callable[[Stored], Tensor]
"""Reads a tensor's data to where it is to be turned into numbers."""

_NVFP4_GROUP = 16
_UNPACK = {"fp8": dequantise_e4m3, "nvfp4": dequantise_e2m1, "int4": dequantise_int4}
_UNSUPPORTED: dict[Role, str] = {
    "zero_point": "zero points are not supported; quantise symmetrically",
    "g_idx": "columns in another order (activation ordering) are not supported; quantise without it",
    "scale_inv": "scales of two-dimensional blocks are not supported; one a tensor or one a row is",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """A matrix [..., N, K] as it is stored, or any other tensor as it is."""

    format: str
    """plain, fp8, nvfp4 or int4."""
    note: str
    """What else distinguishes it: the type, the convention, the width of a group."""
    tensors: Mapping[Role, Stored]
    shape: tuple[int, ...]

    @property
    def values(self) -> Stored:
        """The tensor that holds the numbers, without the scales."""
        return self.tensors.get("values") or self.tensors["packed"]

    @property
    def bytes(self) -> int:
        """Of all its tensors."""
        return sum(stored.bytes for stored in self.tensors.values())

    @property
    def group(self) -> int:
        """Columns that share a scale; 0 where whole rows do, or nothing is scaled."""
        if self.format in ("plain", "fp8"):
            return 0
        groups = self.tensors["scale"].shape[-1]
        return 0 if self.format == "int4" and groups == 1 else self.shape[-1] // groups

    def decode_into(self, target: Tensor, fetch: Fetch) -> None:
        """Write the numbers into `target`, of this shape; one matrix at a time where there are several.

        Raises:
            CheckpointError: a scale is not a finite number, or a stored shape is another; names the tensor.
        """
        values = fetch(self.values)
        if self.format == "plain":
            target.copy_(values)
            return
        scale = self._scale(fetch)
        unpack = _UNPACK[self.format]
        if target.dim() == 2:
            target.copy_(unpack(values, scale))
            return
        for part, stored, factor in zip(target, values, scale, strict=True):
            part.copy_(unpack(stored, factor))

    def scales(self, fetch: Fetch) -> tuple[Tensor | None, Tensor]:
        """What a matrix that stays packed is multiplied by.

        Returns:
            Scales of groups [..., N, G] as they are stored, or None where whole rows share one, and the fp32 factors
            of rows [..., N or 1, 1]. A divisor becomes its inverse, which is rounded once more than `decode_into`.

        Raises:
            CheckpointError: as `decode_into`.
        """
        scale, over_all = self._checked_scales(fetch)
        if not self.group:
            return None, scale.float()
        return scale, over_all.reciprocal() if self._divides else over_all

    def _scale(self, fetch: Fetch) -> Tensor:
        """[..., N or 1, G] fp32."""
        scale, over_all = self._checked_scales(fetch)
        return scale.float() / over_all if self._divides else scale.float() * over_all

    @property
    def _divides(self) -> bool:
        return "global_scale" in self.tensors

    def _checked_scales(self, fetch: Fetch) -> tuple[Tensor, Tensor]:
        """[..., N or 1, G] as stored, and the fp32 number over all of a matrix [..., 1, 1]; one where there is none."""
        self._check_stored_shape(fetch)
        scale = self._finite("scale", fetch)
        if self.format == "fp8":
            scale = scale.reshape([*self.shape[:-2], -1, 1])
        over = [*self.shape[:-2], 1, 1]
        role: Role = "global_scale" if self._divides else "scale_2"
        if role not in self.tensors:
            return scale, scale.new_ones(over, dtype=torch.float32)
        number = self._finite(role, fetch, other_than_zero=self._divides).float().flatten()
        return scale, number.expand(math.prod(over)).reshape(over)

    def _finite(self, role: Role, fetch: Fetch, *, other_than_zero: bool = False) -> Tensor:
        stored = self.tensors[role]
        scale = fetch(stored)
        numbers = scale.float()
        if not numbers.isfinite().all() or (other_than_zero and not numbers.all()):
            raise stored.refused("expected finite scales" + (" other than zero" if other_than_zero else ""))
        return scale

    def _check_stored_shape(self, fetch: Fetch) -> None:
        if "shape" in self.tensors:
            stored = self.tensors["shape"]
            found = fetch(stored).flatten().tolist()
            if found != list(self.shape):
                raise stored.refused(f"expected {list(self.shape)}, found {found}")


def recognise(tensors: Mapping[Role, Stored], shape: tuple[int, ...]) -> Encoded:
    """The encoding of a tensor of the model, from the headers of what is stored for it.

    Args:
        tensors: by role, without those of activations.
        shape: that the model expects.

    Raises:
        CheckpointError: the types are of no known encoding, or a shape does not fit; names the tensor.
    """
    for role, why in _UNSUPPORTED.items():
        if role in tensors:
            raise tensors[role].refused(why)
    match {role: stored.dtype for role, stored in tensors.items()}:
        case {"values": dtype, **rest} if dtype in FLOATS and not rest:
            return _plain(tensors, shape)
        case {"values": "F8_E4M3", "scale": scale, **rest} if scale in FLOATS and not rest:
            return _fp8(tensors, shape)
        case {"values": "U8", "scale": "F8_E4M3", "scale_2": "F32", **rest} if not rest:
            return _nvfp4(tensors, shape, "values", "scale_2", "ModelOpt")
        case {"packed": "U8", "scale": "F8_E4M3", "global_scale": "F32", **rest} if not rest:
            return _nvfp4(tensors, shape, "packed", "global_scale", "compressed-tensors")
        case {"packed": "I32", "scale": scale, **rest} if scale in FLOATS and not rest.keys() - {"shape"}:
            return _int4(tensors, shape)
    raise _unknown(tensors)


def _plain(tensors: Mapping[Role, Stored], shape: tuple[int, ...]) -> Encoded:
    _expect(tensors["values"], shape)
    return Encoded(format="plain", note=tensors["values"].dtype.lower(), tensors=tensors, shape=shape)


def _fp8(tensors: Mapping[Role, Stored], shape: tuple[int, ...]) -> Encoded:
    _expect(tensors["values"], shape)
    *stacked, rows, _ = shape
    whole = [(*stacked, 1, 1), (*stacked, 1), tuple(stacked), *([] if stacked else [(1,)])]
    scale = tensors["scale"]
    if scale.shape in whole:
        note = "per tensor"
    else:
        _expect(scale, (*stacked, rows, 1), (*stacked, rows))
        note = "per channel"
    return Encoded(format="fp8", note=note, tensors=tensors, shape=shape)


def _nvfp4(
    tensors: Mapping[Role, Stored], shape: tuple[int, ...], values: Role, over_all: Role, convention: str
) -> Encoded:
    *leading, columns = shape
    if columns % _NVFP4_GROUP:
        raise tensors[values].refused(f"{columns} columns are not groups of {_NVFP4_GROUP}")
    _expect(tensors[values], (*leading, columns // 2))
    _expect(tensors["scale"], (*leading, columns // _NVFP4_GROUP))
    stacked = shape[:-2]
    _expect(tensors[over_all], (*stacked, 1, 1), (*stacked, 1), stacked, (1,), ())
    return Encoded(format="nvfp4", note=convention, tensors=tensors, shape=shape)


def _int4(tensors: Mapping[Role, Stored], shape: tuple[int, ...]) -> Encoded:
    *leading, columns = shape
    packed, scale = tensors["packed"], tensors["scale"]
    _expect(packed, (*leading, columns // 8))
    groups = scale.shape[-1] if len(scale.shape) == len(shape) else 0
    if scale.shape[:-1] != shape[:-1] or not groups or columns % groups:
        raise scale.refused(
            f"expected [..., {shape[-2]}, groups of equal width in {columns}], found {list(scale.shape)}"
        )
    return Encoded(format="int4", note=f"groups of {columns // groups}", tensors=tensors, shape=shape)


def _expect(stored: Stored, *allowed: tuple[int, ...]) -> None:
    if stored.shape not in allowed:
        raise stored.refused(f"expected {list(allowed[0])}, found {list(stored.shape)}")


def _unknown(tensors: Mapping[Role, Stored]) -> CheckpointError:
    """Types that belong to no encoding: named by the tensor that holds the numbers, or by one that belongs to none."""
    numbers = tensors.get("values") or tensors.get("packed")
    if numbers is None:
        return next(iter(tensors.values())).refused("expected the weight that it belongs to, found none")
    if len(tensors) == 1 and "packed" not in tensors and numbers.dtype not in ("F8_E4M3", "U8"):
        return numbers.refused(f"expected floating-point weights, found {numbers.dtype}")
    found = ", ".join(f"{stored.name.rpartition('.')[2]} {stored.dtype}" for stored in tensors.values())
    return numbers.refused(
        f"expected bf16, FP8 with a scale, NVFP4 with two or INT4 with one for each group, found {found}"
    )
