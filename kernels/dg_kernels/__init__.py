"""The operations of the model, each behind one public function with a readable PyTorch reference.

Tensors in, tensors out: no model, no configuration, no text. Every operation has a folder; `reference.py` in it is the
ground truth to which any faster implementation is held by a test, and `__init__.py` is the public function that checks
shapes and chooses the implementation.
"""

from dg_kernels.canvas_attention import Causal, CausalRuns, Mask, VisibleRuns, canvas_attention
from dg_kernels.choose_experts import choose_experts
from dg_kernels.expert_mlp import expert_mlp
from dg_kernels.expert_mlp.packed import packed_expert_mlp
from dg_kernels.gated_gelu import gated_gelu
from dg_kernels.norm_rotary import Heads, norm_rotary
from dg_kernels.packed_linear import packed_linear
from dg_kernels.quantised import (
    dequantise_e2m1,
    dequantise_e4m3,
    dequantise_int4,
    quantise_e2m1,
    quantise_e4m3,
    quantise_int4,
)
from dg_kernels.quantised.packed import PackedWeight
from dg_kernels.quantised.rows import Operand, RoundedRows, quantise_rows
from dg_kernels.random_numbers import random_numbers, signed
from dg_kernels.residual_norms import FeedForwardInputs, Norm, Normed, add_attention, add_feed_forward
from dg_kernels.rms_norm import rms_norm
from dg_kernels.rotary import rotary, rotary_angles
from dg_kernels.sampling import SamplingStatistics, sampling_statistics, soft_cap
from dg_kernels.soft_embedding import soft_embedding
from dg_kernels.vocabulary_head import BANNED, AllowedTokens, LogitBias, sampled_from, vocabulary_head

__all__ = [
    "BANNED",
    "AllowedTokens",
    "Causal",
    "CausalRuns",
    "FeedForwardInputs",
    "Heads",
    "LogitBias",
    "Mask",
    "Norm",
    "Normed",
    "Operand",
    "PackedWeight",
    "RoundedRows",
    "SamplingStatistics",
    "VisibleRuns",
    "add_attention",
    "add_feed_forward",
    "canvas_attention",
    "choose_experts",
    "dequantise_e2m1",
    "dequantise_e4m3",
    "dequantise_int4",
    "expert_mlp",
    "gated_gelu",
    "norm_rotary",
    "packed_expert_mlp",
    "packed_linear",
    "quantise_e2m1",
    "quantise_e4m3",
    "quantise_int4",
    "quantise_rows",
    "random_numbers",
    "rms_norm",
    "rotary",
    "rotary_angles",
    "sampled_from",
    "sampling_statistics",
    "signed",
    "soft_cap",
    "soft_embedding",
    "vocabulary_head",
]
