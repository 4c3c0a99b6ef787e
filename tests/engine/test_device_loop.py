"""The loop around the static step: which canvas, whose turn, what the host is told and when it stops."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dg_engine import captures, device_loop
from dg_engine import engine as engine_module
from dg_engine import lengths as lengths_module
from dg_engine import rows as rows_module
from dg_engine.api import Draft, Extent, Infill, InfillRequest
from dg_engine.captures import can_capture
from dg_engine.device_loop import DeviceLoop
from dg_engine.engine import Engine
from dg_engine.infill import Filling, Hole, confident
from dg_engine.model import DiffusionGemma
from dg_engine.policies import Denoising, EntropyBound, NeverStop, StableAndConfident
from dg_engine.prefix_cache import Seen
from dg_engine.rows import Row, canvas_bucket
from dg_engine.sharing import SharedLoop
from dg_engine.static_canvas import Shape, blank_places, static_step
from dg_engine.testing import TINY, tiny_checkpoint, tiny_model

EVERY_EXPERT = replace(TINY, top_k_experts=TINY.num_experts)
ENDLESS = Hole(initial=12, longest=40, ends=torch.zeros(TINY.vocab_size, dtype=torch.bool), filler=1)
PLAN = Denoising(max_denoising_steps=6, acceptance=EntropyBound(entropy_bound=3.0), stopping=NeverStop())


pytestmark = pytest.mark.usefixtures("without_gradients")


@pytest.fixture(scope="module")
def model() -> DiffusionGemma:
    return tiny_model()


def row(model: DiffusionGemma, hole: Hole = ENDLESS, plan: Denoising = PLAN) -> Row:
    cache = model.encode(torch.arange(4, 20)[None]).cache
    return Row(cache=cache, suffix=torch.tensor([20, 21, 22]), hole=hole, plan=plan, seed=3)


def told(state: Filling) -> tuple[Any, ...]:
    return *(part.tolist() for part in state.belief), state.end, state.step, state.stop_reason


def test_what_was_told_stays_true_after_the_next_step(model: DiffusionGemma) -> None:
    states, kept = [], []
    for (state,) in DeviceLoop(model).fill([row(model)]):
        states.append(state)
        kept.append(told(state))
    assert [told(state) for state in states] == kept


def test_a_spent_time_budget_returns_the_confident_left_part_after_one_step(model: DiffusionGemma) -> None:
    ((undisturbed,), *_) = DeviceLoop(model).fill([row(model)])
    ((state,),) = DeviceLoop(model).fill([row(model)], deadline=time.perf_counter() - 1)
    assert state.stop_reason == "time_budget"
    assert told(state)[:4] == told(undisturbed)[:4]
    assert state.end == confident(undisturbed.belief, undisturbed.end) < undisturbed.end


def test_what_is_final_when_time_runs_out_is_shown_whole(model: DiffusionGemma) -> None:
    eager = replace(PLAN, stopping=StableAndConfident(stability_threshold=0, confidence_threshold=10.0))
    ((state,),) = DeviceLoop(model).fill([row(model, plan=eager)], deadline=time.perf_counter() - 1)
    assert state.stop_reason == "converged"
    assert state.end == 12


@pytest.mark.parametrize(("is_full", "made"), [(False, 2), (True, 4)])
def test_places_are_kept_for_prefixes_of_their_size_while_there_is_room(
    model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch, *, is_full: bool, made: int
) -> None:
    sizes = []

    def noted(model: DiffusionGemma, *size: int) -> list[Seen]:
        sizes.append(size)
        return blank_places(model, *size)

    monkeypatch.setattr(device_loop, "blank_places", noted)
    monkeypatch.setattr(device_loop, "is_nearly_full", lambda device: is_full)
    loop = DeviceLoop(model)
    for others in (0, 1, 0, 1):
        list(loop.fill([row(model, replace(ENDLESS, longest=longest)) for longest in (40, 100)[: 1 + others]]))
    assert len(sizes) == made
    assert set(sizes) == {(1024, 1, 1024), (1024, 2, 256)}


def test_canvases_of_any_length_have_the_same_places(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = set()

    def noted(model: DiffusionGemma, shape: Shape, seen: list[Seen], *given: Any) -> Any:
        addresses.add((seen[0].keys.data_ptr(), shape.canvas, seen[0].keys.shape[2]))
        return static_step(model, shape, seen, *given)

    monkeypatch.setattr(device_loop, "static_step", noted)
    loop = DeviceLoop(model)
    for longest in (40, 100, 40, 250):
        list(loop.fill([row(model, replace(ENDLESS, longest=longest))]))
    assert len({address for address, *_ in addresses}) == 1
    window = TINY.sliding_window or 0
    assert {tuple(sizes) for _, *sizes in addresses} == {(canvas, window - 1 + canvas) for canvas in (64, 128, 256)}


def test_a_step_is_under_way_while_the_one_before_is_told_and_none_after_the_last(
    model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = []

    def counted(*given: Any) -> Any:
        launched.append(given)
        return static_step(*given)

    monkeypatch.setattr(device_loop, "static_step", counted)
    running = [len(launched) for _ in DeviceLoop(model).fill([row(model)])]
    assert running == [2, 3, 4, 5, 6, 6]
    next(DeviceLoop(model).fill([row(model)]))  # and nobody asks for more
    assert len(launched) == 6 + 2


def test_the_canvas_is_the_shortest_that_holds_the_longest_hole_or_grows_as_far_as_it_goes(
    model: DiffusionGemma,
) -> None:
    asked = [row(model, replace(ENDLESS, longest=longest)) for longest in (40, 61, 62, 200, 300)]
    assert [canvas_bucket(one) for one in asked] == [64, 64, 128, 256, 256]
    large = row(model, replace(ENDLESS, initial=192, longest=300), replace(PLAN, max_denoising_steps=4))
    assert [len(state.belief.argmax) for (state,) in DeviceLoop(model).fill([large])] == [192, 192, 253, 253]


def test_a_hole_that_no_canvas_holds_is_refused(model: DiffusionGemma) -> None:
    asked = row(model, replace(ENDLESS, initial=254))
    assert canvas_bucket(asked) is None
    with pytest.raises(ValueError, match="at most 256 slots"):
        next(DeviceLoop(model).fill([asked]))
    with pytest.raises(ValueError, match="needs rows"):
        next(DeviceLoop(model).fill([]))


def test_the_engine_takes_the_loop_where_a_step_can_be_captured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tiny_checkpoint(tmp_path)
    request = InfillRequest(prefix="def f(a):\n    ", suffix="\n", document="a", seed=5)
    plain = list(Engine.load(directory, device="cpu").infill(request))
    taken = []

    class NotedLoop(SharedLoop):
        def fill(self, row: Row, *, deadline: float | None = None) -> Iterator[Filling]:
            taken.append(row)
            return super().fill(row, deadline=deadline)

    monkeypatch.setattr(lengths_module, "can_capture", lambda model: True)
    monkeypatch.setattr(lengths_module, "SharedLoop", NotedLoop)
    engine = Engine.load(directory, device="cpu")
    *drafts, answer = engine.infill(request)
    assert len(taken) == 1
    assert [type(event) for event in (*drafts, answer)] == [type(event) for event in plain]
    assert all(isinstance(draft, Draft) for draft in drafts)
    assert isinstance(answer, Infill)
    assert answer.steps == len([draft for draft in drafts if isinstance(draft, Draft) and draft.step])


@pytest.mark.parametrize("infill", ['{"suffix_tokens": 32}', '{"suffix_tokens": 32, "length_probe": {}}'])
def test_usual_requests_find_their_steps_captured_behind_short_and_behind_long_prefixes(
    infill: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[Shape] = []

    class Noted(device_loop.Canvases):
        def __init__(self, model: DiffusionGemma, shape: Shape, *given: Any) -> None:
            shapes.append(shape)
            super().__init__(model, shape, *given)

    monkeypatch.setattr(device_loop, "Canvases", Noted)
    monkeypatch.setattr(rows_module, "SHORTEST_PREFIX", 16)
    monkeypatch.setattr(engine_module, "SHORTEST_PREFIX", 16)
    monkeypatch.setattr(lengths_module, "can_capture", lambda model: True)
    directory = tiny_checkpoint(tmp_path, replace(TINY, num_hidden_layers=1, layer_types=("full_attention",)))
    directory.joinpath("infill_config.json").write_text(infill)
    engine = Engine.load(directory, device="cpu")
    engine.warm_up()
    made = len(shapes)
    assert made >= 2
    extents: tuple[Extent, ...] = ("line", "block")
    for prefix, extent in itertools.product(("x = ", "def f(a):\n    return a + " * 12), extents):
        request = InfillRequest(prefix=prefix, suffix="\nprint(f(1))\n" * 3, extent=extent, max_denoising_steps=1)
        list(engine.infill(request))
    assert shapes[made:] == []


class OnCuda(DiffusionGemma):
    """A model that says so."""

    @property
    def device(self) -> torch.device:
        return torch.device("cuda")


def test_what_can_be_captured_runs_on_cuda_and_asks_nobody_which_rows_chose_an_expert(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not can_capture(DiffusionGemma(EVERY_EXPERT))
    assert can_capture(OnCuda(EVERY_EXPERT))
    assert not can_capture(OnCuda(TINY)), "no kernel takes weights on a CPU"
    monkeypatch.setattr(captures, "served", lambda *tensors: True)
    assert can_capture(OnCuda(TINY))
