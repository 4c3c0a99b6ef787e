"""What follows the same text elsewhere: found as defined, mixed in as a distribution, and taken over by the engine."""

from __future__ import annotations

import argparse
import inspect
import math
import random
from collections import Counter
from collections.abc import Iterator
from statistics import mean
from types import SimpleNamespace

import msgspec
import pytest
import torch

from dg_engine import search
from dg_engine.api import Copy, Extent, Infill, InfillRequest
from dg_engine.copying import (
    LONGEST_COPY,
    LONGEST_MATCH,
    LONGEST_MEETING,
    Evidence,
    continuation,
    end_of_copy,
    evidence,
)
from dg_engine.engine import Engine
from dg_engine.errors import EngineError
from dg_engine.evaluation.copy_trust import Run, fit, runs
from dg_engine.infill import SPARE, Filling
from dg_engine.lengths import ByFiller, Gap
from dg_engine.mixture import Copied
from dg_engine.paths import shipped_model
from dg_engine.settings import CopyTrust
from dg_engine.training.sources import Document

SOURCE = inspect.getsource(argparse)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(shipped_model(), device="cpu")


def solid(text: str) -> int:
    return sum(not letter.isspace() for letter in text)


def shared(one: str, other: str) -> int:
    """Characters that two texts have in common at their beginnings, one by one."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def worth(matched: int, met: int, *, elsewhere: bool) -> float:
    """As the docstring of `Evidence` and the weights beside it say."""
    return math.log1p(matched) + 0.25 * math.log1p(met) - 0.5 * elsewhere


def best_of_all(before: str, behind: str, others: list[str]) -> tuple[float, set[str]]:
    """The worth of the best copy, and all copies of that worth; by trying every place of every text."""
    best, found = -math.inf, set[str]()
    for number, text in enumerate((before, behind, *others)):
        for place in range(4, len(text)):
            matched = shared(text[max(0, place - LONGEST_MATCH) : place][::-1], before[-LONGEST_MATCH:][::-1])
            if matched < 4 or not solid(text[place - matched : place]):
                continue
            copy = text[place : place + LONGEST_COPY]
            known = worth(solid(text[place - matched : place]), met_of(copy, behind), elsewhere=number > 1)
            if known >= best:
                found = (found if known == best else set()) | {copy}
                best = known
    return best, found


def met_of(copy: str, behind: str) -> int:
    """Where the longest of some beginnings first stands."""
    for length in (16, 8, 4, 2, 1):
        if len(behind) >= length and behind[:length] in copy:
            return solid(behind[: shared(copy[copy.index(behind[:length]) :], behind[:LONGEST_MEETING])])
    return 0


def test_the_best_copy_is_found() -> None:
    rng, compared = random.Random(0), 0
    for _ in range(40):
        start = rng.randrange(len(SOURCE) - 3000)
        cut = start + rng.randrange(500, 2500)
        hole = rng.randrange(1, 30)
        before, behind, other = SOURCE[start:cut], SOURCE[cut + hole : start + 3000], SOURCE[start // 2 : start]
        if before[-1].isspace() or any(text.count(before[-4:]) > 40 for text in (before, behind, other)):
            continue  # unfinished lines have a rule of their own, and of short matches the last alone are compared
        compared += 1
        known, copies = best_of_all(before, behind, [other])
        found = continuation(before, behind, [other])
        if not copies:
            assert found is None
        else:
            assert found is not None
            assert found.text in copies
            assert worth(*evidence(found, behind)[:2], elsewhere=found.elsewhere) == pytest.approx(known)
    assert compared > 15


def test_of_equally_good_places_the_last_before_the_cursor_counts() -> None:
    found = continuation("area(1)\narea(2)\narea(", "5)\narea(3)\n")
    assert found == Copy(text="2)\narea(", matched=6)


def test_what_leads_to_the_text_behind_the_cursor_is_preferred() -> None:
    before = "area(width)\narea(depth, scale)\narea(height)\narea("
    assert continuation(before, "\n\nprint(1)") == Copy(text="height)\narea(", matched=6)
    found = continuation(before, ", scale)\n")
    assert found is not None
    assert found.text.startswith("depth, scale)")
    assert evidence(found, ", scale)\n") == Evidence(matched=6, met=7, elsewhere=False)


def test_a_longer_match_is_worth_more_than_what_follows() -> None:
    before = "total = area(width)\narea(depth, scale)\ntotal = area("
    assert continuation(before, ", scale)\n") == Copy(text="width)\narea(depth, scale)\ntotal = area(", matched=11)


def test_blanks_alone_are_no_match() -> None:
    before = "def area(width):\n        pass\n\n\ndef depth(width):\n        "
    assert continuation("x\n        y\nz\n\n        ") is None
    found = continuation(before)
    assert found is not None
    assert (found.text.startswith("pass"), found.matched) == (True, len("(width):"))


def test_other_documents_are_searched_and_count_for_less() -> None:
    found = continuation("import nump", "x = 1", ["# first\nimport numpy as np\n"])
    assert found == Copy(text="y as np\n", matched=10, elsewhere=True)
    assert continuation("import numba\nimport num", "", ["import numpy\n"]) == Copy(text="ba\nimport num", matched=9)
    assert continuation("xyz", "xyz = 1") is None
    assert continuation("", "text") is None


def test_a_line_that_was_left_unfinished_is_not_copied() -> None:
    left = "def area(width):\n    return \n"
    assert continuation("def area(width):\n    return ", left) is None
    finished = left.replace("return ", "return width")
    found = continuation("def area(width):\n    return ", left, [finished])
    assert found is not None
    assert found.text == "width\n"
    assert continuation("x = f(y)", "x = f(y)\n") == Copy(text="\n", matched=6)


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


def test_trust_grows_with_the_evidence_and_is_never_certain() -> None:
    trust = CopyTrust(bias=-5.0, matched=1.5, met=0.4, elsewhere=-0.7, keeps=0.9)
    by_match = [trust.probability(Evidence(matched, 0, elsewhere=False)) for matched in (1, 10, 100, LONGEST_MATCH)]
    by_meeting = [trust.probability(Evidence(10, met, elsewhere=False)) for met in (0, 1, 5, LONGEST_MEETING)]
    for found in (by_match, by_meeting):
        assert found == sorted(set(found))
    assert trust.probability(Evidence(10, 0, elsewhere=True)) < by_meeting[0]
    low, high = (
        CopyTrust(bias=bias, matched=0.0, met=0.0, elsewhere=0.0, keeps=0.0).probability(
            Evidence(1, 0, elsewhere=False)
        )
        for bias in (-900.0, 900.0)
    )
    assert 0 < low < high < 1
    with pytest.raises(ValueError, match="keeps"):
        CopyTrust(bias=0.0, matched=1.0, met=0.0, elsewhere=0.0, keeps=1.0)


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
        copy = continuation(before, after)
        request = InfillRequest(prefix=before, suffix=after, extent=extent, document="twin", copied=copy)
        answers = []
        for least in (search.READ_AHEAD, 2.0):
            monkeypatch.setattr(search, "READ_AHEAD", least)
            answers.append(last(exact, request))
            steps[least] += answers[-1].steps
        assert answers[0].text == answers[1].text, place
    assert steps[0.5] < 0.8 * steps[2.0]


def test_a_copy_ends_where_it_goes_over_into_what_is_behind_the_cursor() -> None:
    assert end_of_copy("width * height)\n    return area\n", ")\n    return 0", "line") == len("width * height")
    assert end_of_copy("width\nheight", "", "line") == len("width")
    assert end_of_copy("a\nb\n    c = 1", "    c = 1\n", "block") == len("a\nb\n")
    assert end_of_copy("a\nb", "x", "block") is None


def test_diffusion_starts_with_a_copy_that_is_likelier_right_than_not(engine: Engine) -> None:
    begun = list[tuple[int, ...]]()

    def noted(gap: Gap) -> Iterator[Filling]:
        begun.append(gap.hole.draft)
        assert len(gap.hole.draft) <= gap.hole.initial <= gap.hole.longest
        return ByFiller(engine.model).fill(gap)

    spied = Engine(engine.model, engine.tokenizer, engine.directory)
    spied._lengths = SimpleNamespace(fill=noted)  # type: ignore[assignment]
    before = SOURCE[: SOURCE.index("self.description") + len("self")]
    request = InfillRequest(prefix=before, suffix="\n", extent="line", decoding="diffusion")
    for text, matched, longest in ((".description\n", 200, 64), (".description\n", 1, 64), ("a" * 200, 200, 5)):
        copy = Copy(text=text, matched=matched)
        last(spied, msgspec.structs.replace(request, copied=copy, max_new_tokens=longest))
    likely, unlikely, long = begun
    healed = engine.heal(before, "diffusion").cut
    assert list(likely) == engine.tokenizer.encode(f"{healed}.description") + [engine.model.config.eos_token_id] * SPARE
    assert unlikely == ()
    assert list(long) == engine.tokenizer.encode(healed + "a" * 200)[:5]


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
    truth, rng = CopyTrust(bias=-4.0, matched=1.2, met=0.5, elsewhere=-0.8, keeps=0.8), random.Random(1)

    def drawn() -> Run:
        """Of a model that knows two tokens, of which the unlikelier one could be copied, every time."""
        known, gains = Evidence(rng.randrange(1, 200), rng.randrange(41), rng.random() < 0.5), list[float]()
        copying = rng.random() < truth.probability(known)
        while len(gains) < 16:
            same = copying or rng.random() < 0.1
            gains.append(math.log(0.1 if same else 0.9))
            if not same:
                return Run(known, gains, len(gains) - 1)
            copying = copying and rng.random() < truth.keeps
        return Run(known, gains, len(gains))

    found = fit(drawn() for _ in range(20_000))
    for known in (Evidence(5, 0, False), Evidence(20, 8, True), Evidence(80, 0, True), Evidence(150, 20, False)):
        assert math.isclose(found.probability(known), truth.probability(known), abs_tol=0.05)
    assert math.isclose(found.keeps, truth.keeps, abs_tol=0.02)
    with pytest.raises(EngineError, match="too few"):
        fit([])


def test_longer_matches_are_longer_copied(engine: Engine) -> None:
    documents = [Document("cpython", "argparse.py", SOURCE), Document("cpython", "short.py", "x = 1\n")]
    found = list(runs(engine, documents))
    assert len(found) > 200
    for one in found:
        assert 1 <= one.evidence.matched <= LONGEST_MATCH
        assert one.copied in (len(one.gains) - 1, len(one.gains))
        assert all(gain <= 0 for gain in one.gains)
    # As many are longer as are shorter.
    middle = sorted(one.evidence.matched for one in found)[len(found) // 2]
    by_length = [[one.copied for one in found if (one.evidence.matched > middle) == longer] for longer in (False, True)]
    assert mean(by_length[1]) > mean(by_length[0])
