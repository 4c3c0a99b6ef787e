"""What the syntax tree says at a point, kept up to date edit by edit."""

from __future__ import annotations

from importlib import import_module

import pytest
import tree_sitter
from hypothesis import given, settings
from hypothesis import strategies as st

from dg_lsp import syntax as syntax_module
from dg_lsp.document import Change, Document, Point, Position
from dg_lsp.languages import LANGUAGES, PLAIN, Language, language_of
from dg_lsp.nodes import BLOCKS, COMMENTS, FUNCTIONS, INTERPOLATIONS, LITERALS, STRINGS, UNPARSED
from dg_lsp.syntax import Place, Syntax, Trial, syntax_for
from dg_lsp.testing import marked
from dg_lsp.window import AFTER, BEFORE

PARSED = [language for language in LANGUAGES if language.module]


def syntax_of(language_id: str) -> Syntax:
    found = syntax_for(language_id, "")
    assert found is not None
    return found


def node_kinds(language: Language) -> set[str | None]:
    grammar = tree_sitter.Language(getattr(import_module(language.module), language.function)())
    return {grammar.node_kind_for_id(index) for index in range(grammar.node_kind_count)}


@pytest.mark.parametrize("language", PARSED, ids=lambda language: language.ids[0])
def test_every_grammar_in_the_table_loads_and_parses(language: Language) -> None:
    mark = marked("a|\n", language.ids[0])
    assert not syntax_of(language.ids[0]).place(mark.snapshot, mark.point).in_comment
    assert syntax_for("", f"x{language.suffixes[0]}") is not None


def test_every_node_type_in_the_tables_exists_in_some_grammar() -> None:
    known = set[str | None]().union(*map(node_kinds, PARSED))
    assert (BLOCKS | COMMENTS | FUNCTIONS | INTERPOLATIONS | LITERALS | STRINGS | UNPARSED) - known == set()


def test_a_language_is_found_by_identifier_then_by_suffix() -> None:
    assert language_of("python", "x.rs").ids == ("python",)
    assert language_of("unheard-of", "/a/x.RS").ids == ("rust",)
    assert language_of("", "file:///a%20b/x.py?version=2").ids == ("python",)
    assert language_of("unheard-of", "Makefile") is PLAIN


def test_a_language_without_a_grammar_has_no_syntax() -> None:
    assert syntax_for("unheard-of", "notes.txt") is None


def test_a_grammar_that_does_not_load_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Language(ids=("absent",), module="tree_sitter_that_is_not_installed")
    hollow = Language(ids=("hollow",), module="dg_lsp", function="language")
    for broken in (absent, hollow):
        monkeypatch.setattr(syntax_module, "language_of", lambda *_, found=broken: found)
        assert syntax_module.syntax_for("any", "") is None


@pytest.mark.parametrize(
    ("language_id", "source", "in_comment", "in_string"),
    [
        ("python", "x = 1  # no|te", True, False),
        ("python", "x = 1  # note|", True, False),
        ("python", "x = 1|  # note", False, False),
        ("python", 'x = "a|b"', False, True),
        ("python", 'x = "ab"|', False, False),
        ("python", 'x = |"ab"', False, False),
        ("python", 'x = f"a{b|}c"', False, False),
        ("python", 'def f():\n    """one\n    two|\n    """\n', False, True),
        ("javascript", "let x = `a ${b|} c`", False, False),
        ("javascript", "let x = `a| ${b} c`", False, True),
        ("javascript", "f(/* a| */)", True, False),
        ("javascript", "f(/* a */|)", False, False),
        ("go", "package a\n// b|", True, False),
        ("rust", 'fn f() { g("a|"); }', False, True),
        ("rust", "// one|\nfn f() {}", True, False),
        ("java", 'class A { String s = "a|"; }', False, True),
        ("c", "/* a| */ int b;", True, False),
        ("cpp", 'auto s = R"(a|)";', False, True),
        ("csharp", 'class A { string s = "a|"; }', False, True),
        ("ruby", 'x = "a#{b|}c"', False, False),
        ("php", "<?php $x = 'a|';", False, True),
        ("shellscript", 'echo "a|b"', False, True),
        ("json", '{"a|": 1}', False, True),
        ("html", "<!-- a| -->", True, False),
        ("css", "a { /* b| */ }", True, False),
        ("typescript", "const a: string = 'x|';", False, True),
        ("typescriptreact", "const a = <b c='d|' />;", False, True),
    ],
)
def test_comments_and_strings_are_known(language_id: str, source: str, in_comment: bool, in_string: bool) -> None:
    mark = marked(source, language_id)
    place = syntax_of(language_id).place(mark.snapshot, mark.point)
    assert (place.in_comment, place.in_string) == (in_comment, in_string)


@pytest.mark.parametrize(
    ("language_id", "source", "opens"),
    [
        ("python", "def f(a):|", True),
        ("python", "if a:|\n    pass", True),
        ("python", "x = {1:|", True),  # the tree cannot tell yet; the caller asks the line too
        ("python", "x = {1:| 2}", False),
        ("python", "x = a[1:|2]", False),
        ("python", "f = lambda:| 3", False),
        ("javascript", "function f() {|", True),
        ("javascript", "function f() {|}", True),
        ("javascript", "const x = {| a: 1 };", False),
        ("javascript", 'const x = "a {|"', False),
        ("c", "int a[] = {|1};", False),
    ],
)
def test_a_block_opener_is_told_from_a_literal(language_id: str, source: str, opens: bool) -> None:
    mark = marked(source, language_id)
    assert syntax_of(language_id).opens_block(mark.snapshot, mark.point) is opens


@pytest.mark.parametrize(
    ("source", "inside"), [("def f():\n    x = 1|\n", True), ("x = 1|\n", False), ("class A:\n    x = 1|", False)]
)
def test_a_function_is_known_from_within(source: str, inside: bool) -> None:
    mark = marked(source)
    assert syntax_of("python").in_function(mark.snapshot, mark.point) is inside


def test_a_function_that_begins_above_the_window_is_known_by_its_indentation() -> None:
    mark = marked("def f():\n" + "    x = 1\n" * 2000 + "    y = 2|\n" + "    x = 1\n" * 500 + "z = 3\n" * 2000)
    syntax = syntax_of("python")
    assert syntax.in_function(mark.snapshot, mark.point)
    assert syntax.window is not None
    assert syntax.window.first > 0
    assert not syntax.in_function(mark.snapshot, Point(4000, 5))


def trial(source: str, text: str, language_id: str = "python") -> Trial:
    mark = marked(source, language_id)
    found = syntax_of(language_id).trial(mark.snapshot, mark.point, mark.point, text)
    assert found is not None
    return found


def test_a_text_that_fits_brings_no_new_errors() -> None:
    assert trial("x = |\ny = 2\n", "1 + 1").new_errors <= 0
    assert trial("x = 3|\ny = 2\n", " + * )").new_errors > 0


def test_the_first_error_is_counted_in_characters_of_the_text() -> None:
    found = trial("x = |\n", "'é😀' + 1\ny = )")
    assert found.first_error is not None
    assert found.first_error >= len("'é😀' + 1\n")


def test_the_end_of_the_block_is_found_within_the_text() -> None:
    body = "return a\n"
    found = trial("def f(a):\n    |\n", f"{body}\n\ndef g(b):\n    pass\n")
    assert found.block_end is not None
    assert body.rstrip() == (body + "\n\n")[: found.block_end].rstrip()
    assert trial("def f(a):\n    |\n", body.rstrip()).block_end is None


def test_a_braced_block_ends_with_its_brace() -> None:
    body = "\n  return 1;\n}"
    assert trial("function f() {|", f"{body}\nfunction g() {{\n", "javascript").block_end == len(body)


words = st.sampled_from(["x", " = ", "1", "\n", "\n    ", "def f():", "(", ")", '"', "# é", "😀", "return x", "\ud83d"])


@settings(max_examples=120, deadline=None)
@given(st.lists(words, max_size=12).map("".join), st.lists(st.tuples(st.integers(0, 40), words, st.integers(0, 3))))
def test_the_tree_kept_by_edits_answers_as_a_new_one(text: str, edits: list[tuple[int, str, int]]) -> None:
    document = Document("file:///a.py", "python", 1, text, "utf-32")
    kept = syntax_of("python")
    for version, (at, word, deleted) in enumerate(edits, start=2):
        start = Position(at // 8, at % 8)
        document.apply([Change(start, Position(start.line, start.character + deleted), word)], version)
        snapshot = document.snapshot()
        point = snapshot.point(start)
        old, new = kept.place(snapshot, point), syntax_of("python").place(snapshot, point)
        # tree-sitter's recovery from errors depends on the tree before; only sound text has one tree.
        assert old == new or old.broken or new.broken


def test_bytes_that_are_not_text_do_not_stop_the_parser() -> None:
    mark = marked("x = '\ud83d|\udfff'\n# \udc00\n")
    assert syntax_of("python").place(mark.snapshot, mark.point).in_string


def test_only_a_window_of_a_large_file_is_parsed_and_it_moves_with_the_cursor() -> None:
    block = "def f(a):\n    return 'b'  # c\n\n\n"
    text = block * 40_000
    document = Document("file:///a.py", "python", 1, text, "utf-16")
    syntax = syntax_of("python")
    for row in (0, 80_001, 80_005, 159_997):
        at = document.snapshot().point(Position(row, 0))
        row_in_block = at.row % 4
        place = syntax.place(document.snapshot(), Point(at.row, 13 if row_in_block == 1 else 0))
        assert place.in_string == (row_in_block == 1)
        window = syntax.window
        assert window is not None
        assert len(window.source(document.snapshot().lines)) <= 2 * (BEFORE + AFTER)
    document.apply([Change(Position(0, 0), Position(0, 0), "x = 1\n" * 5)], 2)
    assert syntax.place(document.snapshot(), Point(80_006, 13)).in_string


def test_the_window_grows_with_the_text_in_it() -> None:
    document = Document("file:///a.py", "python", 1, "x = 1\n" * 200, "utf-16")
    syntax = syntax_of("python")
    for version in range(2, 6):
        document.apply([Change(Position(60, 0), Position(60, 0), "y = 2\n")], version)
        lines = document.snapshot().lines
        syntax.place(document.snapshot(), Point(60, 0))
        assert syntax.window is not None
        assert (syntax.window.first, syntax.window.last) == (0, len(lines))


def test_a_giant_line_is_not_parsed() -> None:
    mark = marked("x = '" + "a" * 200_000 + "|'\n")
    syntax = syntax_of("python")
    assert not syntax.place(mark.snapshot, mark.point).in_string
    assert syntax.trial(mark.snapshot, mark.point, mark.point, "b") is None


def test_deep_nesting_is_no_trouble() -> None:
    mark = marked("x = " + "[" * 6000 + "|")
    assert not syntax_of("python").place(mark.snapshot, mark.point).in_string
    assert syntax_of("python").trial(mark.snapshot, mark.point, mark.point, "]" * 10) is not None


def test_a_window_that_would_begin_inside_a_docstring_begins_behind_it() -> None:
    prose = '"""' + "Some words, it's said, about the module: they aren't code.\n" * 200 + '"""\n'
    code = "".join(f"constant_{number} = {number}\n" for number in range(40))
    at = marked(prose + code + "\n\nvalue = |\n\n\ndef f():\n    '''It's prose.'''\n    return 1\n" + "x = 1\n" * 2000)
    syntax = syntax_of("python")
    assert syntax.place(at.snapshot, at.point) == Place()
    assert syntax.window is not None
    assert 200 < syntax.window.first < 210
