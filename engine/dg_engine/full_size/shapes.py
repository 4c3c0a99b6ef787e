"""What is measured: the sizes of a model, and how long its prefixes are."""

from __future__ import annotations

from dataclasses import dataclass

from dg_engine.config import ModelConfig
from dg_engine.prefix_store import GPU_PREFILL_CHUNK
from dg_kernels.cases import Sizes

RELEASED = ModelConfig(
    vocab_size=262_144,
    hidden_size=2816,
    intermediate_size=2112,
    num_hidden_layers=30,
    num_attention_heads=16,
    num_key_value_heads=8,
    head_dim=256,
    num_experts=128,
    top_k_experts=8,
    moe_intermediate_size=704,
    sliding_window=1024,
    layer_types=(*(["sliding_attention"] * 5), "full_attention") * 5,  # type: ignore[arg-type]
    global_head_dim=512,
    num_global_key_value_heads=2,
    max_position_embeddings=262_144,
    use_bidirectional_attention="vision",
)
"""DiffusionGemma-26B-A4B."""

_TINY = ModelConfig(
    vocab_size=1024,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    num_experts=8,
    top_k_experts=2,
    moe_intermediate_size=64,
    sliding_window=64,
    layer_types=("sliding_attention", "full_attention"),
    global_head_dim=64,
    num_global_key_value_heads=1,
    max_position_embeddings=1024,
    use_bidirectional_attention="vision",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A model and the lengths at which it is measured."""

    config: ModelConfig
    canvases: tuple[int, ...] = (64, 128, 256)
    prefixes: tuple[int, ...]
    """Tokens."""
    prefix: int
    """The one of them at which kernels are measured."""
    block_prefixes: tuple[int, ...]
    """Those of them behind which blocks are."""
    infill_prefix: int
    """Before an infill that is timed whole."""
    memory_prefix: int
    """With which the memory is measured."""
    timed_steps: int
    block_steps: tuple[int, ...] = (8, 12, 16, 24, 48)
    """Denoising steps of the blocks that are timed whole."""

    @property
    def sizes(self) -> Sizes:
        """The same for the kernels' own benchmark."""
        config = self.config
        return Sizes(
            canvas=max(self.canvases),
            chunk=GPU_PREFILL_CHUNK if self.prefix >= GPU_PREFILL_CHUNK else self.prefix,
            prefix=self.prefix,
            window=config.window - 1,
            hidden=config.hidden_size,
            vocabulary=config.vocab_size,
            heads=config.num_attention_heads,
            experts=config.num_experts,
            chosen=config.top_k_experts,
            inner=config.moe_intermediate_size,
            attentions=(
                ("sliding layer", config.num_key_value_heads, config.head_dim),
                ("full layer", config.num_global_key_value_heads, config.global_head_dim),
            ),
        )


SHAPES = {
    "released": Shape(
        config=RELEASED,
        prefixes=(512, 2048, 8192, 32_768),
        prefix=8192,
        block_prefixes=(512, 8192),
        infill_prefix=2048,
        memory_prefix=16_384,
        timed_steps=20,
    ),
    "tiny": Shape(
        config=_TINY,
        canvases=(64, 128),
        prefixes=(8, 96),
        prefix=96,
        block_prefixes=(8, 96),
        infill_prefix=32,
        memory_prefix=64,
        timed_steps=2,
        block_steps=(1, 2),
    ),
}
