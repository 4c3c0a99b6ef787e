"""A model of random weights, made layer by layer where it is used: no file, no second copy."""

from __future__ import annotations

import torch

from dg_engine.config import ModelConfig
from dg_engine.layers import QuantisedExperts
from dg_engine.model import DiffusionGemma
from dg_kernels.expert_mlp.packed import WEIGHT_BITS, random_experts

BITS = {"bf16": 16.0, **WEIGHT_BITS}
"""Of an expert's weight in each format that can be measured."""
STD = 0.02
"""Of every matrix's numbers."""


@torch.no_grad()
def random_model(config: ModelConfig, format_: str, device: torch.device) -> DiffusionGemma:
    """A model in bf16 with its experts in a format, in evaluation mode; norms and scalars are one.

    Args:
        config: its shape.
        format_: one of BITS.
        device: where the numbers are drawn and stay.
    """
    with torch.device("meta"):
        model = DiffusionGemma(config)
    generator = torch.Generator(device).manual_seed(0)
    experts, hidden, inner = config.num_experts, config.hidden_size, config.moe_intermediate_size
    for layer in model.decoder.layers if format_ in WEIGHT_BITS else ():
        shapes = (experts, 2 * inner, hidden), (experts, hidden, inner)
        packed = (random_experts(format_, shape, STD, generator) for shape in shapes)
        layer.set_submodule("experts", QuantisedExperts(*packed))
    state = {}
    for name, tensor in model.state_dict().items():
        blank = torch.empty(tensor.shape, dtype=torch.bfloat16, device=device)
        state[name] = blank.fill_(1.0) if tensor.dim() < 2 else blank.normal_(0, STD, generator=generator)
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(requires_grad=False)
