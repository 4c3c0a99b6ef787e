"""Holes of several lengths at once: side by side as if alone, and the choice among them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dg_engine import infill as infill_module
from dg_engine import probe as probe_module
from dg_engine.api import Infill, InfillRequest, ScoreRequest
from dg_engine.canvas import Belief, Canvas, SeededDraws, denoise_together, new_canvas
from dg_engine.causal import Start, gains_behind
from dg_engine.engine import Engine
from dg_engine.infill import Filling, Hole
from dg_engine.lengths import ByFiller, Gap
from dg_engine.policies import Denoising, EntropyBound, NeverStop, StableAndConfident
from dg_engine.prefix_cache import BEHIND
from dg_engine.probe import ByProbe, shortlist, sureness
from dg_engine.prompt import encode_prefix
from dg_engine.settings import LengthBias, LengthProbe
from dg_engine.testing import SHAPES, TINY, tiny_checkpoint, tiny_model

LENGTHS = (1, 5, 3)
BOUND = EntropyBound(entropy_bound=2.0)


pytestmark = pytest.mark.usefixtures("without_gradients")


def tokens(count: int, seed: int) -> Tensor:
    return torch.randint(0, TINY.vocab_size, (count,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("shape", "prefix", "signal"),
    [
        ("grouped heads, two of four experts", 3, False),
        ("a single expert", 23, True),
        ("a single expert", BEHIND + 100, False),
    ],
)
def test_canvases_refined_together_are_what_each_is_alone(shape: str, prefix: int, signal: bool) -> None:
    model = tiny_model(SHAPES[shape])
    cache = model.encode(tokens(prefix, 1)[None]).cache
    allowed, banned = torch.arange(TINY.vocab_size) % 3 == 0, torch.arange(TINY.vocab_size) % 5 == 0
    suffixes = [tokens(count, 7) for count in (4, 6, 2)]
    canvases = [
        new_canvas(model, length, suffix, SeededDraws(TINY.vocab_size, 2), pinned_signal=signal)
        for length, suffix in zip(LENGTHS, suffixes, strict=True)
    ]
    own = [SeededDraws(TINY.vocab_size, number) for number in range(len(LENGTHS))]
    found, together = list[list[Belief]](), canvases
    for temperature in (0.8, 0.6, 0.4):
        refined = denoise_together(
            model,
            cache,
            together,
            temperature=temperature,
            acceptance=BOUND,
            draws=own,
            first_allowed=allowed,
            banned=banned,
        )
        together = [canvas for canvas, _ in refined]
        found.append([belief for _, belief in refined])

    for number, alone in enumerate(canvases):
        draws, canvas = SeededDraws(TINY.vocab_size, number), alone
        for step, temperature in enumerate((0.8, 0.6, 0.4)):
            ((canvas, belief),) = denoise_together(
                model,
                cache,
                [canvas],
                temperature=temperature,
                acceptance=BOUND,
                draws=[draws],
                first_allowed=allowed,
                banned=banned,
            )
            same(found[step][number], belief)
        assert torch.equal(together[number].tokens, canvas.tokens)
        assert together[number].tokens[LENGTHS[number] :].tolist() == suffixes[number].tolist()


def same(one: Belief, other: Belief) -> None:
    assert one.argmax.tolist() == other.argmax.tolist()
    assert one.accepted.tolist() == other.accepted.tolist()
    torch.testing.assert_close(one.confidence, other.confidence, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one.entropy, other.entropy, rtol=1e-4, atol=1e-4)


ENDS = torch.arange(TINY.vocab_size) % 7 == 1
BANNED = torch.arange(TINY.vocab_size) % 7 == 2
BANNED[TINY.eos_token_id] = True
SUFFIX = tokens(3, 7)
HOLE = Hole(initial=8, longest=8, ends=ENDS, filler=TINY.eos_token_id, pinned_signal=False, typed=(3, 4))
PLAN = Denoising(max_denoising_steps=5, acceptance=BOUND, stopping=NeverStop())
PROBE = LengthProbe(lengths=(1, 2, 4, 8, 16), candidates=3)


def gap(hole: Hole = HOLE, plan: Denoising = PLAN, *, suffix: Tensor = SUFFIX, deadline: float | None = None) -> Gap:
    hidden, cache = tiny_model().encode(tokens(19, 1)[None])
    return Gap(start=Start(hidden[0, -1:], cache), suffix=suffix, hole=hole, plan=plan, seed=4, deadline=deadline)


def filled(asked: Gap, probe: LengthProbe = PROBE) -> list[Filling]:
    model = tiny_model()
    return list(ByProbe(model, probe, BANNED, ByFiller(model)).fill(asked))


class Watched:
    """What `denoise_together` was given and gave, step by step."""

    def __init__(self) -> None:
        self.before: list[Sequence[Canvas]] = []
        self.after: list[list[tuple[Canvas, Belief]]] = []

    def __call__(self, model: Any, cache: Any, canvases: Sequence[Canvas], **how: Any) -> list[tuple[Canvas, Belief]]:
        refined = denoise_together(model, cache, canvases, **how)
        self.before.append(canvases)
        self.after.append(refined)
        return refined


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    watched = Watched()
    monkeypatch.setattr(infill_module, "denoise_together", watched)
    return watched


def test_all_lengths_are_probed_at_once_and_the_surest_few_go_on_where_they_are(watched: Watched) -> None:
    states = filled(gap())
    probed = watched.after[0]
    assert [len(canvas.free) for canvas, _ in probed] == [1, 2, 4, 8], "16 is longer than the hole may be"
    order = shortlist([sureness(belief, None) for _, belief in probed], 3)
    assert [canvas.tokens.tolist() for canvas in watched.before[1]] == [probed[one][0].tokens.tolist() for one in order]
    assert [len(canvases) for canvases in watched.before] == [4, 3, 3, 3, 3]
    assert [state.step for state in states] == [1, 2, 3, 4, 5, 5], "then the answer is chosen"
    lead = [probed[order[0]][1], *(refined[0][1] for refined in watched.after[1:])]
    assert [state.belief.argmax.tolist() for state in states[:-1]] == [belief.argmax.tolist() for belief in lead]
    assert [state.stop_reason for state in states] == [None] * 5 + ["max_denoising_steps"]


def test_each_length_begins_with_what_it_holds_of_a_draft(watched: Watched) -> None:
    filled(gap(replace(HOLE, draft=(30, 31, 32))))
    for canvas in watched.before[0]:
        slots = len(canvas.free)
        assert canvas.tokens[: min(slots, 3)].tolist() == [30, 31, 32][:slots]
        assert canvas.tokens[slots:].tolist() == SUFFIX.tolist()


def test_pinned_tokens_never_change_and_banned_ones_are_never_drafted_nor_accepted(watched: Watched) -> None:
    filled(gap())
    for canvas, belief in (refined for step in watched.after for refined in step):
        assert canvas.tokens[len(canvas.free) :].tolist() == SUFFIX.tolist()
        assert not BANNED[belief.argmax].any()
        assert not BANNED[canvas.tokens[canvas.free][belief.accepted]].any()
    noised = torch.cat([canvas.tokens for step in watched.before for canvas in step])
    assert BANNED[noised].any(), "noise is of the whole vocabulary"


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.0])
def test_the_answer_is_the_candidate_that_is_likeliest_together_with_the_suffix(
    watched: Watched, exponent: float
) -> None:
    asked, model = gap(), tiny_model()
    last = filled(asked, msgspec.structs.replace(PROBE, score_exponent=exponent))[-1]
    candidates = [(belief.argmax.tolist()) for _, belief in watched.after[-1]]
    answers = [[*draft[: next((n for n, one in enumerate(draft) if ENDS[one]), len(draft))]] for draft in candidates]

    def joint(answer: list[int]) -> float:
        row = torch.tensor([[*tokens(19, 1).tolist(), *answer, *SUFFIX.tolist()]])
        logs = model.logits(model.encode(row).hidden[0]).log_softmax(dim=-1)
        total = logs[18:-1].gather(1, row[0, 19:, None]).sum()
        return float(total) / math.pow(len(answer) + len(SUFFIX), exponent)

    best = max([*answers, list(HOLE.typed)], key=joint)
    assert last.tokens == best
    assert last.gains is not None
    assert len(last.gains) == len(best)


def test_to_insert_nothing_is_a_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = list[Sequence[int]]()

    def nothing_is_best(model: Any, start: Start, passages: Sequence[Sequence[int]], loop: Any) -> list[list[float]]:
        judged.extend(passages)
        return [[-9.0] * len(one) if number + 1 < len(passages) else [-1.0] * 5 for number, one in enumerate(passages)]

    monkeypatch.setattr(probe_module, "gains_behind", nothing_is_best)
    last = filled(gap())[-1]
    assert list(judged[-1]) == [3, 4, *SUFFIX.tolist()]
    assert last.tokens == [3, 4]
    assert last.belief.accepted.all()


def test_a_candidate_that_has_settled_takes_no_part_in_the_steps_of_the_others(watched: Watched) -> None:
    eager = StableAndConfident(stability_threshold=0, confidence_threshold=3.5)
    states = filled(gap(plan=replace(PLAN, stopping=eager, max_denoising_steps=40)))
    counts = [len(canvases) for canvases in watched.before[1:]]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1]
    assert states[-1].stop_reason == "converged"
    assert len(states) < 40


def test_a_spent_time_budget_ends_with_the_confident_left_part_of_the_lead() -> None:
    (state,) = filled(gap(deadline=time.perf_counter() - 1))
    assert state.stop_reason == "time_budget"
    assert state.step == 1
    assert state.gains is None


def test_without_a_suffix_the_model_ends_its_text_itself_but_not_at_once() -> None:
    asked = gap(suffix=tokens(0, 0))
    found = filled(asked)
    allowed = replace(asked, hole=replace(HOLE, first_allowed=~BANNED))
    expected = ByFiller(tiny_model()).fill(allowed)
    assert [state.belief.argmax.tolist() for state in found] == [state.belief.argmax.tolist() for state in expected]
    assert all(not BANNED[state.belief.argmax[0]] for state in found)


def test_healing_and_the_ban_hold_together() -> None:
    healed = replace(HOLE, first_allowed=torch.arange(TINY.vocab_size) < 30)
    for suffix in (SUFFIX, tokens(0, 0)):
        for state in filled(gap(healed, suffix=suffix))[:-1]:
            assert state.belief.argmax[0] < 30
            assert not BANNED[state.belief.argmax[0]]


@pytest.mark.parametrize(
    ("found", "count", "expected"),
    [
        ([0.5], 3, [0]),
        ([0.9, 0.8, 0.1], 1, [0]),
        ([0.9, 0.8, 0.7, 0.1], 3, [0, 1, 2]),
        ([0.9, 0.1, 0.8, 0.2, 0.3], 3, [0, 2, 4]),
        ([0.1, 0.2, 0.7, 0.6, 0.9], 3, [4, 2, 3]),
        ([0.3, 0.3, 0.3], 2, [0, 1]),
    ],
)
def test_the_surest_go_on_and_one_of_the_longer_ones(found: list[float], count: int, expected: list[int]) -> None:
    assert shortlist(found, count) == expected


def test_the_bias_of_a_length_is_taken_out() -> None:
    bias = LengthBias(a=1.0, b=1.77, c=0.56, d=0.06, e=0.24)
    assert bias.of(0) == pytest.approx(1.8)
    assert bias.of(1000) == pytest.approx(0.24)
    belief = Belief(tokens(4, 0), torch.tensor([0.2, 0.4, 0.6, 0.8]), torch.zeros(4), torch.ones(4).bool())
    assert sureness(belief, None) == pytest.approx(0.5)
    assert sureness(belief, bias) == pytest.approx(0.5 / bias.of(4))


def test_a_bias_decides_which_lengths_go_on(watched: Watched) -> None:
    for_long = LengthBias(a=0.0, b=0.0, c=1.0, d=2.0, e=1e-9)
    filled(gap(), msgspec.structs.replace(PROBE, candidates=2, bias=for_long))
    assert [len(canvas.free) for canvas in watched.before[1]] == [8, 4]


def test_lengths_are_measured_as_the_probe_sees_them(watched: Watched) -> None:
    model = tiny_model()
    biased = msgspec.structs.replace(PROBE, bias=LengthBias(a=0.0, b=1.0, c=0.0, d=1.0, e=7.0))
    probe = ByProbe(model, biased, BANNED, ByFiller(model))
    found = probe.first_sureness(gap(), 8)
    assert list(found) == [len(canvas.free) for canvas in watched.before[0]] == PROBE.up_to(8)
    assert list(found.values()) == [sureness(belief, None) for _, belief in watched.after[0]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"lengths": []}', "lengths"),
        ('{"lengths": [4, 2]}', "ascend"),
        ('{"lengths": [0, 2]}', "at least 1"),
        ('{"candidates": 0}', "candidates"),
        ('{"score_exponent": 1.1}', "score_exponent"),
        ('{"bias": {"a": 1, "b": 1, "c": 1, "d": 1, "e": 0}}', "bias"),
        ('{"length": [1]}', "length"),
    ],
)
def test_a_probe_that_could_not_be_made_is_refused_by_name(text: str, expected: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=expected):
        msgspec.json.decode(text, type=LengthProbe)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """An engine on a checkpoint that says nothing of infill."""
    directory = tiny_checkpoint(tmp_path_factory.mktemp("released"))
    directory.joinpath("infill_config.json").unlink()
    return Engine.load(directory, dtype=torch.float32)


@pytest.mark.parametrize("extent", ["line", "block"])
@pytest.mark.parametrize("suffix", [")\n", ""])
def test_a_checkpoint_that_says_nothing_of_infill_is_probed(released: Engine, extent: Any, suffix: str) -> None:
    assert released.config.length_probe == LengthProbe()
    request = InfillRequest(prefix="def f(a, b):\n    return (", suffix=suffix, extent=extent, max_new_tokens=8)
    *drafts, answer = released.infill(request)
    assert isinstance(answer, Infill)
    assert len(drafts) == answer.steps
    assert answer.tokens <= 8
    assert "<" not in answer.text or "|" not in answer.text, "no special token"


def test_a_checkpoint_says_how_it_is_probed(tmp_path: Path, watched: Watched) -> None:
    directory = tiny_checkpoint(tmp_path)
    config = {"length_probe": {"lengths": [3, 5], "candidates": 1}, "suffix_tokens": 2}
    directory.joinpath("infill_config.json").write_bytes(msgspec.json.encode(config))
    list(Engine.load(directory).infill(InfillRequest(prefix="x = [", suffix="]\nimport os\n")))
    assert [len(canvas.free) for canvas in watched.before[0]] == [3, 5]
    assert [len(canvas.tokens) for canvas in watched.before[0]] == [5, 7]
    assert len(watched.before[1]) == 1


def test_a_checkpoint_that_learnt_filler_keeps_to_it(tmp_path: Path) -> None:
    assert isinstance(Engine.load(tiny_checkpoint(tmp_path))._lengths, ByFiller)


@torch.inference_mode()
def test_a_candidate_s_score_is_that_of_the_api(released: Engine) -> None:
    encode, prefix, suffix = released.tokenizer.encode, "import os\n", "\nimport re\n"
    row = torch.tensor([encode_prefix(released.tokenizer, "", prefix, 256)])
    hidden, cache = released.model.encode(row)
    texts = ["import sys", "", "import json, math", "x"]
    passages = [encode(text) + encode(suffix) for text in texts]
    found = gains_behind(released.model, Start(hidden[0, -1:], cache), passages)
    for text, gains in zip(texts, found, strict=True):
        score = released.score(ScoreRequest(prefix=prefix, text=text, suffix=suffix))
        assert sum(gains) == pytest.approx(score.text + score.suffix, rel=1e-4)
        assert len(gains) == score.text_tokens + score.suffix_tokens


def test_a_model_that_knows_the_texts_ranks_what_stood_there_first() -> None:
    """Spans of every length up to twelve, each against all the other lengths at the same place."""
    model = tiny_model(replace(TINY, num_experts=1, top_k_experts=1)).requires_grad_(requires_grad=True)
    texts = torch.stack([tokens(32, seed) for seed in range(4)])
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    with torch.enable_grad():
        for _ in range(50):
            optimiser.zero_grad()
            logits = model.logits(model.encode(texts[:, :-1]).hidden)
            functional.cross_entropy(logits.flatten(0, 1), texts[:, 1:].flatten()).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    right = 0
    for number, text in enumerate(texts):
        place, length = 8 + number, 3 * number + 1
        hidden, cache = model.encode(text[None, :place])
        suffix = text[place + length :][:8].tolist()
        tried = [text[place : place + other].tolist() for other in range(13)]
        found = gains_behind(model, Start(hidden[0, -1:], cache), [[*one, *suffix] for one in tried])
        totals = [sum(gains) for gains in found]
        right += totals.index(max(totals)) == length
    assert right == len(texts)
