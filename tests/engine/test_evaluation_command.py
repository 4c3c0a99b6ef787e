"""One command measures a real checkpoint, goes on where it was killed, and guards the model that ships."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sysconfig
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from click.testing import CliRunner, Result

from dg_engine import adapters, bench
from dg_engine.adapters import Adapter, Factors
from dg_engine.cli import main
from dg_engine.engine import Engine
from dg_engine.errors import EngineError
from dg_engine.evaluation import commands, gate
from dg_engine.evaluation.cases import DRAWN_KINDS
from dg_engine.evaluation.harness import Key, Outcome
from dg_engine.evaluation.ledger import Ledger, run_name
from dg_engine.evaluation.metrics import Scores
from dg_engine.paths import shipped_model
from dg_engine.testing import tiny_checkpoint
from dg_engine.training.card import weights_digest
from dg_engine.training.corpus import Manifest, ProjectRecord, project_file, write_json
from dg_engine.training.sources import Document

MODULES = ["calendar", "cmd", "copy", "heapq"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four projects of one file each."""
    directory = tmp_path_factory.mktemp("corpus")
    records = []
    for name in MODULES:
        document = Document(name, f"{name}.py", inspect.getsource(importlib.import_module(name)))
        line = msgspec.json.encode(document) + b"\n"
        path = project_file(directory, "held_out", name, ".jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(line)
        digest = sha256(line).hexdigest()
        about: dict[str, Any] = {"name": name, "version": "3", "licence": "PSF-2.0", "dropped": {}, "sha256": digest}
        records.append(ProjectRecord(split="held_out", files=1, bytes=len(document.text), **about))
    write_json(directory / "manifest.json", Manifest(settings={}, projects=records, refused=[]))
    return directory


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny")


def evaluate(directory: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["evaluate", "--ledger", str(directory / "ledger.jsonl"), *map(str, arguments)])


def lines_of(directory: Path) -> list[bytes]:
    return (directory / "ledger.jsonl").read_bytes().splitlines(keepends=True)


def test_what_computes_may_be_chosen_and_is_told(
    tmp_path: Path, corpus: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two threads wait for each other where another program has one of two cores.
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    common = ["--model", str(model), "--corpus", str(corpus), "--cases", "1", "--systems", "copy"]
    common += ["--device", "cpu", "--threads", "2"]
    for dtype in ("bfloat16", "float32"):
        done = evaluate(tmp_path, *common, "--output", str(tmp_path / dtype), "--dtype", dtype)
        assert done.exit_code == 0, done.output
        text = (tmp_path / dtype / "evaluation.md").read_text(encoding="utf-8")
        assert f"{dtype} on cpu" in text
        assert f"--systems copy --device cpu --threads 2 --dtype {dtype}`" in text
    runs = {json.loads(line)["run"] for line in lines_of(tmp_path)}
    assert len(runs) == 2, "what was measured in one is not taken for the other"


def test_it_writes_a_report_for_people_and_for_programs(tmp_path: Path, corpus: Path, model: Path) -> None:
    common = ["--model", str(model), "--corpus", str(corpus), "--output", str(tmp_path / "out")]
    done = evaluate(tmp_path, *common, "--cases", "1", "--systems", "diffusion,copy", "--ladder")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "out" / "evaluation.md").read_text(encoding="utf-8")
    for kind in ("all", *DRAWN_KINDS):
        assert f"#### {kind}: " in text
    assert "#### Differences" in text
    assert "#### Calibration" in text
    pictures = re.findall(r"!\[.*\]\((.*)\)", text)
    assert {"evaluation-steps.png", "evaluation-milliseconds.png"} <= set(pictures)
    assert all((tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    names = ["diffusion", "copy", *(f"diffusion-{steps}" for steps in (1, 2, 4, 8, 12))]
    assert list(found["groups"]["all"]["systems"]) == names
    assert found["groups"]["all"]["cases"] == len(DRAWN_KINDS)
    assert found["groups"]["all"]["systems"]["diffusion-1"]["steps"] == [1, 1, 1]
    assert found["model"]["path"] == model.name
    assert len(lines_of(tmp_path)) == len(DRAWN_KINDS) * len(names)
    program, subcommand, *options = found["command"].split()
    assert (program, subcommand) == ("dg-engine", "evaluate")
    assert f"`{found['command']}`" in text
    assert evaluate(tmp_path, *common, *options).exit_code == 0
    assert (tmp_path / "out" / "evaluation.md").read_text(encoding="utf-8") == text


def test_a_killed_run_goes_on_where_it_was(
    tmp_path: Path, corpus: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ["--model", str(model), "--corpus", str(corpus), "--output", str(tmp_path), "--cases", "1"]
    systems = ["--systems", "diffusion,copy"]

    def interrupted(outcomes: Iterator[Outcome], total: int, what: str) -> Iterator[Outcome]:
        for _ in range(5):
            yield next(outcomes)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(commands, "_watched", interrupted)
        stopped = evaluate(tmp_path, *common, *systems)
    assert stopped.exit_code == 1
    assert "the same command continues" in stopped.output
    kept = lines_of(tmp_path)
    assert len(kept) == 5
    assert not (tmp_path / "evaluation.md").exists()
    with (tmp_path / "ledger.jsonl").open("ab") as file:
        file.write(kept[0][:40])  # as a machine that loses power leaves it
    assert evaluate(tmp_path, *common, *systems).exit_code == 0
    lines = lines_of(tmp_path)
    assert lines[:5] == kept
    assert len(lines) == 2 * len(DRAWN_KINDS)
    report = (tmp_path / "evaluation.md").read_bytes()
    assert evaluate(tmp_path, *common, *systems).exit_code == 0
    assert lines_of(tmp_path) == lines
    assert (tmp_path / "evaluation.md").read_bytes() == report


def test_another_model_is_measured_anew_beside_the_first(tmp_path: Path, model: Path) -> None:
    other = Engine.load(tiny_checkpoint(tmp_path / "other", seed=1))
    first = Engine.load(model)
    names = {run_name(first), run_name(other), run_name(Engine.load(model))}
    assert len(names) == 2


def test_what_was_measured_on_another_machine_is_measured_anew(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine.load(model)
    here = run_name(engine)
    monkeypatch.setattr(bench, "_cpuinfo", lambda: ["model name\t: another processor"])
    assert "another processor" in bench.machine()
    assert run_name(engine) != here


def test_a_task_in_two_files_is_one_case(tmp_path: Path, model: Path) -> None:
    files = []
    for name, numbers in (("some", (0, 1, 2)), ("fewer", (0,))):
        tasks = [{**TASK, "task_id": f"RandomSpanInfillingLight/HumanEval/{number}/1"} for number in numbers]
        (tmp_path / name).write_text("\n".join(map(json.dumps, tasks)), encoding="utf-8")
        files += ["--humaneval", str(tmp_path / name)]
    done = evaluate(
        tmp_path, "--cases", "0", *files, "--systems", "copy", "--model", str(model), "--output", str(tmp_path)
    )
    assert done.exit_code == 0, done.output
    assert "(3 cases of 3 projects)" in done.output


TASK = {
    "task_id": "",
    "entry_point": "double",
    "prompt": "def double(x):\n    return ",
    "suffix": "\n",
    "canonical_solution": "2 * x",
    "test": "def check(candidate):\n    assert candidate(3) == 6\n",
}


def test_a_calibration_is_judged_by_the_decoding_alone_that_is_rated_by_it(tmp_path: Path, corpus: Path) -> None:
    directory = tiny_checkpoint(tmp_path / "model")
    file = directory / "infill_config.json"
    rated = {"decoding": "causal_fit", "calibration": {"bias": 0.5, "mean": 1.0, "odds": 0.1}}
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | rated), encoding="utf-8")
    common = ["--model", str(directory), "--corpus", str(corpus), "--cases", "1"]
    for system, is_rated in (("causal-fit", True), ("diffusion", False)):
        done = evaluate(tmp_path, *common, "--output", str(tmp_path / system), "--systems", system)
        assert done.exit_code == 0, done.output
        found = json.loads((tmp_path / system / "evaluation.json").read_text(encoding="utf-8"))
        assert found["is_the_checkpoints"] is is_rated


def test_only_the_files_that_are_the_adapter_say_which_it_is(tmp_path: Path, model: Path) -> None:
    base = Engine.load(model).model

    def saved(value: float) -> Path:
        name = next(iter(adapters.adaptable(base)))
        out, inner = adapters.adaptable(base)[name].shape
        factors = Factors(torch.full((2, inner), value), torch.ones(out, 2))
        directory = tmp_path / str(value)
        adapters.save(Adapter(rank=2, alpha=2.0, factors={name: factors}), directory, model)
        return directory

    def named(directory: Path) -> str:
        return run_name(Engine.load(model, adapter=directory))

    one, other = saved(0.1), saved(0.2)
    name = named(one)
    (one / "run").mkdir()
    (one / "finetune.json").write_text("{}")
    assert named(one) == name, "a fine-tuning goes on in there"
    assert named(other) != name
    assert run_name(Engine.load(model)) != name


def test_an_adapter_is_reported_on_beside_it_and_leaves_the_models_own_report(tmp_path: Path, corpus: Path) -> None:
    model, adapter = tiny_checkpoint(tmp_path / "model"), tmp_path / "adapter"
    common = ["--corpus", str(corpus), "--cases", "1", "--systems", "copy", "--model", str(model)]
    assert evaluate(tmp_path, *common).exit_code == 0
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    name, weight = next(iter(adapters.adaptable(Engine.load(model).model).items()))
    factors = Factors(torch.ones(2, weight.shape[1]), torch.ones(weight.shape[0], 2))
    adapters.save(Adapter(rank=2, alpha=2.0, factors={name: factors}), adapter, model)
    assert evaluate(tmp_path, *common, "--adapter", str(adapter)).exit_code == 0
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    assert "with the adapter adapter" in (adapter / "evaluation.md").read_text(encoding="utf-8")
    weights = [json.loads((directory / "evaluation.json").read_bytes())["weights"] for directory in (model, adapter)]
    assert weights == [weights_digest(model), weights_digest(model, adapter)]
    assert weights[0] != weights[1]


@pytest.mark.parametrize("room", [0, 10])
def test_a_full_disk_is_said_and_leaves_a_sound_ledger(tmp_path: Path, room: int) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "ledger.jsonl"
    first, second = outcome("first"), outcome("second")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Ledger(path, "run") as ledger:
        ledger.add(first)
        whole = path.read_bytes()
        # The kernel writes up to this limit and says how much that was, as it does on a disk that is nearly full.
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + room, before[1]))
        try:
            with pytest.raises(EngineError, match=r"ledger\.jsonl: .*make room.*goes on"):
                ledger.add(second)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == whole
    with Ledger(path, "run") as ledger:
        assert list(ledger.known.values()) == [first]
        ledger.add(second)
    with Ledger(path, "run") as ledger:
        assert list(ledger.known.values()) == [first, second]


def outcome(case: str) -> Outcome:
    return Outcome(
        key=Key(case, "diffusion", "", 0),
        kind="line",
        project="own",
        answer="x",
        truth="x",
        steps=1,
        tokens=1,
        milliseconds=1.0,
        log_probability=None,
        scores=Scores(1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0),
    )


@pytest.mark.parametrize(
    "content", [b"notes of mine", b"notes\nof mine\n", b'{"run":"a","outcome":{}}\n', b'{"run":"\xe9"}\n']
)
def test_a_file_that_is_no_ledger_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(EngineError, match=r"notes\.txt.* is no "):
        Ledger(path, "run")
    assert path.read_bytes() == content


WRONG = {
    "no corpus": (["--corpus", "absent"], "absent/manifest.json"),
    "no task file": (["--cases", "0", "--humaneval", "absent.gz"], "absent.gz"),
    "nothing": (["--cases", "0"], "nothing to measure"),
    "no system": (["--systems", "guess"], "guess: is no system"),
    "no gate": (["--update"], "--update belongs to --gate"),
    "not the model that ships": (["--gate", "--update", "--model", "absent"], "the gate is of the model that ships"),
    "two things at once": (["--copy-trust", "--length-bias"], "is not for --"),
    "a ledger for the gate": (["--gate"], "--ledger is not for --gate"),
    "systems for the trust in copies": (["--copy-trust", "--humaneval", "a.gz"], "--humaneval is not for --copy-trust"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_what_is_missing_is_said_before_a_model_is_loaded(
    tmp_path: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "load_engine", None)
    done = evaluate(tmp_path, *arguments)
    assert done.exit_code in {1, 2}
    assert message in done.output
    assert not (tmp_path / "ledger.jsonl").exists()


def test_a_corpus_that_lacks_what_its_manifest_names_is_said_to(tmp_path: Path, corpus: Path) -> None:
    (tmp_path / "manifest.json").write_bytes((corpus / "manifest.json").read_bytes())
    done = evaluate(tmp_path, "--corpus", str(tmp_path))
    assert done.exit_code == 1
    assert "calendar.jsonl" in done.output
    assert "run `dg-engine corpus build` again" in done.output
    empty = evaluate(tmp_path, "--corpus", str(corpus), "--split", "validation")
    assert "the split validation has no files" in empty.output


def test_what_is_fitted_is_not_fitted_to_what_is_held_out_unless_that_is_asked(corpus: Path, model: Path) -> None:
    fitting = ["evaluate", "--length-bias", "--corpus", str(corpus), "--model", str(model)]
    for more, said in (([], "the split validation has no files"), (["--split", "held_out"], "tries no lengths")):
        done = CliRunner().invoke(main, [*fitting, *more])
        assert done.exit_code == 1
        assert said in done.output


def test_the_model_that_ships_is_as_good_as_when_the_gate_was_updated() -> None:
    found = gate.check(Engine.load(shipped_model()))
    assert found.cases + found.skipped == gate.CASES
    assert found.cases >= gate.CASES / 2
    assert 0 <= found.tolerance < found.committed / 4


def test_a_worse_model_does_not_pass_the_gate(model: Path) -> None:
    with pytest.raises(EngineError, match=r"edit similarity fell from .* --gate --update` accepts it"):
        gate.check(Engine.load(model))


def test_what_is_a_little_worse_everywhere_does_not_pass_the_gate_and_what_is_as_often_better_does(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine.load(model)
    kept = msgspec.json.decode(gate.GATE_FILE.read_bytes(), type=list[gate.GateCase])
    committed = [one.similarity for one in kept if gate._case(one) is not None]

    def check(*changes: float) -> gate.Passed:
        now = [value + changes[number % len(changes)] for number, value in enumerate(committed)]
        monkeypatch.setattr(gate, "_similarities", lambda *given: now)
        return gate.check(engine)

    assert check(0.0).tolerance == 0
    assert check(-0.1, 0.1).tolerance > 0
    with pytest.raises(EngineError, match="edit similarity fell from"):
        check(-0.15, -0.05)


def test_cases_whose_lines_are_not_there_are_passed_over(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "library"
    library.mkdir()
    stdlib = Path(sysconfig.get_path("stdlib"))
    monkeypatch.setattr(gate, "LIBRARY", library)
    monkeypatch.setattr(gate, "CASES", 15)
    for name in gate.MODULES:
        (library / f"{name}.py").write_bytes((stdlib / f"{name}.py").read_bytes())
    # In fp32: what is in a prefix cache already rounds bf16 otherwise, and this model has no opinion to withstand that.
    engine, path = Engine.load(model, dtype=torch.float32), tmp_path / "gate.json"
    assert gate.update(engine, path) == gate.CASES
    modules = Counter(one.module for one in msgspec.json.decode(path.read_bytes(), type=list[gate.GateCase]))
    gone, *others = modules
    for name in others:
        moved = (library / f"{name}.py").read_text(encoding="utf-8")
        (library / f"{name}.py").write_text(f"# a line more\n{moved}", encoding="utf-8")
    (library / f"{gone}.py").unlink()
    found = gate.check(engine, path)
    assert (found.cases, found.skipped) == (gate.CASES - modules[gone], modules[gone])
    assert found.similarity == pytest.approx(found.committed, abs=1e-4)
    for name in others:
        (library / f"{name}.py").unlink()
    with pytest.raises(EngineError, match=r"only \d+ of the gate's \d+ cases are in this Python"):
        gate.check(engine, path)
