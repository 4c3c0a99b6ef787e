"""What a user's repository teaches: the right files, through an adapter or all weights, resumably, and measured."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor
from torch.func import functional_call

from dg_engine import adapters, checkpoint, paths
from dg_engine.cli import main
from dg_engine.engine import Engine
from dg_engine.errors import EngineError
from dg_engine.exclusion import IGNORE_FILE
from dg_engine.model import DiffusionGemma
from dg_engine.testing import tiny_checkpoint
from dg_engine.tokenizer import Tokenizer
from dg_engine.training import finetune_command
from dg_engine.training.batches import Batcher, Layout
from dg_engine.training.encoded import EncodedSplit, encode_split
from dg_engine.training.finetune import FineTuning, Plan
from dg_engine.training.low_rank import LowRank, LowRankOptimiser
from dg_engine.training.objective import Loss, Objective
from dg_engine.training.plan import Layouts
from dg_engine.training.repository import LEAST_HELD_OUT, Repository, read_repository
from dg_engine.training.run_state import STATE_FILE
from dg_engine.training.sources import Document
from dg_engine.training.spans import Vocabulary
from dg_engine.training.trainer import Progress
from dg_engine.training.watching import Report

USUAL = Layout(chunks=2, encoder_tokens=64, canvases=2, slots=32)
WIDE = Layout(chunks=2, encoder_tokens=64, canvases=1, slots=48)
UPDATES = 8


def module(number: int) -> str:
    """One file of a repository that repeats itself: its style can be learnt, its names differ from file to file."""
    names = [f"{stem}_{chr(97 + number % 26)}{number}" for stem in ("width", "height", "depth", "weight")]
    lines = [f"def {name}(record, default=None):\n    return record.get('{name}', default)\n" for name in names]
    digest = hashlib.sha512(str(number).encode()).hexdigest().translate(str.maketrans("0123456789", "ghijklmnop"))
    remarks = [f"# {digest[start : start + 8]} {digest[start + 8 : start + 16]}" for start in range(0, 128, 16)]
    return "\n\n".join(lines) + "\n\n" + "\n".join(remarks) + "\n"


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    write(folder, {f"package/module_{number}.py": module(number) for number in range(24)})
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("base"))


def names(repository: Repository, root: Path) -> set[str]:
    documents = [*repository.train, *repository.held_out]
    return {Path(document.path).relative_to(root.resolve()).as_posix() for document in documents}


def git(root: Path, *arguments: str) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not here")
    subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True)


def test_only_files_that_the_user_would_show_are_read(root: Path) -> None:
    before = names(read_repository(root), root)
    write(
        root,
        {
            "ignored.py": module(100),
            ".gitignore": "ignored.py\nscratch/\n",
            "scratch/notes.py": module(101),
            "private/plan.py": module(102),
            IGNORE_FILE: "private/\n",
            "secrets.py": module(103),
            "key.py": module(104) + "KEY = 'AKIAABCDEFGHIJKLMNOP'\n",
            "vendor/lib.py": module(105),
            "schema_pb2.py": module(106),
            "broken.py": module(107) + "def (:\n",
            "given.py": module(108),
            "untracked.py": module(109),
        },
    )
    (root / "link.py").symlink_to(root / "untracked.py")
    git(root, "init", "-q")
    git(root, "add", "package")
    found = read_repository(root, ["given.*"])
    assert names(found, root) == before | {"untracked.py"}
    excluded = {fault: count for fault, count in found.dropped.items() if fault.endswith(".")}
    assert len(excluded) == sum(excluded.values()) == 3, "a secret's name, an ignore file, a glob: each says so"
    assert found.dropped["vendored"] == 1


@pytest.mark.parametrize("fault", ["index", "owner", "absent"])
def test_where_git_does_not_say_what_it_ignores_nothing_is_read(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str
) -> None:
    git(root, "init", "-q")
    if fault == "index":
        (root / ".git" / "index").write_text("garbage", encoding="utf-8")
    elif fault == "owner":
        monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    else:
        monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="git"):
        read_repository(root)


def test_a_repository_that_a_hook_is_about_is_not_asked_in_another_s_place(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    git(root, "init", "-q")
    before = names(read_repository(root), root)
    (tmp_path / "other").mkdir()
    git(tmp_path / "other", "init", "-q")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert names(read_repository(root), root) == before


def test_without_git_other_people_s_folders_are_passed_over(root: Path) -> None:
    write(root, {f"{place}/a.py": module(200) for place in (".hidden", "node_modules", "mine/lib")})
    write(root, {"mine/pyvenv.cfg": "", "own/a.py": module(201)})
    found = names(read_repository(root), root)
    assert {name for name in found if not name.startswith("package/")} == {"own/a.py"}


def test_the_same_files_are_held_out_when_others_come_and_go(root: Path) -> None:
    def held_out() -> set[str]:
        return {document.path for document in read_repository(root).held_out}

    first = held_out()
    assert LEAST_HELD_OUT <= len(first) <= 8
    write(root, {f"more/module_{number}.py": module(number) for number in range(300, 340)})
    later = held_out()
    assert {path for path in later if "/package/" in path} <= first
    assert len(later) > LEAST_HELD_OUT
    shutil.rmtree(root / "more")
    assert held_out() == first


def test_what_resembles_a_held_out_file_is_not_learnt(root: Path) -> None:
    held = Path(read_repository(root).held_out[0].path)
    write(root, {f"copy_{number}.py": held.read_text() + f"LAST = {number}\n" for number in range(20)})
    found = read_repository(root)
    held_texts = {document.text.split("LAST")[0] for document in found.held_out}
    assert not held_texts & {document.text.split("LAST")[0] for document in found.train}
    assert found.dropped["near duplicate"] > 0


def test_a_folder_with_too_little_code_is_refused_with_what_was_left_out(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": module(1), "b.py": "x = 1\n", "c.md": module(2)})
    with pytest.raises(EngineError, match=r"broken rule is mended: the setting `exclude`"):
        read_repository(tmp_path, ["[abc"])
    with pytest.raises(EngineError, match=r"has 1 files.*at least 8.*Left out: 1 for: too short"):
        read_repository(tmp_path)


@pytest.fixture(scope="module")
def tokenizer(base: Path) -> Tokenizer:
    return Tokenizer.load(base)


@pytest.fixture(scope="module")
def splits(tokenizer: Tokenizer) -> tuple[EncodedSplit, EncodedSplit]:
    documents = [Document("own", f"module_{number}.py", module(number)) for number in range(24)]
    train, held_out = (encode_split(part, tokenizer) for part in (documents[4:], documents[:4]))
    return EncodedSplit(train), EncodedSplit(held_out)


def test_the_factors_gradients_are_those_of_the_low_rank_model(
    base: Path, tokenizer: Tokenizer, splits: tuple[EncodedSplit, EncodedSplit]
) -> None:
    model = checkpoint.load(base)
    optimiser = LowRankOptimiser(model, LowRank(rank=4, alpha=8.0), seed=0)
    for factors in optimiser.adapter.factors.values():
        factors.b.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    optimiser.restore(optimiser.state())
    batch = Batcher(splits[0], Vocabulary.of(tokenizer), model.config, seed=0).batch(0, USUAL)
    loss = Loss(model, torch.Generator().manual_seed(1))
    loss(batch, Objective(conditioned_share=0.0)).total.backward()  # type: ignore[no-untyped-call]
    assert all(weight.grad is None for weight in adapters.adaptable(model).values()), "let go at once"

    leaves = {
        name: [factor.clone().requires_grad_() for factor in factors]
        for name, factors in optimiser.adapter.factors.items()
    }
    plain = checkpoint.load(base).state_dict()
    low_rank = {name: plain[name] + 2.0 * b @ a for name, (a, b) in leaves.items()}
    expected = Loss(model, torch.Generator().manual_seed(1))

    class Total(torch.nn.Module):
        def __init__(self, inner: DiffusionGemma) -> None:
            super().__init__()
            self.inner = inner

        def forward(self) -> Tensor:
            return expected(batch, Objective(conditioned_share=0.0)).total

    total = functional_call(Total(model), {f"inner.{name}": weight for name, weight in low_rank.items()})
    total.backward()
    for name, factors in optimiser.adapter.factors.items():
        for factor, leaf in zip(factors, leaves[name], strict=True):
            assert torch.allclose(_gradient(factor), _gradient(leaf), rtol=1e-3, atol=1e-5), name


def _gradient(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    assert tensor.grad.abs().max() > 0
    return tensor.grad


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches for the command that take a tenth of a second, not seconds."""
    small = Layouts(causal=USUAL, usual=USUAL, wide=WIDE)
    monkeypatch.setattr(finetune_command, "layouts", lambda chunks: small)


Make = Callable[..., tuple[FineTuning, LowRankOptimiser, DiffusionGemma]]


@pytest.fixture
def make(base: Path, tokenizer: Tokenizer, splits: tuple[EncodedSplit, EncodedSplit]) -> Make:
    def made(
        directory: Path, keep: Callable[[], None] = lambda: None
    ) -> tuple[FineTuning, LowRankOptimiser, DiffusionGemma]:
        directory.mkdir(exist_ok=True)
        model = checkpoint.load(base)
        learner = LowRankOptimiser(model, LowRank(rank=4, alpha=8.0, rate=0.005), seed=0)
        plan = Plan(
            seconds=UPDATES / 2 + 2.0,
            layouts=Layouts(causal=USUAL, usual=USUAL, wide=WIDE),
            checks=3,
            checked_batches=1,
        )
        half_seconds = count(0.5, 0.5).__next__  # at every look: an update or a check takes so long
        train, held_out = splits
        vocabulary = Vocabulary.of(tokenizer)
        return (
            FineTuning(model, learner, train, held_out, vocabulary, plan, directory, keep, half_seconds),
            learner,
            model,
        )

    return made


def test_a_repository_that_repeats_itself_is_predicted_better_and_the_best_is_kept(make: Make, tmp_path: Path) -> None:
    kept: list[int] = []
    tuning: FineTuning
    tuning, _, model = make(tmp_path / "run", lambda: kept.append(tuning.update))
    frozen = {name: weight.clone() for name, weight in model.named_parameters()}
    tuning.run(lambda progress: None)
    # The causal loss counts twice, as it did while the score held that of causal rows, too.
    scores = [check.score + check.losses["causal"] for check in tuning.checks]
    assert min(scores) < scores[0] - 0.5
    assert tuning.kept
    assert kept[-1] == tuning.best.update
    assert tuning.checks[-1].elapsed >= tuning.plan.seconds
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, frozen[name])}
    assert changed == set(adapters.adaptable(model)), "router, embedding and norms are frozen"


class Killed(Exception):
    pass


def test_a_fine_tuning_that_was_killed_ends_with_the_same_factors(make: Make, tmp_path: Path) -> None:
    whole, learnt, expected = make(tmp_path / "whole")
    whole.run(lambda progress: None)

    def kill(progress: Progress) -> None:
        if progress.update == 6:
            raise Killed

    with pytest.raises(Killed):
        make(tmp_path / "killed")[0].run(kill)
    resumed, again, found = make(tmp_path / "killed")
    assert 0 < resumed.update < 6
    resumed.run(lambda progress: None)
    assert resumed.checks == whole.checks
    for name, factors in learnt.adapter.factors.items():
        assert all(torch.equal(one, other) for one, other in zip(factors, again.adapter.factors[name], strict=True))
    weights = found.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in expected.state_dict().items())


def command(root: Path, base: Path, out: Path, *more: str) -> Result:
    small = ["--cases", "4", "--chunks", "1", "--device", "cpu", "--threads", "1"]
    arguments = [str(root), "--model", str(base), "--out", str(out), *small, *more]
    return CliRunner().invoke(main, ["finetune", *arguments])


@pytest.mark.usefixtures("small")
def test_the_command_makes_an_adapter_that_the_engine_loads_and_says_what_it_is_worth(
    root: Path, base: Path, tmp_path: Path
) -> None:
    out = tmp_path / "adapter"
    done = command(root, base, out, "--minutes", "0.04", "--rank", "4")
    assert done.exit_code == 0, done.output
    assert f"engine.adapter = {out}" in done.output
    assert "rest of a line, exactly right" in done.output
    result = json.loads((out / finetune_command.RESULT_FILE).read_text())
    losses = result["losses"]
    assert losses["after"]["causal"] < losses["before"]["causal"]
    assert result["one_line"]["cases"] == 4
    assert Engine.load(base, adapter=out, device="cpu").info.adapter == str(out)
    assert {file.name for file in out.iterdir()} == {
        adapters.CONFIG_FILE,
        adapters.WEIGHTS_FILE,
        finetune_command.RESULT_FILE,
    }, "the user's text does not stay"


@pytest.mark.usefixtures("small")
def test_a_command_that_was_stopped_continues_on_the_files_it_was_begun_with(
    root: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "adapter"

    def interrupted(run: Callable[[Report], None], seconds: float, elapsed: float) -> None:
        def report(progress: Progress) -> None:
            raise KeyboardInterrupt

        run(report)

    with monkeypatch.context() as patched:
        patched.setattr(finetune_command, "watched", interrupted)
        stopped = command(root, base, out, "--minutes", "0.02")
    assert stopped.exit_code == 130
    assert "the same command continues" in stopped.output
    assert (out / "run" / STATE_FILE).exists()
    refused = command(root, base, out, "--minutes", "0.02", "--rank", "8")
    assert refused.exit_code == 1
    assert "another rank (64, not 8)" in refused.output
    for options, told in ((("--cases", "3"), "another cases (4, not 3)"), (("--exclude", "*.py"), "another exclude")):
        refused = command(root, base, out, "--minutes", "0.02", *options)
        assert refused.exit_code == 1
        assert told in refused.output
    shutil.rmtree(root / "package")
    continued = command(root, base, out, "--minutes", "0.02")
    assert continued.exit_code == 0, continued.output
    assert continued.output.splitlines()[0] == stopped.output.splitlines()[0]


@pytest.mark.usefixtures("small")
def test_where_nothing_got_better_nothing_is_written_and_the_user_is_told_what_to_do(
    root: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune_command, "LowRank", partial(LowRank, rate=0.0))
    done = command(root, base, tmp_path / "adapter", "--minutes", "0.01")
    assert done.exit_code == 0, done.output
    assert "nothing was kept" in done.output
    assert "more minutes" in " ".join(done.output.split())
    assert list((tmp_path / "adapter").iterdir()) == []


@pytest.mark.usefixtures("small")
def test_all_weights_make_a_whole_checkpoint_with_the_router_as_it_was(root: Path, base: Path, tmp_path: Path) -> None:
    out = tmp_path / "whole"
    done = command(root, base, out, "--minutes", "0.03", "--full")
    assert done.exit_code == 0, done.output
    assert f"engine.model = {out}" in done.output
    before, after = (Engine.load(directory, device="cpu").model.state_dict() for directory in (base, out))
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert changed
    assert not any("router" in name for name in changed)


def test_each_repository_has_a_place_for_its_adapter_outside_of_it(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "project", tmp_path / "b" / "project"
    places = {
        paths.adapter_directory(first),
        paths.adapter_directory(second),
        paths.adapter_directory(first, full=True),
    }
    assert len(places) == 3
    assert all(place.name.startswith("project-") and not place.is_relative_to(tmp_path) for place in places)
    assert paths.adapter_directory(first.parent / "." / "project") in places
