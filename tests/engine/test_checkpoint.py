"""Malformed, truncated and mismatched checkpoints are refused by file, tensor, expectation and finding."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dg_engine import checkpoint
from dg_engine.engine import Engine
from dg_engine.errors import CheckpointError
from dg_engine.policies import Denoising
from dg_engine.settings import read_denoising
from dg_engine.testing import TINY, tiny_checkpoint, tiny_model

NAME = "model.decoder.layers.1.mlp.up_proj.weight"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    checkpoint.save(tiny_model(), tmp_path)
    return tmp_path


def edit_tensors(directory: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    path = directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def edit_config(directory: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = directory / "config.json"
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


def refusal(directory: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(directory)
    return str(caught.value)


def test_a_missing_tensor_is_named_with_its_shape(directory: Path) -> None:
    edit_tensors(directory, lambda tensors: tensors.pop(NAME))
    message = refusal(directory)
    assert NAME in message
    assert "expected [40, 32], found none" in message


def test_a_wrong_shape_is_named_with_both_shapes(directory: Path) -> None:
    edit_tensors(directory, lambda tensors: tensors.update({NAME: torch.zeros(3, 32)}))
    assert f"model.safetensors: {NAME}: expected [40, 32], found [3, 32]" in refusal(directory)


def test_an_unknown_tensor_is_refused(directory: Path) -> None:
    edit_tensors(directory, lambda tensors: tensors.update({"model.decoder.extra.weight": torch.zeros(2)}))
    assert "model.decoder.extra.weight: config.json has no place for it" in refusal(directory)


def test_integer_weights_are_refused(directory: Path) -> None:
    edit_tensors(directory, lambda tensors: tensors.update({NAME: torch.zeros(40, 32, dtype=torch.int8)}))
    assert "expected floating-point weights, found I8" in refusal(directory)


def test_vision_weights_are_skipped(directory: Path) -> None:
    extra = {"model.encoder.vision_tower.x.weight": torch.zeros(2)}
    edit_tensors(directory, lambda tensors: tensors.update(extra))
    checkpoint.load(directory)


@pytest.mark.parametrize("copy", ["lm_head.weight", NAME.replace("decoder", "encoder.language_model")])
def test_a_head_and_encoder_weights_are_those_that_they_share_or_the_checkpoint_is_refused(
    directory: Path, copy: str
) -> None:
    shared = NAME if copy != "lm_head.weight" else "model.decoder.embed_tokens.weight"
    edit_tensors(directory, lambda tensors: tensors.update({copy: tensors[shared].clone()}))
    checkpoint.load(directory)
    edit_tensors(directory, lambda tensors: tensors[copy][-1].add_(1))
    assert f"{copy}: expected the numbers of {shared}" in refusal(directory)
    edit_tensors(directory, lambda tensors: tensors.update({copy: tensors[copy][:-1]}))
    assert copy in refusal(directory)


def test_encoder_copies_of_shared_weights_are_accepted(directory: Path) -> None:
    expected = checkpoint.load(directory).state_dict()

    def move(tensors: dict[str, torch.Tensor]) -> None:
        tensors[NAME.replace("decoder", "encoder.language_model")] = tensors.pop(NAME)

    edit_tensors(directory, move)
    torch.testing.assert_close(checkpoint.load(directory).state_dict(), expected, rtol=0, atol=0)


@pytest.mark.parametrize("keep", [0, 7, 100, -40])
def test_a_truncated_file_is_refused_by_name(directory: Path, keep: int) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert str(path) in refusal(directory)


def test_a_pickle_is_never_opened(directory: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    (directory / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    (directory / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    refusal(directory)
    (directory / "model.safetensors").unlink()
    assert "expected model.safetensors" in refusal(directory)
    assert not (tmp_path / "exploded").exists()


def test_an_index_must_keep_its_promises(directory: Path) -> None:
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"no.such.tensor": "model.safetensors"}}))
    assert "no.such.tensor: the index promises it here, found none" in refusal(directory)
    index.write_text(json.dumps({"weight_map": {NAME: "absent.safetensors"}}))
    assert "absent.safetensors: the index names this shard" in refusal(directory)
    index.write_text(json.dumps({"weight_map": {NAME: "../outside.safetensors"}}))
    assert "is not a plain file name" in refusal(directory)
    index.write_text(json.dumps({"weight_map": {NAME: 5}}))
    assert "5 is no file name" in refusal(directory)
    index.write_text("[1]")
    assert "weight_map" in refusal(directory)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda raw: raw.update(model_type="llama"), "expected 'diffusion_gemma', found 'llama'"),
        (lambda raw: raw["text_config"].pop("hidden_size"), "the key 'hidden_size' is missing"),
        (lambda raw: raw["text_config"].update(hidden_activation="silu"), "expected 'gelu_pytorch_tanh', found 'silu'"),
        (lambda raw: raw["text_config"].update(attention_bias=True), "attention_bias"),
        (lambda raw: raw["text_config"].update(top_k_experts=99), "top_k_experts"),
        (lambda raw: raw["text_config"].update(layer_types=["mamba"] * 3), "unknown"),
        (lambda raw: raw["text_config"].update(num_hidden_layers="three"), "num_hidden_layers"),
        (lambda raw: raw.update(text_config=None), "config.json"),
        (lambda raw: raw["text_config"].update(num_key_value_heads=0), "num_key_value_heads: expected a whole number"),
        (lambda raw: raw["text_config"].update(hidden_size="384"), "hidden_size: expected a whole number"),
        (lambda raw: raw["text_config"].update(sliding_window=None), "sliding_window: expected a whole number"),
        (
            lambda raw: raw["text_config"]["rope_parameters"]["sliding_attention"].update(
                rope_type="linear", factor=4.0
            ),
            "rope_parameters: expected rope_type default or proportional, unscaled",
        ),
        (
            lambda raw: raw["text_config"]["rope_parameters"]["full_attention"].update(factor=8.0),
            "rope_parameters: expected rope_type default or proportional, unscaled",
        ),
        (
            lambda raw: raw["text_config"].update(final_logit_softcapping=None),
            "final_logit_softcapping: expected a num",
        ),
    ],
)
def test_an_impossible_configuration_is_refused_by_key(directory: Path, change: Any, expected: str) -> None:
    edit_config(directory, change)
    assert expected in refusal(directory)


def test_what_is_saved_takes_the_place_of_a_checkpoint_in_several_files(directory: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").rename(directory / "model-00001-of-00001.safetensors")
    index = {"weight_map": dict.fromkeys(weights, "model-00001-of-00001.safetensors")}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    other = tiny_model(checkpoint.load(directory).config, seed=5)
    checkpoint.save(other, directory)
    found = checkpoint.load(directory, dtype=torch.float32).state_dict()
    torch.testing.assert_close(found, dict(other.state_dict()), rtol=0, atol=0)
    assert [path.name for path in directory.glob("*.safetensors*")] == ["model.safetensors"]


def test_missing_files_are_named(tmp_path: Path) -> None:
    assert "config.json: cannot be read" in refusal(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert "is not JSON" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("tokenizer.json", "{", "tokenizer.json: is not a readable tokenizer"),
        ("infill_config.json", '{"line_hol": 3}', "line_hol"),
        ("infill_config.json", '{"line_hole": "x"}', "infill_config.json"),
        ("infill_config.json", '{"line_hole": 0}', "infill_config.json"),
        ("generation_config.json", '{"sampler_config": {"entropy_bound": "0.1"}}', "generation_config.json"),
        ("infill_config.json", '{"dropped_mass": 1.5}', "dropped_mass: must be at least 0 and less than 1"),
        ("generation_config.json", '{"t_min": 2.0, "t_max": 1.0}', "generation_config.json"),
        ("generation_config.json", "nonsense", "generation_config.json"),
        ("infill_config.json", '{"name": "\xff"}', "infill_config.json"),
    ],
)
def test_every_other_file_is_refused_by_name_too(tmp_path: Path, file: str, content: str, expected: str) -> None:
    tiny_checkpoint(tmp_path)
    (tmp_path / file).write_text(content, encoding="latin-1")
    with pytest.raises(CheckpointError, match=expected):
        Engine.load(tmp_path)


def test_an_engine_refuses_a_model_whose_prefixes_cannot_be_encoded_in_parts(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path)
    edit_config(tmp_path, lambda raw: raw["text_config"].update(use_bidirectional_attention="all"))
    with pytest.raises(CheckpointError, match="use_bidirectional_attention: expected null or vision"):
        Engine.load(tmp_path, device="cpu")


def test_what_sampling_defaults_leave_out_or_null_is_as_published(tmp_path: Path) -> None:
    for sampler in ("null", "{}", '{"entropy_bound": null}'):
        (tmp_path / "generation_config.json").write_text(f'{{"t_min": null, "sampler_config": {sampler}}}')
        assert read_denoising(tmp_path) == Denoising()


def test_a_checkpoint_says_what_self_conditioning_may_leave_out(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path)
    (tmp_path / "infill_config.json").write_text('{"dropped_mass": 0.25}')
    told = Engine.load(tmp_path, dtype=torch.float32).model
    (tmp_path / "infill_config.json").write_text("{}")
    exact = Engine.load(tmp_path, dtype=torch.float32).model
    sharp = (6 * torch.randn(9, exact.config.vocab_size, generator=torch.Generator().manual_seed(0))).softmax(-1)
    error = (told.soft_embedding(sharp) - exact.soft_embedding(sharp)).norm(dim=-1)
    longest = exact.embed(torch.arange(exact.config.vocab_size)).norm(dim=-1).max()
    assert 0 < float(error.max()) <= 0.25 * float(longest)


def test_a_tokenizer_of_another_size_is_refused(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path)
    checkpoint.save(tiny_model(TINY), tmp_path)
    with pytest.raises(CheckpointError, match=r"tokenizer.json: expected 61 tokens, found \d+"):
        Engine.load(tmp_path)
