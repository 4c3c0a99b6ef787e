"""A run is what its plan and seed say, however often it is killed; and the optimiser is the one that it names."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from dg_engine import checkpoint
from dg_engine.config import ModelConfig
from dg_engine.errors import CheckpointError
from dg_engine.testing import SPECIAL_TOKENS, TINY, tiny_model, tiny_tokenizer
from dg_engine.tokenizer import Tokenizer
from dg_engine.training.ahead import Ahead
from dg_engine.training.batches import Batcher, Layout
from dg_engine.training.encoded import EncodedSplit, encode_split
from dg_engine.training.objective import Objective
from dg_engine.training.optimiser import Optimiser, Rates, orthogonalised
from dg_engine.training.plan import UPDATES as UPDATES_WANTED
from dg_engine.training.plan import Layouts, Plan, paced
from dg_engine.training.plots import plot_losses
from dg_engine.training.run_state import STATE_FILE, load_state, read_metrics, save_state
from dg_engine.training.schedule import Schedule
from dg_engine.training.sources import Document
from dg_engine.training.spans import Vocabulary
from dg_engine.training.throughput import layer_parameters, training_flops
from dg_engine.training.trainer import Progress, Trainer, new_model

CAUSAL = Layout(chunks=2, encoder_tokens=64, canvases=0, slots=0)
USUAL = Layout(chunks=2, encoder_tokens=64, canvases=2, slots=32)
WIDE = Layout(chunks=2, encoder_tokens=64, canvases=1, slots=48)
UPDATES = 20
ROOT = Path(__file__).parents[2]


class Clock:
    """Every look at it is half a second later, so an update takes half a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.5
        return self.now


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(tiny_tokenizer())


@pytest.fixture(scope="module")
def split(tokenizer: Tokenizer) -> EncodedSplit:
    return own_tests(tokenizer)


def own_tests(tokenizer: Tokenizer) -> EncodedSplit:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    documents = [Document("own", f"tests/engine/{file.name}", file.read_text(encoding="utf-8")) for file in sources]
    return EncodedSplit(encode_split(documents, tokenizer))


def make(
    directory: Path, split: EncodedSplit, tokenizer: Tokenizer, shape: ModelConfig = TINY, digest: str = "own"
) -> Trainer:
    config = replace(shape, vocab_size=tokenizer.vocab_size, num_experts=1, top_k_experts=1)
    plan = Plan(
        seconds=UPDATES / 2,
        layouts=Layouts(causal=CAUSAL, usual=USUAL, wide=WIDE),
        save_every=2.0,
        validate_every=4.0,
    )
    model = new_model(config, seed=1, dtype=torch.float32)
    vocabulary = Vocabulary.of(tokenizer)
    batches = Ahead(Batcher(split, vocabulary, config, plan.seed))
    return Trainer(model, batches, split, vocabulary, plan, directory, clock=Clock(), tokenizer=digest)


class Killed(Exception):
    pass


def test_a_run_that_was_killed_twice_ends_with_the_same_weights(
    tmp_path: Path, split: EncodedSplit, tokenizer: Tokenizer
) -> None:
    whole = make(tmp_path / "whole", split, tokenizer)
    whole.run(lambda progress: None)

    def kill_at(update: int) -> None:
        def report(progress: Progress) -> None:
            if progress.update == update:
                raise Killed

        with pytest.raises(Killed):
            make(tmp_path / "killed", split, tokenizer).run(report)

    kill_at(7)
    kill_at(15)
    resumed = make(tmp_path / "killed", split, tokenizer)
    assert resumed.update == 12, "saved every two seconds, killed between"
    resumed.run(lambda progress: None)

    assert resumed.update == whole.update == UPDATES
    expected, found = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    whole.export(tmp_path / "a", torch.float32)
    resumed.export(tmp_path / "b", torch.float32)
    averaged, again = (checkpoint.load(tmp_path / name).state_dict() for name in "ab")
    assert all(torch.equal(averaged[name], again[name]) for name in averaged)
    assert not all(torch.equal(averaged[name], expected[name]) for name in averaged), "the average is exported"
    lines = [[line for line in read_metrics(tmp_path / run) if "loss" in line] for run in ("whole", "killed")]
    assert [line["update"] for line in lines[1]] == list(range(1, UPDATES + 1))
    assert [line["loss"] for line in lines[0]] == [line["loss"] for line in lines[1]]


IN_ANOTHER_PROCESS = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.engine.test_trainer import make, own_tests
from dg_engine.testing import tiny_tokenizer
from dg_engine.tokenizer import Tokenizer
tokenizer = Tokenizer(tiny_tokenizer())
make(Path(sys.argv[1]), own_tests(tokenizer), tokenizer).run(lambda progress: print(progress.update, flush=True))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_a_process_that_is_killed_between_two_saves_loses_nothing_that_was_saved(
    tmp_path: Path, split: EncodedSplit, tokenizer: Tokenizer
) -> None:
    whole = make(tmp_path / "whole", split, tokenizer)
    whole.run(lambda progress: None)
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, str(tmp_path / "killed")]
    for last in (6, 14):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if int(line) == last:
                    break
            process.kill()
        assert process.returncode == -signal.SIGKILL
    resumed = make(tmp_path / "killed", split, tokenizer)
    assert resumed.update in range(12, 17), "what was saved last, every fourth update"
    resumed.run(lambda progress: None)
    torch.testing.assert_close(resumed.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)


def test_all_stages_run_and_leave_metrics_a_plot_and_a_checkpoint(
    tmp_path: Path, split: EncodedSplit, tokenizer: Tokenizer
) -> None:
    run = make(tmp_path, split, tokenizer)
    seen: list[Progress] = []
    run.run(seen.append)
    assert [progress.stage for progress in seen[:: UPDATES - 1]] == ["causal", "finish"]
    assert "joint" in {progress.stage for progress in seen}
    assert seen[-1].losses.causal < seen[0].losses.causal
    checks = [line["validation"] for line in read_metrics(tmp_path) if "validation" in line]
    assert checks
    noises = {f"denoising_{t}" for t in ("1", "0.75", "0.5", "0.25")}
    assert all(set(check) == {"causal", *noises} for check in checks)
    plot_losses(tmp_path, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_validation_and_warm_up_leave_the_randomness_alone(
    tmp_path: Path, split: EncodedSplit, tokenizer: Tokenizer
) -> None:
    run = make(tmp_path, split, tokenizer)
    before = run.loss.generator.get_state()
    first = run.validate()
    run.warm_up()
    assert run.validate() == first
    assert torch.equal(run.loss.generator.get_state(), before)
    assert all(parameter.grad is None for parameter in run.model.parameters())


def test_a_plan_gathers_batches_and_averages_weights_by_the_speed_that_is_found(
    tmp_path: Path, split: EncodedSplit, tokenizer: Tokenizer
) -> None:
    run = make(tmp_path, split, tokenizer)
    pace = run.warm_up()
    assert (pace.causal, pace.joint) == (0.5, 0.5), "as long as the clock says that any work takes"
    causal, usual, wide = (run._batches.made(0, layout).tokens for layout in (CAUSAL, USUAL, WIDE))
    assert (pace.causal_tokens, pace.joint_tokens) == (causal, round((2 * usual + wide) / 3))

    faster = pace._replace(causal=0.1, joint=0.3)
    plan = replace(run.plan, seconds=1500.0)
    batches = 0.3 * 1500 / 0.1 + 0.7 * 1500 / 0.3
    found = paced(plan, faster)
    assert found.accumulate == round(batches / UPDATES_WANTED) == 4
    assert found.average_decay == pytest.approx(1 - 7 * 4 / batches)
    assert paced(plan, faster, accumulate=1).average_decay == pytest.approx(1 - 7 / batches)
    assert paced(replace(plan, seconds=1.0), faster).accumulate == 1, "a short run makes what updates it can"
    forecast = faster.forecast(found, lambda count: count / 100)
    assert "room for 2,000 updates of 4 batches" in forecast
    assert "reads the corpus 80.00 times" in forecast


def test_a_slice_ends_early_and_the_next_one_goes_on(tmp_path: Path, split: EncodedSplit, tokenizer: Tokenizer) -> None:
    whole = make(tmp_path / "whole", split, tokenizer)
    whole.run(lambda progress: None)
    first = make(tmp_path / "sliced", split, tokenizer)
    first.run(lambda progress: None, until=4.0)
    assert first.elapsed == 4.0
    second = make(tmp_path / "sliced", split, tokenizer)
    assert (second.update, second.elapsed) == (first.update, 4.0)
    second.run(lambda progress: None)
    torch.testing.assert_close(second.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)


def test_a_run_that_is_asked_to_stop_stops_behind_its_update_and_is_saved(
    tmp_path: Path, split: EncodedSplit, tokenizer: Tokenizer
) -> None:
    stopped, saved = make(tmp_path, split, tokenizer), list[int]()
    stopped.run(lambda _: None, lambda: saved.append(stopped.update), asked_to_stop=lambda: stopped.update == 2)
    assert saved == [2]
    assert make(tmp_path, split, tokenizer).update == 2, "nothing is done again"


def test_what_is_made_of_the_last_state_is_made_though_the_run_was_killed_before(
    tmp_path: Path, split: EncodedSplit, tokenizer: Tokenizer
) -> None:
    run = make(tmp_path, split, tokenizer)

    def full_disk() -> None:
        if run.elapsed >= run.plan.seconds:
            raise Killed

    with pytest.raises(Killed):
        run.run(lambda progress: None, full_disk)
    exported: list[int] = []
    again = make(tmp_path, split, tokenizer)
    again.run(lambda progress: None, lambda: exported.append(again.update))
    assert exported == [run.update]


def test_batches_made_ahead_are_those_made_here(split: EncodedSplit, tokenizer: Tokenizer) -> None:
    batcher = Batcher(split, Vocabulary.of(tokenizer), replace(TINY, vocab_size=tokenizer.vocab_size), seed=2)
    with Ahead(batcher, workers=1) as ahead:
        for number in range(6):
            layout = CAUSAL if number < 3 else USUAL
            found = ahead.batch(number, lambda _, layout=layout: layout)  # type: ignore[misc]
            torch.testing.assert_close(found, batcher.batch(number, layout), rtol=0, atol=0)


def test_the_arithmetic_of_a_step_is_what_its_matrices_cost(split: EncodedSplit, tokenizer: Tokenizer) -> None:
    config = replace(TINY, vocab_size=tokenizer.vocab_size, num_experts=1, top_k_experts=1)
    model = new_model(config, seed=0, dtype=torch.float32)
    every = {name: value for name, value in model.named_parameters() if value.dim() >= 2 and "router" not in name}
    layers = sum(value.numel() for name, value in every.items() if ".layers." in name)
    assert layer_parameters(config) == layers
    batch = Batcher(split, Vocabulary.of(tokenizer), config, seed=0).batch(0, CAUSAL)
    assert training_flops(config, batch, Objective()) == 6 * 128 * (layers + config.vocab_size * config.hidden_size)


def test_a_vocabulary_of_any_size_is_encoded() -> None:
    words = {word: number for number, word in enumerate([*SPECIAL_TOKENS, *(f"word{n}" for n in range(70_000))])}
    backend = Backend(models.WordLevel(words, unk_token="word0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    text = "word69999 " * 100
    encoded = EncodedSplit(encode_split([Document("own", "a.py", text)], Tokenizer(backend)))
    assert set(encoded.tokens(0).tolist()) == {words["word69999"]}


def test_a_damaged_state_is_named_not_ignored(tmp_path: Path, split: EncodedSplit, tokenizer: Tokenizer) -> None:
    make(tmp_path, split, tokenizer).save()
    whole = (tmp_path / STATE_FILE).read_bytes()
    (tmp_path / STATE_FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=STATE_FILE):
        make(tmp_path, split, tokenizer)
    shutil.rmtree(tmp_path)
    assert make(tmp_path, split, tokenizer).update == 0


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (replace(TINY, intermediate_size=2 * TINY.intermediate_size), "mlp"),
        (replace(TINY, num_hidden_layers=2, layer_types=TINY.layer_types[-2:]), "layers"),
    ],
    ids=["wider", "fewer layers"],
)
def test_a_run_of_another_shape_is_not_gone_on_with(
    tmp_path: Path, split: EncodedSplit, tokenizer: Tokenizer, other: ModelConfig, named: str
) -> None:
    make(tmp_path, split, tokenizer).save()
    before = (tmp_path / STATE_FILE).read_bytes()
    with pytest.raises(CheckpointError, match=rf"{STATE_FILE}: .*{named}.* another --shape.* another --run"):
        make(tmp_path, split, tokenizer, other)
    assert (tmp_path / STATE_FILE).read_bytes() == before


def test_a_run_goes_on_under_its_own_vocabulary_alone(
    tmp_path: Path, split: EncodedSplit, tokenizer: Tokenizer
) -> None:
    make(tmp_path, split, tokenizer).save()
    before = (tmp_path / STATE_FILE).read_bytes()
    with pytest.raises(CheckpointError, match=rf"{STATE_FILE}: .* another vocabulary .* corpus build --tokenizer"):
        make(tmp_path, split, tokenizer, digest="another")
    assert (tmp_path / STATE_FILE).read_bytes() == before

    tensors, counters = load_state(tmp_path) or ({}, {})
    assert counters.pop("tokenizer") == "own"
    save_state(tmp_path, tensors, counters)
    resumed = make(tmp_path, split, tokenizer, digest="another")
    resumed.run(lambda progress: None)
    assert resumed.update == UPDATES, "a state that was written before this was kept"


def test_newton_schulz_brings_all_singular_values_near_one() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((2, 96, 32), (2, 32, 96)):
        values = torch.linalg.svdvals(orthogonalised(torch.randn(shape, generator=generator)))
        assert values.min() > 0.3
        assert values.max() < 1.3


def test_adamw_steps_vectors_as_torch_does_and_muon_steps_matrices(tokenizer: Tokenizer) -> None:
    config = replace(TINY, vocab_size=tokenizer.vocab_size)
    model = new_model(config, seed=2, dtype=torch.float32)
    rates = Rates(embedding=0.01, vectors=0.01, clip=1e9)
    optimiser = Optimiser(model, rates)
    table = model.decoder.embed_tokens.weight
    twin = torch.nn.Parameter(table.detach().clone())
    reference = torch.optim.AdamW([twin], lr=0.01, betas=rates.betas, eps=1e-10, weight_decay=0.0)
    matrix = model.decoder.layers[0].self_attn.q_proj.weight  # type: ignore[union-attr]
    assert isinstance(matrix, torch.nn.Parameter)
    generator = torch.Generator().manual_seed(3)
    for _ in range(3):
        gradient = torch.randn(table.shape, generator=generator)
        table.grad, twin.grad = gradient.clone(), gradient.clone()
        matrix.grad = torch.randn(matrix.shape, generator=generator)
        before = matrix.detach().clone()
        optimiser.step(1.0)
        reference.step()
        update = (before * (1 - rates.matrices * rates.matrix_decay) - matrix.detach()) / rates.matrices
        tall = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
        assert 0.3 < torch.linalg.svdvals(update / tall).median() < 1.3
    torch.testing.assert_close(table, twin)


def test_the_schedule_goes_through_its_stages_and_ends_at_zero() -> None:
    schedule = Schedule()
    moments = [schedule.at(step / 1000) for step in range(1001)]
    assert [moment.stage for moment in moments] == sorted(
        (moment.stage for moment in moments), key=["causal", "joint", "finish"].index
    )
    assert moments[0].rate < 0.05
    assert max(moment.rate for moment in moments) == 1.0
    assert moments[-1].rate == 0.0
    joint = [moment.objective for moment in moments if moment.stage == "joint"]
    assert joint[0].most_corruption < 0.35
    assert joint[-1].most_corruption == 1.0
    assert joint[0].own_noise_share == 0.0
    assert joint[-1].own_noise_share > 0.0
    assert joint[0].causal_weight > 0.99 > 0.31 > joint[-1].causal_weight
    assert moments[-1].objective != Objective()
    with pytest.raises(ValueError, match="out of order"):
        Schedule(causal_until=0.9, joint_until=0.5)


def test_training_begins_with_the_weights_of_a_checkpoint_of_the_same_shape(tmp_path: Path) -> None:
    known = tiny_model(replace(TINY, num_experts=1, top_k_experts=1))
    checkpoint.save(known, tmp_path)
    begun = new_model(known.config, 0, torch.float32, tmp_path)
    torch.testing.assert_close(begun.state_dict(), known.state_dict())
    trained = {name for name, parameter in begun.named_parameters() if parameter.requires_grad}
    assert {name for name, _ in begun.named_parameters() if name not in trained and "router" not in name} == set()
    assert trained
