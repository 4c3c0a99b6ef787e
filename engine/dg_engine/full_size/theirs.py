"""The same steps by transformers' own `generate`, over the very weights of this engine's model.

The one module that imports transformers, and only to measure it. Nothing is copied: its parameters are ours.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec
import torch

from dg_engine.config import config_to_dict
from dg_engine.errors import EngineError
from dg_engine.full_size.shapes import Shape
from dg_engine.layers import Packed
from dg_engine.model import DiffusionGemma

MODES = {"eager": None, "compiled": "static"}
"""By name, the `cache_implementation` with which transformers compiles its step or does not."""


class Theirs(msgspec.Struct, frozen=True, kw_only=True):
    """What a step takes there."""

    mode: str
    prefix: int
    ms: float


def measure_theirs(model: DiffusionGemma, shape: Shape, mode: str) -> list[Theirs]:
    """Time a step of the longest canvas behind each prefix, as the difference of two lengths of `generate`.

    Raises:
        EngineError: some of the model's weights are packed: transformers would need them in bf16.
    """
    theirs = borrowed(model)
    few, many = 2, 2 + shape.timed_steps
    found = []
    for prefix in shape.prefixes:
        tokens = torch.randint(2, model.config.vocab_size, (1, prefix), device=model.device)
        _seconds(theirs, tokens, few, mode)
        taken = _seconds(theirs, tokens, many, mode) - _seconds(theirs, tokens, few, mode)
        found.append(Theirs(mode=mode, prefix=prefix, ms=taken / (many - few) * 1e3))
    return found


def borrowed(model: DiffusionGemma) -> Any:
    """transformers' model over our parameters, in evaluation mode.

    Raises:
        EngineError: as `measure_theirs`.
    """
    from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion

    if any(isinstance(module, Packed) for module in model.modules()):
        raise EngineError("transformers is measured over the same weights, which must be in bf16: use --format bf16")
    config = DiffusionGemmaConfig.from_dict(config_to_dict(model.config, "bfloat16"))
    with torch.device("meta"):
        theirs: Any = DiffusionGemmaForBlockDiffusion(config)
    theirs.eval()
    theirs.tie_weights()
    ours = model.state_dict()
    # Tied parameters are one object under several names, of which not all are in a checkpoint.
    tensors = {id(one): ours[name] for name, one in theirs.named_parameters(remove_duplicate=False) if name in ours}
    for path, module in list(theirs.named_modules()):
        for name, one in module._parameters.items():
            if one is not None:
                tensor = tensors.get(id(one), _blank(one, model))
                module._parameters[name] = torch.nn.Parameter(tensor, requires_grad=False)
        for name, one in module._buffers.items():
            if one is not None:
                module._buffers[name] = ours.get(f"{path}.{name}", _blank(one, model))
        if hasattr(module, "scalar_embed_scale"):
            module.embed_scale = torch.tensor(module.scalar_embed_scale, device=model.device)
        if hasattr(module, "rope_init_fns"):
            theirs.set_submodule(path, type(module)(module.config).to(model.device))
    return theirs


def _blank(one: torch.Tensor, model: DiffusionGemma) -> torch.Tensor:
    """For the vision tower, as small as transformers allows, which text does not touch."""
    return torch.zeros(one.shape, dtype=one.dtype, device=model.device)


def _seconds(theirs: Any, tokens: torch.Tensor, steps: int, mode: str) -> float:
    """Of a canvas behind a prefix, with a threshold that no random weights reach."""
    from transformers.models.diffusion_gemma.generation_diffusion_gemma import EntropyBoundSamplerConfig

    started = time.perf_counter()
    theirs.generate(
        tokens,
        max_new_tokens=theirs.config.canvas_length,
        max_denoising_steps=steps,
        sampler_config=EntropyBoundSamplerConfig(entropy_bound=0.1),
        stability_threshold=1,
        confidence_threshold=1e-9,
        cache_implementation=MODES[mode],
    )
    if tokens.is_cuda:
        torch.cuda.synchronize(tokens.device)
    return time.perf_counter() - started
