"""Typing along an offer needs no engine; text that differs gets no answer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dg_lsp.document import Change, Document, Point
from dg_lsp.memory import Memory
from dg_lsp.planning import Plan, PlanningOptions, SelectedCompletion, Silence, plan
from dg_lsp.postprocess import Suggestion
from dg_lsp.testing import end_of

OPTIONS = PlanningOptions(min_characters=0, mid_line="anywhere")
HEAD, TAIL = "def f(a):\n    ", "\n\nx = 1\n"
OFFER = "b = a + 1\n    return b"


def planned(before: str, after: str, *, automatic: bool = False, selected: SelectedCompletion | None = None) -> Plan:
    document = Document("file:///a.py", "python", 1, before + after, "utf-16")
    found = plan(document.snapshot(), None, end_of(before), automatic=automatic, options=OPTIONS, selected=selected)
    assert isinstance(found, Plan), found
    return found


def offered(before: str, text: str, after: str, replaced: int = 0) -> Memory:
    memory = Memory()
    asked = planned(before, after)
    end = asked.point._replace(column=asked.point.column + replaced)
    memory.keep(asked, Suggestion(text, asked.point, end))
    return memory


@pytest.mark.parametrize("typed", range(len(OFFER)))
def test_typing_along_is_answered_at_every_character(typed: int) -> None:
    asked = planned(HEAD + OFFER[:typed], TAIL)
    expected = Suggestion(OFFER[typed:], asked.point, asked.point)
    assert offered(HEAD, OFFER, TAIL).recall(asked) == expected


def test_deleting_back_to_where_the_offer_was_shown_is_answered() -> None:
    memory = offered(HEAD, OFFER, TAIL)
    for typed in (0, 1, 2, 1, 0):
        found = memory.recall(planned(HEAD + OFFER[:typed], TAIL))
        assert found is not None
        assert found.text == OFFER[typed:]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (HEAD + "c", TAIL),
        (HEAD[:-1], TAIL),
        ("y = 2\n" + HEAD, TAIL),
        (HEAD, TAIL + "y"),
        (HEAD, ")" + TAIL),
        (HEAD + OFFER, TAIL),
        (HEAD + OFFER + "\n", TAIL),
        ("", ""),
    ],
)
def test_text_that_differs_gets_no_answer(before: str, after: str) -> None:
    assert offered(HEAD, OFFER, TAIL).recall(planned(before, after)) is None


def test_below_a_long_line_too_text_that_differs_gets_no_answer() -> None:
    before = f"data = '{'x' * 3000}'\n"
    assert offered(before, "print(data)", TAIL).recall(planned(before + "size = ", TAIL)) is None


def test_an_offer_that_replaces_what_follows_still_does_after_a_few_keys() -> None:
    memory = offered("print(", "hello)[0]", ")\n", replaced=1)
    asked = planned("print(hel", ")\n")
    assert memory.recall(asked) == Suggestion("lo)[0]", Point(0, 9), Point(0, 10))


def test_the_offer_goes_on_when_the_prefix_begins_elsewhere() -> None:
    lines = "".join(f"value_{row} = {row}\n" for row in range(400))
    offer = "first = 1" + "".join(f" + {number}" for number in range(300))
    memory = offered(lines, offer, TAIL)
    beginnings = set()
    for typed in range(len(offer)):
        asked = planned(lines + offer[:typed], TAIL)
        beginnings.add(asked.prefix[:30])
        found = memory.recall(asked)
        assert found is not None
        assert found.text == offer[typed:]
    assert len(beginnings) > 1
    elsewhere = lines.replace("value_399 ", "value_398 ")
    assert memory.recall(planned(elsewhere, TAIL)) is None
    assert memory.recall(planned(lines[-100:], TAIL)) is None  # the rest is not cut off, it is gone


PAIRED = [
    ("Iterator[", "]", "Iterator[str]:", "str]:"),
    ("open(", ")", 'open(file, encoding="utf-8") as fp:', 'file, encoding="utf-8") as fp:'),
    ('open(file, encoding="', '")', 'open(file, encoding="utf-8") as fp:', 'utf-8") as fp:'),
    ('open(file, encoding="utf', '")', 'open(file, encoding="utf-8") as fp:', '-8") as fp:'),
    ("f(a[", "])", "f(a[0], b)", "0], b)"),
    ('"', '"', '"""The first', '""The first'),
]


@pytest.mark.parametrize("after", ["\n\nx = 1\n", "\n" + "y = 2\n" * 1000])
@pytest.mark.parametrize(("typed", "closers", "offer", "rest"), PAIRED)
def test_typing_a_bracket_or_quote_that_the_editor_closes_keeps_all_that_is_left(
    typed: str, closers: str, offer: str, rest: str, after: str
) -> None:
    before = "def f(a):\n    with "
    asked = planned(before + typed, closers + after)
    found = offered(before, offer, after).recall(asked)
    assert found == Suggestion(rest, asked.point, asked.point._replace(column=asked.point.column + len(closers)))
    beyond = offered(before + typed, rest, closers + after, replaced=len(closers)).recall(asked)
    assert beyond == found


@pytest.mark.parametrize(
    ("typed", "closers"),
    [("Iterator[", ")"), ("Iterator[", "]]"), ("Iterator", "]"), ("Iterator[str]", "]"), ("Iterator[", "x")],
)
def test_closers_that_the_typed_text_did_not_open_are_other_text(typed: str, closers: str) -> None:
    assert offered("def f() -> ", "Iterator[str]:", TAIL).recall(planned(f"def f() -> {typed}", closers + TAIL)) is None


CUT = [
    ("f(", ")", "f(a", "a", 0),
    ('f("', '")', 'f("/orgs/:', "/orgs/:", 0),
    ("f(", ")", "f(g(a), b", "g(a), b", 0),
    ("f(a[", "])", "f(a[0], b", "0], b", 1),
    ('f("', '")', 'f("a", b', 'a", b', 1),
]


@pytest.mark.parametrize(("typed", "closers", "offer", "rest", "replaced"), CUT)
def test_a_closer_that_the_rest_of_the_offer_does_not_write_stays_behind_it(
    typed: str, closers: str, offer: str, rest: str, replaced: int
) -> None:
    asked = planned(f"x = {typed}", closers + TAIL)
    end = asked.point._replace(column=asked.point.column + replaced)
    assert offered("x = ", offer, TAIL).recall(asked) == Suggestion(rest, asked.point, end)


def test_what_lies_behind_closers_that_stay_is_not_replaced() -> None:
    memory = offered("g(", "f(a)[0]) + f(b", ")" + TAIL, replaced=1)
    assert memory.recall(planned("g(f(a)[0]) + f(", "))" + TAIL)) is None


def test_carriage_returns_do_not_hide_an_offer() -> None:
    asked = planned("def f(a):\r\n    b = a + 1\r\n", "\r\n\r\nx = 1\r\n")
    found = offered("def f(a):\r\n    ", OFFER, "\r\n\r\nx = 1\r\n").recall(asked)
    assert found is not None
    assert found.text == "    return b"


def test_the_selected_completion_is_remembered_as_typed_text() -> None:
    selected = SelectedCompletion(Point(0, 2), Point(0, 3), "path")
    memory = Memory()
    asked = planned("o.p", "\n", selected=selected)
    memory.keep(asked, Suggestion("path.join(a)", Point(0, 2), Point(0, 3)))
    assert memory.recall(asked) == Suggestion("path.join(a)", Point(0, 2), Point(0, 3))
    plain = memory.recall(planned("o.path.j", "\n"))
    assert plain == Suggestion("oin(a)", Point(0, 8), Point(0, 8))


def test_the_newest_offer_for_a_place_is_the_one_recalled() -> None:
    memory = offered(HEAD, "old", TAIL)
    asked = planned(HEAD, TAIL)
    memory.keep(asked, Suggestion("new", asked.point, asked.point))
    found = memory.recall(asked)
    assert found is not None
    assert found.text == "new"


def test_memory_is_bounded_and_forgets_what_was_used_least_recently() -> None:
    memory = Memory(capacity=2)
    plans = [planned(f"value_{number} = ", "\n") for number in range(3)]
    for asked in plans[:2]:
        memory.keep(asked, Suggestion("1", asked.point, asked.point))
    assert memory.recall(plans[0]) is not None
    memory.keep(plans[2], Suggestion("1", plans[2].point, plans[2].point))
    assert len(memory) == 2
    assert memory.recall(plans[1]) is None
    assert memory.recall(plans[0]) is not None
    with pytest.raises(ValueError, match="capacity must be at least 1, not 0"):
        Memory(capacity=0)


def test_what_was_taken_whole_and_undone_is_declined_until_the_user_asks() -> None:
    memory = offered(HEAD, OFFER, TAIL)
    assert memory.declined(planned(HEAD, TAIL, automatic=True)) is None
    assert memory.recall(planned(HEAD + OFFER, TAIL)) is None
    assert isinstance(memory.declined(planned(HEAD, TAIL, automatic=True)), Silence)
    assert memory.declined(planned(HEAD, TAIL, automatic=False)) is None
    assert memory.declined(planned(HEAD + "b", TAIL, automatic=True)) is None


def test_what_was_taken_whole_and_deleted_in_part_is_declined_until_it_is_typed_again() -> None:
    memory = offered(HEAD, OFFER, TAIL)
    assert memory.recall(planned(HEAD + OFFER, TAIL)) is None
    for typed in (len(OFFER) - 1, 5, 4, 4):
        assert isinstance(memory.declined(planned(HEAD + OFFER[:typed], TAIL, automatic=True)), Silence)
        assert not memory.goes_on(planned(HEAD + OFFER[:typed], TAIL))
    assert memory.declined(planned(HEAD + OFFER[:4], TAIL, automatic=False)) is None
    assert memory.declined(planned(HEAD + OFFER[:4] + "x", TAIL, automatic=True)) is None
    again = planned(HEAD + OFFER[:5], TAIL, automatic=True)
    assert memory.declined(again) is None
    found = memory.recall(again)
    assert found is not None
    assert found.text == OFFER[5:]


@pytest.mark.parametrize("tail", [")\n", ")\n" + "y = 2\n" * 1000])
def test_what_was_taken_with_what_it_replaced_and_undone_is_declined(tail: str) -> None:
    memory = offered("print(", "hello)[0]", tail, replaced=1)
    assert memory.recall(planned("print(hello)[0]", tail[1:])) is None
    assert isinstance(memory.declined(planned("print(", tail, automatic=True)), Silence)


short = st.text(st.sampled_from("ab\n "), max_size=6)


@settings(max_examples=300, deadline=None)
@given(short, short, short, short, short)
def test_a_recalled_text_always_completes_the_offer(head: str, text: str, tail: str, before: str, after: str) -> None:
    offer = f"x{text}x"
    found = offered(f"q{head}", offer, tail).recall(planned(f"q{before}", after))
    if found is not None:
        assert after == tail
        assert f"q{before}{found.text}" == f"q{head}{offer}"


def test_change_that_types_the_offer_is_recalled_on_the_live_document() -> None:
    document = Document("file:///a.py", "python", 1, HEAD + TAIL, "utf-16")
    memory = offered(HEAD, OFFER, TAIL)
    at = document.snapshot().position(end_of(HEAD))
    document.apply([Change(at, at, "b = ")], 2)
    snapshot = document.snapshot()
    asked = plan(snapshot, None, end_of(HEAD + "b = "), automatic=True, options=OPTIONS)
    assert isinstance(asked, Plan)
    found = memory.recall(asked)
    assert found is not None
    assert found.text == OFFER[len("b = ") :]
