"""The objective is what it says, and what it teaches is enough: memorised holes come back at unknown length."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from dg_engine.canvas import SeededDraws
from dg_engine.config import ModelConfig
from dg_engine.infill import Hole as EngineHole
from dg_engine.infill import fill
from dg_engine.model import DiffusionGemma
from dg_engine.policies import Denoising, StableAndConfident
from dg_engine.testing import TINY, tiny_model, tiny_tokenizer
from dg_engine.tokenizer import Tokenizer
from dg_engine.training.batches import Batch, Canvases, Chunks, Cut, lay_out
from dg_engine.training.encoded import EncodedSplit, encode_split
from dg_engine.training.objective import Loss, Objective, row_cross_entropy, row_losses
from dg_engine.training.optimiser import Optimiser, Rates
from dg_engine.training.sources import Document
from dg_engine.training.spans import SpanSampler, Vocabulary
from dg_engine.training.trainer import new_model

FILLER = 1
MODULES = [
    *("bisect", "calendar", "cmd", "codeop", "colorsys", "copy", "csv", "fnmatch"),
    *("glob", "heapq", "json.decoder", "queue", "sched", "shlex", "stat", "textwrap"),
]
"""Real code that stays as it is when this project changes."""


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(tiny_tokenizer())


@pytest.fixture(scope="module")
def split(tokenizer: Tokenizer) -> EncodedSplit:
    modules = [importlib.import_module(name) for name in MODULES]
    documents = [Document("python", f"{module.__name__}.py", inspect.getsource(module)) for module in modules]
    return EncodedSplit(encode_split(documents, tokenizer))


class Examples:
    """Holes in a few chunks, `per_chunk` consecutive ones in each."""

    def __init__(
        self, split: EncodedSplit, tokenizer: Tokenizer, config: ModelConfig, chunks: int, per_chunk: int
    ) -> None:
        self.config = config
        vocabulary, rng = Vocabulary.of(tokenizer), np.random.default_rng(0)
        rows, self.cuts = list[list[int]](), list[Cut]()
        for number in range(chunks):
            document = number % len(split)
            text = split.tokens(document)
            start = 90 * (number // len(split))
            sampler = SpanSampler(text, split.nodes(document), (start, start + 80), vocabulary, 40, rng)
            rows.append([2, *text[start : start + 80].tolist()])
            self.cuts += [
                Cut(text, hole, 1 + hole.start - start) for hole in (sampler.draw() for _ in range(per_chunk))
            ]
        self.chunks = Chunks(torch.tensor(rows), torch.ones(chunks, 81, dtype=torch.bool))

    def canvases(self, rng: np.random.Generator, slots: int = 48) -> Canvases:
        """All holes, each in a random bucket that it fits: what is learnt must not hang on the length."""
        cuts = []
        for text, hole, prefix in self.cuts:
            fitting = [bucket for bucket in (8, 16, 24, 32) if bucket >= hole.end - hole.start]
            chosen = int(rng.choice(fitting))
            cuts.append(Cut(text, hole._replace(slots=chosen, suffix=min(hole.suffix, 16)), prefix))
        return lay_out(cuts, slots, self.config)


def config_of(tokenizer: Tokenizer) -> ModelConfig:
    return replace(TINY, vocab_size=tokenizer.vocab_size, use_bidirectional_attention=None)


@pytest.mark.parametrize("pinned_signal", [True, False], ids=["pinned slots are told", "nothing is told"])
def test_the_denoising_loss_is_the_weighted_mean_over_open_slots(
    split: EncodedSplit, tokenizer: Tokenizer, *, pinned_signal: bool
) -> None:
    config = config_of(tokenizer)
    model = tiny_model(config)
    examples = Examples(split, tokenizer, config, 3, 2)
    canvases = examples.canvases(np.random.default_rng(1))
    objective = Objective(
        conditioned_share=0.0,
        all_noise_share=1.0,
        filler_weight=0.25,
        causal_weight=0.5,
        pinned_signal=pinned_signal,
    )
    losses = Loss(model, torch.Generator().manual_seed(4))(Batch(examples.chunks, canvases), objective)

    generator = torch.Generator().manual_seed(4)
    total, weights = torch.zeros(()), 0.0
    noise = _noise_as_drawn(canvases, config, generator)
    for row in range(len(canvases.clean)):
        cut, real, hole = int(canvases.cut[row]), canvases.real[row], int(canvases.open[row].sum())
        cache = model.encode(examples.chunks.tokens[row // 2, None, :cut]).cache
        canvas = torch.cat((noise[row, :hole], canvases.clean[row, hole:]))[real]
        signal = model.embed(canvas)
        signal[:hole] = 0.0
        hidden = model.decode(canvas[None], cache, signal[None] if pinned_signal else None)[0, :hole]
        target = canvases.clean[row, :hole]
        each = functional.cross_entropy(model.logits(hidden), target, reduction="none")
        weight = torch.where(target == FILLER, 0.25, 1.0)
        total, weights = total + (each * weight).sum(), weights + float(weight.sum())
    torch.testing.assert_close(losses.denoising, total / weights, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(losses.total, losses.denoising + 0.5 * losses.causal)


def _noise_as_drawn(canvases: Canvases, config: ModelConfig, generator: torch.Generator) -> torch.Tensor:
    """The noise of `Loss`, drawn after what decides the corruption."""
    shape = canvases.clean.shape
    torch.rand(shape, generator=generator)
    torch.rand((shape[0], 1), generator=generator)
    torch.rand((shape[0], 1), generator=generator)
    return torch.randint(0, config.vocab_size, shape, generator=generator)


def test_padding_is_not_part_of_the_causal_loss(split: EncodedSplit, tokenizer: Tokenizer) -> None:
    config = config_of(tokenizer)
    model = tiny_model(config)
    tokens = Examples(split, tokenizer, config, 2, 1).chunks.tokens
    loss = Loss(model, torch.Generator().manual_seed(0))
    whole = loss(Batch(Chunks(tokens, torch.ones_like(tokens, dtype=torch.bool)), None), Objective()).causal
    padded = functional.pad(tokens, (0, 30))
    real = torch.arange(padded.shape[1]).expand_as(padded) < tokens.shape[1]
    torch.testing.assert_close(loss(Batch(Chunks(padded, real), None), Objective()).causal, whole)


def test_row_losses_agree_with_torch(tokenizer: Tokenizer) -> None:
    model = tiny_model(config_of(tokenizer))
    hidden = torch.randn(20, TINY.hidden_size, generator=torch.Generator().manual_seed(0))
    logits = model.logits(hidden)
    target = logits.argmax(dim=-1).where(torch.arange(20) % 2 == 0, torch.arange(20))
    found = row_losses(model, hidden, target)
    torch.testing.assert_close(found.cross_entropy, functional.cross_entropy(logits, target, reduction="none"))
    torch.testing.assert_close(found.cross_entropy, row_cross_entropy(model, hidden, target))
    log_p = logits.log_softmax(dim=-1)
    torch.testing.assert_close(found.entropy, -(log_p.exp() * log_p).sum(dim=-1))
    assert torch.equal(found.right, logits.argmax(dim=-1) == target)


@pytest.mark.parametrize(
    "change",
    [
        {"conditioned_share": 1.0},
        {"conditioned_share": 1.0, "own_noise_share": 1.0},
        {"certainty_weight": 0.5},
        {"grid": (0.25,), "all_noise_share": 0.0},
        {"most_corruption": 0.3},
        {"filler_weight": 0.0},
    ],
)
def test_every_setting_of_the_objective_changes_the_loss(
    split: EncodedSplit, tokenizer: Tokenizer, change: dict[str, float]
) -> None:
    config = config_of(tokenizer)
    model = tiny_model(config)
    examples = Examples(split, tokenizer, config, 2, 2)
    canvases = examples.canvases(np.random.default_rng(1))

    def loss(objective: Objective) -> float:
        return float(Loss(model, torch.Generator().manual_seed(1))(Batch(examples.chunks, canvases), objective).total)

    plain = Objective(conditioned_share=0.0)
    base = replace(plain, conditioned_share=1.0) if "own_noise_share" in change else plain
    assert loss(base) == loss(base)
    assert loss(replace(base, **change)) != loss(base)  # type: ignore[arg-type]


@pytest.mark.timeout(400)
def test_64_memorised_holes_come_back_exactly_at_unknown_length(split: EncodedSplit, tokenizer: Tokenizer) -> None:
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        num_experts=1,
        top_k_experts=1,
        moe_intermediate_size=64,
        sliding_window=32,
        layer_types=("sliding_attention", "full_attention", "full_attention"),
        global_head_dim=32,
        num_global_key_value_heads=2,
    )
    examples = Examples(split, tokenizer, config, 16, 4)
    model = new_model(config, seed=0, dtype=torch.float32)
    optimiser = Optimiser(model, Rates())
    loss = Loss(model, torch.Generator().manual_seed(0))
    rng = np.random.default_rng(2)
    steps = 260
    for step in range(steps):
        canvases = examples.canvases(rng)
        losses = loss(Batch(examples.chunks, canvases), Objective(causal_weight=0.1))
        losses.total.backward()  # type: ignore[no-untyped-call]
        optimiser.step(min(1.0, (steps - step) / (0.6 * steps)))
    exact = sum(_restored(model, examples, index) for index in range(len(examples.cuts)))
    assert len(examples.cuts) == 64
    assert exact > 0.95 * 64


def _restored(model: DiffusionGemma, examples: Examples, index: int) -> bool:
    """Whether sampling, told no length, gives back the span."""
    text, hole, prefix = examples.cuts[index]
    row = examples.chunks.tokens[index // 4, None, :prefix]
    suffix = torch.from_numpy(text[hole.end : hole.end + min(hole.suffix, 16)])
    ends = torch.arange(model.config.vocab_size) == FILLER
    plan = Denoising(max_denoising_steps=12, stopping=StableAndConfident(confidence_threshold=0.05))
    with torch.no_grad():
        cache = model.encode(row).cache
        asked = EngineHole(initial=24, longest=32, ends=ends, filler=FILLER)
        draws = SeededDraws(model.config.vocab_size, 0)
        *_, last = fill(model, cache, suffix, asked, plan, draws)
    return torch.equal(last.belief.argmax[: last.end], torch.from_numpy(text[hole.start : hole.end]))
