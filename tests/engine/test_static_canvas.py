"""The step of fixed shapes and its loop, held to `infill.fill` draw by draw; and that nothing in it asks the host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from dg_engine import device_loop, prefix_cache
from dg_engine.captures import can_capture
from dg_engine.device_loop import DeviceLoop
from dg_engine.fused import FusedModel
from dg_engine.infill import Filling, Hole, fill
from dg_engine.model import DiffusionGemma
from dg_engine.policies import Denoising, EntropyBound, LinearTemperature, NeverStop, StableAndConfident
from dg_engine.reference import NumberedDraws
from dg_engine.rows import Row, shape_of
from dg_engine.static_canvas import static_step
from dg_engine.testing import SHAPES, TINY, NothingAsksTheHost, tiny_model
from dg_kernels import SamplingStatistics, random_numbers, sampled_from

FILLER = 1
EVERY_EXPERT = replace(TINY, top_k_experts=TINY.num_experts)


pytestmark = pytest.mark.usefixtures("without_gradients")


def ends(*tokens: int) -> Tensor:
    mask = torch.zeros(TINY.vocab_size, dtype=torch.bool)
    mask[list(tokens)] = True
    return mask


def row(
    model: DiffusionGemma,
    hole: Hole,
    plan: Denoising,
    *,
    prefix: int = 19,
    suffix: tuple[int, ...] = (20, 21, 22),
    seed: int = 3,
) -> Row:
    tokens = torch.arange(prefix, device=model.device)[None] * 7 % TINY.vocab_size
    allowed, banned = (None if one is None else one.to(model.device) for one in (hole.first_allowed, hole.banned))
    return Row(
        cache=model.encode(tokens).cache,
        suffix=torch.tensor(suffix, dtype=torch.long, device=model.device),
        hole=replace(hole, ends=hole.ends.to(model.device), first_allowed=allowed, banned=banned),
        plan=plan,
        seed=seed,
    )


def readable(model: DiffusionGemma, row: Row) -> list[Filling]:
    return list(fill(model, row.cache, row.suffix, row.hole, row.plan, NumberedDraws(row.seed, TINY.vocab_size)))


def static(model: DiffusionGemma, *rows: Row, loop: DeviceLoop | None = None) -> list[list[Filling]]:
    """What became of each row, up to its stop."""
    steps = list((loop or DeviceLoop(model)).fill(rows))
    own = [[states[number] for states in steps] for number in range(len(rows))]
    return [states[: next(i for i, s in enumerate(states) if s.stop_reason is not None) + 1] for states in own]


def assert_equal(found: list[Filling], expected: list[Filling]) -> None:
    assert [told(state) for state in found] == [told(state) for state in expected]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.belief.entropy, other.belief.entropy, atol=1e-4, rtol=0)
        torch.testing.assert_close(one.belief.confidence, other.belief.confidence, atol=1e-4, rtol=0)


def told(state: Filling) -> tuple[Any, ...]:
    belief = state.belief
    return belief.argmax.tolist(), belief.accepted.tolist(), state.end, state.step, state.stop_reason


HOLE = Hole(initial=12, longest=40, ends=ends(FILLER), filler=FILLER)
PLAN = Denoising(max_denoising_steps=6, acceptance=EntropyBound(entropy_bound=3.0), stopping=NeverStop())
EAGER = StableAndConfident(stability_threshold=1, confidence_threshold=10.0)
CASES = {
    "grows step by step": (replace(HOLE, ends=ends()), replace(PLAN, max_denoising_steps=8)),
    "shrinks to the spare slots": (replace(HOLE, filler_bias=40.0), PLAN),
    "ends early": (
        replace(HOLE, ends=ends(*range(1, 40))),
        replace(PLAN, max_denoising_steps=30, stopping=EAGER, temperature=LinearTemperature(t_min=0.01, t_max=0.01)),
    ),
    "runs out of steps": (HOLE, replace(PLAN, stopping=StableAndConfident())),
    "one step": (HOLE, replace(PLAN, max_denoising_steps=1)),
    "may not grow": (replace(HOLE, ends=ends(), longest=12), replace(PLAN, acceptance=EntropyBound(entropy_bound=0.0))),
    "a healed beginning": (replace(HOLE, first_allowed=ends(17, 18)), PLAN),
    "begins with a draft": (replace(HOLE, draft=(5, 9, 31, FILLER)), PLAN),
    "is all draft": (replace(HOLE, draft=tuple(range(30, 42)), pinned_signal=False), PLAN),
    "banned tokens": (replace(HOLE, banned=ends(*range(0, 60, 3))), PLAN),
    "banned tokens in a healed hole": (
        replace(HOLE, banned=ends(*range(0, 60, 3)), first_allowed=ends(*range(9))),
        PLAN,
    ),
    "pinned slots not told": (replace(HOLE, pinned_signal=False), PLAN),
    "full but eager": (
        replace(HOLE, ends=ends(), initial=30),
        replace(PLAN, stopping=replace(EAGER, stability_threshold=0)),
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("prefix", "suffix"), [(19, (20, 21, 22)), (3, ()), (8, (9,) * 24)])
def test_every_state_equals_the_readable_loop(
    case: str, prefix: int, suffix: tuple[int, ...], model: DiffusionGemma
) -> None:
    asked = row(model, *CASES[case], prefix=prefix, suffix=suffix)
    (found,) = static(model, asked)
    assert_equal(found, readable(model, asked))


@pytest.mark.parametrize(
    ("initial", "longest", "suffix", "shape"),
    [
        (50, 64, 40, (128, 64)),
        (60, 100, 28, (128, 128)),
        (100, 128, 100, (256, 128)),
        (150, 240, 16, (256, 256)),
        (192, 256, 0, (256, 256)),
    ],
)
@pytest.mark.parametrize("case", ["grows step by step", "shrinks to the spare slots", "banned tokens in a healed hole"])
def test_every_state_on_a_longer_canvas_equals_the_readable_loop(
    case: str, initial: int, longest: int, suffix: int, shape: tuple[int, int], model: DiffusionGemma
) -> None:
    hole, plan = CASES[case]
    hole = replace(hole, initial=initial, longest=longest)
    pinned = tuple(token % TINY.vocab_size for token in range(suffix))
    asked = row(model, hole, replace(plan, max_denoising_steps=5), prefix=23, suffix=pinned)
    assert shape_of([asked])[1:3] == shape
    (found,) = static(model, asked)
    assert_equal(found, readable(model, asked))
    lengths = {len(state.belief.argmax) for state in found}
    assert max(lengths) > initial or min(lengths) < initial or not case.startswith(("grows", "shrinks"))


def test_both_leave_the_same_out_of_self_conditioning(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = row(model, HOLE, replace(PLAN, temperature=LinearTemperature(t_min=0.05, t_max=0.05)))
    exact = readable(model, asked)
    monkeypatch.setattr(model, "dropped_mass", 0.9)
    found, expected = static(model, asked)[0], readable(model, asked)
    assert_equal(found, expected)
    entropies = [[state.belief.entropy.tolist() for state in states] for states in (exact, expected)]
    assert entropies[0] != entropies[1]


def test_the_cases_are_what_they_are_called(model: DiffusionGemma) -> None:
    lengths, reasons = {}, {}
    for case, asked in CASES.items():
        (states,) = static(model, row(model, *asked))
        lengths[case], reasons[case] = [len(state.belief.argmax) for state in states], states[-1].stop_reason
    assert lengths["grows step by step"] == [12, 12, 16, 24, 32, 40, 40, 40]
    assert lengths["shrinks to the spare slots"][-1] == 2
    assert reasons["ends early"] == "converged"
    assert len(lengths["ends early"]) < 30
    assert reasons["runs out of steps"] == "max_denoising_steps"
    assert lengths["may not grow"] == [12] * 6
    assert reasons["full but eager"] == "converged"


@pytest.mark.parametrize("name", ["every expert", "full layer in the middle", "bidirectional encoder", "fused"])
def test_every_kind_of_model_agrees_with_the_readable_loop(name: str) -> None:
    config = {"every expert": EVERY_EXPERT, "fused": SHAPES["a single expert"]} | SHAPES
    model = tiny_model(config[name]).double()
    model = FusedModel(model) if name == "fused" else model
    asked = row(model, replace(HOLE, filler_bias=1.0), PLAN)
    (found,) = static(model, asked)
    assert_equal(found, readable(model, asked))


def test_rows_of_a_batch_equal_the_same_rows_alone(model: DiffusionGemma) -> None:
    rows = [
        row(model, *asked, prefix=4 + 5 * number, suffix=(8, 9)[: number % 3], seed=number)
        for number, asked in enumerate(CASES.values())
    ]
    together = static(model, *rows)
    assert len({len(states) for states in together}) > 2
    for states, asked in zip(together, rows, strict=True):
        assert_equal(states, readable(model, asked))


def test_rows_behind_one_prefix_equal_the_same_rows_alone(model: DiffusionGemma) -> None:
    rows = [row(model, *asked, prefix=30, seed=number) for number, asked in enumerate(CASES.values())]
    rows = [replace(one, cache=rows[0].cache) for one in rows]
    for states, asked in zip(static(model, *rows), rows, strict=True):
        assert_equal(states, readable(model, asked))


def test_a_prefix_of_which_layers_have_forgotten_the_start_is_placed_by_its_end(
    model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix_cache, "SPARE", 1)
    monkeypatch.setattr(prefix_cache, "BEHIND", 0)
    asked = row(model, HOLE, PLAN, prefix=30)
    cache = model.empty_cache(1)
    for token in range(30):
        cache = model.encode(torch.tensor([[token * 7 % TINY.vocab_size]]), cache).cache
    assert cache.first(0) > 15
    (found,) = static(model, replace(asked, cache=cache))
    assert_equal(found, readable(model, asked))


class ScriptedModel(DiffusionGemma):
    """A model that in each step finds what a script has for its slots."""

    script: Iterator[Tensor]
    """[.., C, V] logits."""

    def sampled(self, hidden: Tensor, *drawn: Any) -> SamplingStatistics:
        logits = next(self.script).reshape(-1, 64, TINY.vocab_size)
        return sampled_from(logits[:, : len(hidden) // len(logits)].flatten(0, 1).clone(), *drawn)


def random_script(steps: int, rows: int) -> Tensor:
    """[steps, rows, 64, V]: answers of all lengths, mostly filler behind them, more or less certain, often twice."""
    draws = torch.Generator().manual_seed(0)

    def some(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, (steps, rows, *shape), generator=draws)

    slots = torch.arange(64)
    behind = torch.where(some(0, 40, 64) > 0, FILLER, some(2, 60, 64))
    length = some(0, 22, 1)
    draft = torch.where(slots < length, some(2, 60, 64), behind)
    for step in range(1, steps):
        draft[step] = torch.where(some(0, 3, 1)[step] > 0, draft[step - 1], draft[step])
    certainty = torch.where(slots < length, some(40, 80, 1), some(40, 80, 1)) / 10
    return torch.nn.functional.one_hot(draft, TINY.vocab_size) * certainty[..., None]


def test_every_decision_about_any_draft_is_that_of_the_readable_loop() -> None:
    rows, steps = 48, 6
    model = ScriptedModel(SHAPES["one full layer only"])
    model.load_state_dict(tiny_model(model.config).state_dict())
    told_to_rows = random_script(steps, rows)
    asked = [
        row(
            model,
            replace(HOLE, initial=8 + number % 9, longest=20),
            Denoising(
                max_denoising_steps=steps,
                stopping=StableAndConfident(stability_threshold=number % 3, confidence_threshold=0.02),
            ),
            seed=number,
        )
        for number in range(rows)
    ]
    model.script = iter(told_to_rows)
    found = static(model, *asked)
    changes: set[int] = set()
    for number, one in enumerate(asked):
        model.script = iter(told_to_rows[:, number])
        expected = readable(model, one)
        assert_equal(found[number], expected)
        lengths = [len(state.belief.argmax) for state in expected]
        changes |= {later - earlier for earlier, later in pairwise(lengths)}
    assert min(changes) < 0 < max(changes)
    assert {states[-1].stop_reason for states in found} == {"converged", "max_denoising_steps"}


def test_a_row_that_has_stopped_stays_as_it_is_while_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    rows = [row(model, HOLE, replace(PLAN, max_denoising_steps=steps)) for steps in (2, 5)]
    given = arguments(model, rows, monkeypatch)
    assert len(given) == 5
    before, after = given[3][-1], static_step(*given[3])
    for earlier, later in zip(before, after, strict=True):
        assert torch.equal(earlier[0], later[0])
    assert before.step.tolist() == [2, 3]
    assert after.step.tolist() == [2, 4]


def test_canvases_are_used_again_where_they_lie_and_forget_what_was_in_them(
    model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = []

    def noted(model: DiffusionGemma, shape: Any, seen: Any, rules: Any, state: Any) -> Any:
        addresses.append([one.data_ptr() for one in (*rules, *state, *(part for pair in seen for part in pair[:2]))])
        return static_step(model, shape, seen, rules, state)

    monkeypatch.setattr(device_loop, "static_step", noted)
    loop = DeviceLoop(model)
    for case, prefix in (("a healed beginning", 40), ("grows step by step", 5), ("shrinks to the spare slots", 19)):
        asked = row(model, *CASES[case], prefix=prefix)
        (found,) = static(model, asked, loop=loop)
        assert_equal(found, readable(model, asked))
    assert len(addresses) == 6 + 8 + 6
    assert all(one == addresses[0] for one in addresses)


def test_two_requests_that_take_turns_do_not_meet(model: DiffusionGemma) -> None:
    loop = DeviceLoop(model)
    static(model, row(model, HOLE, PLAN), loop=loop)  # leaves canvases that both would like to have
    rows = [row(model, HOLE, PLAN, seed=seed) for seed in (1, 2)]
    turns = list(zip(*(loop.fill([asked]) for asked in rows), strict=True))
    for number, asked in enumerate(rows):
        assert_equal([turn[number][0] for turn in turns], readable(model, asked))


def test_random_numbers_are_uniform_and_differ_by_seed_step_and_slot() -> None:
    seed, step = (part.flatten() for part in torch.meshgrid(torch.arange(-4, 4), torch.arange(8), indexing="ij"))
    uniform, noise = random_numbers(seed, step, 1024, 64)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert len(set(uniform.flatten().tolist())) > 0.99 * uniform.numel()
    count = uniform.numel()
    for cells in ((uniform * 64).long(), noise):
        seen = cells.flatten().bincount(minlength=64)
        assert seen.numel() == 64
        # Chi-squared with 63 degrees of freedom: above 117 once in 30,000 times.
        assert float(((seen - count / 64) ** 2 / (count / 64)).sum()) < 117
    pairs = torch.stack((uniform.flatten()[:-1], uniform.flatten()[1:]))
    assert abs(float(pairs.corrcoef()[0, 1])) < 4 / count**0.5


def arguments(model: DiffusionGemma, rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the static step is given at each step of a run."""
    given = []

    def noted(model: DiffusionGemma, shape: Any, seen: Any, rules: Any, state: Any) -> Any:
        given.append((model, shape, seen, rules, type(state)(*(one.clone() for one in state))))
        return static_step(model, shape, seen, rules, state)

    with monkeypatch.context() as patched:
        patched.setattr(device_loop, "static_step", noted)
        list(DeviceLoop(model).fill(rows))
    return given


@pytest.mark.parametrize("prefixes", [1, len(CASES)])
def test_a_step_asks_the_host_for_nothing_whatever_happens_in_it(
    prefixes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(EVERY_EXPERT)
    rows = [row(model, *asked, seed=number) for number, asked in enumerate(CASES.values())]
    rows = [replace(one, cache=rows[number % prefixes].cache) for number, one in enumerate(rows)]
    given = arguments(model, rows, monkeypatch)
    assert len(given) == 8
    assert {one[1].prefixes for one in given} == {prefixes}
    shapes = set()
    for one in given:
        with NothingAsksTheHost():
            after = static_step(*one)
        shapes.add(tuple(part.shape for part in after))
    assert len(shapes) == 1


def test_what_refuses_questions_to_the_host_notices_that_the_readable_loop_asks(model: DiffusionGemma) -> None:
    asked = row(model, HOLE, PLAN)
    loop = fill(model, asked.cache, asked.suffix, asked.hole, asked.plan, NumberedDraws(0, TINY.vocab_size))
    with pytest.raises(AssertionError, match="asks the host"), NothingAsksTheHost():
        next(loop)


def test_nothing_but_the_report_needs_tensors_to_have_values(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        model = DiffusionGemma(EVERY_EXPERT).requires_grad_(requires_grad=False)
    done = []

    def noted(*given: Any) -> Any:
        done.append(static_step(*given))
        return done[-1]

    monkeypatch.setattr(device_loop, "static_step", noted)
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        next(DeviceLoop(model).fill([row(model, HOLE, PLAN), row(model, *CASES["a healed beginning"], prefix=4)]))
    (after,) = done
    assert {part.device.type for part in after} == {"meta"}
    assert after.tokens.shape == (2, 64)


def test_a_step_is_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    two = replace(TINY, num_hidden_layers=2, layer_types=("sliding_attention", "full_attention"))
    model = tiny_model(replace(two, num_experts=1, top_k_experts=1))
    given = arguments(model, [row(model, HOLE, replace(PLAN, max_denoising_steps=2))], monkeypatch)
    whole = torch.compile(static_step, fullgraph=True, backend="eager")
    for one in given:
        for found, expected in zip(whole(*one), static_step(*one), strict=True):
            torch.testing.assert_close(found, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_graph_played_again_equals_the_readable_loop() -> None:
    plain, model = (tiny_model(EVERY_EXPERT).double() for _ in range(2))
    model = model.cuda()
    assert can_capture(model)
    loop = DeviceLoop(model)
    for asked in CASES.values():
        (found,) = static(model, row(model, *asked), loop=loop)
        assert_equal(found, readable(plain, row(plain, *asked)))
