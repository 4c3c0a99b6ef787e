"""Every language of a corpus is known by its files' names, judged by its grammar, and cut where its syntax is."""

from __future__ import annotations

import numpy as np
import pytest

from dg_engine.testing import tiny_tokenizer
from dg_engine.training import syntax
from dg_engine.training.hygiene import text_fault
from dg_engine.training.languages import LANGUAGE_NAMES, grammar, language_of, language_of_headers
from dg_engine.training.selection import is_test, is_test_data
from dg_engine.training.syntax import KINDS, find_nodes

SOURCES = {
    "python": "# ∞\ndef greet(name):\n    if name:\n        print('hé', name)\n        return name\n\nx = max(1, 2)\n",
    "typescript": "export class A {\n  area(h: number): number {\n    print(this.w, h * 2);\n    return h;\n  }\n}\n",
    "tsx": 'const A = (h: number) => {\n  print(<b className="é">{h * 2}</b>, h);\n  return h;\n};\n',
    "javascript": "function area(h) {\n  print(`é`, h * 2);\n  return h;\n}\n",
    "go": "package a\n\nfunc area(h int) int {\n\t// é\n\tprint(h, h*2)\n\treturn h\n}\n",
    "rust": "fn area(h: i32) -> i32 {\n    print(h, h * 2);\n    return h;\n}\n",
    "java": "class A {\n    int area(int h) {\n        print(h, h * 2);\n        return h;\n    }\n}\n",
    "c": "int area(int h) {\n    print(h, h * 2);\n    return h;\n}\n",
    "cpp": "namespace a {\nint area(std::vector<int> h) {\n    print(h, h * 2);\n    return h;\n}\n}\n",
}
SPANS = {
    "python": {
        ("statement", "return name"),
        ("expression", "max(1, 2)"),
        ("arguments", "1, 2"),
        ("arguments", "'hé', name"),
        ("block", "print('hé', name)\n        return name"),
    },
    "typescript": {
        ("expression", "h * 2"),
        ("arguments", "this.w, h * 2"),
        ("statement", "return h;"),
        ("block", "print(this.w, h * 2);\n    return h;"),
    },
    "tsx": {("expression", '<b className="é">{h * 2}</b>'), ("statement", "return h;"), ("expression", "h * 2")},
    "javascript": {("expression", "h * 2"), ("arguments", "`é`, h * 2"), ("block", "print(`é`, h * 2);\n  return h;")},
    "go": {("expression", "h*2"), ("arguments", "h, h*2"), ("block", "print(h, h*2)\n\treturn h")},
    "rust": {("expression", "h * 2"), ("arguments", "h, h * 2"), ("block", "print(h, h * 2);\n    return h;")},
    "java": {("expression", "h * 2"), ("arguments", "h, h * 2"), ("statement", "return h;")},
    "c": {("expression", "h * 2"), ("arguments", "h, h * 2"), ("block", "print(h, h * 2);\n    return h;")},
    "cpp": {("expression", "h * 2"), ("arguments", "h, h * 2"), ("statement", "return h;")},
}


def spans(text: str, language: str) -> list[tuple[str, str]]:
    """The spans with one token a character, so that they are exactly what the grammar says."""
    nodes = find_nodes(text, np.arange(len(text)), language)
    return [
        (KINDS[kind], text[start : start + length])
        for start, length, kind in zip(nodes.start, nodes.length, nodes.kind, strict=True)
    ]


@pytest.mark.parametrize("language", LANGUAGE_NAMES)
def test_syntactic_spans_are_what_they_claim_to_be(language: str) -> None:
    found = spans(SOURCES[language], language)
    assert set(found) >= SPANS[language]
    assert all(span.strip() for _, span in found)


def test_what_is_declared_is_no_expression_and_comments_are_no_statements() -> None:
    found = spans("def area(height):\n    # why\n    width = height\n    return width\n", "python")
    expressions = [span for kind, span in found if kind == "expression"]
    assert sorted(expressions) == ["height", "width", "width"]
    assert not any("why" in span for kind, span in found if kind == "statement" and not span.startswith("def"))


def test_spans_grow_to_whole_tokens() -> None:
    text = SOURCES["python"]
    offsets = np.array(tiny_tokenizer(700).encode(text, add_special_tokens=False).offsets)
    nodes = find_nodes(text, offsets[:, 0])
    found = {text[offsets[start, 0] : offsets[start + length - 1, 1]] for start, length, _ in zip(*nodes, strict=True)}
    assert any("1, 2" in span for span in found)
    assert all(span in text and span.strip() for span in found)
    assert (np.diff(nodes.start) >= 0).all()


def test_every_node_type_exists_in_some_grammar() -> None:
    grammars = [grammar(language) for language in LANGUAGE_NAMES]
    tables = syntax.ARGUMENTS | syntax.BLOCKS | syntax.EXPRESSIONS | syntax.DECLARING
    assert [name for name in sorted(tables) if not any(one.id_for_node_kind(name, True) for one in grammars)] == []


@pytest.mark.parametrize("language", LANGUAGE_NAMES)
def test_a_broken_file_is_dropped_and_a_sound_one_is_not(language: str) -> None:
    sound = SOURCES[language] * (1 if language in ("go", "java") else 4)
    padding = ("# " if language == "python" else "// ") + "words that make the file long enough to be kept " * 2 + "\n"
    assert text_fault(sound + padding * 2, language) == ""
    assert text_fault(sound + padding * 2 + "((( }} ; if ] = = 'x\n" * 3, language) == "does not parse"


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("a/b.py", "python"),
        ("a.tsx", "tsx"),
        ("a.h", "c"),
        ("a.hpp", "cpp"),
        ("Main.java", "java"),
        ("a.txt", ""),
        ("go", ""),
    ],
)
def test_a_language_is_known_by_the_name_of_a_file(path: str, language: str) -> None:
    assert language_of(path) == language


def test_headers_are_of_the_language_of_most_sources_beside_them() -> None:
    assert language_of("a.h", language_of_headers(["a.h", "a.cc", "b.cpp", "c.c", "d.h"])) == "cpp"
    assert language_of("a.h", language_of_headers(["a.h", "a.c"])) == "c"
    assert language_of("a.c", "cpp") == "c"


@pytest.mark.parametrize(
    "path", ["tests/a.py", "src/test_a.py", "a_test.go", "a.spec.ts", "src/test/A.java", "ATest.java"]
)
def test_tests_are_known_by_their_place_and_name(path: str) -> None:
    assert is_test(path)
    assert not is_test("src/contest.py")


def test_data_is_test_data_below_tests_alone() -> None:
    assert is_test_data("tests/data/bad.py")
    assert is_test_data("parser/testdata/input.go")
    assert not is_test_data("torch/utils/data/sampler.py")
    assert not is_test_data("tests/test_data.py")
