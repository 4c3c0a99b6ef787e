"""Matrices that stay in memory in the bits in which they are stored, gathered from however many tensors they lie in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from dg_engine.formats.encodings import Fetch
from dg_engine.formats.headers import TORCH_TYPES
from dg_engine.formats.plan import Plan, Source
from dg_engine.layers import Packed, PackedExperts, PackedLinear
from dg_engine.model import DiffusionGemma
from dg_kernels import PackedWeight

_KINDS: dict[str, Literal["e4m3", "e2m1", "int4"]] = {"fp8": "e4m3", "nvfp4": "e2m1", "int4": "int4"}
_EXPERTS = ("gate_up_proj", "down_proj")
"""The matrices of a layer's experts, in the order in which `PackedExperts` takes them."""
_LINEAR = ("weight",)


def packable(plan: Plan) -> dict[str, tuple[str, ...]]:
    """What can stay packed: for each module by name its matrices, all of them or none."""
    found: dict[str, tuple[str, ...]] = {}
    for name in plan.parameters:
        module, _, matrix = name.rpartition(".")
        matrices = _EXPERTS if matrix == _EXPERTS[0] else _LINEAR
        if matrix == matrices[0] and (matrix != "weight" or module.endswith("_proj")):
            parameters = tuple(f"{module}.{one}" for one in matrices)
            if all(_is_packable(plan.sources[one]) for one in parameters):
                found[module] = parameters
    return found


def install(model: DiffusionGemma, module: str, weights: Sequence[PackedWeight]) -> None:
    """Put packed weights in the place of the module of that name."""
    kind: type[Packed] = PackedLinear if len(weights) == len(_LINEAR) else PackedExperts
    model.set_submodule(module, kind(*weights))


def packed(
    parameter: Tensor, sources: Sequence[Source], fetch: Fetch, device: str, *, rounds_rows: bool = False
) -> PackedWeight:
    """One parameter, [N, K] or [E, N, K]; no more than one stored tensor is held beside it.

    Args:
        parameter: its shape.
        sources: where its parts lie; they are packable.
        fetch: reads to the device.
        device: where they stay.
        rounds_rows: whether FP8 weights are meant to be multiplied with rows that are rounded to FP8 too.

    Raises:
        CheckpointError: a scale is not a finite number, or a stored shape is another; names the tensor.
    """
    encoded = sources[0].encoded
    values, *scale = (torch.empty(shape, dtype=dtype, device=device) for shape, dtype in _tensors(parameter, sources))
    factor = torch.empty(*parameter.shape[:-1], 1, device=device)
    for place, part in sources:
        group_scales, row_factors = part.scales(fetch)
        place.of(values).copy_(fetch(part.values))
        place.of(factor).copy_(row_factors)
        if group_scales is not None:
            place.of(scale[0]).copy_(group_scales)
    kind = _KINDS[encoded.format]
    rounds_rows &= kind == "e4m3" and not scale
    return PackedWeight(kind, values, scale[0] if scale else None, factor[..., 0], quantises_rows=rounds_rows)


def packed_bytes(parameter: Tensor, sources: Sequence[Source]) -> int:
    """What `packed` takes."""
    stored = sum(torch.Size(shape).numel() * dtype.itemsize for shape, dtype in _tensors(parameter, sources))
    return stored + parameter.shape[:-1].numel() * torch.float32.itemsize


def _tensors(parameter: Tensor, sources: Sequence[Source]) -> Iterator[tuple[tuple[int, ...], torch.dtype]]:
    """Shape and type of the values and, where groups have some, of the scales."""
    encoded, (*rows, columns) = sources[0].encoded, parameter.shape
    yield (*rows, encoded.values.shape[-1]), TORCH_TYPES[encoded.values.dtype]
    if encoded.group:
        yield (*rows, columns // encoded.group), TORCH_TYPES[encoded.tensors["scale"].dtype]


def _is_packable(sources: Sequence[Source]) -> bool:
    """All parts alike, with groups that kernels know: a power of two."""
    formats = {(part.format, part.group, part.tensors["scale"].dtype if part.group else None) for _, part in sources}
    ((format_, group, _), *others) = formats
    return not others and format_ in _KINDS and group.bit_count() < 2
