"""Checkpoints in Hugging Face layout: every tensor is checked before any is read, both libraries open what is written.

Only safetensors and JSON are ever read; nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from dg_engine.config import ModelConfig, config_to_dict
from dg_engine.errors import CheckpointError
from dg_engine.formats.encodings import Fetch
from dg_engine.formats.headers import INDEX, SINGLE, reading
from dg_engine.formats.packing import install, packable, packed
from dg_engine.formats.plan import Source, read_plan
from dg_engine.layers import Packed
from dg_engine.model import DiffusionGemma
from dg_kernels import PackedWeight


def load(
    directory: Path,
    *,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    keep_packed: bool = False,
    report: Callable[[float], None] = lambda done: None,
) -> DiffusionGemma:
    """Build the model that a checkpoint directory describes, in evaluation mode.

    Quantised weights are turned into numbers of `dtype` while they are read, but for those that are to stay packed;
    no two copies of the whole ever exist.

    Args:
        directory: holds `config.json` and `model.safetensors`, or shards with `model.safetensors.index.json`.
        dtype: None keeps the type in which the embedding is stored, which is bf16 in published checkpoints.
        device: where the weights go.
        keep_packed: leave quantised experts, and projections of layers, in the bits in which they are stored, where
            `dg_kernels` knows the format.
            Such a model cannot be saved, trained or given an adapter.
        report: told the fraction of the parameters that have been read, before each.

    Raises:
        CheckpointError: something is missing, malformed, truncated or does not match; names file and tensor.
    """
    plan = read_plan(directory)
    kept = dtype or plan.dtype
    state: dict[str, Tensor] = {}
    kept_packed: dict[str, PackedWeight] = {}
    modules = packable(plan) if keep_packed else {}
    staying = {name for names in modules.values() for name in names}
    with reading(device) as fetch:
        plan.check_copies(fetch)
        for done, (name, sources) in enumerate(plan.sources.items()):
            report(done / len(plan.sources))
            if name in staying:
                kept_packed[name] = packed(plan.parameters[name], sources, fetch, device, rounds_rows=plan.rounds_rows)
            else:
                state[name] = _assemble(plan.parameters[name], sources, fetch, kept, device)
    for module, names in modules.items():
        install(plan.model, module, [kept_packed[name] for name in names])
    plan.model.load_state_dict(state, assign=True)
    return plan.model.eval().requires_grad_(requires_grad=False)


def save(model: DiffusionGemma, directory: Path, generation: Mapping[str, Any] | None = None) -> None:
    """Write `config.json`, `model.safetensors` and, if given, `generation_config.json`.

    Each file is written beside its place and renamed, so that a reader never sees half of one.

    Raises:
        CheckpointError: some of the model's weights are packed, so that it no longer has the numbers to write.
    """
    if any(isinstance(module, Packed) for module in model.modules()):
        raise CheckpointError(f"{directory}: packed weights cannot be saved; load the checkpoint without keep_packed")
    directory.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    dtype = str(model.decoder.embed_tokens.weight.dtype).removeprefix("torch.")
    _write_json(directory / "config.json", config_to_dict(model.config, dtype))
    if generation is not None:
        _write_json(directory / "generation_config.json", generation)
    partial = directory / "model.safetensors.partial"
    save_file(state, partial, metadata={"format": "pt"})
    partial.replace(directory / SINGLE)
    # Of a checkpoint in several files that stood here, it would be read before the one file.
    (directory / INDEX).unlink(missing_ok=True)
    for shard in directory.glob("model-*-of-*.safetensors"):
        shard.unlink()


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


def _assemble(parameter: Tensor, sources: Sequence[Source], fetch: Fetch, dtype: torch.dtype, device: str) -> Tensor:
    """The numbers of one parameter; no more than one stored tensor of it is held beside them."""
    whole, *parts = sources
    if not parts and whole.encoded.format == "plain":
        return fetch(whole.encoded.values).to(dtype)
    target = torch.empty(parameter.shape, dtype=dtype, device=device)
    for place, encoded in sources:
        encoded.decode_into(place.of(target), fetch)
    return target


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(path)


__all__ = ["ModelConfig", "initialise", "load", "save"]
