"""DiffusionGemma's text model: token ids and a prefix cache in, hidden states out. No text, no sampling.

One set of weights, used twice. As the *encoder* it is a causal language model that turns a prefix into keys and values;
with the head it scores text. As the *decoder* it reads those keys and values, never changes them, and refines a canvas
whose tokens all see one another. Only the mask, the self-conditioning preamble and a scalar per layer differ.

The parameters carry Hugging Face's names, so a state dict is a checkpoint. Where public implementations differ this one
follows transformers' `models/diffusion_gemma`, to which tests hold it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from dg_engine.config import LayerType, ModelConfig
from dg_engine.layers import Layer, LayerLike, Packed, RMSNorm, Rows, SelfConditioning, Stream
from dg_engine.prefix_cache import PrefixCache, Seen
from dg_kernels import (
    AllowedTokens,
    Causal,
    CausalRuns,
    LogitBias,
    Mask,
    Norm,
    PackedWeight,
    SamplingStatistics,
    rms_norm,
    rotary_angles,
    soft_cap,
    soft_embedding,
    vocabulary_head,
)


class Encoded(NamedTuple):
    """Hidden states of the newly encoded tokens [B, S, H], and the cache with them in it."""

    hidden: Tensor
    cache: PrefixCache


class Masks(NamedTuple):
    """Which keys a query sees, of P + C in the two kinds of layers. None shows everything."""

    full: Mask | None
    sliding: Mask | None

    def of(self, layer_type: LayerType) -> Mask | None:
        """The mask of a kind of layer."""
        return self.full if layer_type == "full_attention" else self.sliding


class _Decoder(nn.Module):
    """Holds the weights under `model.decoder`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        # Not nn.Embedding(V, H): that draws normal numbers, which on the meta device imports torch's compiler, 1.4 s.
        blank = torch.empty(config.vocab_size, config.hidden_size)
        self.embed_tokens: nn.Embedding = nn.Embedding.from_pretrained(blank, freeze=False)  # type: ignore[no-untyped-call]
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
        self.dropped_mass = 0.0
        """What `soft_embedding` may leave out of a distribution where few tokens hold the rest; 0 is exact."""
        self.model = nn.Module()
        self.model.decoder = _Decoder(config)
        self.model.encoder = _EncoderScalars(config)

    @property
    def decoder(self) -> _Decoder:
        """The shared weights."""
        decoder = self.model.decoder
        assert isinstance(decoder, _Decoder)  # noqa: S101  (narrows nn.Module's Any)
        return decoder

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.embed_tokens.weight.device

    @property
    def parameter_count(self) -> int:
        """Of all weights, also of those that stay packed."""
        return sum(math.prod(one.shape) for one in self._weights())

    @property
    def weight_bytes(self) -> int:
        """What all weights take where they are."""
        return sum(one.nbytes for one in self._weights())

    def _weights(self) -> Iterator[Tensor | PackedWeight]:
        yield from self.parameters()
        for module in self.modules():
            if isinstance(module, Packed):
                yield from module.weights

    @property
    def product_dtype(self) -> torch.dtype:
        """In which the layers multiply."""
        return self.decoder.embed_tokens.weight.dtype

    @property
    def table(self) -> Tensor:
        """[V, H], by which the vocabulary is multiplied: the embeddings."""
        return self.decoder.embed_tokens.weight

    def embed(self, tokens: Tensor) -> Tensor:
        """Token ids [...] to scaled embeddings [..., H]."""
        return self.decoder.embed_tokens(tokens) * self._embedding_scale()  # type: ignore[no-any-return]

    def soft_embedding(self, probabilities: Tensor) -> Tensor:
        """Distributions [..., V] to their mean scaled embedding [..., H]: the self-conditioning signal.

        It is within `dropped_mass` times the length of the longest embedding.
        """
        vocabulary, width = self.table.shape
        rows = probabilities.to(self.table.dtype).reshape(-1, vocabulary)
        mean = soft_embedding(rows, self.table, dropped=self.dropped_mass).to(self.decoder.embed_tokens.weight.dtype)
        return mean.view(*probabilities.shape[:-1], width) * self._embedding_scale()

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., H] to soft-capped fp32 logits [..., V]."""
        raw = functional.linear(hidden.to(self.table.dtype), self.table)
        return soft_cap(raw, self.config.final_logit_softcapping)

    def sampled(
        self,
        hidden: Tensor,
        temperature: Tensor,
        uniform: Tensor,
        bias: LogitBias | None = None,
        allowed: AllowedTokens | None = None,
    ) -> SamplingStatistics:
        """What a step must know of the distributions at hidden states [R, H]; on a GPU without writing any logits.

        The arguments, [R] each, are those of `vocabulary_head`.
        """
        return vocabulary_head(
            hidden.to(self.table.dtype),
            self.table,
            cap=self.config.final_logit_softcapping,
            temperature=temperature,
            uniform=uniform,
            bias=bias,
            allowed=allowed,
        )

    def encode(self, tokens: Tensor, cache: PrefixCache | None = None, read: Rows | None = None) -> Encoded:
        """Run the causal encoder over tokens [B, S] that follow the cached ones.

        Returns:
            Hidden states after the final norm, for the head, of all S tokens or of those in `read`, and the cache
            extended by the S tokens.
        """
        cache = cache or self.empty_cache(tokens.shape[0])
        count = tokens.shape[1]
        positions = torch.arange(cache.length, cache.length + count, device=tokens.device)
        if torch.is_grad_enabled():
            masks = self._encoder_masks(cache.length, count, tokens.device)
            shown = [Seen(*pair) for pair in zip(cache.keys, cache.values, strict=True)]
            hidden, keys, values = self._run(
                self.embed(tokens), self.angles(positions), shown, masks, self._encoder_scalars, read
            )
            return Encoded(hidden, PrefixCache(_extended(cache.keys, keys), _extended(cache.values, values)))
        # One more token sees all that is before it, in sliding layers all that is in the window: that needs no mask.
        one = count == 1 and self.config.use_bidirectional_attention != "all"
        masks = Masks(None, None) if one else self._encoder_masks(cache.length, count, tokens.device)
        cache = cache.with_room(count, self.reach)
        seen = self._seen(cache, count, self._window_start(cache) if one else 0)
        hidden, _, _ = self._run(self.embed(tokens), self.angles(positions), seen, masks, self._encoder_scalars, read)
        return Encoded(hidden, cache.grown(count))

    def encode_rows(self, tokens: Tensor, cache: PrefixCache, masks: Masks, positions: Tensor) -> Tensor:
        """Run the causal encoder over rows [B, S] that see a cache through masks of their own, and do not extend it.

        Returns:
            Hidden states [B, S, H] after the final norm.
        """
        seen = [Seen(*pair) for pair in zip(cache.keys, cache.values, strict=True)]
        return self.encode_over(tokens, seen, positions, masks)

    def encode_among(self, tokens: Tensor, cache: PrefixCache, masks: Masks, positions: Tensor, first: int) -> Encoded:
        """Run the causal encoder over rows [B, S] that see a cache and one another through masks of their own.

        Args:
            tokens: token ids.
            cache: its first tokens are at the positions 0, 1, ..., the others wherever the masks know them to be.
            masks: which of the cache and of the tokens each token sees.
            positions: [S], none before `first`.
            first: so many tokens of the cache lie in order; sliding layers see the last of them and all others.

        Returns:
            Hidden states [B, S, H] after the final norm, and the cache extended by the S tokens.
        """
        count, start = tokens.shape[1], max(0, first - (self.config.window - 1))
        cache = cache.with_room(count, [None] * self.config.num_hidden_layers)
        hidden = self.encode_over(tokens, self._seen(cache, count, start), positions, masks)
        return Encoded(hidden, cache.grown(count))

    def encode_over(
        self, tokens: Tensor, seen: Sequence[Seen], positions: Tensor, masks: Masks, read: Rows | None = None
    ) -> Tensor:
        """`encode_rows` over what each layer sees of the prefix, wherever that lies; the masks fit it.

        Returns:
            Hidden states of all tokens, or of those in `read`: where masks are `CausalRuns`, the last.
        """
        return self._run(self.embed(tokens), self.angles(positions), seen, masks, self._encoder_scalars, read)[0]

    def decode(
        self,
        canvas: Tensor,
        cache: PrefixCache,
        signal: Tensor | None,
        positions: Tensor | None = None,
        masks: Masks | None = None,
        read: Rows | None = None,
    ) -> Tensor:
        """Run the bidirectional decoder over a canvas [B, C].

        Args:
            canvas: token ids; unknown slots hold noise.
            cache: the encoded prefix; never changed, but the places behind it hold the canvas's keys meanwhile.
            signal: self-conditioning, [B, C, H]: per slot the mean embedding that the previous step predicted, the
                token's own embedding where it is pinned, zeros where nothing is known; None is zeros everywhere.
            positions: [C] or [B, C]; None continues after the prefix.
            masks: visibility of prefix and canvas for several canvases over one prefix; None lets every slot see the
                whole canvas, the whole prefix in full layers and its last `window` - 1 tokens in sliding ones.
            read: the slots whose hidden states are wanted; None is all.

        Returns:
            Hidden states [B, C, H] after the final norm, or [B, R, H] of the R slots in `read`.
        """
        if positions is None:
            positions = torch.arange(cache.length, cache.length + canvas.shape[1], device=canvas.device)
        if torch.is_grad_enabled() or masks is not None:
            shown = cache if masks is not None else self._windowed(cache)
            seen = [Seen(*pair) for pair in zip(shown.keys, shown.values, strict=True)]
        else:
            seen = self._seen(cache.with_room(canvas.shape[1], self.reach), canvas.shape[1], self._window_start(cache))
        angles = self.angles(positions)
        return self.decode_over(self.embed(canvas), seen, signal, angles, masks or Masks(None, None), read)

    def decode_over(
        self,
        embedded: Tensor,
        seen: Sequence[Seen],
        signal: Tensor | None,
        angles: Tensor,
        masks: Masks,
        read: Rows | None = None,
    ) -> Tensor:
        """`decode` of what `embed` made of a canvas, over what each layer sees of the prefix, wherever that lies.

        The masks fit it, and the angles are those of the canvas's positions.
        """
        x = self.decoder.self_conditioning(embedded, signal)
        scalars = [layer.layer_scalar for layer in self.decoder.layers]
        return self._run(x, angles, seen, masks, scalars, read)[0]  # type: ignore[arg-type]

    @property
    def _encoder_scalars(self) -> list[Tensor]:
        return [layer.layer_scalar for layer in self.model.encoder.language_model.layers]  # type: ignore[union-attr]

    def angles(self, positions: Tensor) -> Tensor:
        """Cosines and sines of positions [..., C] for each kind of layer, side by side: [2, ..., C, sum of widths]."""
        parts = []
        for kind, width in self._widths.items():
            rope = self.config.rope(kind)
            pair = rotary_angles(positions, head_dim=width, theta=rope.theta, rotated_share=rope.rotated_share)
            parts.append(torch.stack(pair))
        return torch.cat(parts, dim=-1).to(self.decoder.embed_tokens.weight.dtype)

    @property
    def _widths(self) -> dict[LayerType, int]:
        """Of a head in each kind of layer that there is."""
        return {kind: self.config.head_shape(layer)[1] for layer, kind in enumerate(self.config.layer_types)}

    def empty_cache(self, batch: int) -> PrefixCache:
        """The cache of nothing."""
        weight = self.decoder.embed_tokens.weight
        shapes = [self.config.head_shape(layer) for layer in range(self.config.num_hidden_layers)]
        empty = tuple(weight.new_empty(batch, heads, 0, width) for heads, width in shapes)
        return PrefixCache(empty, empty)

    @property
    def layers(self) -> Sequence[LayerLike]:
        """What `_run` goes through."""
        return self.decoder.layers  # type: ignore[return-value]

    def _run(
        self,
        x: Tensor,
        angles: Tensor,
        seen: Sequence[Seen],
        masks: Masks,
        scalars: list[Tensor],
        read: Rows | None = None,
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        parts = angles.split(list(self._widths.values()), dim=-1)  # type: ignore[no-untyped-call]
        turns = {kind: tuple(part) for kind, part in zip(self._widths, parts, strict=True)}
        keys, values = [], []
        layers, last = self.layers, Norm(self.decoder.norm.weight)
        first, *others = (layer.before for layer in layers)
        stream = Stream(x, rms_norm(x, first.weight, self.config.rms_norm_eps).flatten(0, 1))
        for index, (layer, following) in enumerate(zip(layers, [*others, last], strict=True)):
            kind = self.config.layer_types[index]
            wanted = read if index + 1 == len(scalars) else None
            mask = masks.of(kind)
            keys_seen = seen[index].count(x.shape[1])
            if isinstance(mask, CausalRuns) and wanted is not None:
                mask = mask.of_last
            if isinstance(mask, Causal) and wanted is not None:
                mask = mask.mask(x.shape[1], keys_seen, x.device)
            if isinstance(mask, Tensor):
                # Of tokens that the layer has forgotten, nothing is seen.
                mask = mask[..., -keys_seen:]
            stream, key, value = layer(stream, turns[kind], seen[index], mask, scalars[index], following, wanted)
            keys.append(key)
            values.append(value)
        assert isinstance(stream.normed, Tensor)  # noqa: S101  (the head does not read rounded rows)
        return stream.normed.view_as(stream.x), keys, values

    def _seen(self, cache: PrefixCache, places: int, start: int) -> list[Seen]:
        """What each layer sees of a cache that has so many free places; sliding layers from a token on."""
        layers = range(self.config.num_hidden_layers)
        return [cache.seen(layer, places, start if self.config.is_sliding(layer) else 0) for layer in layers]

    def _window_start(self, cache: PrefixCache) -> int:
        return max(0, cache.length - (self.config.window - 1))

    def _encoder_masks(self, cached: int, new: int, device: torch.device) -> Masks:
        """Causal, within the window for sliding layers; both ways when the configuration says so."""
        if self.device.type == "cuda" and self.config.use_bidirectional_attention != "all":
            return Masks(Causal(None), Causal(self.config.window))
        query = torch.arange(cached, cached + new, device=device)[:, None]
        key = torch.arange(cached + new, device=device)[None, :]
        if self.config.use_bidirectional_attention == "all":
            near = (query - key).abs() <= self.config.window
            return Masks(None, near[None])
        causal = key <= query
        return Masks(causal[None], (causal & (query - key < self.config.window))[None])

    def _windowed(self, cache: PrefixCache) -> PrefixCache:
        """The last window - 1 tokens for sliding layers: the same for every slot of the canvas."""
        firsts = [
            max(0, key.shape[2] - (self.config.window - 1)) if self.config.is_sliding(layer) else 0
            for layer, key in enumerate(cache.keys)
        ]
        keys, values = (
            tuple(one[:, :, first:] for one, first in zip(part, firsts, strict=True))
            for part in (cache.keys, cache.values)
        )
        return PrefixCache(keys, values)

    @property
    def reach(self) -> list[int | None]:
        """An encoder that looks both ways reaches one token further back than others."""
        layers = range(self.config.num_hidden_layers)
        return [self.config.window if self.config.is_sliding(layer) else None for layer in layers]

    def _embedding_scale(self) -> Tensor:
        # Rounded to the weights' type first, as the checkpoint was trained: 2816 ** 0.5 is 53.0 in bf16, not 53.07.
        # Filled on the device: a number copied from the host waits for the device, and cannot be captured in a graph.
        weight = self.decoder.embed_tokens.weight
        return torch.full((), self.config.hidden_size**0.5, dtype=weight.dtype, device=weight.device)


def _extended(cached: Sequence[Tensor], new: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(torch.cat(pair, dim=2) for pair in zip(cached, new, strict=True))
