"""DiffusionGemma's text model: token ids and a prefix cache in, hidden states out. No text, no sampling.

One set of weights, used twice. As the *encoder* it is a causal language model that turns a prefix into keys and values;
with the head it scores text. As the *decoder* it reads those keys and values, never changes them, and refines a canvas
whose tokens all see one another. Only the mask, the self-conditioning preamble and a scalar per layer differ.

The parameters carry Hugging Face's names, so a state dict is a checkpoint. Where public implementations differ this one
follows transformers' `models/diffusion_gemma`, to which tests hold it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from dg_engine.config import LayerType, ModelConfig
from dg_kernels import canvas_attention, expert_mlp, gated_mlp, rms_norm, rotary, rotary_angles, soft_cap

Angles = tuple[Tensor, Tensor]


class PrefixCache(NamedTuple):
    """Keys and values of an encoded prefix, one [B, key heads, length, head width] tensor per layer."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    @property
    def length(self) -> int:
        """Encoded tokens."""
        return self.keys[0].shape[2]

    def truncated(self, length: int) -> PrefixCache:
        """The cache of the first `length` tokens; a view, nothing is copied."""
        return PrefixCache(tuple(k[:, :, :length] for k in self.keys), tuple(v[:, :, :length] for v in self.values))


class Encoded(NamedTuple):
    """Hidden states of the newly encoded tokens [B, S, H], and the cache with them in it."""

    hidden: Tensor
    cache: PrefixCache


class Masks(NamedTuple):
    """Which keys a query sees, [B or 1, C, P + C] boolean, for the two kinds of layers. None shows everything."""

    full: Tensor | None
    sliding: Tensor | None

    def of(self, layer_type: LayerType) -> Tensor | None:
        """The mask of a kind of layer."""
        return self.full if layer_type == "full_attention" else self.sliding


class RMSNorm(nn.Module):
    """Root-mean-square norm with a weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to [..., width]."""
        return rms_norm(x, self.weight, self.eps)


class GatedMLP(nn.Module):
    """The dense gated MLP."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., H] to [..., H]."""
        return gated_mlp(x, self.gate_proj.weight, self.up_proj.weight, self.down_proj.weight)


class Attention(nn.Module):
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

    def keys_and_values(self, x: Tensor, angles: Angles) -> tuple[Tensor, Tensor]:
        """[B, C, H] to two [B, key heads, C, width]; the value is not rotated."""
        raw = self.k_proj(x).unflatten(-1, (self.key_heads, self.width))
        value = raw if self.v_proj is None else self.v_proj(x).unflatten(-1, (self.key_heads, self.width))
        key = rotary(self.k_norm(raw), *angles)
        return key.transpose(1, 2), rms_norm(value, None, self.eps).transpose(1, 2)

    def forward(
        self,
        x: Tensor,
        angles: Angles,
        key: Tensor,
        value: Tensor,
        prefix: tuple[Tensor, Tensor],
        mask: Tensor | None,
    ) -> Tensor:
        """Attend from [B, C, H] to the prefix and to the given keys and values; returns [B, C, H]."""
        query = rotary(self.q_norm(self.q_proj(x).unflatten(-1, (-1, self.width))), *angles)
        return self.o_proj(canvas_attention(query.transpose(1, 2), key, value, *prefix, mask))  # type: ignore[no-any-return]


class Router(nn.Module):
    """Chooses the experts of every row."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.proj = nn.Linear(config.hidden_size, config.num_experts, bias=False)
        self.scale = nn.Parameter(torch.ones(config.hidden_size))
        self.per_expert_scale = nn.Parameter(torch.ones(config.num_experts))
        self.top_k, self.eps = config.top_k_experts, config.rms_norm_eps

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[N, H] to expert numbers and fp32 weights, both [N, top_k]."""
        scaled = rms_norm(x, None, self.eps) * self.scale * x.shape[-1] ** -0.5
        weight, index = functional.softmax(self.proj(scaled), dim=-1, dtype=torch.float32).topk(self.top_k, dim=-1)
        return index, weight / weight.sum(dim=-1, keepdim=True) * self.per_expert_scale[index]


class Experts(nn.Module):
    """The experts' weights, stacked."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        experts, hidden, inner = config.num_experts, config.hidden_size, config.moe_intermediate_size
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * inner, hidden))
        self.down_proj = nn.Parameter(torch.empty(experts, hidden, inner))

    def forward(self, x: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        """[N, H] to [N, H]."""
        return expert_mlp(x, self.gate_up_proj, self.down_proj, index, weight)


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
        self.register_buffer("layer_scalar", torch.ones(1))

    def forward(
        self, x: Tensor, angles: Angles, prefix: tuple[Tensor, Tensor], mask: Tensor | None, scalar: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """[B, C, H] to the next [B, C, H], with the layer's own keys and values [B, key heads, C, width]."""
        normed = self.input_layernorm(x)
        key, value = self.self_attn.keys_and_values(normed, angles)
        attended = self.self_attn(normed, angles, key, value, prefix, mask)
        x = x + self.post_attention_layernorm(attended)
        return (x + self.feed_forward(x)) * scalar, key, value

    def feed_forward(self, x: Tensor) -> Tensor:
        """The normed sum of the dense MLP and the experts."""
        dense = self.post_feedforward_layernorm_1(self.mlp(self.pre_feedforward_layernorm(x)))
        flat = x.flatten(0, -2)
        mixed = self.experts(self.pre_feedforward_layernorm_2(flat), *self.router(flat)).view_as(x)
        return self.post_feedforward_layernorm(dense + self.post_feedforward_layernorm_2(mixed))  # type: ignore[no-any-return]


class SelfConditioning(nn.Module):
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
            normed = self.pre_norm(signal)
            embedded = embedded + gated_mlp(normed, self.gate_proj.weight, self.up_proj.weight, self.down_proj.weight)
        return rms_norm(embedded, None, self.eps)


class _Decoder(nn.Module):
    """Holds the weights under `model.decoder`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_conditioning = SelfConditioning(config)


class _EncoderScalars(nn.Module):
    """Holds the one thing the encoder does not share: `model.encoder.language_model.layers.N.layer_scalar`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.language_model = nn.Module()
        self.language_model.layers = nn.ModuleList(nn.Module() for _ in range(config.num_hidden_layers))
        for layer in self.language_model.layers:
            layer.register_buffer("layer_scalar", torch.ones(1))


class DiffusionGemma(nn.Module):
    """Encoder, decoder and head over one set of weights."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = nn.Module()
        self.model.decoder = _Decoder(config)
        self.model.encoder = _EncoderScalars(config)

    @property
    def decoder(self) -> _Decoder:
        """The shared weights."""
        decoder = self.model.decoder
        assert isinstance(decoder, _Decoder)  # noqa: S101  (narrows nn.Module's Any)
        return decoder

    def embed(self, tokens: Tensor) -> Tensor:
        """Token ids [...] to scaled embeddings [..., H]."""
        return self.decoder.embed_tokens(tokens) * self._embedding_scale()  # type: ignore[no-any-return]

    def soft_embedding(self, probabilities: Tensor) -> Tensor:
        """Distributions [..., V] to their mean scaled embedding [..., H]: the self-conditioning signal."""
        weight = self.decoder.embed_tokens.weight
        return probabilities.to(weight.dtype) @ weight * self._embedding_scale()

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., H] to soft-capped fp32 logits [..., V]."""
        raw = functional.linear(hidden, self.decoder.embed_tokens.weight)
        return soft_cap(raw, self.config.final_logit_softcapping)

    def encode(self, tokens: Tensor, cache: PrefixCache | None = None) -> Encoded:
        """Run the causal encoder over tokens [B, S] that follow the cached ones.

        Returns:
            Hidden states after the final norm, for the head, and the cache extended by the S tokens.
        """
        cache = cache or self.empty_cache(tokens.shape[0])
        positions = torch.arange(cache.length, cache.length + tokens.shape[1], device=tokens.device)
        masks = self._encoder_masks(cache.length, tokens.shape[1], tokens.device)
        hidden, keys, values = self._run(self.embed(tokens), positions, cache, masks, self._encoder_scalars)
        extended = PrefixCache(
            tuple(torch.cat(pair, dim=2) for pair in zip(cache.keys, keys, strict=True)),
            tuple(torch.cat(pair, dim=2) for pair in zip(cache.values, values, strict=True)),
        )
        return Encoded(hidden, extended)

    def encode_rows(self, tokens: Tensor, cache: PrefixCache, masks: Masks, positions: Tensor) -> Tensor:
        """Run the causal encoder over rows [B, S] that see a cache through masks of their own, and do not extend it.

        Returns:
            Hidden states [B, S, H] after the final norm.
        """
        return self._run(self.embed(tokens), positions, cache, masks, self._encoder_scalars)[0]

    def decode(
        self,
        canvas: Tensor,
        cache: PrefixCache,
        signal: Tensor | None,
        positions: Tensor | None = None,
        masks: Masks | None = None,
    ) -> Tensor:
        """Run the bidirectional decoder over a canvas [B, C].

        Args:
            canvas: token ids; unknown slots hold noise.
            cache: the encoded prefix; read, never changed.
            signal: self-conditioning, [B, C, H]: per slot the mean embedding that the previous step predicted, the
                token's own embedding where it is pinned, zeros where nothing is known; None is zeros everywhere.
            positions: [C] or [B, C]; None continues after the prefix.
            masks: visibility of prefix and canvas for several canvases over one prefix; None lets every slot see the
                whole canvas, the whole prefix in full layers and its last `window` - 1 tokens in sliding ones.

        Returns:
            Hidden states [B, C, H] after the final norm.
        """
        if positions is None:
            positions = torch.arange(cache.length, cache.length + canvas.shape[1], device=canvas.device)
        windowed = cache if masks is not None else self._windowed(cache)
        embedded = self.decoder.self_conditioning(self.embed(canvas), signal)
        scalars = [layer.layer_scalar for layer in self.decoder.layers]
        hidden, _, _ = self._run(embedded, positions, windowed, masks or Masks(None, None), scalars)  # type: ignore[arg-type]
        return hidden

    @property
    def _encoder_scalars(self) -> list[Tensor]:
        return [layer.layer_scalar for layer in self.model.encoder.language_model.layers]  # type: ignore[union-attr]

    def empty_cache(self, batch: int) -> PrefixCache:
        """The cache of nothing."""
        weight = self.decoder.embed_tokens.weight
        shapes = [self.config.head_shape(layer) for layer in range(self.config.num_hidden_layers)]
        empty = tuple(weight.new_empty(batch, heads, 0, width) for heads, width in shapes)
        return PrefixCache(empty, empty)

    def _run(
        self, x: Tensor, positions: Tensor, cache: PrefixCache, masks: Masks, scalars: list[Tensor]
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        angles = self._angles(positions, x.dtype)
        keys, values = [], []
        for index, layer in enumerate(self.decoder.layers):
            kind = self.config.layer_types[index]
            prefix = cache.keys[index], cache.values[index]
            x, key, value = layer(x, angles[kind], prefix, masks.of(kind), scalars[index])
            keys.append(key)
            values.append(value)
        return self.decoder.norm(x), keys, values

    def _angles(self, positions: Tensor, dtype: torch.dtype) -> dict[LayerType, Angles]:
        angles: dict[LayerType, Angles] = {}
        for layer in range(self.config.num_hidden_layers):
            kind = self.config.layer_types[layer]
            if kind not in angles:
                rope, (_, width) = self.config.rope(kind), self.config.head_shape(layer)
                cosines, sines = rotary_angles(
                    positions, head_dim=width, theta=rope.theta, rotated_share=rope.rotated_share
                )
                angles[kind] = cosines.to(dtype), sines.to(dtype)
        return angles

    def _encoder_masks(self, cached: int, new: int, device: torch.device) -> Masks:
        """Causal, within the window for sliding layers; both ways when the configuration says so."""
        query = torch.arange(cached, cached + new, device=device)[:, None]
        key = torch.arange(cached + new, device=device)[None, :]
        if self.config.use_bidirectional_attention == "all":
            near = (query - key).abs() <= self.config.window
            return Masks(None, near[None])
        causal = key <= query
        return Masks(causal[None], (causal & (query - key < self.config.window))[None])

    def _windowed(self, cache: PrefixCache) -> PrefixCache:
        """The last window - 1 tokens for sliding layers: the same for every slot of the canvas."""
        start = max(0, cache.length - (self.config.window - 1))
        sliding = [self.config.is_sliding(layer) for layer in range(self.config.num_hidden_layers)]
        return PrefixCache(
            tuple(k[:, :, start:] if cut else k for k, cut in zip(cache.keys, sliding, strict=True)),
            tuple(v[:, :, start:] if cut else v for v, cut in zip(cache.values, sliding, strict=True)),
        )

    def _embedding_scale(self) -> Tensor:
        # Rounded to the weights' type first, as the checkpoint was trained: 2816 ** 0.5 is 53.0 in bf16, not 53.07.
        weight = self.decoder.embed_tokens.weight
        return torch.tensor(self.config.hidden_size**0.5, dtype=weight.dtype, device=weight.device)
