"""How a matrix is written with fewer bits, under the names and in the layout of compressed-tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dg_kernels import quantise_e2m1, quantise_e4m3, quantise_int4
from dg_kernels.quantised import E2M1_MAX, E4M3_MAX, INT4_MAX

_LEAST_E4M3 = 2.0**-9
"""The smallest e4m3 number above zero: a scale of zero would lose its whole group."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme:
    """One of the formats that can be written."""

    layout: str
    """What compressed-tensors calls it."""
    group: int
    """Columns that must divide a matrix's; 1 if any number will do."""
    weights: Mapping[str, Any]
    """Its description in `config.json`, beside what all have in common."""
    activations: Mapping[str, Any] | None = field(default=None)
    """What a server that quantises activations too should do with them, as this one does with rows for FP8."""
    write: Callable[[Tensor, Sequence[Tensor]], dict[str, Tensor]]
    """From a matrix [N, K], and all those that are multiplied in one with it, to tensors by the ends of their names."""

    def group_of(self, targets: Sequence[str]) -> dict[str, Any]:
        """What the `quantization_config` of a checkpoint says of the modules that are written so."""
        return {
            "targets": list(targets),
            "weights": {"symmetric": True, "dynamic": False, **self.weights},
            "input_activations": None if self.activations is None else dict(self.activations),
            "output_activations": None,
            "format": self.layout,
        }


def described(groups: Sequence[tuple[Sequence[str], Scheme]], ignored: Sequence[str]) -> dict[str, Any]:
    """The `quantization_config` of a checkpoint.

    Args:
        groups: kinds or names of modules, and how they are written.
        ignored: names of modules that stay as they are.
    """
    layouts = {scheme.layout for _, scheme in groups}
    return {
        "quant_method": "compressed-tensors",
        "format": layouts.pop() if len(layouts) == 1 else "mixed-precision",
        "quantization_status": "compressed",
        "config_groups": {f"group_{number}": one.group_of(named) for number, (named, one) in enumerate(groups)},
        "ignore": list(ignored),
    }


def _nvfp4(matrix: Tensor, together: Sequence[Tensor]) -> dict[str, Tensor]:
    """The scale over all divides, and makes the largest of the groups' scales 448."""
    largest = torch.stack([each.abs().max().float() for each in together]).max()
    over_all = torch.where(largest > 0, E2M1_MAX * E4M3_MAX / largest, 1.0).reshape(1)
    wanted = _group_maxima(matrix, 16) / E2M1_MAX * over_all
    scale = wanted.clamp(_LEAST_E4M3, E4M3_MAX).to(torch.float8_e4m3fn)
    return {
        "weight_packed": quantise_e2m1(matrix, scale.float() / over_all),
        "weight_scale": scale,
        "weight_global_scale": over_all,
    }


def _fp8(matrix: Tensor, together: Sequence[Tensor]) -> dict[str, Tensor]:
    del together  # each row has a scale of its own
    scale = _safe(_group_maxima(matrix, matrix.shape[1]) / E4M3_MAX)
    return {"weight": quantise_e4m3(matrix, scale), "weight_scale": scale}


def _int4(matrix: Tensor, together: Sequence[Tensor]) -> dict[str, Tensor]:
    del together  # each group has a scale of its own
    scale = _safe(_group_maxima(matrix, 32) / INT4_MAX).bfloat16()
    return {
        "weight_packed": quantise_int4(matrix, scale),
        "weight_scale": scale,
        "weight_shape": torch.tensor(matrix.shape),
    }


def _group_maxima(matrix: Tensor, width: int) -> Tensor:
    return matrix.float().reshape(*matrix.shape[:-1], -1, width).abs().amax(dim=-1)


def _safe(scale: Tensor) -> Tensor:
    """A group of zeros may have any scale but zero."""
    return torch.where(scale > 0, scale, 1.0)


SCHEMES = {
    "nvfp4": Scheme(
        layout="nvfp4-pack-quantized",
        group=16,
        weights={
            "num_bits": 4,
            "type": "float",
            "strategy": "tensor_group",
            "group_size": 16,
            "scale_dtype": "torch.float8_e4m3fn",
        },
        write=_nvfp4,
    ),
    "fp8": Scheme(
        layout="float-quantized",
        group=1,
        weights={"num_bits": 8, "type": "float", "strategy": "channel"},
        activations={"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True, "symmetric": True},
        write=_fp8,
    ),
    "int4": Scheme(
        layout="pack-quantized",
        group=32,
        weights={"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32},
        write=_int4,
    ),
}
"""By the name under which a user asks for them."""
