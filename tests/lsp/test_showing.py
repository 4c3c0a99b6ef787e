"""What is shown unasked: likely enough for the keys that it spares."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dg_engine.api import Head, Infill
from dg_lsp.planning import Silence
from dg_lsp.settings import Settings
from dg_lsp.showing import USUAL_KEYS, gain, spared, worth_showing
from dg_lsp.testing import answered, rated

LINES = ["total = first", "total += second", "return total"]
TEXT = "\n    ".join(LINES)

shares = st.floats(0.01, 0.99)


def infill(text: str, *probabilities: float | None, score: float = -1.0) -> Infill:
    """An answer with the probability of each of its lines."""
    return answered(text, score=score, heads=rated(text, *probabilities))


@pytest.mark.parametrize(
    ("text", "keys"), [("", 0), (")", 0), ("()", 1), (" first + second ", 13), ("if x:\n        y", 6), ("a\n\tb\n", 2)]
)
def test_accepting_is_one_key_and_a_line_break_with_its_indentation_another(text: str, keys: int) -> None:
    assert spared(text) == keys


def test_the_setting_is_the_probability_at_which_ten_keys_come_to_nothing() -> None:
    assert gain(0.3001, USUAL_KEYS, 0.3) > 0 > gain(0.2999, USUAL_KEYS, 0.3)


def test_twice_the_keys_are_worth_half_the_odds() -> None:
    assert gain(1 / 3 + 1e-4, 20, 0.5) > 0 > gain(1 / 3 - 1e-4, 20, 0.5)


@given(probability=shares, keys=st.integers(0, 500), least=shares)
def test_what_is_likelier_or_spares_more_is_worth_more(probability: float, keys: int, least: float) -> None:
    assert gain(probability + 0.01, keys, least) > gain(probability, keys, least)
    assert gain(probability, keys + 1, least) > gain(probability, keys, least)


@pytest.mark.parametrize("probability", [0.0, 0.4, 0.999])
def test_at_zero_everything_is_shown_whole_and_at_one_nothing_that_may_be_wrong(probability: float) -> None:
    assert worth_showing(infill(TEXT, 0.999, probability, 0.0), Settings(min_probability=0)) == TEXT
    assert isinstance(worth_showing(infill("first + second", probability), Settings(min_probability=1)), Silence)


@pytest.mark.parametrize(
    ("chances", "shown"),
    [((0.9, 0.86), 'f(x, "a")'), ((0.9, 0.5), 'f(x, "a'), ((0.4, 0.39), None)],
)
def test_closers_that_are_likely_are_shown_with_what_they_close(
    chances: tuple[float, float], shown: str | None
) -> None:
    text = 'f(x, "a")'
    heads = tuple(
        Head(characters=size, tokens=size, score=-0.1, probability=chance)
        for size, chance in zip((7, 9), chances, strict=True)
    )
    found = worth_showing(answered(text, heads=heads), Settings(min_probability=0.4))
    assert (found == shown) if shown else isinstance(found, Silence)


def test_what_spares_no_key_is_not_shown_however_likely() -> None:
    assert isinstance(worth_showing(infill(")", 0.999), Settings(min_probability=0.01)), Silence)


@pytest.mark.parametrize(
    ("probabilities", "shown"), [((0.9, 0.8, 0.7), 3), ((0.9, 0.8, 0.3), 2), ((0.9, 0.3, 0.2), 1), ((0.4, 0.2, 0.1), 0)]
)
def test_of_several_lines_those_are_shown_of_which_most_is_to_be_expected(
    probabilities: tuple[float, ...], shown: int
) -> None:
    found = worth_showing(infill(TEXT, *probabilities), Settings(min_probability=0.5))
    if shown:
        assert found == "\n    ".join(LINES[:shown])
    else:
        assert isinstance(found, Silence)
        assert "0.4 for 12 keys spared, where 0.5 is asked for 10" in found.reason


def test_a_line_is_cut_behind_the_word_up_to_which_the_model_is_sure() -> None:
    text = "typing.Callable[[Request], Response]"
    ends = [text.index("[["), text.index(" Resp"), len(text)]
    heads = tuple(
        Head(characters=end, tokens=number, score=-1.0, probability=probability)
        for number, (end, probability) in enumerate(zip(ends, (0.95, 0.9, 0.2), strict=True), 3)
    )
    assert worth_showing(answered(text, heads=heads), Settings()) == "typing.Callable[[Request],"


@pytest.mark.parametrize(("score", "is_shown"), [(-1.9, True), (-2.1, False)])
def test_a_model_without_probabilities_is_judged_by_its_score(score: float, is_shown: bool) -> None:
    found = worth_showing(infill(TEXT, None, None, None, score=score), Settings(min_score=-2.0))
    assert (found == TEXT) if is_shown else isinstance(found, Silence)
