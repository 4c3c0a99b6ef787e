"""An engine whose weights stay packed answers as one whose weights became numbers, and says the same of itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dg_engine import engine as engine_module
from dg_engine.api import Infill, InfillRequest
from dg_engine.engine import Engine
from dg_engine.formats.convert import quantise
from dg_engine.layers import Packed
from dg_engine.testing import TINY, tiny_adapter, tiny_checkpoint


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    parent = tiny_checkpoint(folder / "parent", replace(TINY, moe_intermediate_size=32))
    quantise(parent, folder / "small", "fp8", projections="fp8")
    return folder / "small"


def packed(engine: Engine) -> bool:
    return any(isinstance(module, Packed) for module in engine.model.modules())


def test_answers_are_the_same_and_so_is_the_number_of_parameters(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Engine.load(directory, device="cpu", dtype=torch.float32)
    assert not packed(plain)
    monkeypatch.setattr(engine_module, "multiplies_packed", lambda device: True)
    kept = Engine.load(directory, device="cpu", dtype=torch.float32)
    assert packed(kept)
    assert kept.info == plain.info
    request = InfillRequest(prefix="def f(a):\n    ", suffix="\n", decoding="diffusion", seed=5)
    answers = []
    for engine in (plain, kept):
        *_, answer = engine.infill(request)
        assert isinstance(answer, Infill)
        answers.append((answer.text, answer.steps, answer.score))
    assert answers[0][:2] == answers[1][:2]
    assert answers[0][2] == pytest.approx(answers[1][2], rel=1e-4)


def test_an_adapter_is_merged_into_numbers(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "multiplies_packed", lambda device: True)
    adapter = tiny_adapter(directory, tmp_path)
    assert not packed(Engine.load(directory, device="cpu", dtype=torch.float32, adapter=adapter))
