"""A prefill, a denoising step and the captured one with every operation by its kernel, against the same by PyTorch."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional

from dg_engine import rows as rows_module
from dg_engine.config import ModelConfig
from dg_engine.full_size.weights import random_model
from dg_engine.infill import Hole
from dg_engine.joined import join
from dg_engine.model import DiffusionGemma, Masks
from dg_engine.policies import Denoising, EntropyBound, NeverStop
from dg_engine.prefix_cache import Seen
from dg_engine.rows import Row, first_state, rules_of, shape_of
from dg_engine.static_canvas import Rules, Shape, State, blank_places, static_step
from dg_engine.testing import TINY
from dg_kernels import AllowedTokens, Causal, LogitBias, SamplingStatistics, VisibleRuns, launching
from dg_kernels.launching import Launch
from dg_kernels.quantised.rows import quantise_rows
from dg_kernels.testing import OPERATIONS

CONFIG = replace(
    TINY,
    vocab_size=150,
    hidden_size=64,
    num_hidden_layers=2,
    layer_types=("sliding_attention", "full_attention"),
    head_dim=64,
    global_head_dim=128,
    moe_intermediate_size=64,
)
PREFIX, CANVAS, PLACES = 21, 6, 40


@contextmanager
def by_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """On a CPU, in the interpreter, kernels take fp32; the operations that ran by them."""
    ran: list[str] = []

    def counted(name: str) -> Any:
        def run(launches: Sequence[Launch]) -> None:
            ran.append(name)
            launching.run(launches)

        return run

    with monkeypatch.context() as patched:
        for name in OPERATIONS:
            module = importlib.import_module(f"dg_kernels.{name}")
            patched.setattr(module, "served", lambda *tensors, **more: True)
            patched.setattr(module, "run", counted(name))
        yield ran


def model_of(config: ModelConfig, format_: str) -> DiffusionGemma:
    """Numbers ten times as large as those that are measured with, so that experts and keys differ."""
    model = random_model(config, format_, torch.device("cpu")).float()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.mul_(10)
    join(model)
    return model


def in_places(known: torch.Tensor, places: int) -> torch.Tensor:
    """At the start of so many places and a canvas; what nobody wrote is large."""
    batch, heads, count, width = known.shape
    buffer = torch.full((batch, heads, places + CANVAS, width), 1e4)
    buffer[:, :, :count] = known
    return buffer


def step(model: DiffusionGemma) -> tuple[torch.Tensor, SamplingStatistics]:
    """The encoder's hidden states of a second chunk, and what a step finds; its prefix and canvas have spare places."""
    window = model.config.window
    tokens = torch.arange(PREFIX)[None] * 7 % model.config.vocab_size
    rules = Masks(Causal(None), Causal(window))
    model._encoder_masks = lambda *_: rules  # type: ignore[method-assign]
    cache = model.encode(tokens[:, :8]).cache
    encoded = model.encode(tokens[:, 8:], cache)
    seen, masks = [], []
    lengths = torch.tensor([PREFIX]), torch.tensor([CANVAS - 1])
    for layer in range(2):
        known = encoded.cache.keys[layer][:, :, -(window - 1) :] if layer == 0 else encoded.cache.keys[layer]
        values = encoded.cache.values[layer][:, :, -known.shape[2] :]
        places = window - 1 if layer == 0 else PLACES
        seen.append(Seen(in_places(known, places), in_places(values, places), room=True))
        masks.append(VisibleRuns(*lengths, places))
    canvas = torch.arange(CANVAS)[None] * 11 % model.config.vocab_size
    positions = PREFIX + torch.arange(CANVAS)
    shown = Masks(full=masks[1], sliding=masks[0])
    hidden = model.decode_over(model.embed(canvas), seen, None, model.angles(positions), shown)[0]
    warmth, uniform = torch.full((CANVAS,), 0.7), torch.linspace(0, 0.99, CANVAS)
    bias = LogitBias(torch.full((CANVAS,), 3), torch.full((CANVAS,), 1.5))
    allowed = AllowedTokens(torch.arange(150)[None] % 3 == 0, torch.tensor([0] + [-1] * (CANVAS - 1)))
    return encoded.hidden, model.sampled(hidden, warmth, uniform, bias, allowed)


def passes(count: int, experts: str, *, packed: bool) -> Counter[str]:
    """What runs by kernels in so many passes through two layers."""
    once = ("canvas_attention", experts, "norm_rotary", "choose_experts", "gated_gelu")
    found = dict.fromkeys(once, 2) | {"residual_norms": 4}
    if packed:
        # Queries, keys and values as one; outputs; gate and up as one; down.
        found["packed_linear"] = 2 * 4
    return Counter({name: count * times for name, times in found.items()})


@pytest.mark.parametrize("format_", ["bf16", "nvfp4"])
@torch.no_grad()
def test_the_whole_step_by_kernels_is_that_by_pytorch(format_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("on a GPU the kernels want bf16, in which routing may differ")
    torch.use_deterministic_algorithms(mode=False)
    model = model_of(CONFIG, format_)
    expected_hidden, expected = step(model)
    with by_kernels(monkeypatch) as ran:
        hidden, found = step(model)
    experts = "expert_mlp" if format_ == "bf16" else "expert_mlp.packed"
    # Two chunks of the prefix and the canvas, through two layers each; one head.
    assert Counter(ran) == passes(3, experts, packed=format_ != "bf16") + Counter(vocabulary_head=1)
    torch.testing.assert_close(hidden, expected_hidden, rtol=1e-3, atol=1e-3)
    slots = slice(0, CANVAS - 1)  # the last is not on the canvas: nobody reads it
    assert torch.equal(found.argmax[slots], expected.argmax[slots])
    for name in ("confidence", "entropy", "probabilities"):
        torch.testing.assert_close(getattr(found, name)[slots], getattr(expected, name)[slots], rtol=1e-3, atol=1e-4)
    assert found.sample[0] % 3 == 0


def captured(
    model: DiffusionGemma, rows: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[Shape, list[Seen], Rules, State]:
    """What a captured step is given: holes of several lengths behind one prefix, some tokens banned from them."""
    monkeypatch.setattr(rows_module, "CANVAS_BUCKETS", (10,))
    monkeypatch.setattr(rows_module, "SHORTEST_PREFIX", PLACES)
    tokens = torch.arange(150)
    cache = model.encode(torch.arange(PREFIX)[None] * 7 % model.config.vocab_size).cache
    holes = [
        Hole(
            initial=5 - number,
            longest=5 - number,
            ends=tokens % 11 == 3,
            filler=1,
            first_allowed=tokens % 2 == 0 if number == 1 else None,
            banned=tokens % 7 == 1,
        )
        for number in range(rows)
    ]
    plan = Denoising(max_denoising_steps=3, acceptance=EntropyBound(entropy_bound=6.0), stopping=NeverStop())
    asked = [Row(cache=cache, suffix=torch.arange(20, 24), hole=hole, plan=plan, seed=9) for hole in holes]
    shape = shape_of(asked)
    seen = blank_places(model, shape.prefix, shape.prefixes, shape.behind)
    for layer, one in enumerate(seen):
        kept = min(PREFIX, one.keys.shape[2] - shape.behind)
        one.keys[0, :, :kept] = cache.keys[layer][0, :, -kept:]
        one.values[0, :, :kept] = cache.values[layer][0, :, -kept:]
    return shape, seen, rules_of(model, shape, asked), first_state(model, shape, asked)


@contextmanager
def rounding_rows(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a device that multiplies e4m3 numbers, where PyTorch rounds each row that meets a packed matrix."""

    def linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        values, scale, _ = quantise_rows(x)
        return functional.linear(values.float() * scale[..., None], weight)

    with monkeypatch.context() as patched:
        for name in ("expert_mlp", "packed_linear"):
            module = importlib.import_module(f"dg_kernels.{name}")
            patched.setattr(module, "functional", SimpleNamespace(linear=linear, gelu=functional.gelu))
        patched.setattr("dg_kernels.quantised.rows.multiplies_e4m3", lambda x: True)
        yield


@pytest.mark.parametrize(
    ("format_", "rows", "dropped", "native"),
    [
        ("bf16", 3, 0.0, False),
        ("bf16", 1, 0.5, False),
        ("fp8", 2, 0.0, False),
        ("fp8", 2, 0.0, True),
        ("nvfp4", 2, 0.0, False),
        ("int4", 2, 0.0, False),
    ],
)
@torch.no_grad()
def test_the_captured_step_by_kernels_is_that_by_pytorch(
    format_: str, rows: int, dropped: float, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.is_available():
        pytest.skip("on a GPU the kernels want bf16, in which routing may differ")
    torch.use_deterministic_algorithms(mode=False)
    model = model_of(CONFIG, format_)
    model.dropped_mass = dropped
    shape, seen, rules, state = captured(model, rows, monkeypatch)
    assert shape == (rows, 10, 5, PLACES, 1)
    # Of a second step too, which is conditioned on the first.
    for _ in range(2):
        with rounding_rows(monkeypatch) if native else nullcontext():
            expected = static_step(model, shape, seen, rules, state)
            with by_kernels(monkeypatch) as ran:
                found = static_step(model, shape, seen, rules, state)
        experts = "expert_mlp" if format_ == "bf16" else "expert_mlp.packed"
        whole = passes(1, experts, packed=format_ != "bf16") + Counter(vocabulary_head=1)
        # Self-conditioning is gated too.
        whole += Counter(gated_gelu=1, random_numbers=1, soft_embedding=dropped > 0)
        assert Counter(ran) == whole
        for name in ("hole", "step", "judged", "unchanged", "reason"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), name
        torch.testing.assert_close(found.report, expected.report, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(found.signal, expected.signal, rtol=1e-3, atol=1e-3)
        # What is accepted is drawn otherwise there; all else is the same.
        kept = found.tokens == expected.tokens
        accepted = expected.report[:, 4:].view(rows, 4, -1)[:, 1] > 0
        assert bool((kept | accepted).all())
        assert bool(accepted.any())
        assert not bool((found.tokens % 7 == 1)[accepted].any())
        state = expected
