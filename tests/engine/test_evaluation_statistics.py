"""Intervals, differences and probabilities are what statistics says they are."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from dg_engine.api import Head, Infill
from dg_engine.bench import Row, Sample
from dg_engine.evaluation.bootstrap import Resamples, mean_interval
from dg_engine.evaluation.calibration import BINS, Evidence, evidence, fit, judge, probabilities, reliability
from dg_engine.evaluation.cases import CaseKind
from dg_engine.evaluation.harness import Key, Outcome
from dg_engine.evaluation.metrics import Scores
from dg_engine.evaluation.summary import summarise
from dg_lsp.bench import Figure


def test_the_interval_holds_the_mean_and_shrinks_with_the_projects() -> None:
    few = mean_interval([0.0, 1.0] * 10, [str(number) for number in range(20)])
    many = mean_interval([0.0, 1.0] * 500, [str(number) for number in range(1000)])
    assert few[0] < 0.5 < few[1]
    assert many[0] < 0.5 < many[1]
    assert many[1] - many[0] < few[1] - few[0]
    assert mean_interval([1.0] * 5, "abcab") == (1.0, 1.0)


def test_more_cases_of_the_same_projects_are_not_more_projects() -> None:
    """Four projects that are each all right or all wrong: a thousand cases of them say hardly more than four."""
    values = np.repeat([0.0, 1.0, 0.0, 1.0], 250)
    alike = mean_interval(list(values), [str(number // 250) for number in range(1000)])
    apart = mean_interval(list(values), [str(number) for number in range(1000)])
    assert alike == (0.0, 1.0)
    assert apart[1] - apart[0] < 0.1


def test_the_interval_of_independent_cases_is_that_of_the_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    low, high = mean_interval(list(values), [str(number) for number in range(400)])
    expected = 1.96 * values.std() / np.sqrt(400)
    # Two stages, the second of which has one case to draw from, are the usual bootstrap.
    assert (high - low) / 2 == pytest.approx(expected, rel=0.1)


def test_unknown_values_are_left_out() -> None:
    known, projects = np.random.default_rng(0).random(50), [str(number) for number in range(100)]
    values = np.concatenate((known, np.full(50, np.nan)))
    low, high = Resamples(projects).mean(values)
    assert low < known.mean() < high


def test_the_interval_of_a_quantile_holds_it() -> None:
    times = np.random.default_rng(0).exponential(100.0, (200, 2))
    resamples = Resamples([str(number % 20) for number in range(200)])
    shares = (0.5, 0.95)
    for share, (low, high) in zip(shares, resamples.quantiles(times, shares), strict=True):
        assert low < np.quantile(times, share) < high
        assert high < times.max()
    assert resamples.quantiles(np.full((200, 1), 7.0), [0.95]) == [(7.0, 7.0)]


@pytest.mark.parametrize("count", [1, 2, 7, 20, 40])
def test_by_a_quantile_both_benches_mean_what_the_evaluation_means(count: int) -> None:
    times = tuple(float(number) for number in range(count, 0, -1))
    answer = Infill(
        text="",
        tokens=0,
        steps=0,
        milliseconds=0.0,
        score=None,
        stop_reason="converged",
        prefix_tokens=0,
        cached_tokens=0,
    )
    row = Row("line", "warm", "diffusion", tuple(Sample(answer, time, (), 0) for time in times))
    for share in (0.5, 0.95):
        expected = np.quantile(times, share, method="inverted_cdf")
        assert row.quantile(share) == Figure("", times).quantile(share) == expected


def outcome(
    case: int, system: str, exact: float, *, seed: int = 0, kind: CaseKind = "line", ms: float = 10.0
) -> Outcome:
    return Outcome(
        key=Key(str(case), system, "", seed),
        kind=kind,
        project=str(case % 7),
        answer="x" if exact else "y",
        truth="x",
        steps=4,
        tokens=8,
        milliseconds=ms,
        log_probability=-1.0,
        scores=Scores(exact, exact, exact, None, 0.0, 0.0, 0.0),
        heads=(Head(characters=1, tokens=8, score=-1.0),),
    )


def test_a_difference_is_paired() -> None:
    """Half of the cases are hard for both; one is always right where the other is right in nine of ten."""
    cases = range(200)
    outcomes = [outcome(case, "better", float(case % 2)) for case in cases]
    outcomes += [outcome(case, "worse", float(case % 2 and case % 20 != 1)) for case in cases]
    group = summarise(outcomes)["line"]
    difference = group.differences["worse"]["exact"]
    assert difference.value == pytest.approx(0.05)
    assert 0 < difference.low < 0.05 < difference.high < 0.12
    separate = group.systems["better"]["exact"]
    assert separate.high - separate.low > 2 * (difference.high - difference.low)
    assert group.systems["worse"]["tokens_per_step"].value == 2
    assert "parses" not in group.systems["worse"]
    assert (group.cases, group.projects) == (200, 7)


def test_seeds_are_averaged_case_by_case_and_systems_may_come_in_any_order() -> None:
    outcomes = [outcome(case, "a", float(seed == 0), seed=seed, ms=1.0 + seed) for seed in (0, 1) for case in (2, 1, 0)]
    outcomes += [outcome(case, "b", float(case)) for case in (0, 1)] + [outcome(2, "b", 0.0)]
    group = summarise(outcomes)["line"]
    assert group.systems["a"]["exact"] == (0.5, 0.5, 0.5)
    assert group.systems["a"]["p95_ms"].value == 2.0
    assert group.differences["b"]["exact"].value == pytest.approx(1 / 6)


def test_programs_are_no_part_of_what_is_drawn_from_projects() -> None:
    groups = summarise([outcome(0, "a", 1.0), outcome(1, "a", 0.0, kind="humaneval-multi-line")])
    assert list(groups) == ["all", "line", "humaneval-multi-line"]
    assert groups["all"].systems["a"]["exact"].value == 1


def drawn(count: int, bias: float, mean: float, odds: float) -> Evidence:
    rng = np.random.default_rng(0)
    means = -rng.exponential(1.0, count)
    features = np.column_stack((means, means * rng.integers(1, 30, count)))
    probability = 1 / (1 + np.exp(-(bias + features @ (mean, odds))))
    return Evidence(features, rng.random(count) < probability, tuple(str(number % 10) for number in range(count)))


def test_the_fit_finds_the_probabilities_that_the_data_were_drawn_with() -> None:
    found = fit(drawn(20_000, 1.5, 2.0, 0.1))
    assert found is not None
    assert found.bias == pytest.approx(1.5, abs=0.15)
    assert found.mean == pytest.approx(2.0, abs=0.2)
    assert found.odds == pytest.approx(0.1, abs=0.02)
    both = math.exp(-2.0)
    features = np.array([(-1.0, math.log(both / (1 - both)))])
    found_alone = found.probability(Head(characters=1, tokens=2, score=-1.0))
    assert found_alone == pytest.approx(probabilities(found, features)[0])
    inside = probabilities(found, np.array([(0.0, 0.0), (-5.0, -50.0)]))
    assert 0.75 < inside[0] < 0.9
    assert inside[1] < 1e-4


def test_a_fitted_probability_is_reliable_on_other_projects_and_a_boast_is_not() -> None:
    data = drawn(5_000, 0.5, 1.0, 0.05)
    found = reliability(data)
    assert found is not None
    assert found.expected_error < 0.02
    assert found.heads == sum(one.heads for one in found.bins) == 5_000
    boast = judge(np.full(5_000, 0.99), data.correct)
    assert boast.expected_error == pytest.approx(0.99 - data.correct.mean())
    assert len(boast.bins) == 1
    assert boast.bins[0].low == (BINS - 1) / BINS


def test_data_that_a_line_separates_have_a_finite_fit() -> None:
    features = np.array([(-0.1, -0.2), (-0.2, -0.4), (-3.0, -9.0), (-4.0, -16.0)])
    found = fit(Evidence(features, np.array([True, True, False, False]), ("a", "b", "a", "b")))
    assert found is not None
    probability = probabilities(found, features)
    assert (probability[:2] > 0.9).all()
    assert (probability[2:] < 0.1).all()


def test_nothing_is_fitted_to_answers_that_are_all_wrong_or_of_one_project() -> None:
    wrong = evidence([outcome(case, "a", 0.0) for case in range(9)])
    assert fit(wrong) is None
    assert reliability(wrong) is None
    alone = drawn(100, 0.5, 1.0, 0.05)._replace(projects=("p",) * 100)
    assert fit(alone) is not None
    assert reliability(alone) is None


def test_an_answer_that_was_not_scored_is_no_evidence() -> None:
    silent = msgspec.structs.replace(outcome(0, "a", 0.0), heads=())
    found = evidence([silent, outcome(1, "a", 1.0)])
    eight = math.exp(-8.0)
    assert found.features.tolist() == [[-1.0, pytest.approx(math.log(eight / (1 - eight)))]]
    assert found.correct.tolist() == [True]


def test_an_answer_is_evidence_at_the_end_of_each_line_of_whether_all_is_right_up_to_there() -> None:
    answer = "if a:  \n    return b\nreturn c"
    ends = [len(answer.split("\n")[0]), answer.rindex("\n"), len(answer)]
    heads = tuple(Head(characters=end, tokens=number, score=-1.0) for number, end in enumerate(ends, 3))
    found = {
        truth: evidence(
            [msgspec.structs.replace(outcome(0, "a", 0.0), answer=answer, truth=truth, heads=heads)]
        ).correct.tolist()
        for truth in (answer, "if a:\n    return b", "if a:\n    return bc\nreturn c", "if a:\n    return b\nreturn")
    }
    assert list(found.values()) == [[True] * 3, [True, True, False], [True, False, False], [True, True, False]]


def test_inside_a_line_a_head_is_right_if_the_truth_begins_with_it() -> None:
    answer = "first + second"
    heads = tuple(Head(characters=end, tokens=number, score=-1.0) for number, end in enumerate((5, 7, 14), 1))
    found = {
        truth: evidence(
            [msgspec.structs.replace(outcome(0, "a", 0.0), answer=answer, truth=truth, heads=heads)]
        ).correct.tolist()
        for truth in ("first + second", "first + third", "firstly", "fir", "first +")
    }
    right = [[True, True, True], [True, True, False], [True, False, False], [False] * 3, [True, True, False]]
    assert list(found.values()) == right
