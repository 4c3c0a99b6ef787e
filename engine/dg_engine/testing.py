"""What tests of the engine share: tiny random checkpoints. No weights, no network, no GPU."""

from __future__ import annotations

from dataclasses import replace

import torch

from dg_engine.checkpoint import initialise
from dg_engine.config import ModelConfig
from dg_engine.model import DiffusionGemma

TINY = ModelConfig(
    vocab_size=61,
    hidden_size=32,
    intermediate_size=40,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    num_experts=4,
    top_k_experts=2,
    moe_intermediate_size=24,
    sliding_window=8,
    layer_types=("sliding_attention", "sliding_attention", "full_attention"),
    global_head_dim=32,
    num_global_key_value_heads=1,
    canvas_length=12,
    max_position_embeddings=256,
    use_bidirectional_attention="vision",
)
"""Three layers, both kinds, grouped heads, two of four experts, a window shorter than most test prefixes."""


def tiny_model(config: ModelConfig = TINY, *, seed: int = 0) -> DiffusionGemma:
    """A random model of the given shape, in evaluation mode.

    Matrices are drawn wide enough that every part of the model changes its output, and norms and scalars differ from
    one, so that swapping any two of them shows. Not wider: at 0.15 the model is chaotic, and rounding errors of 1e-6
    have become other tokens after eight denoising steps.
    """
    generator = torch.Generator().manual_seed(seed)
    model = DiffusionGemma(config)
    initialise(model, generator, std=0.1)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.dim() == 1:
                tensor.copy_(0.8 + 0.4 * torch.rand(tensor.shape, generator=generator))
    return model.eval().requires_grad_(requires_grad=False)


SHAPES: dict[str, ModelConfig] = {
    "grouped heads, two of four experts": TINY,
    "one full layer only": replace(
        TINY, num_hidden_layers=1, layer_types=("full_attention",), num_global_key_value_heads=4, global_head_dim=16
    ),
    "odd expert counts": replace(TINY, num_experts=7, top_k_experts=3, moe_intermediate_size=12),
    "a single expert": replace(TINY, num_experts=1, top_k_experts=1),
    "causal, no vision blocks": replace(TINY, use_bidirectional_attention=None),
    "bidirectional encoder": replace(TINY, use_bidirectional_attention="all"),
    "full layer in the middle": replace(
        TINY,
        num_hidden_layers=4,
        layer_types=("sliding_attention", "full_attention", "sliding_attention", "full_attention"),
        num_key_value_heads=4,
        num_global_key_value_heads=2,
    ),
}
"""Shapes that between them reach every branch of the architecture."""
