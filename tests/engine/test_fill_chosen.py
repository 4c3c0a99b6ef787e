"""Holes of several lengths of which some go on, on canvases of fixed shapes: as `infill.fill_chosen`, draw by draw."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dg_engine import device_loop
from dg_engine import lengths as lengths_module
from dg_engine import probe as probe_module
from dg_engine.api import Infill, InfillRequest
from dg_engine.causal import Start
from dg_engine.device_loop import DeviceLoop
from dg_engine.engine import Engine
from dg_engine.infill import Choose, Filling, Hole, fill_chosen
from dg_engine.lengths import ByFiller, Gap
from dg_engine.model import DiffusionGemma
from dg_engine.policies import Denoising, EntropyBound, NeverStop, StableAndConfident
from dg_engine.prefix_cache import PrefixCache
from dg_engine.probe import ByProbe
from dg_engine.reference import NumberedDraws
from dg_engine.rows import Row, can_choose
from dg_engine.settings import LengthProbe
from dg_engine.static_canvas import Shape, static_step
from dg_engine.testing import TINY, tiny_checkpoint

pytestmark = pytest.mark.usefixtures("without_gradients")


def every(step: int, first: int = 0) -> torch.Tensor:
    return torch.arange(TINY.vocab_size) % step == first


HOLE = Hole(initial=0, longest=0, ends=every(7, 1), filler=1, banned=every(9, 1), pinned_signal=False)
PLAN = Denoising(max_denoising_steps=5, acceptance=EntropyBound(entropy_bound=2.0), stopping=NeverStop())
AT_ONCE = StableAndConfident(stability_threshold=0, confidence_threshold=10.0)
LATER = StableAndConfident(stability_threshold=0, confidence_threshold=3.55)
SUFFIX = torch.tensor([20, 21, 22])


def prefix(model: DiffusionGemma, tokens: int) -> PrefixCache:
    return model.encode(torch.arange(tokens)[None] * 7 % TINY.vocab_size).cache


def asked(cache: PrefixCache, lengths: Sequence[int], hole: Hole, plan: Denoising, suffix: torch.Tensor) -> list[Row]:
    holes = [replace(hole, initial=length, longest=length) for length in lengths]
    return [Row(cache=cache, suffix=suffix, hole=one, plan=plan, seed=-3) for one in holes]


def readable(model: DiffusionGemma, rows: Sequence[Row], choose: Choose, deadline: float | None = None) -> Any:
    draws = [NumberedDraws(row.seed, TINY.vocab_size) for row in rows]
    first = rows[0]
    holes = [row.hole for row in rows]
    return fill_chosen(model, first.cache, first.suffix, holes, first.plan, draws, choose, deadline=deadline)


def told(steps: Iterator[tuple[Filling, ...]]) -> list[list[tuple[Any, ...]]]:
    return [
        [
            (one.belief.argmax.tolist(), one.belief.accepted.tolist(), one.end, one.step, one.stop_reason)
            for one in states
        ]
        for states in steps
    ]


def chooses(*numbers: int) -> Choose:
    return lambda states: numbers


CASES: dict[str, tuple[Sequence[int], Sequence[int], Hole, Denoising]] = {
    "the best three of five": ((1, 2, 4, 8, 16), (3, 0, 4), HOLE, PLAN),
    "one candidate": ((6,), (0,), HOLE, PLAN),
    "one of several": ((1, 5, 3), (1,), HOLE, PLAN),
    "all go on, in another order": ((1, 5, 3), (2, 1, 0), HOLE, PLAN),
    "more than one pass": ((*range(1, 21),), (19, 0, 16, 15), HOLE, PLAN),
    "longer canvases, more than one pass": (
        (*range(30, 102, 6),),
        (11, 0, 7),
        HOLE,
        replace(PLAN, max_denoising_steps=3),
    ),
    "done at the first step": ((1, 5, 3), (1, 2), HOLE, replace(PLAN, stopping=AT_ONCE)),
    "done one after the other": (
        (1, 2, 4, 8),
        (3, 2, 1, 0),
        HOLE,
        replace(PLAN, stopping=LATER, max_denoising_steps=30),
    ),
    "one step": ((1, 5), (1, 0), HOLE, replace(PLAN, max_denoising_steps=1)),
    "a healed beginning": ((1, 5, 3), (2, 0), replace(HOLE, first_allowed=every(2)), PLAN),
    "nothing banned": ((1, 5, 3), (2, 0), replace(HOLE, banned=None, filler=0), PLAN),
    "pinned slots told": ((1, 5, 3), (2, 0), replace(HOLE, pinned_signal=True), PLAN),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("known", "suffix"), [(30, SUFFIX), (3, SUFFIX[:0])])
def test_every_state_equals_the_readable_loop(
    case: str, known: int, suffix: torch.Tensor, model: DiffusionGemma
) -> None:
    lengths, numbers, hole, plan = CASES[case]
    rows = asked(prefix(model, known), lengths, hole, plan, suffix)
    shown: list[Any] = []

    def choose(states: Sequence[Filling]) -> Sequence[int]:
        shown.append(told(iter([tuple(states)])))
        return numbers

    found = told(DeviceLoop(model).fill_chosen(rows, choose))
    assert found == told(readable(model, rows, choose))
    assert shown[0] == shown[1], "by which is chosen"
    assert [len(states) for states in found] == [len(numbers)] * len(found)


def test_the_cases_are_what_they_are_called(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes, stops = dict[str, set[tuple[int, int]]](), {}

    for case, (lengths, numbers, hole, plan) in CASES.items():
        seen = shapes.setdefault(case, set())

        def noted(model: DiffusionGemma, shape: Shape, *given: Any, seen: set[tuple[int, int]] = seen) -> Any:
            assert shape.prefixes == 1
            seen.add((shape.batch, shape.canvas))
            return static_step(model, shape, *given)

        monkeypatch.setattr(device_loop, "static_step", noted)
        rows = asked(prefix(model, 9), lengths, hole, plan, SUFFIX)
        *_, last = DeviceLoop(model).fill_chosen(rows, chooses(*numbers))
        stops[case] = [(state.step, state.stop_reason) for state in last]
    assert shapes["the best three of five"] == {(5, 64), (3, 64)}
    assert shapes["more than one pass"] == {(16, 64), (4, 64)}
    assert shapes["longer canvases, more than one pass"] == {(8, 128), (4, 128), (3, 128)}
    assert stops["done at the first step"] == [(1, "converged")] * 2
    assert len({step for step, _ in stops["done one after the other"]}) > 2
    assert stops["one step"] == [(1, "max_denoising_steps")] * 2


def test_no_time_for_a_second_step(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []

    def counted(*given: Any) -> Any:
        steps.append(given)
        return static_step(*given)

    monkeypatch.setattr(device_loop, "static_step", counted)
    rows, late = asked(prefix(model, 9), (1, 5, 3), HOLE, PLAN, SUFFIX), time.perf_counter() - 1
    found = told(DeviceLoop(model).fill_chosen(rows, chooses(1, 2), deadline=late))
    assert found == told(readable(model, rows, chooses(1, 2), late))
    assert [reason for *_, reason in found[0]] == ["time_budget"] * 2
    assert len(found) == len(steps) == 1


def test_a_run_that_is_given_up_leaves_nothing_to_the_next(model: DiffusionGemma) -> None:
    loop = DeviceLoop(model)
    given_up = loop.fill_chosen(asked(prefix(model, 40), (2, 7, 11), HOLE, PLAN, SUFFIX), chooses(2, 1))
    next(given_up)
    next(given_up)
    del given_up
    rows = asked(prefix(model, 9), (1, 5, 3), HOLE, PLAN, SUFFIX)
    assert told(loop.fill_chosen(rows, chooses(2, 0))) == told(readable(model, rows, chooses(2, 0)))
    assert len(loop._idle) == 1


def test_two_that_take_turns_do_not_meet(model: DiffusionGemma) -> None:
    loop = DeviceLoop(model)
    asked_twice = [asked(prefix(model, tokens), (1, 5, 3), HOLE, PLAN, SUFFIX) for tokens in (9, 30)]
    turns = zip(*(loop.fill_chosen(rows, chooses(2, 0)) for rows in asked_twice), strict=True)
    for found, rows in zip(zip(*turns, strict=True), asked_twice, strict=True):
        assert told(iter(found)) == told(readable(model, rows, chooses(2, 0)))


def test_more_than_fit_into_a_pass_cannot_go_on(model: DiffusionGemma) -> None:
    rows = asked(prefix(model, 9), (*range(100, 106),), HOLE, PLAN, torch.arange(40))
    assert can_choose(rows, 4)
    assert not can_choose(rows, 5)
    assert not can_choose(asked(rows[0].cache, (220,), HOLE, PLAN, torch.arange(40)), 1)
    with pytest.raises(ValueError, match="of canvases of 256 at most 4 can go on, not 5"):
        next(DeviceLoop(model).fill_chosen(rows, chooses(*range(5))))


BANNED = every(7, 2)
PROBE = LengthProbe(lengths=(1, 2, 4, 8, 16), candidates=3)


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """As if steps could be captured, and draws as then; how many rows each run began with."""
    taken: list[int] = []

    class NotedLoop(DeviceLoop):
        def fill_chosen(self, rows: Sequence[Row], *given: Any, **how: Any) -> Any:
            taken.append(len(rows))
            return super().fill_chosen(rows, *given, **how)

    monkeypatch.setattr(lengths_module, "can_capture", lambda model: True)
    monkeypatch.setattr(lengths_module, "DeviceLoop", NotedLoop)
    monkeypatch.setattr(probe_module, "SeededDraws", drawn)
    return taken


def drawn(vocab_size: int, seed: int, device: torch.device | None = None) -> NumberedDraws:
    return NumberedDraws(seed, vocab_size, device)


@pytest.mark.parametrize("hole", [HOLE, replace(HOLE, first_allowed=every(2)), replace(HOLE, draft=(5, 6, 7))])
@pytest.mark.parametrize("stopping", [NeverStop(), AT_ONCE, LATER])
@pytest.mark.parametrize("late", [False, True])
def test_what_is_tried_with_a_captured_step_is_what_is_tried_without(
    hole: Hole, stopping: Any, late: bool, captured: list[int], model: DiffusionGemma
) -> None:
    hidden, cache = model.encode(torch.arange(30)[None])
    gap = Gap(
        start=Start(hidden[0, -1:], cache),
        suffix=SUFFIX,
        hole=replace(hole, initial=8, longest=12, filler=TINY.eos_token_id, typed=(3, 4)),
        plan=replace(PLAN, stopping=stopping),
        seed=11,
        deadline=time.perf_counter() - 1 if late else None,
    )
    by_filler = ByFiller(model)
    found = list(ByProbe(model, PROBE, BANNED, by_filler).fill(gap))
    assert captured == [4]
    by_filler.device_loop = None
    expected = list(ByProbe(model, PROBE, BANNED, by_filler).fill(gap))
    assert captured == [4]
    assert told(iter([tuple(found)])) == told(iter([tuple(expected)]))
    assert found[-1].gains == expected[-1].gains
    if isinstance(stopping, NeverStop):
        assert (found[-1].stop_reason == "time_budget") == late
    for state in found[:-1]:
        assert not BANNED[state.belief.argmax].any()


def test_candidates_that_no_pass_holds_are_tried_without(captured: list[int], model: DiffusionGemma) -> None:
    hidden, cache = model.encode(torch.arange(9)[None])
    hole = replace(HOLE, initial=100, longest=100)
    gap = Gap(start=Start(hidden[0, -1:], cache), suffix=torch.arange(40), hole=hole, plan=PLAN, seed=1)
    probe = LengthProbe(lengths=(1, 2, 4, 8, 100), candidates=5)
    *_, last = ByProbe(model, probe, BANNED, ByFiller(model)).fill(gap)
    assert last.stop_reason == "max_denoising_steps"
    assert captured == []


@pytest.mark.parametrize(("extent", "lengths"), [("line", 8), ("block", 12)])
def test_an_engine_tries_lengths_with_a_captured_step(
    extent: Any, lengths: int, captured: list[int], tmp_path: Path
) -> None:
    directory = tiny_checkpoint(tmp_path, replace(TINY, num_hidden_layers=1, layer_types=("full_attention",)))
    directory.joinpath("infill_config.json").write_text('{"length_probe": {}}')
    engine = Engine.load(directory, device="cpu", dtype=torch.float64)
    engine.model.config = replace(engine.model.config, canvas_length=256)
    request = InfillRequest(prefix="def f(a):\n    ", suffix="\n", extent=extent, seed=5, max_new_tokens=128)
    *_, answer = engine.infill(request)
    assert captured == [lengths]
    assert isinstance(engine._lengths, ByProbe)
    engine._lengths._by_filler.device_loop = None
    *_, expected = engine.infill(request)
    assert captured == [lengths]
    assert isinstance(answer, Infill)
    assert isinstance(expected, Infill)
    assert (answer.text, answer.steps, answer.stop_reason) == (expected.text, expected.steps, expected.stop_reason)
    assert answer.tokens > 0
