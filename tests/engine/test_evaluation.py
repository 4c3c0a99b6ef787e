"""Cases are fair, metrics mean what they say, and one command judges a real checkpoint by every way of decoding."""

from __future__ import annotations

import ast
import gzip
import importlib
import inspect
import json
import math
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from dg_engine.engine import Engine
from dg_engine.errors import EngineError
from dg_engine.evaluation.cases import DRAWN_KINDS, MAX_ANSWER, MIN_PREFIX, Case, draw_cases
from dg_engine.evaluation.commands import evaluate
from dg_engine.evaluation.harness import SYSTEMS, System, run
from dg_engine.evaluation.humaneval import read_tasks
from dg_engine.evaluation.metrics import interval, score
from dg_engine.evaluation.report import summarise, to_markdown
from dg_engine.testing import tiny_checkpoint
from dg_engine.training.sources import Document

MODULES = ["calendar", "cmd", "copy", "glob", "heapq", "shlex", "textwrap"]


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    texts = {name: inspect.getsource(importlib.import_module(name)) for name in MODULES}
    return [Document(f"project-{len(name) % 3}", f"{name}.py", text) for name, text in texts.items()]


@pytest.fixture(scope="module")
def cases(documents: list[Document]) -> list[Case]:
    return draw_cases(documents, 30, seed=0)


def test_every_case_puts_a_file_back_together(documents: list[Document], cases: list[Case]) -> None:
    texts = {document.path: document.text for document in documents}
    assert Counter(case.kind for case in cases) == dict.fromkeys(DRAWN_KINDS, 30)
    for case in cases:
        assert case.prefix + case.answer + case.suffix == texts[case.path]
        assert case.answer.strip()
        assert len(case.answer) <= MAX_ANSWER
        assert len(case.prefix) >= MIN_PREFIX


def test_each_kind_is_cut_where_its_name_says(cases: list[Case]) -> None:
    for case in cases:
        if case.kind == "line":
            assert "\n" not in case.answer
            assert case.suffix.startswith("\n") or not case.suffix
        if case.kind == "lines":
            assert "\n" in case.answer
        if case.kind == "expression":
            ast.parse(f"({case.answer}\n)")
    assert len({case.project for case in cases}) == 3


def test_the_same_seed_draws_the_same_cases(documents: list[Document], cases: list[Case]) -> None:
    assert draw_cases(documents, 30, seed=0) == cases
    assert draw_cases(documents, 30, seed=1) != cases


CASE = Case(
    project="p",
    path="p.py",
    kind="lines",
    prefix="def f(a):\n    ",
    answer="b = a + 1\n    return b",
    suffix="\n\n\ndef another(x):\n    return x\n",
)


def test_the_truth_scores_full_marks_and_trailing_blanks_do_not_matter() -> None:
    for answer in (CASE.answer, CASE.answer + "  "):
        scores = score(CASE, answer, 9, 9)
        assert (scores.exact, scores.similarity, scores.first_line, scores.parses) == (1.0, 1.0, 1.0, 1.0)
        assert (scores.length_error, scores.empty, scores.repeats_suffix) == (0.0, 0.0, 0.0)


def test_wrong_answers_are_wrong_in_the_way_they_are() -> None:
    other = score(CASE, "b = a + 1\n    return a", 9, 9)
    assert (other.exact, other.first_line, other.parses) == (0.0, 1.0, 1.0)
    assert 0.9 < other.similarity < 1.0
    broken = score(CASE, "return (", 3, 9)
    assert (broken.parses, broken.length_error, broken.first_line) == (0.0, 6.0, 0.0)
    nothing = score(CASE, "", 0, 9)
    assert (nothing.empty, nothing.similarity) == (1.0, 0.0)
    repeating = score(CASE, "return a\n\n\ndef another(x):", 12, 9)
    assert repeating.repeats_suffix == 1.0


def test_the_interval_holds_the_mean_and_shrinks_with_the_cases() -> None:
    few, many = interval([0.0, 1.0] * 10), interval([0.0, 1.0] * 1000)
    assert few[0] < 0.5 < few[1]
    assert many[0] < 0.5 < many[1]
    assert many[1] - many[0] < few[1] - few[0]
    assert interval([1.0] * 5) == (1.0, 1.0)


def test_a_given_length_is_the_only_thing_that_the_systems_are_told() -> None:
    unknown, given = System(name="a").request(CASE, 5), System(name="b", length="given").request(CASE, 5)
    assert given == msgspec.structs.replace(unknown, max_new_tokens=5)
    assert unknown.prefix == CASE.prefix
    assert unknown.suffix == CASE.suffix
    assert unknown.extent == "block"
    line = msgspec.structs.replace(CASE, kind="line", answer="b = a + 1")
    assert System(name="a").request(line, 5).extent == "line"


def test_a_report_has_every_system_and_every_kind(tmp_path: Path, cases: list[Case]) -> None:
    engine = Engine.load(tiny_checkpoint(tmp_path))
    some = [next(case for case in cases if case.kind == kind) for kind in DRAWN_KINDS]
    outcomes = list(run(engine, some))
    assert len(outcomes) == len(some) * len(SYSTEMS)
    assert {outcome.system for outcome in outcomes} == {system.name for system in SYSTEMS}
    one_step = [outcome.steps for outcome in outcomes if outcome.system == "diffusion, 1 step"]
    assert one_step == [1] * len(some)
    summary = summarise(outcomes)
    assert list(summary) == ["all", *DRAWN_KINDS]
    assert summary["all"]["diffusion"]["cases"] == len(some)
    text = to_markdown(summary, engine.info, outcomes[:2])
    for heading in ("all", *DRAWN_KINDS):
        assert f"#### {heading} (" in text
    assert text.count("| causal, same weights |") == 1 + len(DRAWN_KINDS)


def test_the_command_writes_a_report_for_people_and_for_programs(tmp_path: Path, documents: list[Document]) -> None:
    corpus, model = tmp_path / "corpus", tiny_checkpoint(tmp_path / "model")
    corpus.mkdir()
    lines = b"".join(msgspec.json.encode(document) + b"\n" for document in documents)
    (corpus / "documents-held_out.jsonl").write_bytes(lines)
    arguments = ["--model", str(model), "--corpus", str(corpus), "--cases", "1"]
    done = CliRunner().invoke(evaluate, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert "Infill on held-out projects" in (model / "evaluation.md").read_text(encoding="utf-8")
    report = json.loads((model / "evaluation.json").read_text(encoding="utf-8"))
    assert report["cases"] == 4
    assert set(report["results"]["all"]) == {system.name for system in SYSTEMS}


TASKS = [
    {
        "task_id": f"RandomSpanInfillingLight/HumanEval/{number}/1",
        "entry_point": "double",
        "prompt": "def double(x):\n    return ",
        "suffix": "\n",
        "canonical_solution": "2 * x",
        "test": "def check(candidate):\n    assert candidate(3) == 6\n",
    }
    for number in range(5)
]


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    path = tmp_path / "tasks.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, TASKS)).encode()))
    return path


def test_an_answer_to_humaneval_is_judged_by_running_it(tasks: Path) -> None:
    case = read_tasks(tasks)[0]
    assert score(case, "2 * x", 3, 3).passes == 1
    assert score(case, "x + x", 3, 3)[:1] == (0.0,)
    assert score(case, "x + x", 3, 3).passes == 1
    assert score(case, "x", 1, 3).passes == 0
    assert math.isnan(score(CASE, CASE.answer, 9, 9).passes)


def test_a_part_of_the_tasks_is_the_same_for_the_same_seed(tasks: Path) -> None:
    assert len(read_tasks(tasks)) == 5
    assert read_tasks(tasks, 2, seed=1) == read_tasks(tasks, 2, seed=1)
    assert len(read_tasks(tasks, 2)) == 2


def test_a_file_of_something_else_is_refused_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(json.dumps(TASKS[0]) + '\n{"task_id": "x"}\n')
    with pytest.raises(EngineError, match=r"tasks\.jsonl, line 2: no task"):
        read_tasks(path)
