"""How much of a machine a run uses: arithmetic done per second against what its matrix products reach by themselves."""

from __future__ import annotations

import time

import torch

from dg_engine.config import ModelConfig
from dg_engine.training.batches import Batch
from dg_engine.training.objective import Objective
from dg_engine.training.spans import longest_hole


def layer_parameters(config: ModelConfig) -> int:
    """Numbers in the matrices that every token is multiplied by, all layers together."""
    hidden, total = config.hidden_size, 0
    for layer in range(config.num_hidden_layers):
        key_heads, width = config.head_shape(layer)
        keys = 1 + config.is_sliding(layer)
        total += hidden * width * (2 * config.num_attention_heads + keys * key_heads)
        total += 3 * hidden * (config.intermediate_size + config.top_k_experts * config.moe_intermediate_size)
    return total


def training_flops(config: ModelConfig, batch: Batch, objective: Objective) -> float:
    """Floating-point operations of a training step in its matrices: 2 a number forward, 4 backward; attention left out.

    The conditioned share of steps runs the canvases forward once more.
    """
    layers, head = layer_parameters(config), config.vocab_size * config.hidden_size
    total = 6.0 * batch.chunks.tokens.numel() * (layers + head)
    if batch.canvases is not None:
        canvases, slots = batch.canvases.clean.shape
        once = canvases * slots * layers + canvases * longest_hole(slots) * head
        total += (6.0 + 2.0 * objective.conditioned_share) * once
    return total


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of large matrix products on all threads, the best of a few."""
    size = 8192 if device.type == "cuda" else 768
    left, right = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    best = float("inf")
    for _ in range(6):
        _synchronise(device)
        started = time.perf_counter()
        left @ right
        _synchronise(device)
        best = min(best, time.perf_counter() - started)
    return 2.0 * size**3 / best


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
