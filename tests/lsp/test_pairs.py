"""Code is typed as in an editor that closes brackets and quotes: whatever is typed comes out as it was meant."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from functools import reduce

import pytest

from dg_lsp.pairs import Cursor, visible
from dg_lsp.showing import KEY


def typed(text: str, behind: str = "", *, closes: bool = True) -> Cursor:
    return reduce(Cursor.typed, KEY.findall(text), Cursor("", "", behind, closes))


@pytest.mark.parametrize(
    ("keys", "behind", "shown"),
    [
        ("f(", "", "f(|)"),
        ("f(a)", "", "f(a)|"),
        ("f([", "", "f([|])"),
        ('f("', "", 'f("|")'),
        ('f"', "", 'f"|"'),
        ("don'", "", "don'|"),
        ("f(", "a", "f(|a"),
        ("f(", " a", "f(|) a"),
        ('x = ""', "", 'x = ""|'),
        ('"""', "", '"""|'),
        ("def f():\n    g(\n        ", "", "def f():\n    g(\n        |\n    )"),
        ("f(a,\n  b", "", "f(a,\n  b|)"),
        ('f("["', "", 'f("["|)'),
        ("    f(\n        x y", "\n", "    f(\n        x y|\n    )\n"),
        ("    f(\n        x\n    ", "\n", "    f(\n        x\n    |)\n"),
        ("    f(\n        x)", "\n", "    f(\n        x)|\n"),
    ],
)
def test_what_is_opened_is_closed_behind_the_cursor(keys: str, behind: str, shown: str) -> None:
    cursor = typed(keys, behind)
    assert f"{cursor.before}|{cursor.closers}{cursor.behind}" == shown
    assert cursor.text == shown.replace("|", "")
    assert typed(keys, behind, closes=False).text == keys + behind


def test_a_closer_that_does_not_belong_there_takes_a_key() -> None:
    assert typed('f("["').deleted == 1
    assert typed('f("[]"').deleted == 0


@pytest.mark.parametrize("code", [textwrap.dedent, inspect.getdoc, Cursor])
def test_real_code_comes_out_as_it_is(code: Callable[..., object]) -> None:
    source = inspect.getsource(code)
    cursor = typed(source)
    assert cursor.before == source
    assert visible(cursor.closers) + cursor.deleted < 10


def test_a_completion_takes_the_place_of_closers_first() -> None:
    cursor = typed("f(a[", "; g()")
    assert cursor.closers == "])"
    assert cursor.accepted("0]", 1) == Cursor("f(a[0]", ")", "; g()", closes=True)
    assert cursor.accepted("0]);", 3) == Cursor("f(a[0]);", "", " g()", closes=True)


def test_a_quote_that_ends_what_a_completion_began_is_closed_by_nothing() -> None:
    assert Cursor("f(", ")", "", closes=True).accepted('"a', 0).typed('"') == Cursor('f("a"', ")", "", closes=True)
    assert Cursor("f(", ")", "", closes=True).accepted('"a", ', 0).typed('"').closers == '")'
    assert Cursor('f("\\" ', ")", "", closes=True).typed('"').closers == ")"
