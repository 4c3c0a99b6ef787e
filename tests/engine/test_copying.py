"""What follows the same text elsewhere: found as defined, mixed in as a distribution, and taken over by the engine."""

from __future__ import annotations

import argparse
import inspect
import math
import random
from collections import Counter
from statistics import mean

import msgspec
import pytest
import torch

from dg_engine import causal
from dg_engine.api import Copy, Extent, Infill, InfillRequest
from dg_engine.beginnings import end_of_copy
from dg_engine.causal import Copied
from dg_engine.copying import LONGEST_COPY, LONGEST_MATCH, continuation
from dg_engine.engine import Engine
from dg_engine.errors import EngineError
from dg_engine.evaluation.copy_trust import Run, fit, runs
from dg_engine.paths import shipped_model
from dg_engine.settings import CopyTrust
from dg_engine.training.sources import Document

SOURCE = inspect.getsource(argparse)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(shipped_model(), device="cpu")


def longest(before: str, elsewhere: list[str]) -> tuple[int, set[str]]:
    """The length of the longest match, and what follows each match of that length; by trying all."""
    best, followers = 0, set[str]()
    for text in (before, *elsewhere):
        for place in range(1, len(text)):
            matched = 0
            while matched < min(place, LONGEST_MATCH) and text[place - 1 - matched] == before[-1 - matched :][0]:
                matched += 1
            if matched >= best:
                followers = (followers if matched == best else set()) | {text[place : place + LONGEST_COPY]}
                best = matched
    return best, followers


def test_the_longest_match_is_found() -> None:
    rng = random.Random(0)
    for _ in range(20):
        start = rng.randrange(len(SOURCE) - 3000)
        cut = start + rng.randrange(500, 2500)
        before, after = SOURCE[start:cut], SOURCE[cut : start + 3000]
        matched, followers = longest(before, [after])
        found = continuation(before, [after])
        if matched < 4:
            assert found is None
        elif matched < 10:  # so short a match stands in too many places to compare all
            assert found is not None
            assert 4 <= found.matched <= matched
        else:
            assert found is not None
            assert (found.matched, found.text in followers) == (matched, True)


def test_of_equally_long_matches_the_last_before_the_cursor_counts() -> None:
    found = continuation("area(1)\narea(2)\narea(", ["5)\narea(3)\n"])
    assert found == Copy(text="2)\narea(", matched=7)


def test_other_buffers_are_searched() -> None:
    assert continuation("import nump", ["x = 1", "# first\nimport numpy as np\n"]) == Copy(text="y as np\n", matched=11)
    assert continuation("xyz", ["xyz = 1"]) is None
    assert continuation("", ["text"]) is None


def test_a_line_that_was_left_unfinished_is_not_copied() -> None:
    left = "def area(width):\n    return \n"
    assert continuation("def area(width):\n    return ", [left]) is None
    finished = left.replace("return ", "return width")
    found = continuation("def area(width):\n    return ", [left, finished])
    assert found is not None
    assert found.text == "width\n"
    assert continuation("x = f(y)", ["x = f(y)\n"]) == Copy(text="\n", matched=8)


def logs_of(seed: int) -> torch.Tensor:
    return torch.randn(10, generator=torch.Generator().manual_seed(seed)).log_softmax(dim=-1)


def test_the_next_token_is_copied_or_the_models_own() -> None:
    logs, copied = logs_of(0), Copied([4, 7], weight=0.2, keeps=0.9)
    expected = 0.8 * logs.exp()
    expected[4] += 0.2
    torch.testing.assert_close(copied.mixed(logs, 0, 0.2).exp(), expected)
    assert copied.mixed(logs, 0, 0.0) is logs
    assert copied.mixed(logs, 2, 0.9) is logs


def test_a_run_is_as_likely_as_all_its_histories_together() -> None:
    """Token by token, and as the sum over how many tokens were copied before the model went on by itself."""
    copied = Copied([4, 7, 2, 9], weight=0.3, keeps=0.8)
    model = [logs_of(place) for place in range(4)]
    chances = [float(row[token].exp()) for row, token in zip(model, copied.tokens, strict=True)]
    weight, found = 0.3, 1.0
    for place, (row, token) in enumerate(zip(model, copied.tokens, strict=True)):
        found *= float(copied.mixed(row, place, weight)[token].exp())
        weight = copied.next_weight(row, place, weight, token)
    starts = [0.7, *(0.3 * 0.8 ** (length - 1) * 0.2 for length in range(1, 4)), 0.3 * 0.8**3]
    assert math.isclose(found, sum(start * math.prod(chances[n:]) for n, start in enumerate(starts)), rel_tol=1e-5)
    assert copied.next_weight(model[0], 0, 0.3, token=5) == 0.0


def test_trust_grows_with_the_match_and_is_never_certain() -> None:
    trust = CopyTrust(bias=-5.0, matched=1.5, keeps=0.9)
    found = [trust.probability(matched) for matched in (1, 10, 100, LONGEST_MATCH)]
    assert found == sorted(found)
    assert trust.probability(10**9) == found[-1]
    low, high = (CopyTrust(bias=bias, matched=0.0, keeps=0.0).probability(1) for bias in (-900.0, 900.0))
    assert 0 < low < high < 1
    with pytest.raises(ValueError, match="keeps"):
        CopyTrust(bias=0.0, matched=1.0, keeps=1.0)


def test_what_was_written_further_up_than_the_model_reads_is_written_again(engine: Engine) -> None:
    line = "    # Bearings are looked up in a table, which is made but once.\n"
    line += "    self._bearing_elevation_table = Interpolation(self.bearing_samples, self.elevation_samples)\n"
    before = line + SOURCE + line.split("Interpolation")[0]
    request = InfillRequest(prefix=before, suffix="\n", extent="line", copied=continuation(before))
    answer, alone, other = (
        last(engine, msgspec.structs.replace(request, **change))
        for change in ({}, {"copied": None}, {"decoding": "causal"})
    )
    assert answer.text == "Interpolation(self.bearing_samples, self.elevation_samples)"
    assert alone.text == last(without_trust(engine), request).text
    assert "samples" not in alone.text + other.text


def test_what_is_copied_is_read_at_once_and_the_answer_is_that_of_token_by_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rests of lines and blocks behind every fifth opening bracket; in some the copy is left in the middle."""
    exact = Engine.load(shipped_model(), device="cpu", dtype=torch.float32)
    places = [place + 1 for place, letter in enumerate(SOURCE) if letter == "("][20:220:5]
    steps = Counter[float]()
    for number, place in enumerate(places):
        before, after = SOURCE[:place], SOURCE[SOURCE.index("\n", place) :]
        extent: Extent = "block" if number % 4 == 0 else "line"
        copy = continuation(before, [after])
        request = InfillRequest(prefix=before, suffix=after, extent=extent, document="twin", copied=copy)
        answers = []
        for least in (causal.READ_AHEAD, 2.0):
            monkeypatch.setattr(causal, "READ_AHEAD", least)
            answers.append(last(exact, request))
            steps[least] += answers[-1].steps
        assert answers[0].text == answers[1].text, place
    assert steps[0.5] < 0.8 * steps[2.0]


def test_a_copy_ends_where_it_goes_over_into_what_is_behind_the_cursor() -> None:
    assert end_of_copy("width * height)\n    return area\n", ")\n    return 0", "line") == len("width * height")
    assert end_of_copy("width\nheight", "", "line") == len("width")
    assert end_of_copy("a\nb\n    c = 1", "    c = 1\n", "block") == len("a\nb\n")
    assert end_of_copy("a\nb", "x", "block") is None


def last(engine: Engine, request: InfillRequest) -> Infill:
    *_, answer = engine.infill(request)
    assert isinstance(answer, Infill)
    return answer


def without_trust(engine: Engine) -> Engine:
    other = Engine(engine.model, engine.tokenizer, engine.directory)
    other.config = msgspec.structs.replace(engine.config, copy_trust=None)
    return other


def test_what_matched_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="matched"):
        Copy(text="x", matched=0)


def test_the_weights_of_trust_are_found_again() -> None:
    truth, rng = CopyTrust(bias=-4.0, matched=1.2, keeps=0.8), random.Random(1)

    def drawn() -> Run:
        """Of a model that knows two tokens, of which the unlikelier one could be copied, every time."""
        matched, gains = rng.randrange(4, 200), list[float]()
        copying = rng.random() < truth.probability(matched)
        while len(gains) < 16:
            same = copying or rng.random() < 0.1
            gains.append(math.log(0.1 if same else 0.9))
            if not same:
                return Run(matched, gains, len(gains) - 1)
            copying = copying and rng.random() < truth.keeps
        return Run(matched, gains, len(gains))

    found = fit(drawn() for _ in range(20_000))
    for matched in (5, 20, 80, 150):
        assert math.isclose(found.probability(matched), truth.probability(matched), abs_tol=0.05)
    assert math.isclose(found.keeps, truth.keeps, abs_tol=0.02)
    with pytest.raises(EngineError, match="too few"):
        fit([])


def test_longer_matches_are_longer_copied(engine: Engine) -> None:
    documents = [Document("cpython", "argparse.py", SOURCE), Document("p", "short.py", "x = 1\n")]
    found = list(runs(engine, documents))
    assert len(found) > 200
    for one in found:
        assert 4 <= one.matched <= LONGEST_MATCH
        assert one.copied in (len(one.gains) - 1, len(one.gains))
        assert all(gain <= 0 for gain in one.gains)
    long, short = ([one.copied for one in found if (one.matched > 12) is wide] for wide in (True, False))
    assert mean(long) > mean(short)
