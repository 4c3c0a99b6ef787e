"""Requests that take turns share their steps: each is answered once, as if alone, whatever the others do."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from dg_engine import device_loop, sharing
from dg_engine import lengths as lengths_module
from dg_engine.api import Draft, Failure, Infill, InfillRequest, Score
from dg_engine.device_loop import DeviceLoop
from dg_engine.engine import Engine
from dg_engine.infill import Filling, Hole, fill
from dg_engine.model import DiffusionGemma
from dg_engine.policies import Denoising, EntropyBound, NeverStop, StableAndConfident
from dg_engine.reference import NumberedDraws
from dg_engine.rows import Row
from dg_engine.sharing import MOST_TOGETHER, SharedLoop
from dg_engine.static_canvas import Shape, static_step
from dg_engine.testing import TINY, tiny_checkpoint
from dg_engine.worker import Worker

pytestmark = pytest.mark.usefixtures("without_gradients")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Shape]:
    """The shape of every step that is taken."""
    taken: list[Shape] = []

    def noted(model: DiffusionGemma, shape: Shape, *given: Any) -> Any:
        taken.append(shape)
        return static_step(model, shape, *given)

    monkeypatch.setattr(device_loop, "static_step", noted)
    return taken


HOLE = Hole(initial=10, longest=16, ends=torch.arange(TINY.vocab_size) == 1, filler=1)
PLAN = Denoising(max_denoising_steps=6, acceptance=EntropyBound(entropy_bound=3.0), stopping=NeverStop())
EAGER = StableAndConfident(stability_threshold=0, confidence_threshold=3.5)


def row(model: DiffusionGemma, seed: int, *, hole: Hole = HOLE, plan: Denoising = PLAN) -> Row:
    tokens = torch.arange(5 + 3 * (seed % 7))[None] * 7 % TINY.vocab_size
    return Row(
        cache=model.encode(tokens).cache, suffix=torch.arange(20, 20 + seed % 4), hole=hole, plan=plan, seed=seed
    )


def told(state: Filling) -> tuple[Any, ...]:
    belief = state.belief
    return belief.argmax.tolist(), belief.accepted.tolist(), state.end, state.step, state.stop_reason


def alone(model: DiffusionGemma, row: Row) -> list[tuple[Any, ...]]:
    draws = NumberedDraws(row.seed, TINY.vocab_size)
    return [told(state) for state in fill(model, row.cache, row.suffix, row.hole, row.plan, draws)]


def in_turn(*asked: Iterator[Filling]) -> list[list[tuple[Any, ...]]]:
    """What each yields, one state of each at a time."""
    found: list[list[tuple[Any, ...]]] = [[] for _ in asked]
    waiting = list(enumerate(asked))
    while waiting:
        still = []
        for number, one in waiting:
            state = next(one, None)
            if state is not None:
                found[number].append(told(state))
                still.append((number, one))
        waiting = still
    return found


def shared(model: DiffusionGemma) -> SharedLoop:
    return SharedLoop(model, DeviceLoop(model))


def test_requests_that_take_turns_take_steps_together_and_find_what_each_finds_alone(
    model: DiffusionGemma, steps: list[Shape]
) -> None:
    loop = shared(model)
    rows = [row(model, seed, plan=replace(PLAN, max_denoising_steps=10 + seed)) for seed in range(3)]
    assert in_turn(*(loop.fill(one) for one in rows)) == [alone(model, one) for one in rows]
    # The first of 10 steps is a step ahead when the second, of 11, joins, and so are both when the third, of 12, does.
    assert [shape.batch for shape in steps] == [1, 1, 2, 2, *[3] * 6, *[2] * 3, *[1] * 3]
    assert all(shape.prefixes == shape.batch for shape in steps)


def test_one_request_takes_its_own_steps_one_of_them_ahead(model: DiffusionGemma, steps: list[Shape]) -> None:
    taken = [len(steps) for _ in shared(model).fill(row(model, 1))]
    assert taken == [2, 3, 4, 5, 6, 6]
    assert {shape.batch for shape in steps} == {1}


def test_one_that_is_given_up_leaves_the_others_as_they_are(model: DiffusionGemma, steps: list[Shape]) -> None:
    loop, plan = shared(model), replace(PLAN, max_denoising_steps=12)
    rows = [row(model, seed, plan=plan) for seed in range(3)]
    first, second, third = (loop.fill(one) for one in rows)
    found: list[list[Any]] = [[told(next(one))] for one in (first, second, third)]
    del second
    before = len(steps)
    for own, rest in zip((found[0], found[2]), in_turn(first, third), strict=True):
        own += rest
    assert [found[0], found[2]] == [alone(model, rows[0]), alone(model, rows[2])]
    assert found[1] == alone(model, rows[1])[:1]
    assert steps[-1].batch == 1, "the first began before the last"
    assert steps[before - 1].batch == 3
    assert max(shape.batch for shape in steps[before:]) == 2, "no step is taken for what nobody wants"


def test_each_stops_at_its_own_deadline(model: DiffusionGemma) -> None:
    loop, rows = shared(model), [row(model, seed) for seed in range(2)]
    patient, hurried = loop.fill(rows[0]), loop.fill(rows[1], deadline=time.perf_counter() - 1)
    found = in_turn(patient, hurried)
    assert found[0] == alone(model, rows[0])
    ((*draft, _, step, reason),) = found[1]
    assert (step, reason) == (1, "time_budget")
    assert draft == [*alone(model, rows[1])[0][:2]]


def test_holes_for_canvases_of_other_lengths_and_more_than_may_share_take_steps_of_their_own(
    model: DiffusionGemma, steps: list[Shape]
) -> None:
    loop, slow, long = shared(model), replace(PLAN, max_denoising_steps=12), replace(HOLE, longest=100)
    rows = [row(model, seed, plan=slow, hole=long if seed == 2 else HOLE) for seed in range(MOST_TOGETHER + 2)]
    assert in_turn(*(loop.fill(one) for one in rows)) == [alone(model, one) for one in rows]
    assert max(shape.batch for shape in steps) == MOST_TOGETHER
    assert {shape.batch for shape in steps if shape.canvas == 128} == {1}


def test_where_memory_is_scarce_each_takes_its_own(
    model: DiffusionGemma, steps: list[Shape], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "is_nearly_full", lambda device: True)
    loop, rows = shared(model), [row(model, seed) for seed in range(2)]
    assert in_turn(*(loop.fill(one) for one in rows)) == [alone(model, one) for one in rows]
    assert {shape.batch for shape in steps} == {1}


def test_where_one_cannot_join_the_others_go_on(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> None:
    device = DeviceLoop(model)
    loop, rows = SharedLoop(model, device), [row(model, seed) for seed in range(3)]
    first, second = loop.fill(rows[0]), loop.fill(rows[1])
    found = [[told(next(first))], [told(next(second))]]
    with monkeypatch.context() as patched:
        patched.setattr(device, "take", lambda *given: (_ for _ in ()).throw(MemoryError("no more")))
        with pytest.raises(MemoryError):
            next(loop.fill(rows[2]))
    for own, rest in zip(found, in_turn(first, second), strict=True):
        own += rest
    assert found == [alone(model, one) for one in rows[:2]]


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_asked_in_whatever_order_each_finds_its_own(seed: int, model: DiffusionGemma) -> None:
    """Requests come, are asked unevenly and are given up at random."""
    chance, loop = random.Random(seed), shared(model)
    plans = [replace(PLAN, max_denoising_steps=steps) for steps in (1, 3, 5)]
    plans.append(replace(PLAN, stopping=EAGER, max_denoising_steps=9))
    waiting: dict[int, Iterator[Filling]] = {}
    rows, found, given_up = dict[int, Row](), dict[int, list[Any]](), set[int]()
    for _ in range(60):
        if len(rows) < 8 and chance.random() < 0.3:
            number = len(rows)
            rows[number], found[number] = row(model, number, plan=chance.choice(plans)), []
            waiting[number] = loop.fill(rows[number])
        if not waiting:
            continue
        number = chance.choice(list(waiting))
        if chance.random() < 0.06:
            del waiting[number]
            given_up.add(number)
            continue
        state = next(waiting[number], None)
        if state is None:
            del waiting[number]
        else:
            found[number].append(told(state))
    for number, rest in zip(waiting, in_turn(*waiting.values()), strict=True):
        found[number] += rest
    assert len(rows) > 4
    for number, asked in rows.items():
        expected = alone(model, asked)
        assert found[number] == (expected[: len(found[number])] if number in given_up else expected)


def test_users_of_one_engine_are_answered_once_each_as_if_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[Shape]
) -> None:
    monkeypatch.setattr(lengths_module, "can_capture", lambda model: True)
    engine = Engine.load(tiny_checkpoint(tmp_path), device="cpu", dtype=torch.float64)
    requests = [
        InfillRequest(prefix=f"def f{name}(a):\n    ", suffix="\n", document=name, seed=5, decoding="diffusion")
        for name in "abc"
    ]
    expected = [list(engine.infill(request))[-1] for request in requests]
    assert {shape.batch for shape in steps} == {1}
    worker, answers = Worker(), dict[str, list[Any]]()
    done = threading.Event()

    def deliver(name: str, item: Draft | Infill | Score | Failure) -> None:
        answers.setdefault(name, []).append(item)
        if all(any(isinstance(one, Infill) for one in answers.get(asked.document, [])) for asked in requests):
            done.set()

    for request in requests:
        worker.submit(engine.infill(request), request.document, partial(deliver, request.document))
    worker.start()
    assert done.wait(timeout=120)
    worker.close()
    assert max(shape.batch for shape in steps) > 1
    for request, own in zip(requests, expected, strict=True):
        assert isinstance(own, Infill)
        *drafts, answer = answers[request.document]
        assert all(isinstance(draft, Draft) for draft in drafts)
        assert isinstance(answer, Infill)
        assert (answer.text, answer.steps, answer.stop_reason) == (own.text, own.steps, own.stop_reason)
