"""The models that can be trained, by name."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from dg_engine.config import LayerType, ModelConfig
from dg_engine.errors import EngineError
from dg_engine.settings import InfillConfig
from dg_engine.training.batches import SHORTEST_CHUNK
from dg_engine.training.objective import Objective
from dg_engine.training.plan import LONGEST_CANVAS
from dg_engine.training.spans import BUCKETS, USUAL_SUFFIX

_SLIDING: LayerType = "sliding_attention"
_FULL: LayerType = "full_attention"
_AS_TRAINED = Objective()


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A network and how it is trained."""

    config: ModelConfig
    encoder_tokens: int
    """Of a chunk while training, and of a prefix in use."""
    chunks: int
    """In a batch."""

    def with_context(self, tokens: int | None) -> Shape:
        """With so many encoder tokens; None leaves what there are.

        Raises:
            EngineError: the network has no positions for them and the longest canvas behind them.
        """
        if tokens is None:
            return self
        most = self.config.max_position_embeddings - LONGEST_CANVAS
        if not SHORTEST_CHUNK <= tokens <= most:
            raise EngineError(f"a context of {tokens} tokens: expected {SHORTEST_CHUNK} to {most:,} with this shape")
        return replace(self, encoder_tokens=tokens)

    def infill(self, objective: Objective = _AS_TRAINED) -> InfillConfig:
        """What a checkpoint of this shape knows of infill."""
        return InfillConfig(
            name="dg-small",
            max_prefix_tokens=self.encoder_tokens,
            suffix_tokens=USUAL_SUFFIX,
            line_hole=16,
            block_hole=48,
            # What never counted was never learnt: there is nothing to make up for.
            filler_bias=math.log(1 / objective.filler_weight) if objective.filler_weight else 0.0,
            pinned_signal=objective.pinned_signal,
            file_header=True,
        )


_SMALL = ModelConfig(
    vocab_size=4096,
    hidden_size=256,
    intermediate_size=512,
    num_hidden_layers=6,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=64,
    num_experts=1,
    top_k_experts=1,
    moe_intermediate_size=256,
    sliding_window=128,
    layer_types=(_SLIDING, _SLIDING, _FULL) * 2,
    global_head_dim=64,
    num_global_key_value_heads=2,
    canvas_length=BUCKETS[-1],
    max_position_embeddings=1024,
)

_TINY = replace(
    _SMALL,
    hidden_size=192,
    intermediate_size=384,
    num_hidden_layers=3,
    num_attention_heads=3,
    num_key_value_heads=1,
    num_global_key_value_heads=1,
    moe_intermediate_size=192,
    layer_types=(_SLIDING, _SLIDING, _FULL),
)

_BASE = replace(
    _SMALL,
    hidden_size=384,
    intermediate_size=768,
    num_attention_heads=6,
    moe_intermediate_size=384,
)

_MEDIUM = replace(
    _SMALL,
    hidden_size=384,
    intermediate_size=1024,
    num_hidden_layers=9,
    num_attention_heads=6,
    moe_intermediate_size=512,
    layer_types=(_SLIDING, _SLIDING, _FULL) * 3,
    max_position_embeddings=2048,
)

_LARGE = replace(
    _SMALL,
    hidden_size=512,
    intermediate_size=1536,
    num_hidden_layers=12,
    num_attention_heads=8,
    moe_intermediate_size=512,
    layer_types=(_SLIDING, _SLIDING, _FULL) * 4,
    max_position_embeddings=2048,
)

SHAPES = {
    "tiny": Shape(config=_TINY, encoder_tokens=512, chunks=4),
    "small": Shape(config=_SMALL, encoder_tokens=512, chunks=4),
    "base": Shape(config=_BASE, encoder_tokens=512, chunks=4),
    "medium": Shape(config=_MEDIUM, encoder_tokens=1024, chunks=48),
    "large": Shape(config=_LARGE, encoder_tokens=1024, chunks=32),
    "experts": Shape(
        config=replace(_MEDIUM, num_experts=16, top_k_experts=2, moe_intermediate_size=256),
        encoder_tokens=1024,
        chunks=48,
    ),
}
"""`small` has 6 M parameters and one expert: there is a dense MLP beside the experts, and both are always used.
`tiny` (2.3 M) and `base` (12.7 M) are what it was chosen from (`dg-engine study scaling`).
`experts` computes as much for a token as `medium` and has two and a half times its parameters."""

GENERATION = {
    "max_denoising_steps": 8,
    "sampler_config": {"_cls_name": "EntropyBoundSamplerConfig", "entropy_bound": 0.1},
    "t_min": 0.1,
    "t_max": 0.4,
    "stability_threshold": 1,
    "confidence_threshold": 0.05,
    "eos_token_id": [1],
    "bos_token_id": 2,
    "pad_token_id": 0,
}
"""`generation_config.json`, chosen on the validation projects (60 one-line holes): 8 steps at temperatures 0.4 to 0.1
gave an edit similarity of 31, 12 steps at the released model's 0.8 to 0.4 gave 19."""
