"""A prefill and a denoising step with every operation by its kernel, against the same by PyTorch."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from dg_engine.config import ModelConfig
from dg_engine.full_size.weights import random_model
from dg_engine.model import DiffusionGemma, Masks
from dg_engine.prefix_cache import Seen
from dg_engine.testing import TINY
from dg_kernels import AllowedTokens, Causal, LogitBias, SamplingStatistics, VisibleRuns, launching
from dg_kernels.launching import Launch

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
OPERATIONS = ("canvas_attention", "expert_mlp", "expert_mlp.packed", "vocabulary_head")


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
            patched.setattr(module, "served", lambda *tensors: True)
            patched.setattr(module, "run", counted(name))
        yield ran


def model_of(config: ModelConfig, format_: str) -> DiffusionGemma:
    """Numbers ten times as large as those that are measured with, so that experts and keys differ."""
    model = random_model(config, format_, torch.device("cpu")).float()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.mul_(10)
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
    hidden = model.decode_over(canvas, seen, None, positions, Masks(full=masks[1], sliding=masks[0]))[0]
    warmth, uniform = torch.full((CANVAS,), 0.7), torch.linspace(0, 0.99, CANVAS)
    bias = LogitBias(torch.full((CANVAS,), 3), torch.full((CANVAS,), 1.5))
    allowed = AllowedTokens(torch.arange(150)[None] % 3 == 0, torch.tensor([0] + [-1] * (CANVAS - 1)))
    return encoded.hidden, model.sampled(hidden, warmth, uniform, bias, allowed)


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
    assert {name: ran.count(name) for name in set(ran)} == {"canvas_attention": 6, experts: 6, "vocabulary_head": 1}
    torch.testing.assert_close(hidden, expected_hidden, rtol=1e-3, atol=1e-3)
    slots = slice(0, CANVAS - 1)  # the last is not on the canvas: nobody reads it
    assert torch.equal(found.argmax[slots], expected.argmax[slots])
    for name in ("confidence", "entropy", "probabilities"):
        torch.testing.assert_close(getattr(found, name)[slots], getattr(expected, name)[slots], rtol=1e-3, atol=1e-4)
    assert found.sample[0] % 3 == 0
