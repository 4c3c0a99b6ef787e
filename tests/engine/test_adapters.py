"""An adapter is PEFT's in its files and W + scale B A in its mathematics, and fits its model or is refused whole."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from dg_engine import adapters, checkpoint
from dg_engine.adapters import Adapter, Factors
from dg_engine.api import ScoreRequest
from dg_engine.config import ModelConfig
from dg_engine.engine import Engine
from dg_engine.errors import CheckpointError
from dg_engine.model import DiffusionGemma
from dg_engine.testing import SHAPES, TINY, tiny_checkpoint, tiny_model

RANK, ALPHA = 3, 6.0

# As PEFT 0.21.2 itself names and shapes them for the first layer of `TINY` at rank 3: both stacked parameters of a
# module are wrapped, the second around the first.
FIRST_LAYER = {
    "self_attn.q_proj": ((3, 32), (64, 3)),
    "self_attn.k_proj": ((3, 32), (32, 3)),
    "self_attn.v_proj": ((3, 32), (32, 3)),
    "self_attn.o_proj": ((3, 64), (32, 3)),
    "mlp.gate_proj": ((3, 32), (40, 3)),
    "mlp.up_proj": ((3, 32), (40, 3)),
    "mlp.down_proj": ((3, 40), (32, 3)),
    "experts.base_layer": ((12, 32), (48, 12)),
    "experts": ((12, 24), (32, 12)),
}
LAYER = "base_model.model.model.decoder.layers.0."


def drawn(model: DiffusionGemma, seed: int = 0) -> Adapter:
    """An adapter for every matrix that can have one, none of its factors zero."""
    generator = torch.Generator().manual_seed(seed)

    def factors(weight: Tensor) -> Factors:
        *experts, out, inner = weight.shape
        a = torch.randn(*experts, RANK, inner, generator=generator) * 0.2
        return Factors(a, torch.randn(*experts, out, RANK, generator=generator) * 0.2)

    parameters = adapters.adaptable(model)
    return Adapter(rank=RANK, alpha=ALPHA, factors={name: factors(weight) for name, weight in parameters.items()})


class Beside(TorchFunctionMode):
    """Puts x A^T B^T beside every product with an adapted matrix, or with one expert of a stack; adds to no weight."""

    def __init__(self, model: DiffusionGemma, adapter: Adapter) -> None:
        super().__init__()
        self.scale = adapter.scale
        self.factors = {
            weight.data_ptr(): Factors(a, b)
            for name, parameter in adapters.adaptable(model).items()
            for weight, a, b in zip(*map(_each, (parameter, *adapter.factors[name])), strict=True)
        }

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if func is not functional.linear or (factors := self.factors.get(args[1].data_ptr())) is None:
            return found
        return found + self.scale * (args[0] @ factors.a.mT @ factors.b.mT)


def _each(stack: Tensor) -> list[Tensor]:
    return list(stack) if stack.dim() == 3 else [stack]


@torch.no_grad()
def hidden_states(model: DiffusionGemma) -> Tensor:
    """Of an encoded prefix and of a canvas over it, with a signal."""
    generator = torch.Generator().manual_seed(1)
    prefix = torch.randint(3, model.config.vocab_size, (2, 20), generator=generator)
    canvas = torch.randint(3, model.config.vocab_size, (2, 10), generator=generator)
    encoded = model.encode(prefix)
    signal = torch.randn(2, 10, model.config.hidden_size, generator=generator)
    return torch.cat((encoded.hidden, model.decode(canvas, encoded.cache, signal)), dim=1)


@pytest.mark.parametrize("shape", ["grouped heads, two of four experts", "a single expert", "odd expert counts"])
def test_a_merged_model_equals_the_unmerged_low_rank_forward(shape: str) -> None:
    model = tiny_model(SHAPES[shape])
    adapter = drawn(model)
    plain = hidden_states(model)
    with Beside(model, adapter):
        expected = hidden_states(model)
    adapters.merge(model, adapter)
    torch.testing.assert_close(hidden_states(model), expected, rtol=1e-4, atol=1e-4)
    assert (plain - expected).abs().max() > 0.1


def test_the_sum_is_taken_in_fp32_and_rounded_once() -> None:
    model = tiny_model().bfloat16()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    adapter = drawn(model)
    adapters.merge(model, adapter)
    for name, weight in model.named_parameters():
        update = adapter.factors[name].b @ adapter.factors[name].a * 2.0 if name in adapter.factors else 0.0
        assert torch.equal(weight, (before[name].float() + update).bfloat16()), name


def test_the_router_the_embedding_and_the_norms_have_no_adapter() -> None:
    model = tiny_model()
    kept = {name for name, _ in model.named_parameters() if re.search("router|embed_tokens|norm", name)}
    assert kept | set(adapters.adaptable(model)) == {name for name, _ in model.named_parameters()}
    assert kept.isdisjoint(adapters.adaptable(model))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("base"))


@pytest.fixture
def saved(tmp_path: Path, base: Path) -> Path:
    adapters.save(drawn(checkpoint.load(base)), tmp_path / "adapter", base)
    return tmp_path / "adapter"


def test_the_file_has_the_names_and_shapes_that_peft_gives(saved: Path, base: Path) -> None:
    tensors = load_file(saved / adapters.WEIGHTS_FILE)
    expected = {
        f"{LAYER}{module}.lora_{factor}.weight": shape
        for module, shapes in FIRST_LAYER.items()
        for factor, shape in zip("AB", shapes, strict=True)
    }
    assert {name: tuple(t.shape) for name, t in tensors.items() if name.startswith(LAYER)} == expected
    config = json.loads((saved / adapters.CONFIG_FILE).read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", RANK, ALPHA)
    assert (config["fan_in_fan_out"], config["bias"]) == (False, "none")
    assert config["base_model_name_or_path"] == str(base)
    modules = [name.removesuffix(".lora_A.weight").removeprefix("base_model.model.") for name in tensors]
    assert set(config["target_modules"]) == {name for name in modules if "lora" not in name and "experts" not in name}
    assert "model.decoder.layers.0.experts.gate_up_proj" in config["target_parameters"]


def test_each_expert_gets_the_update_that_peft_reads_out_of_the_file(saved: Path, base: Path) -> None:
    tensors = load_file(saved / adapters.WEIGHTS_FILE)
    factors = adapters.load(saved, checkpoint.load(base), base).factors
    for parameter, module in (("gate_up_proj", "experts.base_layer"), ("down_proj", "experts")):
        a, b = (tensors[f"{LAYER}{module}.lora_{factor}.weight"] for factor in "AB")
        a, b = a.reshape(4, RANK, -1), b.reshape(-1, RANK, 4)
        expected = torch.einsum("ore,eri->eoi", b, a)
        found = factors[f"model.decoder.layers.0.experts.{parameter}"].update(1.0)
        torch.testing.assert_close(found, expected)


def test_what_was_saved_is_what_is_loaded(saved: Path, base: Path) -> None:
    model = checkpoint.load(base)
    written, read = drawn(model), adapters.load(saved, model, base)
    assert (read.rank, read.alpha) == (RANK, ALPHA)
    assert read.factors.keys() == written.factors.keys()
    assert all(
        torch.equal(one, other)
        for name, factors in read.factors.items()
        for one, other in zip(factors, written.factors[name], strict=True)
    )


def test_rank_stabilised_adapters_count_alpha_by_the_root_of_the_rank(saved: Path, base: Path) -> None:
    edit_config(saved, {"use_rslora": True})
    assert adapters.load(saved, checkpoint.load(base), base).scale == pytest.approx(ALPHA / RANK**0.5)


def test_an_engine_with_an_adapter_scores_as_one_with_the_merged_weights(saved: Path, base: Path) -> None:
    adapted = Engine.load(base, adapter=saved, dtype=torch.float32, device="cpu")
    plain = Engine.load(base, dtype=torch.float32, device="cpu")
    model = checkpoint.load(base, dtype=torch.float32)
    adapters.merge(model, drawn(model))
    twin = Engine(model, plain.tokenizer, base)
    request = ScoreRequest(prefix="def f(a):\n    return ", text="a + 1", suffix="\n")
    found, expected, without = (one.score(request).text for one in (adapted, twin, plain))
    assert found == pytest.approx(expected, rel=1e-4)
    assert abs(found - without) > 0.1
    assert [one.info.adapter for one in (adapted, twin, plain)] == [str(saved), "", ""]


def edit_config(directory: Path, change: Mapping[str, Any]) -> None:
    path = directory / adapters.CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def edit_tensors(directory: Path, edit: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = load_file(directory / adapters.WEIGHTS_FILE)
    edit(tensors)
    save_file(tensors, directory / adapters.WEIGHTS_FILE)


Q = f"{LAYER}self_attn.q_proj"
EXPERTS = f"{LAYER}experts.lora_A.weight"
ROUTER = f"{LAYER}router.proj.lora_A.weight"
ENCODER = f"{LAYER}self_attn.q_proj.lora_A.weight".replace("decoder", "encoder.language_model")


@pytest.mark.parametrize(
    ("named", "edit"),
    [
        (f"{Q}.lora_A.weight: expected \\[3, 32\\]", lambda t: t.update({f"{Q}.lora_A.weight": torch.ones(3, 31)})),
        (f"{Q}.lora_B.weight: expected \\[64, 3\\], found none", lambda t: t.pop(f"{Q}.lora_B.weight")),
        (f"{EXPERTS}: expected \\[12, 24\\]", lambda t: t.update({EXPERTS: torch.ones(12, 32)})),
        (f"{ROUTER}: the model has no such", lambda t: t.update({ROUTER: torch.ones(3, 32)})),
        (f"{ENCODER}: the model has no such", lambda t: t.update({ENCODER: torch.ones(3, 32)})),
        ("lora_A.weight: expected floating", lambda t: t.update({f"{Q}.lora_A.weight": torch.ones(3, 32).int()})),
    ],
    ids=["shape", "half", "experts", "router", "encoder", "type"],
)  # fmt: skip
def test_a_tensor_that_does_not_fit_is_refused_by_its_name(
    saved: Path, base: Path, named: str, edit: Callable[[dict[str, Tensor]], Any]
) -> None:
    edit_tensors(saved, edit)
    with pytest.raises(CheckpointError, match=named):
        Engine.load(base, adapter=saved, device="cpu")


def test_a_refused_adapter_leaves_the_model_as_it_was(saved: Path, base: Path) -> None:
    edit_tensors(saved, lambda tensors: tensors.popitem())
    model = checkpoint.load(base)
    with pytest.raises(CheckpointError):
        adapters.merge(model, adapters.load(saved, model, base))
    untouched = checkpoint.load(base).state_dict()
    assert all(torch.equal(tensor, untouched[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    "change",
    [
        {"peft_type": "LOHA"},
        {"use_dora": True},
        {"fan_in_fan_out": True},
        {"bias": "all"},
        {"rank_pattern": {"q_proj": 8}},
        {"alpha_pattern": {"q_proj": 8}},
        {"modules_to_save": ["lm_head"]},
        {"init_lora_weights": "pissa_niter_16"},
        {"alora_invocation_tokens": [1]},
        {"layer_replication": [[0, 2], [1, 3]]},
        {"r": 0},
        {"r": "many"},
    ],
    ids=str,
)
def test_a_configuration_that_means_something_else_is_refused_by_the_field(
    saved: Path, base: Path, change: dict[str, Any]
) -> None:
    edit_config(saved, change)
    with pytest.raises(CheckpointError, match=next(iter(change))):
        adapters.load(saved, checkpoint.load(base), base)


@pytest.mark.parametrize("name", [adapters.CONFIG_FILE, adapters.WEIGHTS_FILE])
def test_a_missing_or_damaged_file_is_named(saved: Path, base: Path, name: str) -> None:
    model = checkpoint.load(base)
    (saved / name).write_bytes(b"{")
    with pytest.raises(CheckpointError, match=name):
        adapters.load(saved, model, base)
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        adapters.load(saved, model, base)


def test_an_adapter_of_other_weights_is_refused_and_one_of_unknown_weights_is_not(
    saved: Path, base: Path, tmp_path: Path
) -> None:
    other = tiny_checkpoint(tmp_path / "other", replace(TINY), seed=7)
    with pytest.raises(CheckpointError, match="trained over other weights"):
        adapters.load(saved, checkpoint.load(other), other)
    edit_tensors(saved, lambda tensors: None)  # written anew without the digest, as PEFT would
    assert adapters.load(saved, checkpoint.load(other), other).rank == RANK


def test_weights_that_differ_in_one_tensor_amid_others_are_other_weights(tmp_path: Path) -> None:
    tensors = {"a": torch.zeros(2**19), "b": torch.zeros(16), "c": torch.zeros(2**19)}
    digests = set()
    for number in range(2):
        tensors["b"] += number
        save_file(tensors, tmp_path / "model.safetensors")
        digests.add(adapters.fingerprint(tmp_path))
    assert len(digests) == 2
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be read"):
        adapters.fingerprint(tmp_path)


def test_every_shape_of_the_architecture_can_be_adapted(tmp_path: Path) -> None:
    for number, config in enumerate(SHAPES.values()):
        assert round_trip(config, tmp_path / str(number))


def round_trip(config: ModelConfig, directory: Path) -> bool:
    model = tiny_model(config)
    checkpoint.save(model, directory)
    adapters.save(drawn(model), directory / "adapter", directory)
    return adapters.load(directory / "adapter", model, directory).factors.keys() == adapters.adaptable(model).keys()
