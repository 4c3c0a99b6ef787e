"""A wider network that computes what a narrower one does, to go on from what that has learnt.

After Gesmundo and Maile, "Composable Function-preserving Expansions for Transformer Architectures" (arXiv 2308.06103).
The new part of the residual stream is nothing at first: nothing is written to it, and what reads it may be random.
A norm divides by the root of the mean square, which places that hold nothing make smaller by the root of the ratio of
widths. The embedding's own scale grows by that root as well, so the whole stream does, and what reads it takes it back.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dg_engine.config import ModelConfig
from dg_engine.model import DiffusionGemma

_MAY_GROW = ("hidden_size", "intermediate_size", "moe_intermediate_size", "num_attention_heads")
_WRITES = ("o_proj.weight", "down_proj.weight", "experts.down_proj", "embed_tokens.weight")
_READ_NORMS = (
    "input_layernorm.weight",
    "pre_feedforward_layernorm.weight",
    "pre_feedforward_layernorm_2.weight",
    "self_conditioning.pre_norm.weight",
    "decoder.norm.weight",
)


def widened(narrow: DiffusionGemma, config: ModelConfig, generator: torch.Generator) -> DiffusionGemma:
    """The model of `config` whose outputs are those of `narrow`, up to rounding.

    Args:
        narrow: the model to go on from.
        config: as the narrow model's, but for more of `hidden_size`, inner widths and query heads.
        generator: draws what reads the new part of the stream.

    Raises:
        ValueError: the two shapes differ in something else, or the new one is narrower somewhere.
    """
    _check(narrow.config, config)
    model = DiffusionGemma(config).to(narrow.decoder.embed_tokens.weight.dtype)
    scale = math.sqrt(config.hidden_size / narrow.config.hidden_size)
    known = narrow.state_dict()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value.copy_(_fresh(name, known[name], value.shape, generator))
            value[_places(name, known[name].shape, narrow.config, config)] = known[name]
            if name.endswith(_READ_NORMS):
                value.div_(scale)
            elif name.endswith("self_conditioning.down_proj.weight"):
                # Added to the embedding, which has grown, without a norm between them.
                value.mul_(scale)
    return model


def _check(narrow: ModelConfig, wide: ModelConfig) -> None:
    if replace(narrow, **{name: getattr(wide, name) for name in _MAY_GROW}) != wide:
        raise ValueError(f"only {', '.join(_MAY_GROW)} may differ")
    for name in _MAY_GROW:
        if getattr(wide, name) < getattr(narrow, name):
            raise ValueError(f"{name} is {getattr(wide, name)}, less than {getattr(narrow, name)}")


def _fresh(name: str, known: Tensor, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """What is new writes nothing, and reads at random; of norms and scales it is as the known part on average."""
    if known.dim() == 1:
        return torch.full(shape, float(known.mean()))
    if name.endswith(_WRITES):
        return torch.zeros(shape)
    return torch.randn(shape, generator=generator) * known.std()


def _places(name: str, shape: torch.Size, narrow: ModelConfig, wide: ModelConfig) -> tuple[Any, ...]:
    """The index of the narrow tensor in the wide one."""
    columns = torch.arange(shape[-1])
    if len(shape) == 1:
        return (columns,)
    rows = torch.arange(shape[-2])
    if name.endswith("q_proj.weight"):
        rows = _heads(name, narrow, wide)
    elif name.endswith("o_proj.weight"):
        columns = _heads(name, narrow, wide)
    elif name.endswith("gate_up_proj"):
        gate, up = rows.chunk(2)
        rows = torch.cat((gate, up - narrow.moe_intermediate_size + wide.moe_intermediate_size))
    return ..., rows[:, None], columns


def _heads(name: str, narrow: ModelConfig, wide: ModelConfig) -> Tensor:
    """[query heads * width]: each head stays with its key head."""
    layer = re.search(r"layers\.(\d+)\.", name)
    assert layer is not None  # noqa: S101  (only layers have heads)
    keys, width = narrow.head_shape(int(layer[1]))
    places = torch.arange(wide.num_attention_heads * width).view(keys, -1)
    return places[:, : narrow.num_attention_heads // keys * width].flatten()
