"""What tests share: tiny random checkpoints, and a look at a running engine. No weights, no network, no GPU."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from dg_engine import adapters, checkpoint, paths
from dg_engine.api import Health, ModelInfo
from dg_engine.checkpoint import initialise
from dg_engine.client import EngineClient
from dg_engine.config import ModelConfig
from dg_engine.model import DiffusionGemma
from dg_kernels.sampling.reference import sampling_statistics_reference

_Answer = TypeVar("_Answer")

TINY = ModelConfig(
    vocab_size=61,
    hidden_size=32,
    intermediate_size=40,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    num_experts=4,
    top_k_experts=2,
    moe_intermediate_size=24,
    sliding_window=8,
    layer_types=("sliding_attention", "sliding_attention", "full_attention"),
    global_head_dim=32,
    num_global_key_value_heads=1,
    canvas_length=12,
    max_position_embeddings=256,
    use_bidirectional_attention="vision",
)
"""Three layers, both kinds, grouped heads, two of four experts, a window shorter than most test prefixes."""


def tiny_model(config: ModelConfig = TINY, *, seed: int = 0) -> DiffusionGemma:
    """A random model of the given shape, in evaluation mode.

    Matrices are drawn wide enough that every part of the model changes its output, and norms and scalars differ from
    one, so that swapping any two of them shows. Not wider: at 0.15 the model is chaotic, and rounding errors of 1e-6
    have become other tokens after eight denoising steps.
    """
    generator = torch.Generator().manual_seed(seed)
    model = DiffusionGemma(config)
    initialise(model, generator, std=0.1)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.dim() == 1:
                tensor.copy_(0.8 + 0.4 * torch.rand(tensor.shape, generator=generator))
    return model.eval().requires_grad_(requires_grad=False)


SHAPES: dict[str, ModelConfig] = {
    "grouped heads, two of four experts": TINY,
    "one full layer only": replace(
        TINY, num_hidden_layers=1, layer_types=("full_attention",), num_global_key_value_heads=4, global_head_dim=16
    ),
    "odd expert counts": replace(TINY, num_experts=7, top_k_experts=3, moe_intermediate_size=12),
    "a single expert": replace(TINY, num_experts=1, top_k_experts=1),
    "causal, no vision blocks": replace(TINY, use_bidirectional_attention=None),
    "bidirectional encoder": replace(TINY, use_bidirectional_attention="all"),
    "full layer in the middle": replace(
        TINY,
        num_hidden_layers=4,
        layer_types=("sliding_attention", "full_attention", "sliding_attention", "full_attention"),
        num_key_value_heads=4,
        num_global_key_value_heads=2,
    ),
}
"""Shapes that between them reach every branch of the architecture."""


class NothingAsksTheHost(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses what reads a tensor's values on the host, and what copies a number of the host's to the device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        unknown = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags)
        # Indexing counts as of unknown shape, because it is where an index is a mask.
        if func is torch.ops.aten.index.Tensor:
            unknown = {one for one in args[1] if one is not None and one.dtype == torch.bool}
        if unknown or func is torch.ops.aten.lift_fresh.default:
            raise AssertionError(f"{func} asks the host")
        return func(*args, **(kwargs or {}))


SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<|file|>")


def tiny_tokenizer(vocab_size: int = 320, special_tokens: Sequence[str] = SPECIAL_TOKENS) -> Tokenizer:
    """A byte-level tokenizer with a few merges, learnt from this file."""
    backend = Tokenizer(models.BPE())
    words = Regex(r"\r?\n[ \t]*|[ _]?\p{L}+|\s+|.")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([Path(__file__).read_text(encoding="utf-8")], trainer)
    return backend


def tiny_checkpoint(directory: Path, config: ModelConfig = TINY, *, seed: int = 0) -> Path:
    """A whole random checkpoint on disk: weights, tokenizer, sampling defaults. Its answers are gibberish, but real."""
    tokenizer = tiny_tokenizer()
    sized = replace(config, vocab_size=tokenizer.get_vocab_size(), canvas_length=64, max_position_embeddings=1024)
    checkpoint.save(tiny_model(sized, seed=seed), directory, {"max_denoising_steps": 4, "t_min": 0.4, "t_max": 0.8})
    tokenizer.save(str(directory / "tokenizer.json"))
    infill = {
        "name": "tiny-random",
        "max_prefix_tokens": 256,
        "suffix_tokens": 16,
        "line_hole": 8,
        "block_hole": 16,
        "pinned_signal": True,
        "file_header": True,
    }
    (directory / "infill_config.json").write_text(json.dumps(infill), encoding="utf-8")
    return directory


class RecordedDraws:
    """The random numbers of one run of transformers' `generate`, to be drawn again in their order."""

    def __init__(self) -> None:
        self.uniforms: list[Tensor] = []
        self.noises: list[Tensor] = []

    def uniform(self, count: int) -> Tensor:
        """[count] fp32 in [0, 1)."""
        drawn = self.uniforms.pop(0)
        assert len(drawn) == count
        return drawn

    def noise(self, count: int) -> Tensor:
        """[count] token ids."""
        drawn = self.noises.pop(0)
        assert len(drawn) == count
        return drawn


def record_draws(replace_attribute: Callable[[object, str, object], None], seed: int = 11) -> RecordedDraws:
    """Let transformers sample one canvas after another by inverse transform, from numbers that are noted down.

    Args:
        replace_attribute: as pytest's `monkeypatch.setattr`, by which torch's own functions are replaced.
        seed: of the numbers.
    """
    draws = RecordedDraws()
    generator = torch.Generator().manual_seed(seed)

    def multinomial(probabilities: Tensor, num_samples: int) -> Tensor:
        assert num_samples == 1
        uniform = torch.rand(len(probabilities), generator=generator)
        draws.uniforms.append(uniform)
        return sampling_statistics_reference(probabilities.log(), 1.0, uniform).sample[:, None]

    def randint(*, low: int, high: int, size: tuple[int, int], device: object) -> Tensor:
        del device
        drawn = torch.empty(size, dtype=torch.long).random_(low, high, generator=generator)
        draws.noises.append(drawn[0])
        return drawn

    replace_attribute(torch, "multinomial", multinomial)
    replace_attribute(torch, "randint", randint)
    return draws


class KeptDrafts:
    """A streamer that keeps transformers' draft of every step."""

    def __init__(self) -> None:
        self.drafts: list[list[int]] = []

    def put(self, value: Tensor) -> None:
        """Tokens that will not change: not kept."""

    def put_draft(self, value: Tensor) -> None:
        """Keep the draft of the only row."""
        self.drafts.append(value[0].tolist())

    def end(self) -> None:
        """Nothing more comes."""


def tiny_adapter(base: Path, directory: Path) -> Path:
    """An adapter on disk for a checkpoint: random factors for every matrix that can have some."""
    generator = torch.Generator().manual_seed(0)
    factors = {}
    for name, weight in adapters.adaptable(checkpoint.load(base)).items():
        *experts, out, inner = weight.shape
        a = torch.randn(*experts, 2, inner, generator=generator) * 0.2
        factors[name] = adapters.Factors(a, torch.randn(*experts, out, 2, generator=generator) * 0.2)
    adapters.save(adapters.Adapter(rank=2, alpha=4.0, factors=factors), directory, base)
    return directory


def peak_bytes(work: Callable[[], object]) -> int:
    """The most memory of the CPU that torch holds at once while it works, beside what it held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = work()
    assert profiler.profiler is not None
    assert profiler.profiler.kineto_results is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    del result  # kept until here, so that what it holds counts to the end
    return max(accumulate(int(event.nbytes()) for event in sorted(events, key=lambda event: event.start_ns())))


def health_of(model: str, adapter: str = "") -> Health:
    """The health of the user's engine for a model and an adapter."""
    return _asked(model, adapter, EngineClient.health)


def model_of(model: str, adapter: str = "") -> ModelInfo:
    """What the user's engine for a model and an adapter has loaded."""
    return _asked(model, adapter, EngineClient.model)


def _asked(model: str, adapter: str, question: Callable[[EngineClient], Coroutine[Any, Any, _Answer]]) -> _Answer:
    async def ask() -> _Answer:
        async with aclosing(EngineClient(f"unix:{paths.socket_path(model, adapter)}")) as client:
            return await question(client)

    return asyncio.run(ask())
