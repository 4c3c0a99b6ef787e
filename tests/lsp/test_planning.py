"""When to ask, with which text around the cursor, and for one line or a block."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dg_lsp.brackets import closable, scan
from dg_lsp.context import QUANTUM, text_after, text_before
from dg_lsp.document import Change, Document, Point, Position
from dg_lsp.languages import language_of
from dg_lsp.lines import Lines
from dg_lsp.planning import Plan, PlanningOptions, SelectedCompletion, Silence, plan
from dg_lsp.syntax import syntax_for
from dg_lsp.testing import end_of, marked


def planned(
    source: str,
    language_id: str = "python",
    *,
    automatic: bool = True,
    parsed: bool = True,
    selected: SelectedCompletion | None = None,
    **options: Any,
) -> Plan | Silence:
    mark = marked(source, language_id)
    return plan(
        mark.snapshot,
        syntax_for(language_id, "") if parsed else None,
        mark.point,
        automatic=automatic,
        options=PlanningOptions(**options),
        selected=selected,
    )


def made(source: str, language_id: str = "python", **arguments: Any) -> Plan:
    found = planned(source, language_id, **arguments)
    assert isinstance(found, Plan), found
    return found


@pytest.mark.parametrize(
    ("language_id", "source"),
    [
        ("python", "def f(a):\n    return a\n    |\n"),
        ("python", "def f(a):\n    raise ValueError(\n        a\n    )\n\n    |\n"),
        ("python", "for a in b:\n\tif a:\n\t\tcontinue\n\t\t|\n\tf(a)\n"),
        ("javascript", "function f(a) {\n  return a;\n  |\n}\n"),
        ("go", "func f() {\n\tfor {\n\t\tbreak\n\t\t|\n\t}\n}\n"),
        ("rust", "fn f() -> i32 {\n    return 1;\n    |\n}\n"),
    ],
)
def test_behind_what_leaves_the_block_nothing_is_offered_as_deep(language_id: str, source: str) -> None:
    assert planned(source, language_id, min_characters=0) == Silence("The line above leaves the block.")
    made(source, language_id, automatic=False)


@pytest.mark.parametrize(
    ("language_id", "source"),
    [
        ("python", "def f(a):\n    if a:\n        return a\n    |\n"),
        ("python", "def f(a):\n    return a\n|\n"),
        ("python", "def f(a):\n    b = lambda: a\n    |\n"),
        ("python", "def f(a):\n    return [\n        a,\n        |\n    ]\n"),
        ("ruby", "def f(a)\n  return a if a\n  |\nend\n"),
        ("c", "int f(int a) {\n  return\n  |\n}\n"),
    ],
)
def test_where_a_block_goes_on_something_is_offered(language_id: str, source: str) -> None:
    made(source, language_id, min_characters=0)


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        ("def f(self|)\n    pass\n", "\n    pass\n"),
        ("async def f(x: List[|])\n", "\n"),
        ("class A(|)\n", "\n"),
        ("def f(|):\n", "):\n"),
        ("x = f(|)\n", ")\n"),
        ("if f(|)\n", ")\n"),
    ],
)
def test_closers_that_an_editor_put_into_a_definition_are_not_told_to_the_engine(source: str, asked: str) -> None:
    found = made(source, min_characters=0)
    assert found.asked_suffix == asked
    assert found.suffix == source.split("|")[1]


def test_where_no_colon_begins_a_block_all_that_follows_is_told() -> None:
    assert made("class A(|)\n", "java", min_characters=0).asked_suffix == ")\n"


EXTENTS = [
    ("python", "def add(a, b):|\n", "block"),
    ("python", "def add(a, b):\n    |\n", "block"),
    ("python", "def add(a, b):\n    |\n\ndef sub(a, b):\n    return a - b\n", "block"),
    ("python", "def add(a, b):\n    |\n    return a\n", "block"),
    ("python", "def add(a, b):\n    return |\n", "line"),
    ("python", "values = {1: 2,\n|\n", "line"),
    ("python", "def add(a, b):\n    c = a\n    |\n    return c\n", "block"),
    ("python", "import os\n\n|\n\nx = os.name\n", "line"),
    ("python", "first = second[a:|]\n", "line"),
    ("python", "text = 'abc def:|'\n", "line"),
    ("python", "def add(a, b):  # the sum:|\n", "line"),
    ("javascript", "function add(a, b) {|}", "block"),
    ("javascript", "function add(a, b) {\n  |\n}\n", "block"),
    ("javascript", "const point = {|};\nfoo(point);\n", "line"),
    ("javascript", "const total = add(1, |);\n", "line"),
    ("cpp", "void f() {\n  |\n}\n", "block"),
    ("cpp", "int values[] = {\n  |\n};\n", "line"),
    ("go", "package a\n\nfunc add(a int) int {\n\t|\n}\n", "block"),
    ("ruby", "def add(a, b)\n  |\nend\n", "block"),
    ("shellscript", "for f in *.txt; do\n  |\ndone\n", "block"),
    ("unheard-of", "routine add (a) {\n  |\n}\n", "block"),
]


@pytest.mark.parametrize(("language_id", "source", "extent"), EXTENTS)
def test_the_syntax_at_the_cursor_decides_between_line_and_block(language_id: str, source: str, extent: str) -> None:
    assert made(source, language_id, automatic=False).extent == extent


@pytest.mark.parametrize(
    ("source", "extent"),
    [
        ("def add(a, b):\n    |\n", "block"),
        ("def add(a, b):\n    c = a\n    |\n    return c\n", "block"),
        ("def add(a, b):\n    return |\n", "line"),
        ("import os\n|\nx = os.name\n", "line"),
    ],
)
def test_without_a_tree_indentation_decides(source: str, extent: str) -> None:
    assert made(source, parsed=False, automatic=False).extent == extent


def test_the_user_may_want_one_line_always_or_several_wherever_they_fit() -> None:
    assert made("def add(a, b):\n    |\n", multi_line="never").extent == "line"
    assert made("first_value = |\n", multi_line="always").extent == "block"
    assert made("first_value = call(|)\n", multi_line="always").extent == "line"


@pytest.mark.parametrize(
    ("source", "indentation", "opener"),
    [
        ("def f(a):|\n", "    ", "def f(a):"),
        ("class A:\n  def f(self):|\n", "    ", "  def f(self):"),
        ("class A:\n\tdef f(self):|\n", "\t\t", "\tdef f(self):"),
        ("def f(a):\n|\n", "    ", "def f(a):"),
        ("def f(a):\n      |\n", "      ", "def f(a):"),
        ("def f(a):\n    b = 1\n|\n    return b\n", "    ", None),
        ("def f(a):\n    b = |\n", "    ", None),
    ],
)
def test_the_indentation_of_the_answer_is_known(source: str, indentation: str, opener: str | None) -> None:
    found = made(source, automatic=False)
    assert (found.indentation, found.opener) == (indentation, opener)


REFUSED = [
    ("x = 1|", "too little text"),
    ("result = some|thing\n", "inside a word"),
    ("result = | + something\n", "more than closing brackets"),
]


@pytest.mark.parametrize(("source", "reason"), REFUSED)
def test_automatic_requests_are_refused_with_a_reason_and_invoked_ones_are_not(source: str, reason: str) -> None:
    found = planned(source)
    assert isinstance(found, Silence)
    assert reason in found.reason
    assert isinstance(planned(source, automatic=False), Plan)


@pytest.mark.parametrize("rest", ["", ")", "):", "'])", ' "}', ";", "  ", " } )", "</li>", '" />', " */", " -->"])
def test_closing_brackets_after_the_cursor_do_not_prevent_a_request(rest: str) -> None:
    assert isinstance(planned(f"some_function(first, |{rest}\n"), Plan)


@pytest.mark.parametrize("line", ["for (let i = 0;", "call(first, {a: {b: 0}", "new Thing({ a: 1 }"])
def test_within_brackets_that_are_open_a_line_goes_on(line: str) -> None:
    assert isinstance(planned(f"function f() {{\n  {line}|\n}}\n", "javascript"), Plan)


def test_any_number_of_blanks_after_the_cursor_is_soon_read() -> None:
    assert isinstance(planned(f"some_function(first, |{' ' * 5000});\n"), Plan)
    assert isinstance(planned(f"some_function(first, |{' ' * 5000}x\n"), Silence)


def test_a_finished_statement_is_left_alone() -> None:
    found = planned("let total = add(1, 2);|\n", "javascript")
    assert found == Silence("The line before the cursor is complete.")


def test_in_the_shell_a_line_goes_on_behind_a_semicolon() -> None:
    assert isinstance(planned("set -e\nif test -f file; |\n", "shellscript"), Plan)
    assert isinstance(planned("set -e\nf() {\n  ls\n}|\n", "shellscript"), Silence)


@pytest.mark.parametrize(
    ("source", "option"),
    [
        ("# a comment of some length|\n", {"in_comments": False}),
        ("text = 'some words and |'\n", {"in_strings": False}),
        ("some_function(first, |)\n", {"mid_line": "never"}),
        ("x = y|\n", {"min_characters": 20}),
    ],
)
def test_each_setting_turns_a_request_into_a_refusal(source: str, option: dict[str, Any]) -> None:
    assert isinstance(planned(source, **({"min_characters": 0} | option)), Silence)
    assert isinstance(planned(source, min_characters=0), Plan)


def test_code_after_the_cursor_can_be_allowed() -> None:
    assert isinstance(planned("result = | + something\n", mid_line="anywhere"), Plan)


def test_an_option_outside_its_range_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="max_prefix_characters must be at least 256, not 3"):
        PlanningOptions(max_prefix_characters=3)


def test_the_selected_completion_is_taken_as_typed() -> None:
    selected = SelectedCompletion(Point(0, 9), Point(0, 12), "pathname")
    found = made("value = (pat|)\n", selected=selected)
    assert found.prefix == "value = (pathname"
    assert found.line_prefix == "value = (pathname"
    assert (found.start, found.typed, found.suffix) == (Point(0, 9), "pathname", ")\n")


@pytest.mark.parametrize(
    "selected",
    [
        SelectedCompletion(Point(0, 9), Point(0, 12), "other"),
        SelectedCompletion(Point(0, 9), Point(0, 12), "path\nname"),
        SelectedCompletion(Point(0, 9), Point(0, 13), "pathname"),
    ],
)
def test_a_selected_completion_that_replaces_text_gets_nothing(selected: SelectedCompletion) -> None:
    assert isinstance(planned("value = (pat|)\n", selected=selected), Silence)


def test_a_selected_call_is_not_taken_as_typed() -> None:
    selected = SelectedCompletion(Point(0, 9), Point(0, 12), "path()")
    found = made("value = (pat|)\n", selected=selected)
    assert (found.prefix, found.selected) == ("value = (pat", None)


def test_the_context_has_one_kind_of_line_end() -> None:
    found = made("first = 1\r\nsecond = |\r\nthird\rfourth\r\n", automatic=False)
    assert (found.prefix, found.suffix) == ("first = 1\nsecond = ", "\nthird\nfourth\n")


lines_of_text = st.lists(st.integers(0, 300), min_size=1, max_size=80).map(
    lambda sizes: [f"{'x' * n}\n" for n in sizes]
)


@settings(max_examples=100, deadline=None)
@given(lines_of_text, st.data(), st.integers(256, 3000), st.integers(0, 2000))
def test_the_context_lies_around_the_cursor_and_within_its_budget(
    rows: list[str], data: st.DataObject, before: int, after: int
) -> None:
    text = "".join(rows)
    offset = data.draw(st.integers(0, len(text)))
    lines, point = Lines.of(text), end_of(text[:offset])
    head, head_is_cut = text_before(lines, point, before)
    tail, tail_is_cut = text_after(lines, point, after)
    assert text[:offset].endswith(head)
    assert text[offset:].startswith(tail)
    assert len(head) <= before
    assert len(tail) <= after
    assert head_is_cut == (len(head) < offset)
    assert tail_is_cut == (len(tail) < len(text) - offset)


def test_typing_moves_the_beginning_of_the_prefix_once_per_quantum() -> None:
    text = "".join(f"value_{row} = {row}\n" for row in range(2000))
    document = Document("file:///a.py", "python", 1, text, "utf-16")
    beginnings = []
    for count in range(2 * QUANTUM):
        row = 1000 + count // 40
        at = Position(row, count % 40)
        document.apply([Change(at, at, "\n" if count % 40 == 39 else "y")], count + 2)
        head, _ = text_before(document.snapshot().lines, Point(row, count % 40), 2400)
        beginnings.append(head[:40])
    moves = sum(before != after for before, after in pairwise(beginnings))
    assert 1 <= moves <= 3


def test_a_line_longer_than_the_budget_is_cut_inside() -> None:
    text = "x" * 10_000
    head, is_cut = text_before(Lines.of(text), Point(0, 9_000), 2400)
    assert is_cut
    assert 2400 - QUANTUM < len(head) <= 2400


@pytest.mark.parametrize("size", [2000, 3000, 100_000])
def test_below_a_long_line_the_text_begins_inside_it(size: int) -> None:
    head, is_cut = text_before(Lines.of("import os\n" * 400 + "x" * size + "\n"), Point(401, 0), 2400)
    assert is_cut
    assert 2400 - 2 * QUANTUM < len(head) <= 2400


@pytest.mark.parametrize(
    ("language_id", "text", "openers", "closers", "quote", "in_comment"),
    [
        ("python", "f(a, [b", "([", "", "", False),
        ("python", "a) + b]", "", ")]", "", False),
        ("python", "f('(') # (", "", "", "", True),
        ("python", "f('it", "(", "", "'", False),
        ("python", 'x = """a ( \' b', "", "", '"""', False),
        ("rust", "fn f<'a>(x: &'a str, c: char = '(') {", "{", "", "", False),
        ("c", "/* ( */ f(')')", "", "", "", False),
        ("c", "int a; /* (", "", "", "", True),
        ("javascript", "`a ( ${b", "", "", "`", False),
        ("javascript", "// it's (\nf(", "(", "", "", False),
        ("shellscript", 'if [ "$#" -gt ${#x} ]; then (', "(", "", "", False),
        ("python", "f(a]", "(", "]", "", False),
        ("python", "f([a)", "", "", "", False),
    ],
)
def test_brackets_and_quotes_are_matched_outside_strings_and_comments(
    language_id: str, text: str, openers: str, closers: str, quote: str, in_comment: bool
) -> None:
    found = scan(text, language_of(language_id))
    assert "".join(bracket.character for bracket in found.openers) == openers
    assert "".join(bracket.character for bracket in found.closers) == closers
    assert (found.quote, found.in_comment) == (quote, in_comment)


@pytest.mark.parametrize(
    ("before", "after", "missing", "undecided"),
    [
        ("{(", ")}", "", ""),
        ("{(", "}", "(", ""),
        ("{(", "", "", "{("),
        ("{(", ")", "", "{"),
        ("(", "]", "(", ""),
        ("([{", "])", "{", ""),
    ],
)
def test_what_the_text_after_the_cursor_closes_may_not_be_closed_before(
    before: str, after: str, missing: str, undecided: str
) -> None:
    python = language_of("python")
    found = closable(scan(before, python).openers, scan(after, python).closers)
    assert "".join(bracket.character for bracket in found.missing) == missing
    assert "".join(bracket.character for bracket in found.undecided) == undecided
