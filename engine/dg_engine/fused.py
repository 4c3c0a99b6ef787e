"""The same network with its weights rearranged for a CPU, where a small matrix costs less than the call for it.

Between two norms a layer makes one product where `Layer` makes two or three: queries, keys and values come from one
matrix, the gates and ups of the dense MLP and of an expert that every row uses from another. The weight of a norm
before a product is multiplied into the matrix, so that equal norms are taken once. For the model that ships, in fp32 on
one core without AMX, a step of 48 slots takes 13.9 ms for 18.2, one more token 5.6 for 9.1. `layers.Layer` is the
readable twin, to which tests hold this within the rounding of the type.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from dg_engine.eight_bits import EightBits
from dg_engine.layers import Angles, Layer, Rows, Stream, rows_of
from dg_engine.model import DiffusionGemma
from dg_engine.prefix_cache import Seen
from dg_kernels import Mask, Norm, canvas_attention, rms_norm, rotary

Layered = tuple[Stream, Tensor, Tensor]
Product = Callable[[Tensor], Tensor]
"""Of rows [..., K] with a matrix [N, K]."""


class FusedLayer:
    """One layer with its own copies of the weights; called as `Layer.forward`.

    Args:
        layer: of the readable model, with one expert.
        product: makes what multiplies by a matrix.
    """

    def __init__(self, layer: Layer, product: Callable[[Tensor], Product]) -> None:
        attention = layer.self_attn
        self._width, self._eps = attention.width, attention.eps
        self._key_heads = attention.key_heads
        self._query_heads = attention.q_proj.out_features // attention.width
        self._own_values = attention.v_proj is not None
        projections = [one.weight for one in (attention.q_proj, attention.k_proj, attention.v_proj) if one is not None]
        self._project = product(_scaled(torch.cat(projections), layer.input_layernorm.weight))
        self._head_scale = torch.cat(
            (
                attention.q_norm.weight.expand(self._query_heads, -1),
                attention.k_norm.weight.expand(self._key_heads, -1),
            )
        )
        self._out = product(attention.o_proj.weight)
        self._after_attention = layer.post_attention_layernorm.weight
        self._fuse_feed_forward(layer, product)

    @property
    def before(self) -> Norm:
        """As `Layer.before`: its weight is in the matrices."""
        return Norm(None)

    def _fuse_feed_forward(self, layer: Layer, product: Callable[[Tensor], Product]) -> None:
        """Gates of both, then ups of both: one activation and one product for the two together."""
        dense, experts = layer.mlp, layer.experts
        before, before_experts = layer.pre_feedforward_layernorm.weight, layer.pre_feedforward_layernorm_2.weight
        gate, up = experts.gate_up_proj[0].chunk(2)
        matrices = (
            _scaled(dense.gate_proj.weight, before),
            _scaled(gate, before_experts),
            _scaled(dense.up_proj.weight, before),
            _scaled(up, before_experts),
        )
        self._gates_and_ups = product(torch.cat(matrices))
        self._inner = dense.gate_proj.out_features
        self._down = product(dense.down_proj.weight)
        self._expert_down = product(experts.down_proj[0] * layer.router.per_expert_scale)
        self._after_dense = layer.post_feedforward_layernorm_1.weight
        self._after_experts = layer.post_feedforward_layernorm_2.weight
        self._after = layer.post_feedforward_layernorm.weight

    def __call__(
        self,
        stream: Stream,
        angles: Angles,
        seen: Seen,
        mask: Mask | None,
        scalar: Tensor,
        following: Norm,
        read: Rows | None = None,
    ) -> Layered:
        """As `Layer.forward`."""
        heads, key_heads = self._query_heads, self._key_heads
        x, rows = stream
        assert isinstance(rows, Tensor)  # noqa: S101  (only kernels round rows)
        projected = self._project(rows).view(*x.shape[:-1], -1, self._width)
        normed = rms_norm(projected, None, self._eps)
        turned = rotary(normed[:, :, : heads + key_heads] * self._head_scale, *angles)
        query, key = turned[:, :, :heads], turned[:, :, heads:].transpose(1, 2)
        value = normed[:, :, -key_heads:].transpose(1, 2)
        if read is not None:
            query = query[:, read]
            x, mask = rows_of(read, x, mask)
        attended = self._out(canvas_attention(query.transpose(1, 2), *seen.joined(key, value), mask))
        x = x + rms_norm(attended, self._after_attention, self._eps)
        x = (x + self._feed_forward(x)) * scalar
        return Stream(x, rms_norm(x, following.weight, self._eps).flatten(0, 1)), key, value

    def _feed_forward(self, x: Tensor) -> Tensor:
        gates, ups = self._gates_and_ups(rms_norm(x, None, self._eps)).chunk(2, dim=-1)
        inner = functional.gelu(gates, approximate="tanh") * ups
        dense = rms_norm(self._down(inner[..., : self._inner]), self._after_dense, self._eps)
        mixed = self._expert_down(inner[..., self._inner :])
        return rms_norm(dense + rms_norm(mixed, self._after_experts, self._eps), self._after, self._eps)


class FusedModel(DiffusionGemma):
    """A `DiffusionGemma` for a CPU: it shares the parameters of the readable one, and runs fused copies of its layers.

    Args:
        model: its weights must not change afterwards.
        eight_bits: whether layers multiply by matrices in eight bits. All else that they do is in fp32 then; the
            vocabulary is multiplied in the type of the model.

    Raises:
        ValueError: the model has more experts than one, which are chosen row by row.
    """

    def __init__(self, model: DiffusionGemma, *, eight_bits: bool = False) -> None:
        if not can_fuse(model):
            raise ValueError(f"{model.config.num_experts} experts cannot be fused")
        with torch.device("meta"):
            super().__init__(model.config)
        state = model.state_dict()
        if eight_bits:
            # Layers are read from their fused copies.
            state = {name: one if ".layers." in name else one.float() for name, one in state.items()}
        self.load_state_dict(state, assign=True)
        self.eval().requires_grad_(requires_grad=False)
        self._table, self._in_eight_bits = model.table.detach(), eight_bits
        product = EightBits if eight_bits else _multiplied
        self._fused = [FusedLayer(layer, product) for layer in self.decoder.layers]  # type: ignore[arg-type]

    @property
    def layers(self) -> list[FusedLayer]:
        """The fused layers."""
        return self._fused

    @property
    def table(self) -> Tensor:
        """[V, H], perhaps in another type than what is looked up."""
        return self._table

    @property
    def product_dtype(self) -> torch.dtype:
        """Of the matrices of the layers."""
        return torch.int8 if self._in_eight_bits else super().product_dtype


def can_fuse(model: DiffusionGemma) -> bool:
    """Whether there is a fused form: every row of every layer goes through the same matrices."""
    return model.config.num_experts == 1


def _multiplied(matrix: Tensor) -> Product:
    return partial(functional.linear, weight=matrix)


def _scaled(matrix: Tensor, weight: Tensor) -> Tensor:
    """[N, H] with each column times the norm's weight, rounded once."""
    return (matrix.float() * weight.float()).to(matrix.dtype)
