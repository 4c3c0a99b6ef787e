"""What is compiled ahead of time: the launches of every kernel at the shapes of DiffusionGemma-26B-A4B, per device.

The tensors have shapes and types but no memory, so the plans are those that run, on any machine: they are made for the
device of `launching.planned_for`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from dg_kernels.canvas_attention import Causal, CausalRuns, VisibleRuns
from dg_kernels.canvas_attention.plan import plan as plan_canvas_attention
from dg_kernels.choose_experts.plan import plan as plan_choose_experts
from dg_kernels.expert_mlp.plan import plan as plan_expert_mlp
from dg_kernels.gated_gelu.plan import plan as plan_gated_gelu
from dg_kernels.launching import Launch
from dg_kernels.norm_rotary import Heads
from dg_kernels.norm_rotary.plan import plan as plan_norm_rotary
from dg_kernels.packed_linear.plan import plan as plan_packed_linear
from dg_kernels.quantised.packed import PackedWeight
from dg_kernels.quantised.plan import rounding
from dg_kernels.random_numbers.plan import plan as plan_random_numbers
from dg_kernels.residual_norms import Norm
from dg_kernels.residual_norms.plan import plan_attention, plan_feed_forward
from dg_kernels.soft_embedding.plan import plan as plan_soft_embedding
from dg_kernels.vocabulary_head import AllowedTokens, LogitBias
from dg_kernels.vocabulary_head.plan import plan as plan_vocabulary_head

__all__ = ["PLANS"]

_CANVAS, _HIDDEN, _VOCABULARY = 256, 2816, 262_144
_EXPERTS, _CHOSEN, _INNER, _DENSE = 128, 8, 704, 2112
_HEADS, _PREFIX, _WINDOW = 16, 8192, 1023
_CHUNK, _FEW = 512, 16
"""Of a prefix, encoded at a time: a part of a longer one, and what somebody typed."""
_SHORT, _ROWS = 64, 8
"""The canvas of a line, and how many stand behind one prefix where lengths are tried."""


def _numbers(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _vocabulary_head() -> list[Launch]:
    fp32 = _numbers(_CANVAS, dtype=torch.float32)
    hidden, weight = _numbers(_CANVAS, _HIDDEN), _numbers(_VOCABULARY, _HIDDEN)
    number, masks = _numbers(_CANVAS, dtype=torch.int64), _numbers(1, _VOCABULARY, dtype=torch.bool)
    rules = LogitBias(number, fp32), AllowedTokens(masks, number)
    return plan_vocabulary_head(hidden, weight, 30.0, fp32, fp32, *rules)[0]


def _soft_embedding() -> list[Launch]:
    probabilities, weight = _numbers(_CANVAS, _VOCABULARY), _numbers(_VOCABULARY, _HIDDEN)
    return plan_soft_embedding(probabilities, weight, 2.0**-9)[0]


def _canvas_attention(
    *, width: int, key_heads: int, prefix: int, shown: str = "all", queries: int = _CANVAS, rows: int = 1
) -> list[Launch]:
    query = _numbers(rows, queries, _HEADS, width).transpose(1, 2)
    keys = _numbers(1, key_heads, prefix + rows * queries, width).expand(rows, -1, -1, -1)
    length = _numbers(rows, dtype=torch.int64)
    rules: dict[str, VisibleRuns | Causal | CausalRuns] = {
        "runs": VisibleRuns(length, length, prefix, apart=queries if rows > 1 else 0),
        "causal": Causal(_WINDOW + 1),
        "causal runs": CausalRuns(length, length, prefix, _WINDOW + 1),
    }
    return plan_canvas_attention(query, keys, keys, rules.get(shown))[0]


def _experts(gate_up: Tensor | PackedWeight, down: Tensor | PackedWeight, *, native: bool = False) -> list[Launch]:
    x, pairs = _numbers(_CANVAS, _HIDDEN), (_CANVAS, _CHOSEN)
    index, weight = _numbers(*pairs, dtype=torch.int64), _numbers(*pairs, dtype=torch.float32)
    return plan_expert_mlp(x, gate_up, down, index, weight, native=native)[0]


def _expert_mlp() -> list[Launch]:
    gate_up, down = _numbers(_EXPERTS, 2 * _INNER, _HIDDEN), _numbers(_EXPERTS, _HIDDEN, _INNER)
    return _experts(gate_up, down)


def _packed_expert_mlp(*, pack: Callable[..., PackedWeight], native: bool = False) -> list[Launch]:
    """The two products alone: what is before, between and after them is compiled by other names."""
    launches = _experts(pack(_EXPERTS, 2 * _INNER, _HIDDEN), pack(_EXPERTS, _HIDDEN, _INNER), native=native)
    return [one for one in launches if "kind" in one.constants]


def _packed_linear(
    *, pack: Callable[..., PackedWeight], width: int = _HEADS * 256, length: int = _HIDDEN, native: bool = False
) -> list[Launch]:
    """The product alone; if nobody says otherwise, the queries of a sliding layer."""
    return plan_packed_linear(_numbers(_CANVAS, length), pack(width, length), native=native)[0][-1:]


def _norm_rotary(*, key_heads: int, width: int) -> list[Launch]:
    raw = Heads(*(_numbers(1, _CANVAS, heads, width) for heads in (_HEADS, key_heads, key_heads)))
    weight, angles = _numbers(width), _numbers(_CANVAS, 256 + 512)[:, :width]
    return plan_norm_rotary(raw, weight, weight, angles, angles, 1e-6)[0]


def _add_attention(*, dense: bool, experts: bool) -> list[Launch]:
    """By which of them reads rounded rows."""
    x, weight = _numbers(_CANVAS, _HIDDEN), _numbers(_HIDDEN)
    return plan_attention(x, x, weight, Norm(weight, dense), Norm(weight, experts), weight, 1e-6)[0]


def _add_feed_forward(*, rounds: bool) -> list[Launch]:
    x, mixed, weight = _numbers(_CANVAS, _HIDDEN), _numbers(_CANVAS, _CHOSEN, _HIDDEN), _numbers(_HIDDEN)
    return plan_feed_forward(x, x, mixed, (weight, weight, weight), _numbers(1), Norm(weight, rounds), 1e-6)[0]


def _gated_gelu(*, rounds: bool) -> list[Launch]:
    gate, up = _numbers(_CANVAS, 2 * _DENSE).chunk(2, dim=-1)
    return plan_gated_gelu(gate, up, rounds=rounds)[0]


def _choose_experts() -> list[Launch]:
    return plan_choose_experts(_numbers(_CANVAS, _EXPERTS), _numbers(_EXPERTS), _CHOSEN)[0]


def _random_numbers() -> list[Launch]:
    number = _numbers(_ROWS, dtype=torch.int64)
    return plan_random_numbers(number, number, _CANVAS, _VOCABULARY)[0]


def _quantise_rows(*, length: int) -> list[Launch]:
    return [rounding(_numbers(_CANVAS, length))[0]]


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


_SLIDING = partial(_canvas_attention, width=256, key_heads=8, prefix=_WINDOW)
_FULL = partial(_canvas_attention, width=512, key_heads=2, prefix=_PREFIX)

PLANS: Mapping[str, Callable[[], list[Launch]]] = {
    "canvas_attention, heads of 64": partial(_canvas_attention, width=64, key_heads=4, prefix=_PREFIX),
    "canvas_attention, heads of 128": partial(_canvas_attention, width=128, key_heads=4, prefix=_PREFIX),
    "canvas_attention, sliding layers": _SLIDING,
    "canvas_attention, full layers": _FULL,
    "canvas_attention, sliding layers, one token": partial(_SLIDING, queries=1),
    "canvas_attention, full layers, one token": partial(_FULL, queries=1),
    "canvas_attention, sliding layers, runs": partial(_SLIDING, shown="runs"),
    "canvas_attention, full layers, runs": partial(_FULL, shown="runs"),
    "canvas_attention, sliding layers, rows behind one prefix": partial(
        _SLIDING, shown="runs", queries=_SHORT, rows=_ROWS
    ),
    "canvas_attention, full layers, a short canvas": partial(_FULL, shown="runs", queries=_SHORT),
    "canvas_attention, sliding layers, causal": partial(_SLIDING, shown="causal", queries=_CHUNK),
    "canvas_attention, full layers, causal": partial(_FULL, shown="causal", queries=_CHUNK),
    "canvas_attention, sliding layers, causal, a few tokens": partial(_SLIDING, shown="causal", queries=_FEW),
    "canvas_attention, full layers, causal, a few tokens": partial(_FULL, shown="causal", queries=_FEW),
    "canvas_attention, sliding layers, causal runs": partial(_SLIDING, shown="causal runs", queries=_CHUNK),
    "canvas_attention, full layers, causal runs": partial(_FULL, shown="causal runs", queries=_CHUNK),
    "canvas_attention, sliding layers, causal runs, a few tokens": partial(_SLIDING, shown="causal runs", queries=_FEW),
    "canvas_attention, full layers, causal runs, a few tokens": partial(_FULL, shown="causal runs", queries=_FEW),
    "choose_experts": _choose_experts,
    "expert_mlp": _expert_mlp,
    "gated_gelu": partial(_gated_gelu, rounds=False),
    "gated_gelu, FP8": partial(_gated_gelu, rounds=True),
    "norm_rotary, sliding layers": partial(_norm_rotary, key_heads=8, width=256),
    "norm_rotary, full layers": partial(_norm_rotary, key_heads=2, width=512),
    "packed_expert_mlp, FP8": partial(_packed_expert_mlp, pack=_fp8),
    "packed_expert_mlp, NVFP4": partial(_packed_expert_mlp, pack=_nvfp4),
    "packed_expert_mlp, INT4": partial(_packed_expert_mlp, pack=_int4),
    "packed_expert_mlp, FP8, native": partial(_packed_expert_mlp, pack=_fp8, native=True),
    "packed_linear, FP8, native": partial(_packed_linear, pack=_fp8, native=True),
    "packed_linear, FP8, native, down": partial(_packed_linear, pack=_fp8, width=_HIDDEN, length=_DENSE, native=True),
    "packed_linear, FP8": partial(_packed_linear, pack=_fp8),
    "packed_linear, NVFP4": partial(_packed_linear, pack=_nvfp4),
    "packed_linear, INT4": partial(_packed_linear, pack=_int4),
    "quantise_rows": partial(_quantise_rows, length=_HIDDEN),
    "quantise_rows, between the experts' products": partial(_quantise_rows, length=_INNER),
    "quantise_rows, heads of full layers": partial(_quantise_rows, length=_HEADS * 512),
    "random_numbers": _random_numbers,
    "residual_norms": partial(_add_attention, dense=False, experts=False),
    "residual_norms, FP8": partial(_add_attention, dense=True, experts=True),
    "residual_norms, experts in four bits": partial(_add_attention, dense=True, experts=False),
    "residual_norms, behind experts": partial(_add_feed_forward, rounds=False),
    "residual_norms, behind experts, FP8": partial(_add_feed_forward, rounds=True),
    "soft_embedding": _soft_embedding,
    "vocabulary_head": _vocabulary_head,
}
"""By name. Narrow heads are of small models."""
