"""The parts of a layer: norms, attention, the dense MLP beside the experts, and self-conditioning.

The parameters carry Hugging Face's names, so a state dict is a checkpoint.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from dg_engine.config import ModelConfig
from dg_engine.prefix_cache import Seen
from dg_kernels import (
    Heads,
    Mask,
    Norm,
    Normed,
    Operand,
    PackedWeight,
    add_attention,
    add_feed_forward,
    canvas_attention,
    choose_experts,
    expert_mlp,
    gated_gelu,
    norm_rotary,
    packed_expert_mlp,
    packed_linear,
    rms_norm,
)

Angles = tuple[Tensor, Tensor]
"""Cosines and sines, both [C, D] or [B, C, D]."""

Rows = slice | Tensor
"""Some of the C positions of a canvas or chunk: a slice, or [R] indices."""


class RMSNorm(nn.Module):
    """Root-mean-square norm with a weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to [..., width]."""
        return rms_norm(x, self.weight, self.eps)


class Together(nn.Module, ABC):
    """A module with matrices that read the same rows."""

    joined: Callable[[Operand], Sequence[Tensor]] | None = None
    """Their products as one, if they lie one behind the other (`dg_engine.joined`)."""

    @property
    @abstractmethod
    def together(self) -> list[nn.Module]:
        """What has these matrices."""

    def products(self, x: Operand) -> Sequence[Tensor]:
        """Rows [..., K] times each of them, [..., N] each."""
        # What is joined has no gradient.
        if self.joined is None or torch.is_grad_enabled():
            return [module(x) for module in self.together]
        return self.joined(x)


class _Gated(Together):
    """What has a gate, an up and a down."""

    gate_proj: nn.Linear
    up_proj: nn.Linear
    down_proj: nn.Linear

    @property
    def together(self) -> list[nn.Module]:
        """Gate and up."""
        return [self.gate_proj, self.up_proj]

    def gated(self, x: Operand) -> Tensor:
        """[..., H] to [..., H]."""
        gate, up = self.products(x)
        return self.down_proj(gated_gelu(gate, up, rounds=_rounds(self.down_proj)))  # type: ignore[no-any-return]


class GatedMLP(_Gated):
    """The dense gated MLP."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: Operand) -> Tensor:
        """[..., H] to [..., H]."""
        return self.gated(x)


def _rounds(*modules: nn.Module) -> bool:
    """Whether all of them multiply rows in e4m3 where the device does."""
    return all(isinstance(one, Packed) and all(weight.quantises_rows for weight in one.weights) for one in modules)


class Attention(Together):
    """Grouped-head attention with normalised queries, keys and values. Full layers use their key as the value."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.key_heads, self.width = config.head_shape(layer)
        self.eps = config.rms_norm_eps
        queries, keys = config.num_attention_heads * self.width, self.key_heads * self.width
        self.q_proj = nn.Linear(config.hidden_size, queries, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, keys, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, keys, bias=False) if config.is_sliding(layer) else None
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=False)
        self.q_norm = RMSNorm(self.width, config.rms_norm_eps)
        self.k_norm = RMSNorm(self.width, config.rms_norm_eps)

    @property
    def together(self) -> list[nn.Module]:
        """Of queries, keys and, if they have their own, values."""
        return [self.q_proj, self.k_proj, *([] if self.v_proj is None else [self.v_proj])]

    def forward(
        self, x: Operand, shape: torch.Size, angles: Angles, seen: Seen, mask: Mask | None, read: Rows | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Normed [B C, H], of a shape [B, C], to what each position found, [B, C, H], and its keys and values.

        These are [B, key heads, C, width]. With `read` only those positions attend, [B, R, H]; the mask is of them.
        """
        query, key, *own = (one.view(*shape, -1, self.width) for one in self.products(x))
        raw = Heads(query, key, *(own or [key]))
        places = seen.places(*shape)
        query, key, value = norm_rotary(raw, self.q_norm.weight, self.k_norm.weight, *angles, self.eps, places)
        found = canvas_attention(query if read is None else query[:, :, read], *seen.around(key, value), mask)
        return self.o_proj(found), key, value


class Router(nn.Module):
    """Chooses the experts of every row."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.proj = nn.Linear(config.hidden_size, config.num_experts, bias=False)
        self.scale = nn.Parameter(torch.ones(config.hidden_size))
        self.per_expert_scale = nn.Parameter(torch.ones(config.num_experts))
        self.top_k = config.top_k_experts

    def forward(self, scaled: Tensor) -> tuple[Tensor, Tensor]:
        """[N, H], normed and times `scale`, to expert numbers and fp32 weights, both [N, top_k]."""
        return choose_experts(self.proj(scaled), self.per_expert_scale, self.top_k)


class Experts(nn.Module):
    """The experts' weights, stacked."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        experts, hidden, inner = config.num_experts, config.hidden_size, config.moe_intermediate_size
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * inner, hidden))
        self.down_proj = nn.Parameter(torch.empty(experts, hidden, inner))

    def forward(self, x: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        """[N, H] to [N, P, H], P parts of a sum."""
        return expert_mlp(x, self.gate_up_proj, self.down_proj, index, weight)


class Packed(nn.Module):
    """A module whose weights stay in eight or four bits.

    They are neither parameters nor buffers: no optimiser, no cast and no state dict may take them for numbers.
    """

    def __init__(self, *weights: PackedWeight) -> None:
        super().__init__()
        self.weights = weights


class PackedExperts(Packed):
    """`Experts` over packed weights: gate and up, and down."""

    def forward(self, x: Operand, index: Tensor, weight: Tensor) -> Tensor:
        """[N, H] to [N, P, H], P parts of a sum."""
        gate_up, down = self.weights
        return packed_expert_mlp(x, gate_up, down, index, weight)


class PackedLinear(Packed):
    """`nn.Linear` without a bias over a packed weight."""

    def forward(self, x: Operand) -> Tensor:
        """[..., K] to [..., N]."""
        return packed_linear(x, *self.weights)


class Stream(NamedTuple):
    """What goes from layer to layer."""

    x: Tensor
    """[B, C, H], the residual stream."""
    normed: Operand
    """[B C, H], its norm, of which the next layer makes its projections."""


class LayerLike(Protocol):
    """What a model runs its stream through: `Layer`, or a form of it for another machine."""

    @property
    def before(self) -> Norm:
        """The norm that it is given."""

    def __call__(
        self,
        stream: Stream,
        angles: Angles,
        seen: Seen,
        mask: Mask | None,
        scalar: Tensor,
        following: Norm,
        read: Rows | None = None,
    ) -> tuple[Stream, Tensor, Tensor]:
        """As `Layer.forward`."""


class Layer(nn.Module):
    """Attention, then the dense MLP and the experts side by side; a norm before and after each."""

    layer_scalar: Tensor

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        hidden, eps = config.hidden_size, config.rms_norm_eps
        self.self_attn = Attention(config, layer)
        self.mlp = GatedMLP(hidden, config.intermediate_size)
        self.router = Router(config)
        self.experts = Experts(config)
        self.input_layernorm = RMSNorm(hidden, eps)
        self.post_attention_layernorm = RMSNorm(hidden, eps)
        self.pre_feedforward_layernorm = RMSNorm(hidden, eps)
        self.post_feedforward_layernorm = RMSNorm(hidden, eps)
        self.post_feedforward_layernorm_1 = RMSNorm(hidden, eps)
        self.post_feedforward_layernorm_2 = RMSNorm(hidden, eps)
        self.pre_feedforward_layernorm_2 = RMSNorm(hidden, eps)
        self.eps = eps
        self.register_buffer("layer_scalar", torch.ones(1))

    @property
    def before(self) -> Norm:
        """The norm that it is given."""
        return Norm(self.input_layernorm.weight, _rounds(*self.self_attn.together))

    def forward(
        self,
        stream: Stream,
        angles: Angles,
        seen: Seen,
        mask: Mask | None,
        scalar: Tensor,
        following: Norm,
        read: Rows | None = None,
    ) -> tuple[Stream, Tensor, Tensor]:
        """The next stream, by the norm that is read next, and the layer's own keys and values [B, key heads, C, width].

        With `read`, only those of the C positions attend and are returned; the keys are of all.
        """
        x, normed = stream
        shape = x.shape[:2]
        if read is not None:
            x, mask = rows_of(read, x, mask)
        attended, key, value = self.self_attn(normed, shape, angles, seen, mask, read)
        after = self._feed_forward(x.flatten(0, 1), attended.flatten(0, 1), scalar, following)
        return Stream(after.x.view_as(x), after.normed), key, value

    def _feed_forward(self, x: Tensor, attended: Tensor, scalar: Tensor, following: Norm) -> Normed:
        """The dense MLP and the experts, both of what attention found: [N, H] twice to [N, H] and its norm."""
        inputs = add_attention(
            x,
            attended,
            self.post_attention_layernorm.weight,
            Norm(self.pre_feedforward_layernorm.weight, _rounds(*self.mlp.together)),
            Norm(self.pre_feedforward_layernorm_2.weight, _rounds(self.experts)),
            self.router.scale,
            self.eps,
        )
        mixed = self.experts(inputs.experts, *self.router(inputs.router))
        after = self.post_feedforward_layernorm_1, self.post_feedforward_layernorm_2, self.post_feedforward_layernorm
        first, second, whole = (norm.weight for norm in after)
        dense = self.mlp(inputs.dense)
        return add_feed_forward(inputs.x, dense, mixed, (first, second, whole), scalar, following, self.eps)


class SelfConditioning(_Gated):
    """Adds what the previous step believed to the canvas's embeddings."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        self.pre_norm = RMSNorm(hidden, config.rms_norm_eps)
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)
        self.eps = config.rms_norm_eps

    def forward(self, embedded: Tensor, signal: Tensor | None) -> Tensor:
        """[B, C, H] twice to [B, C, H]. The norm at the end applies without a signal too."""
        if signal is not None:
            embedded = embedded + self.gated(self.pre_norm(signal))
        return rms_norm(embedded, None, self.eps)


def rows_of(read: Rows, x: Tensor, mask: Mask | None) -> tuple[Tensor, Mask | None]:
    """What a layer is given, at some of its positions."""
    return x[:, read], mask[:, read] if isinstance(mask, Tensor) else mask
