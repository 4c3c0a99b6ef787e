"""What a checkpoint's `config.json` says of the text model, read from and written to Hugging Face's layout.

Nothing here imports torch. The vision part of a configuration is read past, and written as small as the library allows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dg_engine.errors import CheckpointError

LayerType = Literal["sliding_attention", "full_attention"]
Bidirectional = Literal["all", "vision"] | None

# The smallest vision tower that transformers will build: it insists on having one, and text never touches it.
_VISION = {
    "model_type": "gemma4_vision",
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "patch_size": 2,
    "position_embedding_size": 16,
}

_REQUIRED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "num_experts",
    "top_k_experts",
    "moe_intermediate_size",
    "sliding_window",
)
_COUNTS = (
    *_REQUIRED, "global_head_dim", "num_global_key_value_heads", "canvas_length", "max_position_embeddings",
)  # fmt: skip
_OPTIONAL = (
    "max_position_embeddings",
    "rms_norm_eps",
    "final_logit_softcapping",
    "use_bidirectional_attention",
    "pad_token_id",
    "bos_token_id",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rope:
    """One rotary embedding: base of the frequency series and the share of frequencies that turn."""

    theta: float
    rotated_share: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The text model of DiffusionGemma. Field names are Hugging Face's; the defaults are those of the class there."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    num_experts: int
    top_k_experts: int
    moe_intermediate_size: int
    sliding_window: int
    layer_types: tuple[LayerType, ...]
    global_head_dim: int
    num_global_key_value_heads: int
    canvas_length: int = 256
    max_position_embeddings: int = 131_072
    rms_norm_eps: float = 1e-6
    final_logit_softcapping: float = 30.0
    use_bidirectional_attention: Bidirectional = None
    sliding_rope: Rope = field(default_factory=lambda: Rope(theta=10_000.0))
    full_rope: Rope = field(default_factory=lambda: Rope(theta=1_000_000.0, rotated_share=0.25))
    pad_token_id: int = 0
    bos_token_id: int = 2
    eos_token_ids: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        """Refuse numbers and combinations that no checkpoint can have."""
        self._refuse_impossible_numbers()
        if len(self.layer_types) != self.num_hidden_layers:
            raise ValueError(f"{len(self.layer_types)} layer_types for {self.num_hidden_layers=}")
        if self.layer_types[-1] != "full_attention":
            raise ValueError("the last of layer_types must be full_attention")
        if not 1 <= self.top_k_experts <= self.num_experts:
            raise ValueError(f"{self.top_k_experts=} must be between 1 and {self.num_experts=}")
        for heads in (self.num_key_value_heads, self.num_global_key_value_heads):
            if self.num_attention_heads % heads:
                raise ValueError(f"{heads} key heads do not divide {self.num_attention_heads=}")

    def _refuse_impossible_numbers(self) -> None:
        for name in _COUNTS:
            if type(value := getattr(self, name)) is not int or value < 1:
                raise ValueError(f"{name}: expected a whole number of at least 1, found {value!r}")
        for name in ("rms_norm_eps", "final_logit_softcapping"):
            if type(value := getattr(self, name)) not in {int, float} or value < 0:
                raise ValueError(f"{name}: expected a number of at least 0, found {value!r}")
        if not self.final_logit_softcapping:
            raise ValueError("final_logit_softcapping: expected a number above 0")

    def is_sliding(self, layer: int) -> bool:
        """Whether the layer sees only the last `window` tokens of the prefix."""
        return self.layer_types[layer] == "sliding_attention"

    def head_shape(self, layer: int) -> tuple[int, int]:
        """(key/value heads, head width) of the layer."""
        if self.is_sliding(layer):
            return self.num_key_value_heads, self.head_dim
        return self.num_global_key_value_heads, self.global_head_dim

    def rope(self, layer_type: LayerType) -> Rope:
        """The rotary embedding of a kind of layer."""
        return self.sliding_rope if layer_type == "sliding_attention" else self.full_rope

    @property
    def window(self) -> int:
        """Keys that a sliding layer sees, the query's own among them; to either side if the encoder looks both ways."""
        return self.sliding_window // 2 + 1 if self.use_bidirectional_attention == "all" else self.sliding_window

    @property
    def eos_token_id(self) -> int:
        """The token that ends a text, and that fills the unused end of a hole."""
        return self.eos_token_ids[0]


def read_config(directory: Path) -> ModelConfig:
    """Read `config.json` of a checkpoint.

    Raises:
        CheckpointError: the file is missing or no JSON object, or a key is missing or of a wrong value.
    """
    path = directory / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); a checkpoint needs a config.json") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: is not JSON ({error})") from error
    if not isinstance(raw, dict) or raw.get("model_type") != "diffusion_gemma":
        found = raw.get("model_type") if isinstance(raw, dict) else type(raw).__name__
        raise CheckpointError(f"{path}: model_type: expected 'diffusion_gemma', found {found!r}")
    try:
        return config_from_dict(raw)
    except KeyError as error:
        raise CheckpointError(f"{path}: text_config: the key {error} is missing") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def config_from_dict(raw: Mapping[str, Any]) -> ModelConfig:
    """The configuration in the form of a parsed `config.json`.

    Raises:
        KeyError: a key without a default is missing.
        ValueError: a value is not possible.
    """
    text: Mapping[str, Any] = raw["text_config"]
    layer_types = _layer_types(text)
    global_head_dim, global_heads = _global_heads(text, layer_types)
    ropes = text.get("rope_parameters") or {}
    eos = raw.get("eos_token_id", text.get("eos_token_id", 1))
    activation = text.get("hidden_activation", "gelu_pytorch_tanh")
    if activation != "gelu_pytorch_tanh":
        raise ValueError(f"hidden_activation: expected 'gelu_pytorch_tanh', found {activation!r}")
    if text.get("attention_bias"):
        raise ValueError("attention_bias: expected false, found true")
    return ModelConfig(
        **{key: text[key] for key in _REQUIRED},
        **{key: text[key] for key in _OPTIONAL if key in text},
        canvas_length=raw.get("canvas_length", 256),
        layer_types=layer_types,
        global_head_dim=global_head_dim,
        num_global_key_value_heads=global_heads,
        sliding_rope=_rope(ropes.get("sliding_attention"), Rope(theta=10_000.0)),
        full_rope=_rope(ropes.get("full_attention"), Rope(theta=1_000_000.0, rotated_share=0.25)),
        eos_token_ids=tuple(eos) if isinstance(eos, list) else (eos,),
    )


def config_to_dict(config: ModelConfig, dtype: str) -> dict[str, Any]:
    """The configuration in the form of a `config.json` that transformers opens."""
    text = {
        "model_type": "diffusion_gemma_text",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "global_head_dim": config.global_head_dim,
        "num_global_key_value_heads": config.num_global_key_value_heads,
        "num_experts": config.num_experts,
        "top_k_experts": config.top_k_experts,
        "moe_intermediate_size": config.moe_intermediate_size,
        "sliding_window": config.sliding_window,
        "layer_types": list(config.layer_types),
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "hidden_activation": "gelu_pytorch_tanh",
        "use_bidirectional_attention": config.use_bidirectional_attention,
        "final_logit_softcapping": config.final_logit_softcapping,
        "rope_parameters": {
            "sliding_attention": _rope_to_dict(config.sliding_rope, "default"),
            "full_attention": _rope_to_dict(config.full_rope, "proportional"),
        },
        "pad_token_id": config.pad_token_id,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "tie_word_embeddings": True,
    }
    return {
        "architectures": ["DiffusionGemmaForBlockDiffusion"],
        "model_type": "diffusion_gemma",
        "canvas_length": config.canvas_length,
        "dtype": dtype,
        "eos_token_id": list(config.eos_token_ids),
        "tie_word_embeddings": True,
        "text_config": text,
        "vision_config": dict(_VISION),
    }


def _layer_types(text: Mapping[str, Any]) -> tuple[LayerType, ...]:
    """As written, or five sliding layers to one full; the last is always full (transformers forces it too)."""
    types = text.get("layer_types") or [
        "full_attention" if (layer + 1) % 6 == 0 else "sliding_attention" for layer in range(text["num_hidden_layers"])
    ]
    if unknown := set(types) - {"sliding_attention", "full_attention"}:
        raise ValueError(f"layer_types: unknown {sorted(unknown)}")
    return (*types[:-1], "full_attention")


def _global_heads(text: Mapping[str, Any], layer_types: tuple[LayerType, ...]) -> tuple[int, int]:
    """(head width, key heads) of the full layers: two keys as published, or one override per layer as re-saved."""
    overrides = text.get("per_layer_config") or {}
    full = [overrides.get(str(i), {}) for i, kind in enumerate(layer_types) if kind == "full_attention"]
    heads = {item.get("num_key_value_heads") for item in full}
    widths = {item.get("head_dim") for item in full}
    if len(heads) > 1 or len(widths) > 1:
        raise ValueError("per_layer_config: the full layers differ from one another")
    width = widths.pop() or text.get("global_head_dim", 512)
    return width, heads.pop() or text.get("num_global_key_value_heads") or text["num_key_value_heads"]


def _rope(raw: Mapping[str, Any] | None, default: Rope) -> Rope:
    if raw is None:
        return default
    scaled = raw.get("factor") not in {None, 1.0}
    if scaled or raw.get("rope_type", "default") not in {"default", "proportional"}:
        raise ValueError(f"rope_parameters: expected rope_type default or proportional, unscaled, found {dict(raw)}")
    return Rope(theta=raw.get("rope_theta", default.theta), rotated_share=raw.get("partial_rotary_factor", 1.0))


def _rope_to_dict(rope: Rope, rope_type: str) -> dict[str, Any]:
    raw: dict[str, Any] = {"rope_type": rope_type, "rope_theta": rope.theta}
    return raw if rope_type == "default" else raw | {"partial_rotary_factor": rope.rotated_share}
