"""The text mirror equals the editor's text: held against a slow reference that works on one plain string."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dg_lsp.document import Change, Document, Encoding, Point, Position
from dg_lsp.lines import Lines, split_lines
from dg_lsp.testing import marked

ENCODINGS: tuple[Encoding, ...] = ("utf-8", "utf-16", "utf-32")
HIGH, LOW, SMILE = "\ud83d", "\ude00", "\U0001f600"

TERMINATORS = ["\n", "\r", "\r\n"]
NOT_TERMINATORS = ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"]
CHARACTERS = ["a", "bc", " ", "\t", "é", "中", SMILE, "\U0010ffff", HIGH, LOW, "\udfff"]
encodings = st.sampled_from(ENCODINGS)
pieces = st.sampled_from([*CHARACTERS, *NOT_TERMINATORS, *TERMINATORS])
texts = st.lists(pieces, max_size=14).map("".join)
positions = st.builds(Position, st.integers(0, 8), st.integers(0, 12))
changes = st.builds(Change, positions, positions, texts) | st.builds(Change, st.none(), st.none(), texts)


class Twin:
    """The reference: one string, searched character by character for every position."""

    def __init__(self, text: str, encoding: Encoding) -> None:
        self.encoding = encoding
        self.text = paired(text)

    def apply(self, change: Change) -> None:
        if change.start is None or change.end is None:
            self.text = paired(change.text)
            return
        start, end = sorted((self.offset(change.start), self.offset(change.end)))
        self.text = paired(self.text[:start] + change.text + self.text[end:])

    def offset(self, position: Position) -> int:
        at = 0
        for _ in range(position.line):
            end = self.line_end(at)
            if end == len(self.text):
                return end
            at = end + (2 if self.text[end : end + 2] == "\r\n" else 1)
        left = position.character
        end = self.line_end(at)
        while at < end and self.width(self.text[at]) <= left:
            left -= self.width(self.text[at])
            at += 1
        return at

    def line_end(self, at: int) -> int:
        while at < len(self.text) and self.text[at] not in "\r\n":
            at += 1
        return at

    def width(self, character: str) -> int:
        if self.encoding == "utf-8":
            return len(character.encode("utf-8", "surrogatepass"))
        return 2 if self.encoding == "utf-16" and ord(character) > 0xFFFF else 1


def paired(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def opened(text: str, encoding: Encoding = "utf-16") -> Document:
    return Document("file:///a.py", "python", 1, text, encoding)


@settings(max_examples=600, deadline=None)
@given(encodings, texts, st.lists(st.lists(changes, max_size=3), max_size=5))
@example("utf-16", "a\r\nb", [[Change(Position(0, 1), Position(0, 1), "\r")]])
@example("utf-16", "a\rb\n", [[Change(Position(1, 0), Position(1, 1), "")]])
@example("utf-16", "x" + HIGH, [[Change(Position(0, 2), Position(0, 2), LOW)]])
def test_any_sequence_of_edits_leaves_the_text_that_the_reference_has(
    encoding: Encoding, text: str, notifications: list[list[Change]]
) -> None:
    document, twin = opened(text, encoding), Twin(text, encoding)
    for version, batch in enumerate(notifications, start=2):
        document.apply(batch, version)
        for change in batch:
            twin.apply(change)
        snapshot = document.snapshot()
        assert snapshot.text == twin.text
        assert list(snapshot.lines) == split_lines(twin.text)
        assert snapshot.version == version


@settings(max_examples=400, deadline=None)
@given(encodings, texts, positions)
def test_a_position_means_what_the_reference_says(encoding: Encoding, text: str, position: Position) -> None:
    snapshot, twin = opened(text, encoding).snapshot(), Twin(text, encoding)
    point = snapshot.point(position)
    before = "".join(snapshot.lines.between(0, point.row)) + snapshot.lines[point.row][: point.column]
    assert len(before) == twin.offset(position)
    assert snapshot.point(snapshot.position(point)) == point


@settings(max_examples=40, deadline=None)
@given(encodings, st.lists(pieces, min_size=1, max_size=5).map("".join), st.data())
def test_positions_in_a_line_of_many_thousand_characters(encoding: Encoding, unit: str, data: st.DataObject) -> None:
    line = "".join(character for character in unit if character not in "\r\n") * 2500
    snapshot, twin = opened(f"{line}\n", encoding).snapshot(), Twin(line, encoding)
    position = Position(0, data.draw(st.integers(0, 4 * len(line) + 1)))
    assert snapshot.point(position) == Point(0, twin.offset(position))


@given(texts)
def test_lines_end_where_the_protocol_says_and_nowhere_else(text: str) -> None:
    lines = split_lines(text)
    assert "".join(lines) == text
    for line in lines[:-1]:
        body = line.removesuffix("\r\n") if line.endswith("\r\n") else line[:-1]
        assert line[-1] in "\r\n"
        assert not set(body) & set("\r\n")
    assert not set(lines[-1]) & set("\r\n")
    assert all(not (a.endswith("\r") and b.startswith("\n")) for a, b in pairwise(lines))


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 3000))
def test_lines_in_chunks_behave_as_one_list(data: st.DataObject, count: int) -> None:
    plain = [f"{row}\n" for row in range(count)] + [""]
    lines = Lines.of("".join(plain))
    for _ in range(data.draw(st.integers(1, 4))):
        first = data.draw(st.integers(0, len(plain) - 1))
        last = data.draw(st.integers(first, len(plain) - 1))
        new = [f"new{row}\n" for row in range(data.draw(st.sampled_from([1, 2, 3, 700, 1500])))]
        lines, plain = lines.replaced(first, last, new), plain[:first] + new + plain[last + 1 :]
        assert list(lines) == plain
        assert len(lines) == len(plain)
        assert [lines[row] for row in (0, first, len(plain) - 1)] == [plain[0], plain[first], plain[-1]]
        assert list(lines.between(first - 5, last + 5)) == plain[max(first - 5, 0) : last + 5]
        offset = len("".join(plain[:first]))
        assert lines.offset(first) == offset
        assert lines.row_at(offset) == first
        assert lines.row_at(len("".join(plain))) == len(plain) - 1


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_position_inside_a_character_rounds_down_to_its_start(encoding: Encoding) -> None:
    snapshot = opened(f"a{SMILE}b", encoding).snapshot()
    width = {"utf-8": 4, "utf-16": 2, "utf-32": 1}[encoding]
    for inside in range(1, 1 + width):
        assert snapshot.point(Position(0, inside)) == Point(0, 1)
    assert snapshot.point(Position(0, 1 + width)) == Point(0, 2)


def test_a_column_past_the_end_stays_before_the_terminator() -> None:
    snapshot = opened("ab\r\ncd").snapshot()
    assert snapshot.point(Position(0, 99)) == Point(0, 2)
    assert snapshot.point(Position(1, 99)) == Point(1, 2)
    assert snapshot.point(Position(99, 0)) == Point(1, 2)
    assert snapshot.point(Position(-1, 5)) == Point(0, 0)
    assert snapshot.position(Point(0, 99)) == Position(0, 2)


def test_form_feed_and_line_separator_do_not_end_a_line() -> None:
    document = opened("a\x0cb\u2028c\x85d\nsecond")
    document.apply([Change(Position(1, 0), Position(1, 6), "third")], 2)
    assert document.snapshot().text == "a\x0cb\u2028c\x85d\nthird"


def test_reversed_ranges_are_put_in_order() -> None:
    document = opened("one two")
    document.apply([Change(Position(0, 7), Position(0, 4), "2")], 2)
    assert document.snapshot().text == "one 2"


def test_two_lone_surrogates_that_meet_become_the_character_they_spell() -> None:
    document = opened(f"x{HIGH}")
    document.apply([Change(Position(0, 2), Position(0, 2), LOW)], 2)
    assert document.snapshot().text == f"x{SMILE}"
    assert document.snapshot().position(Point(0, 2)) == Position(0, 3)


def test_a_snapshot_does_not_change_when_the_document_does() -> None:
    document = opened("one\ntwo\n")
    before = document.snapshot()
    document.apply([Change(Position(0, 0), Position(1, 0), "")], 2)
    assert (before.text, before.version) == ("one\ntwo\n", 1)
    assert (document.snapshot().text, document.snapshot().version) == ("two\n", 2)


def test_the_callers_values_are_left_as_they_were() -> None:
    given_changes = [Change(Position(5, 99), Position(0, 2), "x\r"), Change(None, None, "whole")]
    kept = copy.deepcopy(given_changes)
    opened("abc\ndef").apply(given_changes, 2)
    assert given_changes == kept


def test_marked_text_needs_exactly_one_mark() -> None:
    assert marked("a\nb|c").point == Point(1, 1)
    with pytest.raises(ValueError, match="exactly one"):
        marked("no mark")
