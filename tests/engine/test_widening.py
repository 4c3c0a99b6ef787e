"""A widened network computes what the narrow one did, and all that is new in it can learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dg_engine import checkpoint
from dg_engine.config import ModelConfig
from dg_engine.errors import CheckpointError
from dg_engine.testing import SHAPES, TINY, tiny_model
from dg_engine.training.trainer import new_model
from dg_engine.training.widening import widened


def _wider(config: ModelConfig) -> ModelConfig:
    return replace(config, hidden_size=48, intermediate_size=56, moe_intermediate_size=32, num_attention_heads=8)


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_a_widened_network_computes_what_the_narrow_one_did(config: ModelConfig) -> None:
    # Without eps, which is added to a mean square that is a third smaller.
    narrow = tiny_model(replace(config, rms_norm_eps=0.0)).double()
    wide = widened(narrow, _wider(narrow.config), torch.Generator().manual_seed(1))
    draws = torch.Generator().manual_seed(2)
    prefix = torch.randint(config.vocab_size, (2, 20), generator=draws)
    canvas = torch.randint(config.vocab_size, (2, 12), generator=draws)
    believed = torch.rand(2, 12, config.vocab_size, generator=draws, dtype=torch.float64).softmax(-1)
    found = []
    for model in (narrow, wide):
        encoded = model.encode(prefix)
        plain = model.decode(canvas, encoded.cache, None)
        told = model.decode(canvas, encoded.cache, model.soft_embedding(believed))
        found.append([model.logits(hidden) for hidden in (encoded.hidden, plain, told)])
    torch.testing.assert_close(found[1], found[0])


def test_everything_that_is_new_learns() -> None:
    narrow = tiny_model()
    wide = widened(narrow, _wider(TINY), torch.Generator().manual_seed(1)).requires_grad_()
    tokens = torch.randint(TINY.vocab_size, (2, 40), generator=torch.Generator().manual_seed(2))
    optimiser = torch.optim.SGD(wide.parameters(), lr=0.1)
    # What is written where nothing was learns first, then what reads it.
    for _ in range(3):
        optimiser.zero_grad()
        encoded = wide.encode(tokens[:, :20])
        signal = wide.embed(tokens[:, 20:32])
        hidden = torch.cat((encoded.hidden, wide.decode(tokens[:, 20:32], encoded.cache, signal)), dim=1)
        torch.nn.functional.cross_entropy(wide.logits(hidden).flatten(0, 1), tokens[:, 8:].flatten()).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    for name, parameter in wide.named_parameters():
        gradient = parameter.grad
        assert gradient is not None, name
        known = narrow.state_dict()[name].shape
        new = gradient[
            tuple(slice(size if size < whole else 0, None) for size, whole in zip(known, gradient.shape, strict=True))
        ]
        assert new.abs().max() > 0, name


def test_training_goes_on_from_a_narrower_checkpoint_and_refuses_what_cannot_be_widened(tmp_path: Path) -> None:
    checkpoint.save(tiny_model(), tmp_path)
    assert new_model(_wider(TINY), 0, torch.float32, tmp_path).config == _wider(TINY)
    with pytest.raises(CheckpointError, match=r"config\.json: cannot be widened .*hidden_size is 16, less than 32"):
        new_model(replace(TINY, hidden_size=16), 0, torch.float32, tmp_path)
    with pytest.raises(CheckpointError, match=r"cannot be widened .*may differ"):
        new_model(replace(_wider(TINY), sliding_window=9), 0, torch.float32, tmp_path)
