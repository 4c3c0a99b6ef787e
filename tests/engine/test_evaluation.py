"""Cases are fair, metrics mean what they say, and every system is asked by the same rules."""

from __future__ import annotations

import ast
import gzip
import importlib
import inspect
import json
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from dg_engine.api import Infill, ScoreRequest
from dg_engine.engine import Engine
from dg_engine.errors import EngineError
from dg_engine.evaluation.cases import DRAWN_KINDS, MAX_ANSWER, MIN_PREFIX, Case, beside, draw_cases
from dg_engine.evaluation.copying import copied
from dg_engine.evaluation.harness import count, run
from dg_engine.evaluation.humaneval import read_tasks
from dg_engine.evaluation.metrics import score
from dg_engine.evaluation.systems import LADDER_STEPS, RANKING_CHARACTERS, SYSTEMS, System, answer, chosen, ordered
from dg_engine.exclusion import Exclusions
from dg_engine.settings import InfillConfig
from dg_engine.testing import tiny_checkpoint
from dg_engine.training.sources import Document
from dg_lsp import neighbours

MODULES = ["calendar", "cmd", "copy", "glob", "heapq", "shlex", "textwrap"]


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    texts = {name: inspect.getsource(importlib.import_module(name)) for name in MODULES}
    return [Document(f"project-{len(name) % 3}", f"{name}.py", text) for name, text in texts.items()]


@pytest.fixture(scope="module")
def cases(documents: list[Document]) -> list[Case]:
    return draw_cases(documents, 30)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine.load(tiny_checkpoint(tmp_path_factory.mktemp("model")))


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
        behind = case.suffix.split("\n", 1)[0]
        assert case.in_line == (case.kind in {"line", "middle", "expression"})
        assert not (case.in_line and "\n" in case.answer)
        if case.kind == "line":
            assert not behind
        if case.kind == "middle":
            assert sum(map(str.isalnum, behind)) >= 2 or "__" in behind
        if case.kind == "lines":
            assert "\n" in case.answer
        if case.kind == "expression":
            ast.parse(f"({case.answer}\n)")
    assert len({case.project for case in cases}) == 3


def test_the_same_seed_draws_the_same_cases_and_fewer_are_among_more(
    documents: list[Document], cases: list[Case]
) -> None:
    assert draw_cases(documents, 30) == cases
    assert draw_cases(documents, 30, seed=1) != cases
    assert set(draw_cases(documents, 10)) < set(cases)
    assert len({case.name for case in cases}) == len(cases)


def test_a_case_knows_the_other_files_of_its_project_the_nearest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    text = inspect.getsource(importlib.import_module("textwrap"))
    paths = ["p/top.py", "p/a/near.py", "p/a/b/in.py", "p/c/d/far.py"]
    here, *others = [Document("p", "p/a/here.py", text), *(Document("p", path, f"# {path}\n") for path in paths)]
    before = draw_cases([*others, here], 3)
    assert {case.beside for case in before} == {tuple(f"# {paths[number]}\n" for number in (1, 2, 0, 3))}
    monkeypatch.setattr("dg_engine.evaluation.cases.BESIDE", 20)
    cut = draw_cases([*others, here], 3)
    assert {case.beside for case in cut} == {("# p/a/near.py\n", "# p/a/")}
    assert [case.name for case in cut] == [case.name for case in before]


def test_what_is_beside_a_case_is_what_the_server_would_look_through(tmp_path: Path) -> None:
    names = ["a/here.py", *(f"a/near_{number}.py" for number in range(45)), "b/here.py", "a/other.go"]
    here, *others = (Document("p", name, f"# {name}\n") for name in names)
    for document in (here, *others):
        (tmp_path / document.path).parent.mkdir(exist_ok=True)
        (tmp_path / document.path).write_text(document.text, encoding="utf-8")
    read = {one.text for one in neighbours.read(tmp_path / here.path, [tmp_path], Exclusions((tmp_path,)))}
    found = set(beside(here, [here, *others]))
    assert len(found) == len(read) == neighbours.FILES
    assert all("near" in text for text in found | read)


def test_what_was_copied_from_other_files_is_measured_anew_where_those_changed(engine: Engine) -> None:
    one, other = (msgspec.structs.replace(CASE, beside=(text,)) for text in ("total = 1\n", "total = 2\n"))
    for name, is_known in (("causal-fit", True), ("causal-fit-project", False)):
        systems = chosen([name], InfillConfig())
        (measured,) = run(engine, [one], systems)
        before = {measured.key: msgspec.structs.replace(measured, steps=-1)}
        assert [again.steps == -1 for again in run(engine, [one, other], systems, known=before)] == [True, is_known]


def test_a_system_may_copy_from_the_files_beside_the_hole() -> None:
    case = msgspec.structs.replace(CASE, prefix="x = compute_the_", beside=("y = compute_the_sum(1)\n",))
    found = {system.name: system.request(case, 5).copied for system in SYSTEMS if system.decoding != "copy"}
    told = {name for name, copy in found.items() if copy is not None}
    assert told == {"causal-fit-project", "causal-fit-choice"}
    assert found["causal-fit-project"].text == "sum(1)\n"  # type: ignore[union-attr]  # it was told


CASE = Case(
    project="p",
    path="p.py",
    kind="lines",
    prefix="def f(a):\n    ",
    answer="b = a + 1\n    return b",
    suffix="\n\n\ndef another(x):\n    return x\n",
)


def test_no_expression_is_cut_out_of_a_formatted_string() -> None:
    """Before Python 3.12 the parser puts what stands in one at places where it does not stand."""
    text = "".join(f'value_{n} = f"{{count_{n}:>{{width}}}} of {{len(names)}} in {{where}}"\n' for n in range(20))
    cases = draw_cases([Document("p", "p.py", text)], 30)
    answers = [case.answer for case in cases if case.kind == "expression"]
    assert answers
    assert all(answer.startswith(("value_", 'f"')) for answer in answers)


def test_the_truth_scores_full_marks_and_trailing_blanks_do_not_matter() -> None:
    for found in (CASE.answer, CASE.answer + "  "):
        scores = score(CASE, found, 9, 9)
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


@pytest.mark.parametrize(
    ("truth", "suffix", "answer", "exact"),
    [
        ("x = 1\n", "y = 2\n", "x = 1", 0),
        ("x = 1\n", "y = 2\n", "x = 1\n\n", 0),
        ("x = 1\n", "y = 2\n", "x = 1  \n", 1),
        ("if x:\n    ", "y = 2\n", "if x:\n", 0),
        ("either or ", "both", "either or", 0),
        ("f(x)", " + y\n", "f(x)", 1),
        ("x = 1", "\ny = 2\n", "x = 1  \n\n", 1),
        ("x = 1\n", "", "x = 1", 1),
        ("x = 1\n", "  \ny = 2\n", "x = 1", 1),
    ],
)
def test_a_break_counts_where_the_line_goes_on_behind_the_hole(
    truth: str, suffix: str, answer: str, exact: float
) -> None:
    case = msgspec.structs.replace(CASE, kind="random", prefix="", answer=truth, suffix=suffix)
    assert score(case, answer, 4, 5).exact == exact
    assert score(case, truth, 5, 5).exact == 1


def test_no_answer_is_no_right_first_line() -> None:
    case = msgspec.structs.replace(CASE, kind="random", prefix="x = 1", answer="\ny = 2\n", suffix="z = 3\n")
    for nothing in ("", " ", "\n"):
        found = score(case, nothing, 0, 5)
        assert (found.exact, found.first_line, found.empty) == (0, 0, 1)
    assert score(case, "\ny = 3", 4, 5).first_line == 1
    blank = msgspec.structs.replace(case, answer="\n")
    assert score(blank, "\n", 1, 1).first_line == score(blank, "", 0, 1).first_line == 1


def test_what_was_measured_is_judged_by_the_rules_of_today(engine: Engine, cases: list[Case]) -> None:
    case, systems = cases[0], chosen(["copy"], InfillConfig())
    (measured,) = run(engine, [case], systems)
    kept = measured.scores._replace(parses=0.0, length_error=7.0, passes=1.0)
    old = msgspec.structs.replace(measured, scores=kept._replace(exact=0.5, first_line=0.5, similarity=0.5))
    (again,) = run(engine, [case], systems, known={old.key: old})
    assert again == msgspec.structs.replace(measured, scores=kept)


def test_only_python_is_judged_by_whether_it_parses(documents: list[Document]) -> None:
    assert score(msgspec.structs.replace(CASE, path="p.go"), CASE.answer, 9, 9).parses is None
    text = "package main\n\n" + 40 * "func double(x int) int { return 2 * x }\n"
    kinds = Counter(case.kind for case in draw_cases([Document("go", "double.go", text)], 3))
    assert kinds["line"] == kinds["middle"] == kinds["lines"] == 3
    assert not kinds["expression"]


def test_a_given_length_is_the_only_thing_that_a_system_is_told() -> None:
    unknown, given = System(name="a", about=""), System(name="b", about="", length="given")
    assert given.request(CASE, 5) == msgspec.structs.replace(unknown.request(CASE, 5), max_new_tokens=5)
    request = unknown.request(CASE, 5)
    assert (request.prefix, request.suffix, request.extent) == (CASE.prefix, CASE.suffix, "block")
    line = msgspec.structs.replace(CASE, kind="line", answer="b = a + 1")
    assert unknown.request(line, 5).extent == "line"


def test_systems_are_chosen_by_name_and_a_wrong_name_is_told_the_right_ones() -> None:
    plain = InfillConfig()
    assert [one.name for one in chosen(["copy", "diffusion"], plain)] == ["copy", "diffusion"]
    steps = [one.max_denoising_steps for one in chosen(["copy"], plain, ladder=True)]
    assert steps == [None, *LADDER_STEPS]
    with pytest.raises(EngineError, match=r"^guess: is no system; there are .*causal.*diffusion"):
        chosen(["guess"], plain)


def test_what_a_checkpoint_does_by_itself_is_measured_first() -> None:
    assert chosen([], InfillConfig()) == SYSTEMS
    fitting = chosen([], InfillConfig(decoding="causal_fit"))
    assert fitting[0].name == "causal-fit"
    assert set(fitting) == set(SYSTEMS)


def test_ranking_takes_the_candidate_that_the_causal_twin_finds_likeliest_before_the_suffix(
    engine: Engine, cases: list[Case]
) -> None:
    (system,) = (one for one in SYSTEMS if one.name == "rerank")
    case = next(case for case in cases if case.kind == "lines")
    joint: dict[str, float] = {}
    for one in system.tries:
        *_, last = engine.infill(system.request(case, 9, 0, one))
        assert isinstance(last, Infill)
        suffix = case.suffix[:RANKING_CHARACTERS]
        of = engine.score(ScoreRequest(prefix=case.prefix, text=last.text, suffix=suffix, path=case.path))
        joint[last.text] = of.text + of.suffix
    assert len(joint) > 1
    assert answer(engine, system, case, 9).text == max(filter(None, joint), key=joint.__getitem__)


def test_of_several_answers_the_right_one_is_chosen_and_the_first_where_none_is(
    engine: Engine, cases: list[Case]
) -> None:
    (system,) = (one for one in SYSTEMS if one.others)
    case = next(case for case in cases if case.kind == "line")
    *_, last = engine.infill(system.request(case, 9))
    assert isinstance(last, Infill)
    assert last.others
    for text in (last.text, *last.others):
        assert answer(engine, system, msgspec.structs.replace(case, answer=text), 9).text == text
    assert answer(engine, system, case, 9).text == last.text != case.answer


def test_what_is_told_of_the_first_answer_is_not_told_of_another(engine: Engine, cases: list[Case]) -> None:
    (system,) = (one for one in SYSTEMS if one.others)
    case = next(case for case in cases if case.kind == "line")
    *_, last = engine.infill(system.request(case, 9))
    assert isinstance(last, Infill)
    found = answer(engine, system, msgspec.structs.replace(case, answer=last.others[0]), 9)
    assert (found.tokens, found.log_probability, found.heads) == (9, None, ())


def test_a_right_copy_has_no_error_of_length(engine: Engine) -> None:
    prefix, rest = "call(alpha, beta)\nx = 1\ncall(al", "pha, beta)"
    case = Case(project="p", path="p.py", kind="line", prefix=prefix, answer=rest, suffix="\n")
    (measured,) = run(engine, [case], chosen(["copy"], InfillConfig()))
    assert engine.heal(prefix, "copy").cut == "al"
    assert (measured.answer, measured.scores.length_error) == (rest, 0)


def test_copying_goes_on_as_the_best_match_did() -> None:
    prefix = "self.width = width\nself.height = height\nx = 1\nself.wid"
    line = Case(project="p", path="p.py", kind="line", prefix=prefix, answer="th = 2", suffix="\n")
    assert copied(line) == "th = width"
    block = msgspec.structs.replace(line, kind="lines", suffix="\nx = 1\nelse:\n")
    assert copied(block) == "th = width"
    meeting = msgspec.structs.replace(block, suffix="\nx = 1\nself.w")
    assert copied(meeting) == "th = width\nself.height = height"
    behind = msgspec.structs.replace(line, prefix="call(al", suffix="\ncall(alpha, beta)\n")
    assert copied(behind) == "pha, beta)"
    inside = msgspec.structs.replace(behind, suffix=", gamma)\ncall(alpha, beta)\ncall(alpha, gamma)\n")
    assert copied(inside) == "pha"
    assert not copied(msgspec.structs.replace(line, prefix="~", suffix=""))


def test_every_system_answers_every_case_and_only_sampling_is_repeated(engine: Engine, cases: list[Case]) -> None:
    some = [next(case for case in cases if case.kind == kind) for kind in ("line", "random")]
    systems = ordered(engine.config)
    outcomes = list(run(engine, some, systems, seeds=2))
    assert len(outcomes) == len({one.key for one in outcomes}) == count(some, systems, 2)
    answers = Counter(one.key.system for one in outcomes)
    assert answers == {one.name: len(some) * (2 if one.is_sampled else 1) for one in systems}
    assert answers["causal"] == answers["copy"] == len(some)
    assert {one.steps for one in outcomes if one.key.system == "diffusion-1"} == {1}
    assert {one.truth for one in outcomes} == {case.answer for case in some}
    prefixes = {case.answer: case.prefix for case in some}
    for one in outcomes:
        decoding = next(system.decoding for system in systems if system.name == one.key.system)
        again = engine.heal(prefixes[one.truth], decoding).cut + one.truth
        limit = len(engine.tokenizer.encode(again)) if one.key.system.endswith("-given") else 64
        assert one.tokens <= limit or one.key.system == "copy"


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


def write_tasks(path: Path, tasks: list[dict[str, str]]) -> Path:
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, tasks)).encode()))
    return path


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    return write_tasks(tmp_path / "tasks.jsonl.gz", TASKS)


def test_an_answer_to_humaneval_is_judged_by_running_it(tasks: Path) -> None:
    case = read_tasks(tasks)[0]
    assert (case.kind, case.project) == ("humaneval-random-span-light", "HumanEval/0")
    assert score(case, "2 * x", 3, 3).passes == 1
    assert score(case, "x + x", 3, 3).exact == 0
    assert score(case, "x + x", 3, 3).passes == 1
    assert score(case, "x", 1, 3).passes == 0
    assert score(CASE, CASE.answer, 9, 9).passes is None
    assert score(msgspec.structs.replace(case, suffix=""), "2 * x", 3, 3).passes == 1, (
        "the test begins on a line of its own"
    )


def test_a_part_of_the_tasks_is_always_the_same(tasks: Path) -> None:
    assert len(read_tasks(tasks)) == 5
    assert read_tasks(tasks, 2) == read_tasks(tasks, 2)
    assert len(read_tasks(tasks, 2)) == 2


def test_tasks_of_one_line_are_none_of_the_multi_line_set(tmp_path: Path) -> None:
    one = {**TASKS[0], "task_id": "MultiLineInfilling/HumanEval/0/L0_L0", "canonical_solution": "    x = 1\n"}
    two = {**one, "task_id": "MultiLineInfilling/HumanEval/0/L0_L1", "canonical_solution": "    x = 1\n    y = 2\n"}
    (case,) = read_tasks(write_tasks(tmp_path / "tasks.jsonl.gz", [one, two]))
    assert (case.answer, case.kind) == (two["canonical_solution"], "humaneval-multi-line")


def test_a_file_of_something_else_is_refused_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(f"\n{json.dumps(TASKS[0])}\n\n \n")
    assert len(read_tasks(path)) == 1, "blank lines are none"
    path.write_text(json.dumps(TASKS[0]) + '\n{"task_id": "x"}\n')
    with pytest.raises(EngineError, match=r"tasks\.jsonl, line 2: is no task"):
        read_tasks(path)
    path.write_text(json.dumps({**TASKS[0], "task_id": "SingleLineInfilling/HumanEval/0/L0"}))
    with pytest.raises(EngineError, match="line 1: is no task of MultiLineInfilling or RandomSpanInfillingLight"):
        read_tasks(path)
    path.write_text(json.dumps({**TASKS[0], "suffix": "\xff"}, ensure_ascii=False), encoding="latin-1")
    with pytest.raises(EngineError, match="line 1: is no task"):
        read_tasks(path)
    with pytest.raises(EngineError, match="absent"):
        read_tasks(tmp_path / "absent.jsonl.gz")
