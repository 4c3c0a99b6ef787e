"""Holes of unknown length: where the answer ends, removal of filler, growth, budgets. On a random tiny model."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dg_engine import infill as infill_module
from dg_engine.canvas import Belief, SeededDraws, new_canvas
from dg_engine.infill import Filling, Hole, answer_end, fill, next_length
from dg_engine.policies import Denoising, EntropyBound, NeverStop, StableAndConfident
from dg_engine.testing import TINY, tiny_model

FILLER = 1


pytestmark = pytest.mark.usefixtures("without_gradients")


def ends(*tokens: int) -> Tensor:
    mask = torch.zeros(TINY.vocab_size, dtype=torch.bool)
    mask[list(tokens)] = True
    return mask


HOLE = Hole(initial=8, longest=32, ends=ends(FILLER), filler=FILLER)
PLAN = Denoising(max_denoising_steps=5, stopping=NeverStop())


def run(hole: Hole, plan: Denoising, *, deadline: float | None = None, seed: int = 0) -> list[Filling]:
    model = tiny_model()
    cache = model.encode(torch.arange(4, 20)[None]).cache
    draws = SeededDraws(TINY.vocab_size, seed)
    return list(fill(model, cache, torch.tensor([20, 21, 22]), hole, plan, draws, deadline=deadline))


def test_the_answer_ends_before_the_first_token_that_ends_it() -> None:
    assert answer_end(torch.tensor([5, 6, FILLER, 7, FILLER]), ends(FILLER)) == 2
    assert answer_end(torch.tensor([5, 9, FILLER]), ends(FILLER, 9)) == 1
    assert answer_end(torch.tensor([FILLER]), ends(FILLER)) == 0
    assert answer_end(torch.tensor([5, 6]), ends(FILLER)) == 2


@pytest.mark.parametrize("pinned_signal", [True, False])
def test_a_draft_is_told_as_if_a_step_had_found_it_and_what_is_behind_it_is_noise(*, pinned_signal: bool) -> None:
    model, suffix = tiny_model(), torch.tensor([20, 21, 22])
    plain = new_canvas(model, 8, suffix, SeededDraws(TINY.vocab_size, 0), pinned_signal=pinned_signal)
    found = new_canvas(
        model, 8, suffix, SeededDraws(TINY.vocab_size, 0), pinned_signal=pinned_signal, draft=(30, 31, FILLER)
    )
    assert found.tokens[:3].tolist() == [30, 31, FILLER]
    assert torch.equal(found.tokens[3:], plain.tokens[3:])
    assert torch.equal(found.free, plain.free), "all of the hole may change, the draft too"
    assert found.signal is not None
    torch.testing.assert_close(found.signal[:3], model.embed(found.tokens[:3]))
    assert not found.signal[3:8].any()
    expected = model.embed(suffix) if pinned_signal else torch.zeros_like(found.signal[8:])
    torch.testing.assert_close(found.signal[8:], expected)


def test_a_hole_that_begins_with_a_draft_is_filled_otherwise() -> None:
    assert run(HOLE, PLAN)[0].tokens != run(replace(HOLE, draft=(30, 31, 32, 33)), PLAN)[0].tokens


def test_lengths_grow_by_bucket_and_never_past_the_longest() -> None:
    assert [next_length(length, 100) for length in (8, 20, 64, 96, 100)] == [16, 24, 96, 100, 100]


def test_a_full_hole_grows_to_the_longest_and_only_the_last_state_has_a_reason() -> None:
    never = replace(HOLE, ends=ends())
    states = run(never, replace(PLAN, max_denoising_steps=7))
    assert [len(state.belief.argmax) for state in states] == [8, 8, 16, 24, 32, 32, 32]
    assert [state.stop_reason for state in states] == [None] * 6 + ["max_denoising_steps"]


def test_a_hole_within_its_limit_does_not_converge_while_it_is_full() -> None:
    eager = StableAndConfident(stability_threshold=0, confidence_threshold=100.0)
    states = run(replace(HOLE, ends=ends()), replace(PLAN, stopping=eager, max_denoising_steps=9))
    assert states[0].stop_reason == "converged", "the first step may stop: growth is judged from the second on"
    states = run(replace(HOLE, ends=ends(), longest=8), replace(PLAN, stopping=eager))
    assert [state.stop_reason for state in states] == ["converged"]


def belief(argmax: list[int], entropy: float) -> Belief:
    count = len(argmax)
    return Belief(torch.tensor(argmax), torch.ones(count), torch.full((count,), entropy), torch.ones(count).bool())


@pytest.mark.parametrize(
    ("argmax", "entropy", "left"),
    [
        ([5, 6, 1, 1, 1, 1, 1, 1], 0.0, 4),
        ([5, 6, 1, 1, 1, 1, 1, 1], 0.5, 8),
        ([5, 6, 1, 1, 7, 1, 1, 1], 0.0, 8),
        ([5, 6, 7, 8, 1, 1, 1, 1], 0.0, 6),
        ([5, 6, 7, 8, 9, 1, 1, 1], 0.0, 8),
        ([1, 1, 1, 1, 1, 1, 1, 1], 0.0, 2),
    ],
)
def test_certain_filler_is_removed_but_for_two_spare_slots(argmax: list[int], entropy: float, left: int) -> None:
    model = tiny_model()
    draws = SeededDraws(TINY.vocab_size, 0)
    canvas = new_canvas(model, 8, torch.tensor([20, 21, 22]), draws, pinned_signal=True)
    found = belief(argmax, entropy)
    resized = infill_module.resized(canvas, found, answer_end(found.argmax, HOLE.ends), HOLE, draws)
    assert len(resized.free) == left
    assert resized.tokens[-3:].tolist() == [20, 21, 22]
    assert torch.equal(resized.tokens[:left], canvas.tokens[:left])


def test_a_spent_time_budget_returns_the_confident_left_part_after_at_least_one_step() -> None:
    states = run(HOLE, PLAN, deadline=time.perf_counter() - 1)
    assert [state.stop_reason for state in states] == ["time_budget"]
    confidence = states[0].belief.confidence
    assert all(confidence[: states[0].end] >= infill_module.CONFIDENT)
    assert states[0].end == len(confidence) or confidence[states[0].end] < infill_module.CONFIDENT


def test_a_seed_names_a_result_and_another_seed_another() -> None:
    plan = replace(PLAN, acceptance=EntropyBound(entropy_bound=1.0))
    drafts = [[state.belief.argmax.tolist() for state in run(HOLE, plan, seed=seed)] for seed in (3, 3, 4)]
    assert drafts[0] == drafts[1] != drafts[2]


def test_a_bias_towards_filler_shortens_the_answer() -> None:
    plan = replace(PLAN, max_denoising_steps=1)
    (without,), (much,) = run(HOLE, plan), run(replace(HOLE, filler_bias=100.0), plan)
    assert much.end == 0
    assert without.end > 0
