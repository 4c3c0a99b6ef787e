"""A model whose matrices are joined against the same with each on its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from dg_engine.joined import join
from dg_engine.layers import PackedLinear, Together
from dg_engine.model import DiffusionGemma
from dg_engine.testing import TINY, tiny_model
from dg_kernels.testing import packed, random

WIDE = replace(TINY, hidden_size=64, intermediate_size=64, head_dim=64, global_head_dim=128)
"""Of widths that groups of 16 and 32 columns divide."""


def model_of(kind: str) -> DiffusionGemma:
    """Projections of layers as numbers, or packed."""
    model = tiny_model(WIDE)
    if kind != "plain":
        for one in model.decoder.layers:
            for name, module in list(one.named_modules()):
                if isinstance(module, nn.Linear) and name.endswith("_proj"):
                    one.set_submodule(name, PackedLinear(packed(kind, module.weight.detach())))
    return model


def layer(model: DiffusionGemma, number: int) -> Any:
    return model.decoder.layers[number]


def together(model: DiffusionGemma) -> list[Together]:
    return [module for module in model.modules() if isinstance(module, Together)]


@pytest.mark.parametrize("kind", ["plain", "e4m3", "e2m1", "int4"])
@torch.inference_mode()
def test_a_joined_model_finds_the_same_with_the_same_weights(kind: str) -> None:
    with torch.inference_mode(mode=False):
        model, joined = model_of(kind), model_of(kind)
        join(joined)
    assert all(module.joined is not None for module in together(joined))
    assert (joined.parameter_count, joined.weight_bytes) == (model.parameter_count, model.weight_bytes)
    ours, theirs = joined.state_dict(), model.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    prefix, canvas = torch.arange(21)[None] % 50, torch.arange(13)[None] % 50
    expected, found = model.encode(prefix), joined.encode(prefix)
    torch.testing.assert_close(found.hidden, expected.hidden, rtol=1e-4, atol=1e-5)
    signal = model.embed(canvas.flip(1))
    torch.testing.assert_close(
        joined.decode(canvas, found.cache, signal),
        model.decode(canvas, expected.cache, signal),
        rtol=1e-4,
        atol=1e-5,
    )


def test_what_is_joined_is_there_once() -> None:
    model = model_of("plain")
    join(model)
    attention = layer(model, 0).self_attn
    storages = {module.weight.untyped_storage().data_ptr() for module in attention.together}
    assert len(storages) == 1
    x = random(3, 64)
    with torch.inference_mode():
        before = attention.products(x)[1]
        attention.k_proj.weight.mul_(2)
        torch.testing.assert_close(attention.products(x)[1], 2 * before)


def test_gradients_are_of_each_matrix_on_its_own() -> None:
    model = model_of("plain")
    join(model)
    model.requires_grad_(requires_grad=True)
    model.encode(torch.arange(9)[None]).hidden.sum().backward()  # type: ignore[no-untyped-call]
    assert all(module.weight.grad is not None for module in layer(model, 0).self_attn.together)


def test_what_is_stored_otherwise_stays_on_its_own() -> None:
    model = model_of("e4m3")
    attention, mlp = layer(model, 0).self_attn, layer(model, 0).mlp
    attention.k_proj = PackedLinear(packed("int4", random(*attention.k_proj.weights[0].shape)))
    mlp.up_proj = nn.Linear(64, mlp.up_proj.weights[0].shape[0], bias=False)
    join(model)
    assert attention.joined is None
    assert mlp.joined is None
    assert layer(model, 1).mlp.joined is not None
