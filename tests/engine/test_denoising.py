"""The loop against its readable twin, against transformers' own `generate`, and each policy by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dg_engine import checkpoint
from dg_engine.canvas import Canvas, SeededDraws, TokenBias, denoise_step, new_canvas
from dg_engine.infill import Filling, Hole, fill
from dg_engine.model import DiffusionGemma
from dg_engine.policies import Denoising, EntropyBound, LinearTemperature, NeverStop, StableAndConfident
from dg_engine.prefix_cache import PrefixCache
from dg_engine.reference import denoise_reference
from dg_engine.testing import SHAPES, TINY, KeptDrafts, RecordedDraws, record_draws, tiny_model

transformers = pytest.importorskip("transformers", minversion="5.23.0")


pytestmark = pytest.mark.usefixtures("without_gradients")


def prefix(length: int, seed: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.empty(1, length, dtype=torch.long).random_(0, TINY.vocab_size, generator=generator)


def run(
    model: DiffusionGemma,
    cache: PrefixCache,
    slots: int,
    suffix: Tensor,
    plan: Denoising,
    draws: Any,
    *,
    pinned_signal: bool = True,
    first_allowed: Tensor | None = None,
    bias: float = 0.0,
) -> list[Filling]:
    """The production loop on a hole that no token ends and that cannot grow: plain denoising."""
    hole = Hole(
        initial=slots,
        longest=slots,
        ends=torch.zeros(model.config.vocab_size, dtype=torch.bool),
        filler=model.config.eos_token_id,
        filler_bias=bias,
        first_allowed=first_allowed,
        pinned_signal=pinned_signal,
    )
    return list(fill(model, cache, suffix, hole, plan, draws))


@pytest.mark.parametrize("pinned", [0, 5])
@pytest.mark.parametrize("bound", [0.0, 0.1, 3.0, 1000.0])
@pytest.mark.parametrize("signal", [False, True])
@pytest.mark.parametrize("healed", [False, True])
@pytest.mark.parametrize("bias", [0.0, 1.5])
def test_the_fast_loop_equals_the_reference_loop(
    pinned: int, bound: float, signal: bool, healed: bool, bias: float
) -> None:
    model = tiny_model()
    cache = model.encode(prefix(19)).cache
    plan = Denoising(max_denoising_steps=6, acceptance=EntropyBound(entropy_bound=bound), stopping=NeverStop())
    suffix = prefix(pinned, seed=9)[0]
    allowed = torch.arange(TINY.vocab_size) % 3 == 0 if healed else None
    canvas = new_canvas(model, 7, suffix, SeededDraws(TINY.vocab_size, 7), pinned_signal=signal)

    draws = SeededDraws(TINY.vocab_size, 7)
    states = run(model, cache, 7, suffix, plan, draws, pinned_signal=signal, first_allowed=allowed, bias=bias)
    fast = [state.belief.argmax.tolist() for state in states]
    draws = SeededDraws(TINY.vocab_size, 7)
    assert draws.noise(7).tolist() == canvas.tokens[:7].tolist()
    tokens, free = canvas.tokens.tolist(), canvas.free.tolist()
    slow = denoise_reference(
        model,
        cache,
        tokens,
        free,
        plan,
        draws,
        pinned_signal=signal,
        first_allowed=allowed,
        bias=TokenBias(TINY.eos_token_id, bias),
    )
    assert fast == slow
    assert len(fast) == 6
    assert len({tuple(draft) for draft in fast}) > 1


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> RecordedDraws:
    return record_draws(monkeypatch.setattr)


@pytest.mark.parametrize("name", ["grouped heads, two of four experts", "odd expert counts", "one full layer only"])
@pytest.mark.parametrize("length", [5, 23])
def test_a_whole_trajectory_of_transformers_generate_is_reproduced_token_for_token(
    name: str, length: int, recorded: RecordedDraws, tmp_path: Path
) -> None:
    config = SHAPES[name]
    checkpoint.save(tiny_model(config), tmp_path)
    theirs = transformers.DiffusionGemmaForBlockDiffusion.from_pretrained(tmp_path).eval()
    drafts = KeptDrafts()
    theirs.generate(
        prefix(length),
        streamer=drafts,
        max_new_tokens=config.canvas_length,
        max_denoising_steps=9,
        sampler_config=entropy_bound_config(2.0),
        stability_threshold=1,
        confidence_threshold=0.5,
    )

    ours = checkpoint.load(tmp_path)
    plan = Denoising(
        max_denoising_steps=9,
        acceptance=EntropyBound(entropy_bound=2.0),
        stopping=StableAndConfident(stability_threshold=1, confidence_threshold=0.5),
    )
    cache = ours.encode(prefix(length)).cache
    states = run(ours, cache, config.canvas_length, torch.empty(0, dtype=torch.long), plan, recorded)
    assert [state.belief.argmax.tolist() for state in states] == drafts.drafts
    assert len(drafts.drafts) > 1


def entropy_bound_config(bound: float) -> Any:
    from transformers.models.diffusion_gemma.generation_diffusion_gemma import EntropyBoundSamplerConfig

    return EntropyBoundSamplerConfig(entropy_bound=bound)


def test_pinned_tokens_never_change_and_are_seen() -> None:
    model = tiny_model()
    cache = model.encode(prefix(6)).cache
    drafts = []
    for pinned in ([3, 4, 5], [30, 31, 32]):
        suffix = torch.tensor(pinned)
        canvas = new_canvas(model, 5, suffix, SeededDraws(TINY.vocab_size, 0), pinned_signal=True)
        draws, bound = SeededDraws(TINY.vocab_size, 1), EntropyBound(entropy_bound=0.1)
        for _ in range(4):
            canvas, belief = denoise_step(model, cache, canvas, temperature=0.6, acceptance=bound, draws=draws)
            assert canvas.tokens[5:].tolist() == pinned
            assert canvas.signal is not None
            assert torch.equal(canvas.signal[5:], model.embed(suffix))
        drafts.append(belief.argmax.tolist())
    assert drafts[0] != drafts[1]


def test_a_banned_token_is_never_drafted_nor_sampled_in_the_first_free_slot() -> None:
    model = tiny_model()
    cache = model.encode(prefix(6)).cache
    allowed = torch.zeros(TINY.vocab_size, dtype=torch.bool)
    allowed[17] = True
    canvas = new_canvas(model, 4, torch.tensor([8]), SeededDraws(TINY.vocab_size, 0), pinned_signal=True)
    after, belief = denoise_step(
        model,
        cache,
        canvas,
        temperature=0.8,
        acceptance=EntropyBound(entropy_bound=0.0),
        draws=SeededDraws(TINY.vocab_size, 1),
        first_allowed=allowed,
    )
    assert belief.argmax[0] == 17
    assert belief.entropy[0] == 0
    assert after.tokens[0] == 17


def test_moving_keeps_the_kept_slots_and_the_suffix_with_their_signal() -> None:
    signal = torch.arange(7.0)[:, None].repeat(1, 2)
    canvas = Canvas(tokens=torch.arange(100, 107), free=torch.arange(4), signal=signal)
    shorter = canvas.moved(torch.tensor([0, 1]), torch.empty(0, dtype=torch.long))
    assert shorter.tokens.tolist() == [100, 101, 104, 105, 106]
    assert shorter.free.tolist() == [0, 1]
    assert shorter.signal is not None
    assert shorter.signal[:, 0].tolist() == [0, 1, 4, 5, 6]
    longer = canvas.moved(torch.arange(4), torch.tensor([55, 56]))
    assert longer.tokens.tolist() == [100, 101, 102, 103, 55, 56, 104, 105, 106]
    assert longer.free.tolist() == list(range(6))
    assert longer.signal is not None
    assert longer.signal[:, 0].tolist() == [0, 1, 2, 3, 0, 0, 4, 5, 6]


def test_entropy_bound_accepts_the_least_uncertain_while_the_sum_before_each_stays_within() -> None:
    entropy = torch.tensor([0.06, 2.0, 0.0, 0.05, 0.3])
    assert EntropyBound(entropy_bound=0.1).accept(entropy).tolist() == [True, False, True, True, False]
    assert EntropyBound(entropy_bound=0.12).accept(entropy).tolist() == [True, False, True, True, True]
    assert EntropyBound(entropy_bound=0.0).accept(torch.tensor([3.0, 2.0])).tolist() == [False, True]


def test_temperature_falls_from_t_max_towards_t_min() -> None:
    schedule = LinearTemperature(t_min=0.4, t_max=0.8)
    assert [round(schedule.at(step, 4), 6) for step in range(4)] == [0.8, 0.7, 0.6, 0.5]


def test_stopping_needs_both_stability_and_confidence() -> None:
    rule = StableAndConfident(stability_threshold=2, confidence_threshold=0.1)
    assert rule.met(2, 0.05)
    assert not rule.met(1, 0.05)
    assert not rule.met(5, 0.2)
    assert not NeverStop().met(99, 0.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LinearTemperature(t_min=0.9, t_max=0.8),
        lambda: EntropyBound(entropy_bound=-1.0),
        lambda: StableAndConfident(confidence_threshold=0.0),
        lambda: Denoising(max_denoising_steps=0),
        lambda: replace(TINY, layer_types=("sliding_attention",) * 3),
        lambda: replace(TINY, top_k_experts=9),
    ],
)
def test_impossible_values_are_refused_at_birth(make: Any) -> None:
    with pytest.raises(ValueError, match=r"must|does not hold"):
        make()
