"""A model of random weights, made layer by layer where it is used: no file, no second copy."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn

from dg_engine.config import ModelConfig
from dg_engine.joined import join
from dg_engine.layers import PackedExperts, PackedLinear
from dg_engine.model import DiffusionGemma
from dg_kernels.quantised.packed import WEIGHT_BITS, PackedWeight, random_weight


class Stored(NamedTuple):
    """What a weight takes, and in what it is multiplied."""

    bits: float
    """Its share of the scales among them."""
    in_e4m3: bool
    """Where the device multiplies that, and rows are rounded to it."""


class Bits(NamedTuple):
    """Of a model's matrices."""

    experts: Stored
    projections: Stored
    """Of attention and dense MLPs."""


_BF16, _FP8 = Stored(16.0, in_e4m3=False), Stored(WEIGHT_BITS["fp8"], in_e4m3=True)
BITS = {"bf16": Bits(_BF16, _BF16), "fp8": Bits(_FP8, _FP8)}
BITS |= {name: Bits(Stored(WEIGHT_BITS[name], in_e4m3=False), _FP8) for name in ("nvfp4", "int4")}
"""What can be measured: experts in a format, and beside experts of eight or four bits projections in FP8."""
STD = 0.02
"""Of every matrix's numbers."""


@torch.no_grad()
def random_model(config: ModelConfig, format_: str, device: torch.device) -> DiffusionGemma:
    """A model in a format, in evaluation mode; norms and scalars are one, all that is not packed is bf16.

    Args:
        config: its shape.
        format_: one of BITS.
        device: where the numbers are drawn and stay.
    """
    with torch.device("meta"):
        model = DiffusionGemma(config)
    generator = torch.Generator(device).manual_seed(0)
    if format_ in WEIGHT_BITS:
        pack_layers(model, format_, generator)
    state = {}
    for name, tensor in model.state_dict().items():
        blank = torch.empty(tensor.shape, dtype=torch.bfloat16, device=device)
        state[name] = blank.fill_(1.0) if tensor.dim() < 2 else blank.normal_(0, STD, generator=generator)
    model.load_state_dict(state, assign=True)
    if device.type == "cuda":
        join(model)
    return model.eval().requires_grad_(requires_grad=False)


def pack_layers(model: DiffusionGemma, format_: str, generator: torch.Generator) -> None:
    """Put random weights of a packed format in place of the experts, and of FP8 in place of the projections."""
    config = model.config
    experts, hidden, inner = config.num_experts, config.hidden_size, config.moe_intermediate_size
    for layer in model.decoder.layers:
        shapes = (experts, 2 * inner, hidden), (experts, hidden, inner)
        packed = (_weight(format_, shape, generator) for shape in shapes)
        layer.set_submodule("experts", PackedExperts(*packed))
        for name, module in list(layer.named_modules()):
            if isinstance(module, nn.Linear) and name.endswith("_proj"):
                layer.set_submodule(name, PackedLinear(_weight("fp8", tuple(module.weight.shape), generator)))


def _weight(format_: str, shape: tuple[int, ...], generator: torch.Generator) -> PackedWeight:
    """Of FP8 as published: what it is multiplied with is rounded too."""
    return replace(random_weight(format_, shape, STD, generator), quantises_rows=BITS[format_].experts.in_e4m3)
