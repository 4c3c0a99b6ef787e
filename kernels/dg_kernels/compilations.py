"""What is compiled ahead of time: the launches of every kernel at the shapes of DiffusionGemma-26B-A4B, per device.

The tensors have shapes and types but no memory, so the plans are those that run, on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from dg_kernels.canvas_attention import Causal, VisibleRuns
from dg_kernels.canvas_attention.plan import plan as plan_canvas_attention
from dg_kernels.choose_experts.plan import plan as plan_choose_experts
from dg_kernels.configurations import tile_for
from dg_kernels.expert_mlp.plan import plan as plan_expert_mlp
from dg_kernels.launching import Launch
from dg_kernels.norm_rotary.plan import plan as plan_norm_rotary
from dg_kernels.packed_linear.plan import plan as plan_packed_linear
from dg_kernels.quantised.packed import PackedWeight
from dg_kernels.quantised.plan import rounded
from dg_kernels.residual_norms.plan import plan_attention, plan_feed_forward
from dg_kernels.soft_embedding.plan import plan as plan_soft_embedding
from dg_kernels.vocabulary_head import AllowedTokens, LogitBias
from dg_kernels.vocabulary_head.plan import plan as plan_vocabulary_head

__all__ = ["PLANS"]

_CANVAS, _HIDDEN, _VOCABULARY = 256, 2816, 262_144
_EXPERTS, _CHOSEN, _INNER, _DENSE = 128, 8, 704, 2112
_HEADS, _PREFIX, _WINDOW = 16, 8192, 1023
_CHUNK = 512
"""Of a prefix, encoded at a time."""
_SHORT, _ROWS = 64, 8
"""The canvas of a line, and how many stand behind one prefix where lengths are tried."""


def _numbers(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _vocabulary_head(device: str) -> list[Launch]:
    fp32 = _numbers(_CANVAS, dtype=torch.float32)
    hidden, weight = _numbers(_CANVAS, _HIDDEN), _numbers(_VOCABULARY, _HIDDEN)
    tile, number = tile_for("vocabulary_head", device), _numbers(_CANVAS, dtype=torch.int64)
    bias, masks = LogitBias(number, fp32), _numbers(1, _VOCABULARY, dtype=torch.bool)
    return plan_vocabulary_head(hidden, weight, 30.0, fp32, fp32, bias, AllowedTokens(masks, number), tile=tile)[0]


def _soft_embedding(device: str) -> list[Launch]:
    probabilities, weight = _numbers(_CANVAS, _VOCABULARY), _numbers(_VOCABULARY, _HIDDEN)
    return plan_soft_embedding(probabilities, weight, 2.0**-9, tile=tile_for("soft_embedding", device))[0]


def _canvas_attention(
    device: str, *, width: int, key_heads: int, prefix: int, shown: str = "all", queries: int = _CANVAS, rows: int = 1
) -> list[Launch]:
    query = _numbers(rows, queries, _HEADS, width).transpose(1, 2)
    keys = _numbers(1, key_heads, prefix + rows * queries, width).expand(rows, -1, -1, -1)
    length = _numbers(rows, dtype=torch.int64)
    rules: dict[str, VisibleRuns | Causal] = {
        "runs": VisibleRuns(length, length, prefix, apart=queries if rows > 1 else 0),
        "causal": Causal(_WINDOW + 1),
    }
    tile = tile_for(f"canvas_attention/{width}", device)
    return plan_canvas_attention(query, keys, keys, rules.get(shown), tile=tile)[0]


def _experts(device: str, gate_up: Tensor | PackedWeight, down: Tensor | PackedWeight) -> list[Launch]:
    x, pairs = _numbers(_CANVAS, _HIDDEN), (_CANVAS, _CHOSEN)
    index, weight = _numbers(*pairs, dtype=torch.int64), _numbers(*pairs, dtype=torch.float32)
    tiles = {name: tile_for(f"expert_mlp/{name}", device) for name in ("gate_up", "down")}
    return plan_expert_mlp(x, gate_up, down, index, weight, tiles=tiles)[0]


def _expert_mlp(device: str) -> list[Launch]:
    gate_up, down = _numbers(_EXPERTS, 2 * _INNER, _HIDDEN), _numbers(_EXPERTS, _HIDDEN, _INNER)
    return _experts(device, gate_up, down)


def _packed_expert_mlp(device: str, *, pack: Callable[..., PackedWeight]) -> list[Launch]:
    """The two products alone: what is before and after them is that of plain experts."""
    return _experts(device, pack(_EXPERTS, 2 * _INNER, _HIDDEN), pack(_EXPERTS, _HIDDEN, _INNER))[2:4]


def _packed_linear(device: str, *, pack: Callable[..., PackedWeight]) -> list[Launch]:
    """The queries of a sliding layer."""
    x, weight = _numbers(_CANVAS, _HIDDEN), pack(_HEADS * 256, _HIDDEN)
    return plan_packed_linear(x, weight, tile=tile_for("packed_linear", device))[0]


def _norm_rotary(device: str, *, heads: int, width: int) -> list[Launch]:
    x, angles = _numbers(1, _CANVAS, heads, width), _numbers(_CANVAS, width)
    return plan_norm_rotary(x, _numbers(width), angles, angles, 1e-6)[0]


def _residual_norms(device: str) -> list[Launch]:
    x, weight = _numbers(_CANVAS, _HIDDEN), _numbers(_HIDDEN)
    behind, _ = plan_attention(x, x, weight, weight, weight, weight, 1e-6)
    return [*behind, *plan_feed_forward(x, x, x, (weight, weight, weight), _numbers(1), 1e-6)[0]]


def _choose_experts(device: str) -> list[Launch]:
    return plan_choose_experts(_numbers(_CANVAS, _EXPERTS), _numbers(_EXPERTS), _CHOSEN)[0]


def _quantise_rows(device: str, *, length: int) -> list[Launch]:
    return [rounded(_numbers(_CANVAS, length)).launch]


def _native(plan: Callable[[str], list[Launch]], device: str) -> list[Launch]:
    """What only devices have that multiply e4m3 numbers: not the A100."""
    return [] if device == "NVIDIA A100" else plan(device)


def _native_expert_mlp(device: str) -> list[Launch]:
    x, pairs = _numbers(_CANVAS, _HIDDEN), (_CANVAS, _CHOSEN)
    index, weight = _numbers(*pairs, dtype=torch.int64), _numbers(*pairs, dtype=torch.float32)
    gate_up, down = _fp8(_EXPERTS, 2 * _INNER, _HIDDEN), _fp8(_EXPERTS, _HIDDEN, _INNER)
    tiles = {name: tile_for(f"expert_mlp/native/{name}", device) for name in ("gate_up", "down")}
    launches, _ = plan_expert_mlp(x, gate_up, down, index, weight, native=True, tiles=tiles)
    return [launches[3], launches[5]]


def _native_linear(device: str, *, width: int, length: int) -> list[Launch]:
    tile = tile_for("packed_linear/native", device)
    return plan_packed_linear(_numbers(_CANVAS, length), _fp8(width, length), native=True, tile=tile)[0][1:]


def _fp8(*shape: int) -> PackedWeight:
    return PackedWeight("e4m3", _numbers(*shape, dtype=torch.float8_e4m3fn), None, _factor(shape))


def _nvfp4(*shape: int) -> PackedWeight:
    *rows, columns = shape
    scale = _numbers(*rows, columns // 16, dtype=torch.float8_e4m3fn)
    return PackedWeight("e2m1", _numbers(*rows, columns // 2, dtype=torch.uint8), scale, _factor(shape))


def _int4(*shape: int) -> PackedWeight:
    *rows, columns = shape
    values = _numbers(*rows, columns // 8, dtype=torch.int32)
    return PackedWeight("int4", values, _numbers(*rows, columns // 32), _factor(shape))


def _factor(shape: tuple[int, ...]) -> Tensor:
    return _numbers(*shape[:-1], dtype=torch.float32)


PLANS: Mapping[str, Callable[[str], list[Launch]]] = {
    "canvas_attention, heads of 64": partial(_canvas_attention, width=64, key_heads=4, prefix=_PREFIX),
    "canvas_attention, heads of 128": partial(_canvas_attention, width=128, key_heads=4, prefix=_PREFIX),
    "canvas_attention, sliding layers": partial(_canvas_attention, width=256, key_heads=8, prefix=_WINDOW),
    "canvas_attention, full layers": partial(_canvas_attention, width=512, key_heads=2, prefix=_PREFIX),
    "canvas_attention, sliding layers, runs": partial(
        _canvas_attention, width=256, key_heads=8, prefix=_WINDOW, shown="runs"
    ),
    "canvas_attention, full layers, runs": partial(
        _canvas_attention, width=512, key_heads=2, prefix=_PREFIX, shown="runs"
    ),
    "canvas_attention, sliding layers, rows behind one prefix": partial(
        _canvas_attention, width=256, key_heads=8, prefix=_WINDOW, shown="runs", queries=_SHORT, rows=_ROWS
    ),
    "canvas_attention, full layers, a short canvas": partial(
        _canvas_attention, width=512, key_heads=2, prefix=_PREFIX, shown="runs", queries=_SHORT
    ),
    "canvas_attention, sliding layers, causal": partial(
        _canvas_attention, width=256, key_heads=8, prefix=_WINDOW, shown="causal", queries=_CHUNK
    ),
    "canvas_attention, full layers, causal": partial(
        _canvas_attention, width=512, key_heads=2, prefix=_PREFIX, shown="causal", queries=_CHUNK
    ),
    "choose_experts": _choose_experts,
    "expert_mlp": _expert_mlp,
    "norm_rotary, sliding layers": partial(_norm_rotary, heads=_HEADS, width=256),
    "norm_rotary, full layers": partial(_norm_rotary, heads=_HEADS, width=512),
    "norm_rotary, keys of sliding layers": partial(_norm_rotary, heads=8, width=256),
    "norm_rotary, keys of full layers": partial(_norm_rotary, heads=2, width=512),
    "packed_expert_mlp, FP8": partial(_packed_expert_mlp, pack=_fp8),
    "packed_expert_mlp, NVFP4": partial(_packed_expert_mlp, pack=_nvfp4),
    "packed_expert_mlp, INT4": partial(_packed_expert_mlp, pack=_int4),
    "packed_expert_mlp, FP8, native": partial(_native, _native_expert_mlp),
    "packed_linear, FP8, native": partial(_native, partial(_native_linear, width=_HEADS * 256, length=_HIDDEN)),
    "packed_linear, FP8, native, down": partial(_native, partial(_native_linear, width=_HIDDEN, length=_DENSE)),
    "packed_linear, FP8": partial(_packed_linear, pack=_fp8),
    "packed_linear, NVFP4": partial(_packed_linear, pack=_nvfp4),
    "packed_linear, INT4": partial(_packed_linear, pack=_int4),
    "quantise_rows": partial(_quantise_rows, length=_HIDDEN),
    "quantise_rows, between the experts' products": partial(_quantise_rows, length=_INNER),
    "quantise_rows, heads of full layers": partial(_quantise_rows, length=_HEADS * 512),
    "residual_norms": _residual_norms,
    "soft_embedding": _soft_embedding,
    "vocabulary_head": _vocabulary_head,
}
"""By name, from the device's name in `configurations.json` to the launches there. Narrow heads are of small models."""
