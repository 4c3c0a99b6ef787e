"""What a user's repository teaches: the right files, through an adapter or all weights, resumably, and measured."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors import SafetensorError
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
from dg_engine.training import finetune_command, finetune_run
from dg_engine.training.batches import Batcher, Layout
from dg_engine.training.encoded import EncodedSplit, encode_split
from dg_engine.training.finetune import FineTuning, Plan
from dg_engine.training.low_rank import LowRank, LowRankOptimiser
from dg_engine.training.objective import Loss, Objective
from dg_engine.training.plan import Layouts
from dg_engine.training.repository import HELD_OUT_SHARE, LEAST_HELD_OUT, Repository, read_repository
from dg_engine.training.run_state import STATE_FILE
from dg_engine.training.sources import Document, unit_digest
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


def test_of_a_folder_of_repositories_what_each_of_them_ignores_stays_unread(root: Path, tmp_path: Path) -> None:
    before = names(read_repository(root), tmp_path)
    write(root, {".gitignore": "private/\n", "private/settings.py": module(100)})
    write(tmp_path, {"notes.py": module(101), "deep/down/.gitignore": "*\n", "deep/down/all.py": module(102)})
    git(root, "init", "-q")
    git(tmp_path / "deep" / "down", "init", "-q")
    (tmp_path / "link").symlink_to(root)
    assert names(read_repository(tmp_path), tmp_path) == before | {"notes.py"}
    assert names(read_repository(root / "package"), tmp_path) == before, "nor does a folder within one read more"


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


def test_files_that_are_like_others_are_not_counted(root: Path) -> None:
    write(root, {f"package/module_{number}.py": module(0) + f"LAST = {number}\n" for number in range(24)})
    with pytest.raises(EngineError, match=r"has 1 files.*at least 8.*Left out: 23 for: near duplicate"):
        read_repository(root)
    shutil.rmtree(root)
    shared = [name for number in range(400) if unit_digest(name := f"copy_{number}.py") > HELD_OUT_SHARE]
    held = [name for number in range(400) if unit_digest(name := f"module_{number}.py") < HELD_OUT_SHARE]
    write(root, {name: module(number) for number, name in enumerate(held)})
    write(root, {name: module(0) + f"LAST = {number}\n" for number, name in enumerate(shared)})
    with pytest.raises(EngineError, match=rf"all but the \d+ held-out files .*: {len(shared)} for: near duplicate"):
        read_repository(root)


def test_a_huge_file_is_left_out_unread(root: Path) -> None:
    before = names(read_repository(root), root)
    (root / "dump.js").touch()
    os.truncate(root / "dump.js", 1 << 40)
    repository = read_repository(root)
    assert names(repository, root) == before
    assert repository.dropped["too long"] == 1


def test_where_no_file_is_in_a_known_language_these_are_named(tmp_path: Path) -> None:
    write(tmp_path, {f"{number}.rb": module(number) for number in range(10)})
    with pytest.raises(EngineError, match=r"has 0 files.*Left out: none.*python, typescript.*cpp"):
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
    out = tmp_path / "[adapter]"
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


def test_a_model_is_not_written_over_while_it_is_read(root: Path, base: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(base)
    before = {path: path.read_bytes() for path in base.iterdir()}
    refused = command(root, base, tmp_path / "link", "--full", "--minutes", "0.01")
    assert (refused.exit_code, refused.output) == (
        1,
        f"Error: {base}: is the model that is learnt from, and must stay whole until the end; give another --out\n",
    )
    assert {path: path.read_bytes() for path in base.iterdir()} == before


@pytest.mark.parametrize(
    "option", ["--seed=-1", f"--seed={2**63}", "--alpha=inf", "--alpha=nan", "--minutes=inf", "--minutes=0"]
)
def test_a_number_that_no_run_can_have_is_refused_before_anything_is_written(
    root: Path, base: Path, tmp_path: Path, option: str
) -> None:
    refused = command(root, base, tmp_path / "out", option)
    assert refused.exit_code == 2
    assert option.split("=")[0] in refused.output
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("small")
def test_the_largest_seed_is_one(root: Path, base: Path, tmp_path: Path) -> None:
    done = command(root, base, tmp_path / "out", "--minutes", "0.01", "--seed", str(2**63 - 1))
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("content", [None, "{}", '{"repository": "mine"}'])
def test_a_folder_of_the_users_is_not_taken_for_a_run(
    root: Path, base: Path, tmp_path: Path, content: str | None
) -> None:
    write(tmp_path / "out", {"run/notes.md": "mine\n"} | ({"run/options.json": content} if content else {}))
    refused = command(root, base, tmp_path / "out")
    assert refused.exit_code == 1
    assert f"{tmp_path / 'out' / 'run'}: is no run of a fine-tuning" in refused.output
    assert "another --out" in refused.output
    assert "delete" not in refused.output
    assert (tmp_path / "out" / "run" / "notes.md").exists()


def test_a_run_that_could_not_begin_leaves_none_of_the_users_text(tmp_path: Path, tokenizer: Tokenizer) -> None:
    resource = pytest.importorskip("resource")
    long = [Document("own", f"{number}.py", module(number)) for number in range(8)]
    short = [Document("own", "9.py", "x = 1\n")]
    options = finetune_run.Options(
        repository="own",
        model="base",
        weights="",
        rank=1,
        alpha=1.0,
        diffusion=False,
        exclude=(),
        cases=1,
        seed=0,
    )

    def begin(train: list[Document], held_out: list[Document]) -> None:
        repository = Repository(train, held_out, Counter())
        finetune_run.open_run(tmp_path / "out" / "run", options, lambda: repository, tokenizer, header=True)

    with pytest.raises(EngineError, match="own: its files are too short"):
        begin(long, short)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, before[1]))  # as on a disk that is full
    try:
        with pytest.raises(SafetensorError):
            begin(long, long)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.glob("out/*"))
    begin(long, long)
    assert stat.S_IMODE((tmp_path / "out" / "run").stat().st_mode) == 0o700, "nor can others read it"


def test_a_repository_whose_path_is_no_text_is_refused_with_what_to_do(root: Path, base: Path, tmp_path: Path) -> None:
    odd = root.rename(tmp_path / os.fsdecode(b"caf\xe9"))
    refused = command(odd, base, tmp_path / "out")
    assert refused.exit_code == 1
    assert "is no path that can be written in UTF-8; rename it" in refused.output
    assert not (tmp_path / "out").exists()


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
