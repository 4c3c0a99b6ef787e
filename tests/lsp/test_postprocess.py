"""From raw text to what is shown: each rule as text with its cursor, the engine's answer, and the text afterwards."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dg_lsp.document import Change, Point
from dg_lsp.planning import Plan, PlanningOptions, SelectedCompletion, Silence, plan
from dg_lsp.postprocess import Suggestion, distinct, suggest, without_scraps
from dg_lsp.repetition import without_repetition
from dg_lsp.syntax import Syntax, syntax_for
from dg_lsp.testing import Marked, marked


def planned(mark: Marked, syntax: Syntax | None, **arguments: Any) -> Plan:
    options = arguments.pop("options", PlanningOptions(mid_line="anywhere", min_characters=0))
    found = plan(mark.snapshot, syntax, mark.point, automatic=False, options=options, **arguments)
    assert isinstance(found, Plan), found
    return found


def suggested(source: str, raw: str, language_id: str = "python", *, parsed: bool = True) -> Suggestion | Silence:
    mark = marked(source, language_id)
    syntax = syntax_for(language_id, "") if parsed else None
    return suggest(planned(mark, syntax), raw, syntax)


def accepted(source: str, raw: str, language_id: str = "python", *, parsed: bool = True) -> str | Silence:
    """The document after the user took what was shown."""
    mark = marked(source, language_id)
    found = suggested(source, raw, language_id, parsed=parsed)
    if isinstance(found, Silence):
        return found
    snapshot = mark.snapshot
    change = Change(snapshot.position(found.start), snapshot.position(found.end), found.text)
    mark.document.apply([change], 2)
    return mark.snapshot.text


def check(source: str, raw: str, after: str, language_id: str = "python", *, parsed: bool = True) -> None:
    assert accepted(source, raw, language_id, parsed=parsed) == after


def check_silent(source: str, raw: str, reason: str, language_id: str = "python") -> None:
    found = suggested(source, raw, language_id)
    assert isinstance(found, Silence), found
    assert reason in found.reason


LINES = [
    ("x = |\n", "1 + 2", "x = 1 + 2\n"),
    ("x = |\n", "1 + 2\ny = 3\n", "x = 1 + 2\n"),
    ("x = |\n", " 1", "x = 1\n"),
    ("x =|\n", " 1  ", "x = 1\n"),
    ("x = |\r\n", "1\r\ny = 2", "x = 1\r\n"),
    ("call(a,|b)\n", " c, ", "call(a, c, b)\n"),
]


@pytest.mark.parametrize(("source", "raw", "after"), LINES)
def test_a_line_is_one_line_without_blanks_at_its_end(source: str, raw: str, after: str) -> None:
    check(source, raw, after)


BRACKETS = [
    ("foo(|)\n", "a, b)", "foo(a, b)\n"),
    ("foo(|)\n", "a, b", "foo(a, b)\n"),
    ("foo(|)\n", "bar()", "foo(bar())\n"),
    ("foo(|)\n", "bar())", "foo(bar())\n"),
    ("foo(|)\n", "a)[0]", "foo(a)[0]\n"),
    ("foo(|\n", "a, b)", "foo(a, b)\n"),
    ("foo(bar(|)\n", "a))", "foo(bar(a))\n"),
    ("foo(bar(|))\n", "a))", "foo(bar(a))\n"),
    ("foo(bar(|))\n", "a) + b)", "foo(bar(a) + b)\n"),
    ("def f(|):\n    pass\n", "a, b):", "def f(a, b):\n    pass\n"),
    ("x = a|\n", " + b)", "x = a + b\n"),
    ("x = [|]\n", "1, 2]", "x = [1, 2]\n"),
    ('x = "|"\n', 'hello"', 'x = "hello"\n'),
    ('print("|")\n', 'hello", end=x)', 'print("hello", end=x)\n'),
    ('print("|")\n', 'hello", x', 'print("hello")\n'),
    ('print("|\n', 'hello")', 'print("hello")\n'),
    ("x = {|}\n", "'(': 1}", "x = {'(': 1}\n"),
    ("foo(| + c)\n", "a + b + c)", "foo(a + b + c)\n"),
    ("foo(|) + c\n", "a) * 2", "foo(a) + c\n"),
    ("foo(\n    a,\n    |\n)\n", "b)", "foo(\n    a,\n    b\n)\n"),
]


@pytest.mark.parametrize(("source", "raw", "after"), BRACKETS)
def test_nothing_is_closed_twice(source: str, raw: str, after: str) -> None:
    check(source, raw, after)
    check(source, raw, after, parsed=False)


@pytest.mark.parametrize(
    ("source", "raw", "after"),
    [
        ("let x = |;\n", "f(1);", "let x = f(1);\n"),
        ("let x = f(|);\n", "1, 2);", "let x = f(1, 2);\n"),
        ("f(() => {|});\n", "\n  g();\n});", "f(() => {\n  g();\n});\n"),
        ("function f() {\n  |\n}\n", "return 1;\n}\n\nfunction g() {}\n", "function f() {\n  return 1;\n}\n"),
        ("function f() {|\n", "\n  return 1;\n}\n\nf();\n", "function f() {\n  return 1;\n}\n"),
        ("let x = `${|}`;\n", "a}`;", "let x = `${a}`;\n"),
    ],
)
def test_braces_are_closed_once_too(source: str, raw: str, after: str) -> None:
    check(source, raw, after, "javascript")


def test_a_brace_is_closed_where_the_known_rest_of_a_long_file_does_not() -> None:
    rest = "function g() {\n  return 2;\n}\n" * 100
    source = f"function f() {{\n  |\n\n{rest}"
    check(source, "return 1;\n}\n", f"function f() {{\n  return 1;\n}}\n\n{rest}", "javascript")


def test_a_bracket_of_a_line_far_above_is_left_to_the_unknown_rest_of_the_file() -> None:
    rest = "  g();\n" * 300 + "}\n"
    source = f"function f() {{\n  let x = |\n{rest}"
    check(source, "1; }", f"function f() {{\n  let x = 1;\n{rest}", "javascript")


def test_a_bracket_of_a_line_far_above_is_closed_where_the_known_rest_of_the_file_is_further_out() -> None:
    rest = "f();\n" * 300
    above = "  g();\n" * 20
    check(f"f(() => {{\n{above}  h(|\n{rest}", "1);\n});", f"f(() => {{\n{above}  h(1);\n{rest}", "javascript")
    check(f"f(() => {{\n{above}|\n{rest}", "});", f"f(() => {{\n{above}}});\n{rest}", "javascript")


def test_a_closer_at_the_beginning_of_a_line_closes_nothing_that_lies_deeper() -> None:
    source = "describe(() => {\n  it(() => {\n    f();\n  |\n});\n"
    check(source, "});", "describe(() => {\n  it(() => {\n    f();\n  });\n});\n", "javascript")


def test_what_is_closed_may_be_opened_again() -> None:
    """The rest of the file beyond what is known of it closes the block, whichever it is."""
    rest = "  g();\n" * 300
    above = "  h();\n" * 20
    check(f"if (a) {{\n{above}|\n{rest}", "} else {", f"if (a) {{\n{above}}} else {{\n{rest}", "javascript")
    assert isinstance(suggested("x = 1|\n", ") + f("), Silence)


def test_what_follows_the_cursor_closes_what_the_answer_opens_before_what_was_open() -> None:
    source = "f(() => {\n  g(`to ${|}`\n    b: 1,\n  });\n});\n"
    check(source, "a}`, {", "f(() => {\n  g(`to ${a}`, {\n    b: 1,\n  });\n});\n", "javascript")
    check("if (a) {\n  b();\n|\n  c();\n}\n", "} else {", "if (a) {\n  b();\n} else {\n  c();\n}\n", "javascript")


@pytest.mark.parametrize(
    ("language", "source", "raw", "after"),
    [
        ("python", 'raise E(f"not {a|}")\n', "b", 'raise E(f"not {ab}")\n'),
        ("python", 'raise E(f"not {|}")\n', "a}", 'raise E(f"not {a}")\n'),
        ("python", 'raise E(f"not {|}")\n', 'a}")', 'raise E(f"not {a}")\n'),
        ("python", 'raise E(f"not {|}")\n', 'a} here")', 'raise E(f"not {a} here")\n'),
        ("python", 'raise E(f"not {|}")\n', "f(a)[0]}", 'raise E(f"not {f(a)[0]}")\n'),
        ("python", 'raise E(f"not {f(|}")\n', "a)", 'raise E(f"not {f(a)}")\n'),
        ("python", 'raise E(f"not {f(|}"\n', 'a)}")', 'raise E(f"not {f(a)}")\n'),
        ("python", 'raise E(f"{a} not {|}")\n', "b} but {c", 'raise E(f"{a} not {b} but {c}")\n'),
        ("javascript", "f(`to ${|}`);\n", "a}`);", "f(`to ${a}`);\n"),
        ("javascript", "f(`to ${|}`);\n", "a}!`, b);", "f(`to ${a}!`, b);\n"),
        ("javascript", "f(`to ${a.|} and ${b}`);\n", "b}", "f(`to ${a.b} and ${b}`);\n"),
        ("javascript", "f(`\n  to ${|}\n`);\ng({\n});\n", "a(b)}", "f(`\n  to ${a(b)}\n`);\ng({\n});\n"),
        ("shellscript", 'x="$(ls "${a}" |)"\n', "-l)", 'x="$(ls "${a}" -l)"\n'),
        ("ruby", 'puts("#{|}")\n', 'a.map { |b| b }}")', 'puts("#{a.map { |b| b }}")\n'),
    ],
)
def test_code_within_a_string_is_fitted_as_code(language: str, source: str, raw: str, after: str) -> None:
    check(source, raw, after, language)


def test_code_within_a_string_that_does_not_end_yet_is_kept() -> None:
    check('raise E(f"not {|\n', 'a.b}")', 'raise E(f"not {a.b}")\n')
    check("f(`to ${|\n", "a.b}`);", "f(`to ${a.b}`);\n", "javascript")
    check('print(f"""\nto {|\n""")\n', "a.b}", 'print(f"""\nto {a.b}\n""")\n')


@pytest.mark.parametrize(
    ("language", "source", "raw", "after"),
    [
        ("c", "#include <|>\n", "stdio.h>", "#include <stdio.h>\n"),
        ("rust", "fn f(a: Vec<|>) {}\n", "Vec<u8>", "fn f(a: Vec<Vec<u8>>) {}\n"),
        ("rust", "fn f(a: Vec<|>) {}\n", "u8>", "fn f(a: Vec<u8>) {}\n"),
        ("html", "<div|>\n", ' class="a">', '<div class="a">\n'),
    ],
)
def test_an_angle_is_closed_once(language: str, source: str, raw: str, after: str) -> None:
    check(source, raw, after, language)


def test_the_first_of_the_closers_after_the_cursor_may_be_written_anew() -> None:
    check("foo(bar(|))\n", "a)[0](b)", "foo(bar(a)[0](b))\n")
    check("a.then(f(|));\n", "b), c", "a.then(f(b), c);\n", "javascript")
    check("a.then(f(|));\n", "b), c);", "a.then(f(b), c);\n", "javascript")


def test_another_string_further_on_does_not_end_the_one_at_the_cursor() -> None:
    check('f("a|, "b")\n', 'b"', 'f("ab", "b")\n')
    check('f("a|", "b")\n', 'b"', 'f("ab", "b")\n')


@pytest.mark.parametrize(
    ("language", "source", "raw", "after"),
    [
        ("python", "x = 1\n# see foo(|)\n", "bar)", "x = 1\n# see foo(bar)\n"),
        ("python", "x = 1\n# see foo(|)\n", "bar) for more", "x = 1\n# see foo(bar) for more\n"),
        ("python", "x = 1\n# see foo|\n", " (bar)", "x = 1\n# see foo (bar)\n"),
        ("python", "x = 1\n# see foo(|\n", "bar)", "x = 1\n# see foo(bar)\n"),
        ("python", 'def f():\n    """See (|)"""\n', "what)", 'def f():\n    """See (what)"""\n'),
        ("python", 'print("see foo (|)")\n', "bar)", 'print("see foo (bar)")\n'),
        ("python", 'print("see foo (|)")\n', "bar) twice", 'print("see foo (bar) twice")\n'),
        ("python", 'print("see foo (|)")\n', 'bar)", end="")', 'print("see foo (bar)", end="")\n'),
        ("javascript", "f(); // see foo(|)\n", "bar)", "f(); // see foo(bar)\n"),
    ],
)
def test_brackets_in_words_are_closed_once_too(language: str, source: str, raw: str, after: str) -> None:
    check(source, raw, after, language)


@pytest.mark.parametrize(
    ("language", "source", "raw", "after"),
    [
        ("rust", "struct A {\n    names: Vec<Str|>,\n}\n", "ing>,", "struct A {\n    names: Vec<String>,\n}\n"),
        (
            "typescript",
            "interface A {\n  names: Promise<str|>;\n}\n",
            "ing>;",
            "interface A {\n  names: Promise<string>;\n}\n",
        ),
        (
            "python",
            "x = [\n    {'a': |, 'b': 2},\n]\n",
            "1, 'b': 2},",
            "x = [\n    {'a': 1, 'b': 2},\n]\n",
        ),
    ],
)
def test_what_follows_the_cursor_is_left_out_as_far_as_the_answer_ends_like_it(
    language: str, source: str, raw: str, after: str
) -> None:
    check(source, raw, after, language)


@pytest.mark.parametrize(
    ("source", "raw", "after"),
    [
        ('#include <a.h>\n#define N "wor|"\n', 'ld"', '#include <a.h>\n#define N "world"\n'),
        ('#include <a.h>\n#define P(x) printf("|")\n', '%d", x)', '#include <a.h>\n#define P(x) printf("%d", x)\n'),
    ],
)
def test_strings_in_macros_are_ended_once(source: str, raw: str, after: str) -> None:
    check(source, raw, after, "c")


def test_a_string_below_a_long_docstring_is_ended_once() -> None:
    """The end of the docstring, of which the prefix holds no beginning, begins no string."""
    far = 'class A:\n    """About.\n\n' + "    It is a long story.\n" * 200 + '    """\n\n'
    source = far + "    def f(self, n):\n        raise ValueError('need a |')\n"
    check(source, "value')", source.replace("|", "value"))


def test_a_first_line_that_is_too_deep_loses_no_letter() -> None:
    """A tab counts four columns and is one character."""
    source = "package main\n\nfunc f(x int) int {\n\tif x > 1 {\n\t|\n\t}\n}\n"
    check(source, "\t\treturn 1", source.replace("\t|", "\t\treturn 1"), "go")
    check("class A:\n\tdef f(self):\n\t|\n", "\t\treturn a", "class A:\n\tdef f(self):\n\t\treturn a\n")


def test_at_the_beginning_of_a_line_a_whole_block_is_moved_to_where_it_belongs() -> None:
    above = "class A:\n    def f(self):\n        return 1\n\n"
    below = "\n\n    def g(self):\n        return 2\n"
    moved = "    def h(self):\n        return 3"
    check(f"{above}|{below}", "def h(self):\n    return 3\n", above + moved + below)
    check(f"{above}|{below}", "def h(self):\n        return 3\n", above + moved + below)
    check(f"{above}|{below}", "    def h(self):\n        return 3\n", above + moved + below)


def test_completions_that_differ_in_blanks_at_their_end_are_one() -> None:
    here = Point(0, 4)
    on, blank, off = (Suggestion(text, here, here) for text in ("on", "on ", "off"))
    assert distinct([on, blank, off, on]) == [on, off]
    assert distinct([blank, on]) == [blank]


@pytest.mark.parametrize(
    ("language", "source", "raw", "after"),
    [
        ("ruby", "def f\n  if a\n    b\n  end\n|\n", "end", "def f\n  if a\n    b\n  end\nend\n"),
        ("html", "<div>\n<div>\n</div>\n|\n", "</div>", "<div>\n<div>\n</div>\n</div>\n"),
    ],
)
def test_the_end_of_a_block_may_stand_below_another(language: str, source: str, raw: str, after: str) -> None:
    check(source, raw, after, language)


@pytest.mark.parametrize(
    ("language", "source", "raw", "after"),
    [
        ("lua", "local x = 'wor|'\n", "ld'", "local x = 'world'\n"),
        ("sql", "SELECT 'wor|'\n", "ld'", "SELECT 'world'\n"),
        ("zsh", "x='wor|'\n", "ld'", "x='world'\n"),
        ("kotlin", "f(1) // don't (\ng(|)\n", "1)", "f(1) // don't (\ng(1)\n"),
    ],
)
def test_quotes_and_comments_of_languages_without_a_grammar_are_known(
    language: str, source: str, raw: str, after: str
) -> None:
    check(source, raw, after, language)


def test_a_prefix_that_begins_inside_a_docstring_turns_nothing_inside_out() -> None:
    """Its end would be taken for the beginning of a string, and all code behind it for text."""
    far = '"""What it is.\n\n' + "It's a long story.\n" * 200 + '"""\n'
    body = "".join(f"def f{n}(self):\n    return {n}\n\n\n" for n in range(30))
    check(f"{far}{body}def g(self, n|)\n", "ame: str) -> str:", f"{far}{body}def g(self, name: str) -> str:\n")


def test_what_follows_the_cursor_is_reached_over_where_the_answer_ends_like_it() -> None:
    check('{"vers|"}\n', 'ion": "5.0.1"}', '{"version": "5.0.1"}\n', "json")


@pytest.mark.parametrize(
    ("language", "source", "raw", "after"),
    [
        ("javascript", "function f() {\n|\n}\n", "  return 1;", "function f() {\n  return 1;\n}\n"),
        ("markdown", "As follows:\n\n|\n", "```sh\nls\n```", "As follows:\n\n```sh\n"),
        ("python", "def f():\n|\n", "return 1", "def f():\n    return 1\n"),
        ("python", "def f():\n|\n", "    return 1", "def f():\n    return 1\n"),
    ],
)
def test_at_the_beginning_of_a_line_the_answer_brings_its_own_indentation(
    language: str, source: str, raw: str, after: str
) -> None:
    check(source, raw, after, language)


def test_closers_are_trimmed_where_they_end_the_answer_and_replaced_where_they_do_not() -> None:
    cursor = Point(0, 4)
    assert suggested("foo(|)\n", "a, b)") == Suggestion("a, b", cursor, cursor)
    assert suggested("foo(|)\n", "a)[0]") == Suggestion("a)[0]", cursor, Point(0, 5))


BLOCKS = [
    ("def f(a):|\n", "\n    return a\n\n\ndef g():\n    pass\n", "def f(a):\n    return a\n"),
    ("def f(a):\n    |\n", "b = a\n\n    return b\n\ndef g():\n", "def f(a):\n    b = a\n\n    return b\n"),
    ("def f(a):\n|\n", "    return a\n", "def f(a):\n    return a\n"),
    ("def f(a):\n    |\n", "    return a\n", "def f(a):\n    return a\n"),
    ("def f(a):\n    |\n", "\n    return a\n", "def f(a):\n    return a\n"),
    (
        "def f(a):\n    b = a\n    |\n",
        "c = b\n    d = c\n\n    e = d\n",
        "def f(a):\n    b = a\n    c = b\n    d = c\n",
    ),
    (
        "class A:\n    def f(self):\n        |\n",
        "return 1\n\n    def g(self):\n",
        "class A:\n    def f(self):\n        return 1\n",
    ),
    ("if a:\n    if b:\n        |\n", "c()\n    else:\n        d()\n", "if a:\n    if b:\n        c()\n"),
    ("def f(a):\n    |\n\nx = 1\n", "return a\nx = 1\n", "def f(a):\n    return a\n\nx = 1\n"),
    ("def f(a):\n    |\n    return b\n", "b = a\n    return b\n", "def f(a):\n    b = a\n    return b\n"),
]


@pytest.mark.parametrize(("source", "raw", "after"), BLOCKS)
def test_a_block_ends_where_its_indentation_does(source: str, raw: str, after: str) -> None:
    check(source, raw, after)
    check(source, raw, after, parsed=False)


def test_a_last_line_that_does_not_parse_is_left_out() -> None:
    check("def f(a):\n    |\n", "b = a\n    return b +", "def f(a):\n    b = a\n")
    check("def f(a):\n    |\n", "b = a\n    if b:", "def f(a):\n    b = a\n")


def test_a_first_line_is_kept_even_where_it_does_not_parse() -> None:
    check("def f(a):\n    |\n", "return (a +", "def f(a):\n    return (a +\n")


@pytest.mark.parametrize(
    ("language_id", "source", "raw", "after"),
    [
        ("go", "func f() int {\n|\n}\n", "\treturn 1\n}\n", "func f() int {\n\treturn 1\n}\n"),
        ("go", "func f() int {\n\t|\n}\n", "return 1\n}\n\nfunc g", "func f() int {\n\treturn 1\n}\n"),
        ("rust", "fn f() {\n    let v = vec![|];\n}\n", "1, 2];", "fn f() {\n    let v = vec![1, 2];\n}\n"),
        ("ruby", "def f(a)\n  |\nend\n", "a + 1\nend\n", "def f(a)\n  a + 1\nend\n"),
        ("shellscript", "if x; then\n  |\nfi\n", "echo x\nfi\n", "if x; then\n  echo x\nfi\n"),
        ("html", "<div>\n  |\n</div>\n", "<p>a</p>\n</div>\n", "<div>\n  <p>a</p>\n</div>\n"),
        ("css", "a {\n  |\n}\n", "color: red;\n}\n\nb {\n", "a {\n  color: red;\n}\n"),
        ("json", '{\n  "a": |\n}\n', "[1, 2]\n}\n", '{\n  "a": [1, 2]\n}\n'),
        ("c", 'int f() {\n  puts("|");\n}\n', 'a\\n");\n  return 0;', 'int f() {\n  puts("a\\n");\n}\n'),
    ],
)
def test_blocks_of_other_languages_end_too(language_id: str, source: str, raw: str, after: str) -> None:
    check(source, raw, after, language_id)


def test_an_answer_without_end_is_cut_to_a_readable_size() -> None:
    raw = "".join(f"value_{number} = {number}\n    " for number in range(100_000))
    found = suggested("def f(a):\n    |\n", raw)
    assert isinstance(found, Suggestion)
    assert 1000 < len(found.text) < 10_000


SILENT = [
    ("x = |\n", "", "nothing to add"),
    ("x = |\n", "  \n  ", "nothing to add"),
    ("x = 1|\n", "\ny = 2", "complete"),
    ("def f():\n    |\n    last = args[-1]\n", "last = args[-1", "repeats the line below"),
    ("def f():\n    g('a')\n    |\n", "g('a", "repeats the line above"),
    ("foo(|)\n", ")", "there already"),
    ("def f():\n    a = call()\n    |\n", "a = call()\n", "repeats the line above"),
    ("def f():\n    |\n    return total\n", "return total\n", "repeats the line below"),
]


@pytest.mark.parametrize(("source", "raw", "reason"), SILENT)
def test_what_adds_nothing_is_not_shown_and_the_reason_is_told(source: str, raw: str, reason: str) -> None:
    check_silent(source, raw, reason)


CLASS = "class Url:\n    @property\n    def user(self):\n        return self._user\n\n"
CHAIN = "    if kind == TAR:\n        x = 1\n    elif kind == ZIP:\n        x = 2\n    "
DECLARED = [
    ("python", CLASS + "    @property\n    def |\n", "user(self):"),
    ("python", CLASS + "    |\n", "def user(self):"),
    ("python", "class A:\n    def a(self): ...\n\n    def |\n\n    async def b(self): ...\n", "a(self, x):"),
    ("python", "from a import b\nimport os\n|\nx = 1\n", "from a import b"),
    ("python", f"def f(kind):\n{CHAIN}el|\n", "if kind == ZIP:"),
    ("python", "class A:\n    def __init__(self):\n        self.a = 1\n        self.b = 2\n        |\n", "self.a = 1"),
    ("go", "func (s *Set) Add(x int) {\n}\n\nfunc |\n", "(s *Set) Add(x int) {"),
    (
        "rust",
        "impl Set {\n    pub fn len(&self) -> usize {\n        0\n    }\n\n    |\n}\n",
        "pub fn len(&self) -> usize {",
    ),
    ("javascript", "function add(a, b) {\n  return a + b;\n}\n\nfunction |\n", "add(a, b) {"),
    ("c", '#include <a.h>\n#include "b.h"\n#include |\nint x;\n', "<a.h>"),
    ("java", "import a.B;\n|\nimport a.C;\n\nclass D {}\n", "import a.C;"),
    ("c", "int add(int a, int b) {\n    return a + b;\n}\n\nint |\n", "add(int a"),
    ("java", "class A {\n  public void testNull() {\n  }\n\n  public void test|\n}\n", "Null() {"),
    ("java", "class A {\n  static class B {}\n\n  |\n}\n", "static class B"),
    ("csharp", "class A\n{\n    public char ToChar(I provider)\n    {\n    }\n\n    |\n}\n", "public char ToChar(I"),
    ("csharp", "class A\n{\n    |\n\n    public void Read()\n    {\n    }\n}\n", "public void Read"),
    ("php", "<?php\nclass A\n{\n    public function a($b)\n    {\n    }\n\n    public |\n}\n", "function a"),
    ("json", '{\n  "a": {\n    "gray": "1",\n    "g|"\n  },\n  "b": {}\n}\n', 'ray": "'),
    ("json", '{\n  "a": 1,\n  |\n  "b": [\n    2\n  ],\n  "c": 3\n}\n', '"c": 4'),
    ("css", ".a {\n  |\n  height: 16px;\n  display: flex;\n}\n", "display: flex"),
    ("scss", ".a {\n  border-radius: 4px;\n  |\n  .b {\n    height: 1px;\n  }\n}\n", "border-radius:"),
    (
        "typescriptreact",
        "it(() => {\n  const angle = f();\n  |\n  const element = g();\n});\n",
        'const angle = UI.queryStatsProperty("',
    ),
    ("typescript", "export type Key = string;\n\nexport |\n", "type Key = number"),
]


@pytest.mark.parametrize(("language", "source", "raw"), DECLARED)
def test_what_a_block_says_already_it_does_not_say_again(language: str, source: str, raw: str) -> None:
    check_silent(source, raw, "repeats", language)


@pytest.mark.parametrize(
    ("language", "source", "raw"),
    [
        ("python", CLASS + "    @user.setter\n    def |\n", "user(self, user):"),
        ("python", CLASS + "class Path:\n    def |\n", "user(self):"),
        ("python", CLASS + "    def user|\n", "_of(self):"),
        ("python", CLASS + "    def user|\n", "(self):"),
        ("python", "class A:\n    @overload\n    def a(self): ...\n\n    @overload\n    def |\n", "a(self, x):"),
        ("python", f"def f(kind):\n{CHAIN}if kind == ZAR:\n        x = 0\n    el|\n", "if kind == ZIP:"),
        ("python", "def f():\n    x = 1\n    g(x)\n    x = 2\n    |\n", "g(x)"),
        ("python", "if TYPING:\n    from a import b\nelse:\n    |\n", "from a import b"),
        ("rust", "#[cfg(unix)]\nfn home() {}\n\n#[cfg(windows)]\nfn |\n", "home() {}"),
        ("java", "class A {\n    int f(int x) { return x; }\n\n    int |\n}\n", "f(long x) { return 0; }"),
        ("java", "class A {\n  public int f(int x) { return x; }\n\n  public int |\n}\n", "f(long x) {"),
        ("java", "class A {\n  public int f(int x) { return x; }\n\n  public |\n}\n", "int f("),
        ("java", "class A {\n  public int f(int x) { return x; }\n\n  public |\n}\n", "int f"),
        ("json", '[{\n  "a": 1\n}, {\n  "|"\n}]\n', 'a": 2'),
        ("json", '{\n  "a": {\n    "x": 1\n  },\n  "b": {\n    "|"\n  }\n}\n', 'x": 2'),
        ("json", '{\n  "a": [\n    "x",\n    "|"\n  ]\n}\n', "x"),
        ("scss", ".a {\n  height: 1px;\n  .b {\n    |\n  }\n}\n", "height: 2px;"),
        ("javascript", "if (a) {\n  const b = 1;\n} else {\n  |\n}\n", "const b = 2;"),
        ("css", "a:hover {\n  color: red;\n}\n\n|\n", "a:focus {"),
        ("c", "int add(int a, int b);\n\nint |\n", "add(int a, int b) {"),
        ("c", "int add(int a,\n        int b);\n\nint |\n", "add(int a,"),
        ("c", "void f(void) {\n    if (a)\n        return add(1);\n    b();\n    |\n}\n", "return add(1);"),
        ("c", "int f(int a) {\ncase A:\n    return add(1);\ncase B:\n    |\n}\n", "return add(1);"),
        ("sql", "select a\nfrom users\nwhere a;\n\nselect b\nfrom |\n", "users"),
        ("python", '"""See:\n\nimport os\nf()\n|\n"""\n', "import os"),
    ],
)
def test_what_may_stand_twice_is_shown(language: str, source: str, raw: str) -> None:
    assert isinstance(suggested(source, raw, language), Suggestion)


@pytest.mark.parametrize(
    ("source", "raw"),
    [
        ("    Goes on |\n    if the end of the input has not been reached.\n", "if the end of the input has not been"),
        ("import a.|\nimport a.BagOfPrimitives;\n", "BagOfPrimitives"),
    ],
)
def test_an_end_that_the_next_line_goes_on_with_is_not_shown(source: str, raw: str) -> None:
    check_silent(source, raw, "repeats the line below", "java")


FOLLOWED = [
    (
        "rust",
        "fn run() -> State {\n    for state in all() {\n        |\n            return state;\n        }\n    }\n}\n",
        "if state.is_quit() {\n            return state",
        "if state.is_quit() {",
    ),
    (
        "c",
        "int add(int a) {\n    int mode;\n    |\n    double score, newscore;\n    return a;\n}\n",
        "size_t len;\n    double score",
        "size_t len;",
    ),
    ("json", '{\n  "a": {\n    |\n    "b": ""\n  }\n}\n', '"c": "",\n    "', '"c": "",'),
]


@pytest.mark.parametrize(("language", "source", "raw", "shown"), FOLLOWED)
def test_the_beginning_of_the_line_that_follows_anyway_is_not_shown(
    language: str, source: str, raw: str, shown: str
) -> None:
    found = suggested(source, raw, language)
    assert isinstance(found, Suggestion)
    assert found.text == shown


def test_calls_that_begin_alike_may_follow_each_other() -> None:
    check(
        "    |\n    self.assertEqual(b, 2)\n",
        "self.assertEqual(a, 1",
        "    self.assertEqual(a, 1\n    self.assertEqual(b, 2)\n",
    )
    check("    |\n    self.assertEqual(b)\n", "self.assertEqual", "    self.assertEqual\n    self.assertEqual(b)\n")


@pytest.mark.parametrize(
    ("texts", "kept"),
    [
        ([":", "x"], ["x"]),
        ([")", " + 1"], [" + 1"]),
        ([":", ")"], [":", ")"]),
        (["()", "x"], ["()", "x"]),
        (["f(a, b", "x"], ["f(a, b", "x"]),
    ],
)
def test_by_hand_a_bracket_out_of_place_is_not_shown_beside_something_better(texts: list[str], kept: list[str]) -> None:
    mark, syntax = (
        marked("def f(a) -> int:|\n    return g\n" if ":" in texts else "x = g|\n", "python"),
        syntax_for("python", ""),
    )
    plan = planned(mark, syntax)
    suggestions = [Suggestion(text, plan.point, plan.point) for text in texts]
    assert [one.text for one in without_scraps(plan, suggestions, syntax)] == kept


REPETITIONS = [
    ("a, b, " * 12, "a, b,"),
    ("x = [" + "0, " * 40, "x = [0,"),
    ("return value\n" * 5, "return value"),
    ("haha", "haha"),
    ("# " + "-" * 70, "# " + "-" * 70),
    ("f(a)(a)(a)", "f(a)(a)(a)"),
    ("a\n    b\n    c", "a\n    b\n    c"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "kept"), REPETITIONS)
def test_of_a_repetition_one_unit_stays(text: str, kept: str) -> None:
    assert without_repetition(text).rstrip() == kept


def test_the_selected_completion_is_extended_over_its_own_range() -> None:
    mark = marked("value = os.pa|\n")
    syntax = syntax_for("python", "")
    selected = SelectedCompletion(Point(0, 11), Point(0, 13), "path")
    found = suggest(planned(mark, syntax, selected=selected), ".join(a)\nb", syntax)
    assert found == Suggestion("path.join(a)", Point(0, 11), Point(0, 13))


def test_an_answer_is_judged_by_the_text_that_was_asked_about() -> None:
    mark = marked("def f(a):\n    |\n")
    syntax = syntax_for("python", "")
    asked = planned(mark, syntax)
    mark.document.apply([Change(None, None, "something(else")], 2)
    planned(mark._replace(point=Point(0, 3)), syntax)
    assert suggest(asked, "return a\n\nx = 1", syntax) == Suggestion("return a", asked.point, asked.point)


pieces = st.sampled_from(
    [
        "a",
        " ",
        "\n",
        "\n    ",
        "\r\n",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        '"',
        "'",
        ":",
        ",",
        "#",
        "def f():",
        "return",
        "é😀",
    ]
)
texts = st.lists(pieces, max_size=12).map("".join)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["python", "javascript", "unheard-of"]), texts, texts, texts)
def test_whatever_comes_the_range_is_on_one_row_and_holds_the_cursor(
    language_id: str, before: str, after: str, raw: str
) -> None:
    mark = marked(f"{before}|{after}".replace("|", "", before.count("|")), language_id)
    syntax = syntax_for(language_id, "")
    found = suggest(planned(mark, syntax), raw, syntax)
    if isinstance(found, Silence):
        assert found.reason
        return
    assert found.start.row == found.end.row == mark.point.row
    assert found.start <= mark.point <= found.end
    assert found.end.column <= len(mark.snapshot.lines[mark.point.row].rstrip("\r\n"))
    assert "\r" not in found.text
    assert found.text.strip()
