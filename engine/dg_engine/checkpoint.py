"""Checkpoints in Hugging Face layout: every tensor is checked before any is kept, both libraries open what is written.

Only safetensors and JSON are ever read; nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dg_engine.config import ModelConfig, config_to_dict, read_config
from dg_engine.errors import CheckpointError
from dg_engine.model import DiffusionGemma

# Vision weights are skipped, not refused; the head is the embedding's twin.
_SKIPPED = ("model.encoder.vision_tower.", "model.encoder.embed_vision.", "lm_head.")
_ENCODER = "model.encoder.language_model."
_DECODER = "model.decoder."


def load(directory: Path, *, dtype: torch.dtype | None = None, device: str = "cpu") -> DiffusionGemma:
    """Build the model that a checkpoint directory describes, in evaluation mode.

    Args:
        directory: holds `config.json` and `model.safetensors`, or shards with `model.safetensors.index.json`.
        dtype: None keeps the type in which the weights are stored.
        device: where the weights go.

    Raises:
        CheckpointError: something is missing, malformed, truncated or does not match; names file and tensor.
    """
    config = read_config(directory)
    with torch.device("meta"):
        model = DiffusionGemma(config)
    expected = model.state_dict()
    tensors = _read_tensors(directory, expected)
    _tie_encoder_scalars(tensors, expected)
    if missing := sorted(expected.keys() - tensors.keys()):
        raise CheckpointError(
            f"{directory}: {missing[0]}: expected {list(expected[missing[0]].shape)}, found none "
            f"({len(missing)} tensors are missing)"
        )
    kept = dtype or tensors[_DECODER + "embed_tokens.weight"].dtype
    model.load_state_dict({name: tensor.to(device, kept) for name, tensor in tensors.items()}, assign=True)
    return model.eval().requires_grad_(requires_grad=False)


def save(model: DiffusionGemma, directory: Path, generation: Mapping[str, Any] | None = None) -> None:
    """Write `config.json`, `model.safetensors` and, if given, `generation_config.json`.

    Each file is written beside its place and renamed, so that a reader never sees half of one.
    """
    directory.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    dtype = str(model.decoder.embed_tokens.weight.dtype).removeprefix("torch.")
    _write_json(directory / "config.json", config_to_dict(model.config, dtype))
    if generation is not None:
        _write_json(directory / "generation_config.json", generation)
    partial = directory / "model.safetensors.partial"
    save_file(state, partial, metadata={"format": "pt"})
    partial.replace(directory / "model.safetensors")


def initialise(model: DiffusionGemma, generator: torch.Generator, std: float | None = None) -> None:
    """Draw fresh weights in place: every matrix normal with `std`, norms and scalars one.

    With `std` None a matrix is drawn with the inverse root of its input width and every projection back into the
    residual stream starts at zero, as for training from scratch.
    """
    back = ("o_proj.weight", "down_proj.weight", "experts.down_proj")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() < 2:
                parameter.fill_(1.0)
            elif std is None and name.endswith(back):
                parameter.zero_()
            else:
                scale = std if std is not None else parameter.shape[-1] ** -0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
        for _, buffer in model.named_buffers():
            buffer.fill_(1.0)


def _read_tensors(directory: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for path, names in _files(directory):
        try:
            with safe_open(path, "pt") as file:
                stored = set(file.keys())
                for name in sorted(names if names is not None else stored):
                    if name not in stored:
                        raise CheckpointError(f"{path}: {name}: the index promises it here, found none")
                    if not name.startswith(_SKIPPED):
                        target = _canonical(name)
                        tensor = file.get_tensor(name)
                        _check(path, name, tensor, expected.get(target))
                        tensors.setdefault(target, tensor)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: is not a readable safetensors file ({error})") from error
    return tensors


def _files(directory: Path) -> Iterable[tuple[Path, set[str] | None]]:
    """The safetensors files, each with the tensors to take from it (None: all)."""
    index = directory / "model.safetensors.index.json"
    if not index.exists():
        single = directory / "model.safetensors"
        if not single.exists():
            raise CheckpointError(f"{directory}: expected model.safetensors or {index.name}, found neither")
        return [(single, None)]
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards: dict[str, set[str]] = {}
        for name, shard in weight_map.items():
            shards.setdefault(shard, set()).add(name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: expected a JSON object with a weight_map ({error!r})") from error
    for shard in shards:
        if Path(shard).name != shard:
            raise CheckpointError(f"{index}: shard {shard!r} is not a plain file name")
        if not (directory / shard).exists():
            raise CheckpointError(f"{directory / shard}: the index names this shard, found no such file")
    return [(directory / shard, names) for shard, names in sorted(shards.items())]


def _canonical(name: str) -> str:
    """Encoder weights are the decoder's, except the layer scalars, which the two do not share."""
    if name.startswith(_ENCODER) and not name.endswith("layer_scalar"):
        return _DECODER + name.removeprefix(_ENCODER)
    return name


def _check(path: Path, name: str, tensor: Tensor, expected: Tensor | None) -> None:
    if expected is None:
        raise CheckpointError(f"{path}: {name}: config.json has no place for it, found {list(tensor.shape)}")
    if tensor.shape != expected.shape:
        raise CheckpointError(f"{path}: {name}: expected {list(expected.shape)}, found {list(tensor.shape)}")
    if not tensor.is_floating_point():
        raise CheckpointError(f"{path}: {name}: expected floating-point weights, found {tensor.dtype}")


def _tie_encoder_scalars(tensors: dict[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """A checkpoint without the encoder's own scalars means the decoder's."""
    for name in expected:
        twin = _DECODER + name.removeprefix(_ENCODER)
        if name.startswith(_ENCODER) and name not in tensors and twin in tensors:
            tensors[name] = tensors[twin]


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(path)


__all__ = ["ModelConfig", "initialise", "load", "save"]
