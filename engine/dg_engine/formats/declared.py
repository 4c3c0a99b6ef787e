"""What a checkpoint says of its own quantisation, in `config.json` or in ModelOpt's `hf_quant_config.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dg_engine.errors import CheckpointError

_BY_ROW = "FP8_PER_CHANNEL_PER_TOKEN"
_MODELOPT = {"FP8": "fp8", _BY_ROW: "fp8", "NVFP4": "nvfp4", "W4A16_NVFP4": "nvfp4"}


class Declared(NamedTuple):
    """What a checkpoint says."""

    formats: frozenset[str]
    """Of fp8, nvfp4 and int4."""
    rounds_rows: bool
    """Whether what FP8 weights are multiplied with is meant to be rounded to FP8 too, each row by its own scale."""


def declared(directory: Path) -> Declared | None:
    """What the checkpoint says; None if it says nothing.

    Raises:
        CheckpointError: a format that cannot be read, or a description that cannot be understood.
    """
    path = directory / "config.json"
    stated = _json(path).get("quantization_config")
    if stated is None and (path := directory / "hf_quant_config.json").exists():
        stated = _json(path).get("quantization", {}) | {"quant_method": "modelopt"}
    if stated is None:
        return None
    try:
        method = stated["quant_method"]
        if method == "modelopt":
            algorithms = _modelopt(path, stated)
            formats = frozenset(_MODELOPT[name] for name in algorithms)
            return Declared(formats, rounds_rows=_BY_ROW in algorithms and "FP8" not in algorithms)
        if method == "compressed-tensors":
            if (stated.get("transform_config") or {}).get("config_groups"):
                raise CheckpointError(
                    f"{path}: transform_config: expected none, found rotations; quantise without them"
                )
            groups = [(_group(path, group["weights"]), group) for group in stated["config_groups"].values()]
            rounds = [_rounds_rows(group.get("input_activations")) for name, group in groups if name == "fp8"]
            return Declared(frozenset(name for name, _ in groups), rounds_rows=bool(rounds) and all(rounds))
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: quantization_config: cannot be understood ({error!r})") from error
    raise CheckpointError(f"{path}: quant_method: expected compressed-tensors or modelopt, found {method!r}")


def _modelopt(path: Path, stated: Mapping[str, Any]) -> set[str]:
    """The algorithms of ModelOpt by which some matrix was quantised."""
    stages = stated["quantized_layers"].values() if stated["quant_algo"] == "MIXED_PRECISION" else [stated]
    algorithms = {str(one["quant_algo"]).upper() for one in stages}
    if unknown := algorithms - _MODELOPT.keys():
        raise CheckpointError(f"{path}: quant_algo: expected {', '.join(_MODELOPT)}, found {min(unknown)!r}")
    return algorithms


def _group(path: Path, weights: Mapping[str, Any]) -> str:
    """The format of one of compressed-tensors' groups of layers."""
    strategy = weights["strategy"]
    match weights["type"], weights["num_bits"], weights.get("symmetric", True):
        case "float", 4, True if weights["group_size"] == 16:
            return "nvfp4"
        case "float", 8, True if strategy in ("tensor", "channel"):
            return "fp8"
        case "int", 4, True if strategy in ("group", "channel"):
            return "int4"
    described = ", ".join(
        f"{key} {weights.get(key)!r}" for key in ("type", "num_bits", "strategy", "group_size", "symmetric")
    )
    raise CheckpointError(
        f"{path}: weights: expected NVFP4, FP8 with a scale for a tensor or a row, or symmetric INT4, found {described}"
    )


def _rounds_rows(activations: Mapping[str, Any] | None) -> bool:
    """Whether a group's activations become FP8 by a scale for each row, found when the row is there."""
    wanted = {"type": "float", "num_bits": 8, "strategy": "token", "dynamic": True}
    return activations is not None and {name: activations.get(name) for name in wanted} == wanted


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: is not readable JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value
