"""The same steps and blocks by transformers' own `generate`, over the very weights of this engine's model.

The one module that imports transformers, and only to measure it. Nothing is copied: its parameters are ours. A static
cache computes something else behind a prefix as long as the window or longer: its layers do not move on once their
window is full (transformers 5.23).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from dg_engine.config import config_to_dict
from dg_engine.errors import EngineError
from dg_engine.full_size.measure import forget_peak
from dg_engine.full_size.results import BlockTime, TheirBlocks, TheirStep
from dg_engine.hardware import peak_bytes
from dg_engine.layers import Packed
from dg_engine.model import DiffusionGemma

MODES = {"eager": None, "compiled": "static"}
"""By name, the `cache_implementation` with which transformers compiles its step or does not."""
_FEW = 2
"""Steps of the shorter of two runs, whose difference is measured."""


def their_step(model: DiffusionGemma, mode: str, canvas: int, prefix: int, steps: int) -> TheirStep:
    """Time so many steps, as the difference of two lengths of `generate`, each of which is run once before.

    Raises:
        EngineError: some of the model's weights are packed: transformers would need them in bf16.
    """
    forget_peak(model.device)
    theirs, tokens = borrowed(model, canvas), _tokens(model, prefix)
    few, many = (_seconds(theirs, tokens, mode, steps=count) for count in (_FEW, _FEW + steps))
    return TheirStep(
        mode=mode,
        canvas=canvas,
        prefix=prefix,
        ms=(many - few) / steps * 1e3,
        allocated_bytes=peak_bytes(model.device),
        right=_is_right(model, mode, prefix),
    )


def their_blocks(model: DiffusionGemma, mode: str, canvas: int, prefix: int, steps: Sequence[int]) -> TheirBlocks:
    """Time whole blocks: the second of two, with the first encoded in front of it.

    Raises:
        EngineError: as `their_step`.
    """
    theirs, tokens = borrowed(model, canvas), _tokens(model, prefix)
    blocks = []
    for count in steps:
        one, two = (_seconds(theirs, tokens, mode, steps=count, blocks=number) for number in (1, 2))
        blocks.append(BlockTime(canvas=canvas, prefix=prefix, steps=count, ms=(two - one) * 1e3))
    return TheirBlocks(mode=mode, right=_is_right(model, mode, prefix + canvas), blocks=blocks)


def _is_right(model: DiffusionGemma, mode: str, prefix: int) -> bool:
    return MODES[mode] is None or prefix < model.config.window


def _tokens(model: DiffusionGemma, prefix: int) -> torch.Tensor:
    generator = torch.Generator(model.device).manual_seed(0)
    return torch.randint(2, model.config.vocab_size, (1, prefix), device=model.device, generator=generator)


def borrowed(model: DiffusionGemma, canvas: int = 256) -> Any:
    """transformers' model over our parameters, in evaluation mode, which writes canvases of that length.

    Raises:
        EngineError: as `their_step`.
    """
    from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion

    if any(isinstance(module, Packed) for module in model.modules()):
        raise EngineError("transformers is measured over the same weights, which must be in bf16: use --format bf16")
    # What another model compiled is bound to its sampler, and to its canvas.
    torch.compiler.reset()
    own = replace(model.config, canvas_length=canvas)
    config = DiffusionGemmaConfig.from_dict(config_to_dict(own, "bfloat16"))
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


def _seconds(theirs: Any, tokens: torch.Tensor, mode: str, *, steps: int, blocks: int = 1) -> float:
    """Of canvases behind a prefix, with a threshold that no random weights reach; the first run is not counted."""
    from transformers.models.diffusion_gemma.generation_diffusion_gemma import EntropyBoundSamplerConfig

    for _ in range(2):
        started = time.perf_counter()
        theirs.generate(
            tokens,
            max_new_tokens=blocks * theirs.config.canvas_length,
            max_denoising_steps=steps,
            sampler_config=EntropyBoundSamplerConfig(entropy_bound=0.1),
            stability_threshold=1,
            confidence_threshold=1e-9,
            cache_implementation=MODES[mode],
        )
        if tokens.is_cuda:
            torch.cuda.synchronize(tokens.device)
    return time.perf_counter() - started
