"""What an answer costs for naming what is nowhere around it."""

from __future__ import annotations

import pytest

from dg_engine.names import BEFORE, BEHIND, STRANGE_NATS, Names

PREFIX = "import shutil\n\ndef copied(source, target):\n    return "
SUFFIX = "\n\nprint(copied(here, there))\n"


@pytest.mark.parametrize(
    ("text", "is_strange"),
    [
        ("shutil.copied(source, target)", False),
        ("len(source) if None else there", False),
        ("'1.0', 0x1f + 3.5e7", True),
        ("'', 10 + 3.5", False),
        ("shutil.moved(source)", True),
        ("sauce", True),
        ("source_", True),
        ("größe", True),
        ("", False),
    ],
)
def test_a_name_is_strange_that_stands_nowhere_around_and_is_none_of_pythons_own(text: str, is_strange: bool) -> None:
    assert Names(PREFIX, SUFFIX, "python").price(text) == (STRANGE_NATS if is_strange else 0)


def test_several_strange_names_cost_no_more_than_one() -> None:
    assert Names(PREFIX, SUFFIX, "python").price("a, b, c") == STRANGE_NATS


@pytest.mark.parametrize(("text", "is_strange"), [("get", False), ("ge", True), ("getter", True)])
def test_names_reach_from_what_is_typed_into_what_is_behind(text: str, is_strange: bool) -> None:
    names = Names("widget = 1\nvalue = wid", " + 1\n", "python")
    assert (names.price(text) > 0) == is_strange
    names = Names("widget_a = 1\nvalue = wid", "_a + 1\n", "python")
    assert (names.price(text) > 0) == is_strange


def test_what_the_language_server_does_not_send_is_not_looked_through() -> None:
    assert Names("far\n" + "." * BEFORE, "", "python").price("far") > 0
    assert Names("", "." * BEHIND + "\nfar", "python").price("far") > 0
    assert Names("near\n" + "." * (BEFORE - 5), "." * (BEHIND - 5) + "\nnext", "python").price("near, next") == 0


def test_of_a_language_whose_own_words_are_not_known_no_name_is_strange() -> None:
    assert Names("let a = 1;\nreturn ", ";\n", "javascript").price("undefined") == 0
