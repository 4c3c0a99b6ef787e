"""The benchmark of the released model's shape runs at toy size, loses nothing, and what it measures is what it says."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from click.testing import CliRunner, Result

from dg_engine.cli import main
from dg_engine.errors import EngineError
from dg_engine.full_size import measure, record, theirs
from dg_engine.full_size.floors import step_floor
from dg_engine.full_size.record import CUT_OFF, Record
from dg_engine.full_size.report import markdown
from dg_engine.full_size.results import (
    BlockTime,
    InfillTime,
    KernelTime,
    Memory,
    PrefixTime,
    Report,
    StepTime,
    TheirBlocks,
    TheirStep,
)
from dg_engine.full_size.shapes import RELEASED, SHAPES
from dg_engine.full_size.weights import BITS, random_model
from dg_kernels.bench import Rates
from dg_kernels.cases import cases

TINY = SHAPES["tiny"].config
CPU = torch.device("cpu")


def bench(out: Path, *more: str, format_: str = "nvfp4") -> Result:
    command = ["bench", "--full-size", "--shape", "tiny", "--format", format_, "--device", "cpu", "--out", str(out)]
    return CliRunner().invoke(main, [*command, *more], catch_exceptions=False)


def told(out: Path) -> Report:
    (file,) = out.glob("*.json")
    return msgspec.json.decode(file.read_bytes(), type=Report)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """One run, and what it leaves."""
    out = tmp_path_factory.mktemp("results")
    return bench(out), out


@pytest.fixture
def out(run: tuple[Result, Path], tmp_path: Path) -> Path:
    """The same results where they may be changed."""
    return shutil.copytree(run[1], tmp_path / "results")


def test_one_command_reports_every_shape_block_and_kernel(run: tuple[Result, Path]) -> None:
    result, out = run
    assert result.exit_code == 0
    report, name = told(out), next(out.glob("*.json")).stem
    assert sorted(path.name for path in out.iterdir()) == [f"{name}.json", f"{name}.md", f"{name}.png"]
    assert name == f"tiny-nvfp4-cpu-{report.sources}"
    assert (out / f"{name}.md").read_text() in result.stdout
    assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    steps, prefixes, blocks = report.all(StepTime), report.all(PrefixTime), report.all(BlockTime)
    assert [(one.canvas, one.prefix) for one in steps] == [(64, 8), (128, 8), (64, 96), (128, 96)]
    assert [(one.prefix, one.steps) for one in blocks] == [(8, 1), (8, 2), (96, 1), (96, 2)]
    assert all(one.ms > 0 for one in steps)
    assert all(one.ms > 0 for one in blocks)
    assert all(one.first_draft_ms > one.prefill_ms > 0 for one in prefixes)
    (memory,) = report.all(Memory)
    assert memory.weights_bytes < memory.allocated_bytes <= memory.reserved_bytes
    infills = report.all(InfillTime)
    assert [(one.hole, one.canvas, one.steps, one.lengths) for one in infills] == [(32, 64, 8, 1), (32, 64, 8, 8)]
    assert all(one.ms > 0 for one in infills)
    assert (
        "an infill of 8 lengths up to 32 in a canvas of 64, 8 steps, behind an encoded prefix of 32: " in result.stdout
    )
    assert [one.timing.name for one in report.all(KernelTime)] == list(cases(SHAPES["tiny"].sizes, CPU))
    assert report.failures == {}


def test_what_is_measured_is_not_measured_again_unless_that_is_asked(out: Path) -> None:
    before = told(out)
    result = bench(out)
    assert (result.exit_code, told(out)) == (0, before)
    assert "[1/" not in result.stderr
    only = Record("tiny", "nvfp4", CPU, out, fresh=True)
    assert only.report.found == {}


def test_a_stage_that_fails_is_told_and_alone_tried_again(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file,) = out.glob("*.json")
    report = told(out)
    del report.found["memory after the warm-up"], report.found["a step of 64 behind 8"]
    file.write_bytes(msgspec.json.encode(report))

    def refused(*given: object) -> Memory:
        raise torch.OutOfMemoryError("tried to allocate 50 GB")

    with monkeypatch.context() as patch:
        patch.setattr(measure, "memory", refused)
        result = bench(out)
    assert result.exit_code == 1
    why = "OutOfMemoryError: tried to allocate 50 GB"
    assert told(out).failures == {"memory after the warm-up": why}
    assert f"| memory after the warm-up | {why} |" in result.stdout
    assert len(told(out).all(StepTime)) == 4
    result = bench(out)
    assert result.exit_code == 0
    assert result.stderr.splitlines()[0] == "[1/1] memory after the warm-up"
    assert told(out).failures == {}


def test_a_run_that_is_cut_off_keeps_what_it_has_and_the_next_one_tries_the_rest_first(tmp_path: Path) -> None:
    asked: list[str] = []

    def stage(name: str) -> Callable[[], InfillTime]:
        def measured() -> InfillTime:
            asked.append(name)
            if name == "second" and len(asked) == 2:
                raise KeyboardInterrupt
            return InfillTime(prefix=1, hole=1, canvas=64, steps=1, lengths=1, ms=1.0)

        return measured

    stages = {name: stage(name) for name in ("first", "second", "third")}
    with pytest.raises(KeyboardInterrupt):
        Record("tiny", "bf16", CPU, tmp_path, fresh=False).run(stages, lambda line: None)
    assert list(told(tmp_path).found) == ["first", "second"]
    assert told(tmp_path).failures == {"second": CUT_OFF}
    (page,) = tmp_path.glob("*.md")
    assert f"| second | {CUT_OFF} |" in page.read_text()
    Record("tiny", "bf16", CPU, tmp_path, fresh=False).run(stages, lambda line: None)
    assert asked == ["first", "second", "third", "second"]
    assert told(tmp_path).failures == {}


def test_a_device_that_stopped_answering_is_not_asked_for_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*given: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "synchronize", gone)
    found = InfillTime(prefix=1, hole=1, canvas=64, steps=1, lengths=1, ms=1.0)
    one = Record("tiny", "bf16", torch.device("cuda"), tmp_path, fresh=False)
    with pytest.raises(EngineError, match="no longer answers after first; the same command goes on: CUDA error"):
        one.run({"first": lambda: found, "second": lambda: found}, lambda line: None)
    assert told(tmp_path).found == {"first": found}
    assert one.path(".json").name.startswith("tiny-bf16-nvidia-h200-")


def test_other_sources_make_another_report(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Record("tiny", "nvfp4", CPU, out, fresh=False).report == told(out)
    monkeypatch.setattr(record, "sources", lambda device: "other")
    changed = Record("tiny", "nvfp4", CPU, out, fresh=False)
    assert changed.report.found == {}
    assert not changed.path(".json").exists()


def test_transformers_is_measured_beside_it_by_the_same_command_and_without_it_all_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers", minversion="5.23.0")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "transformers", None)
        result = bench(tmp_path, "--against", "eager", format_="bf16")
    assert result.exit_code == 1
    report = told(tmp_path)
    assert len(report.failures) == 6
    assert all(name.startswith("transformers, eager: ") for name in report.failures)
    assert all(why.startswith("ModuleNotFoundError: import of transformers") for why in report.failures.values())
    assert len(report.all(KernelTime)) == len(cases(SHAPES["tiny"].sizes, CPU))

    result = bench(tmp_path, "--against", "eager", format_="bf16")
    assert result.exit_code == 0
    assert result.stderr.startswith("[1/6] transformers, eager: a step of 128 behind 8\n")
    report = told(tmp_path)
    steps = [(one.mode, one.canvas, one.prefix, one.right) for one in report.all(TheirStep)]
    assert steps == [("eager", canvas, prefix, True) for prefix in (8, 96) for canvas in (128, 64)]
    blocks = [[(one.canvas, one.prefix, one.steps) for one in several.blocks] for several in report.all(TheirBlocks)]
    assert blocks == [[(128, prefix, 1), (128, prefix, 2)] for prefix in (8, 96)]
    assert "| transformers | canvas | prefix |" in result.stdout


@pytest.mark.parametrize(
    ("mode", "prefix", "right"),
    [("eager", 63, True), ("eager", 64, True), ("compiled", 63, True), ("compiled", 64, False)],
)
def test_a_static_cache_is_right_before_its_window_is_full(
    mode: str, prefix: int, right: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers", minversion="5.23.0")
    monkeypatch.setattr(theirs, "_seconds", lambda *given, steps, blocks=1: 0.25 * steps * blocks)
    model = random_model(TINY, "bf16", CPU)
    one = theirs.their_step(model, mode, 64, prefix, 8)
    assert (one.right, one.ms) == (right, 250.0)
    several = theirs.their_blocks(model, mode, 64, prefix, (4, 8))
    assert [block.ms for block in several.blocks] == [1000.0, 2000.0]
    assert several.right == (mode == "eager"), "the second block is behind the first"
    report = Report(device="CPU", machine="", sources="", commit="", shape="tiny", format="bf16", found={"one": one})
    marked = [line for line in markdown(report) if line.startswith(f"| {mode} | 64 | {prefix} | 250.00 |")]
    assert ["wrong results" in line for line in marked] == [not right]


@pytest.mark.parametrize("format_", BITS)
def test_random_weights_take_what_their_format_takes_and_give_numbers(format_: str) -> None:
    model = random_model(TINY, format_, CPU)
    experts = 2 * 8 * 3 * 64 * 64
    # Queries, keys, values and outputs of a sliding and a full layer, whose keys are the values; two dense MLPs.
    projections = 64 * ((4 + 2 + 2 + 4) * 32 + (4 + 1 + 4) * 64) + 2 * 3 * 64 * 96
    rows = 2 * 8 * 3 * 64 + (4 + 2 + 2) * 32 + 64 + (4 + 1) * 64 + 64 + 2 * (2 * 96 + 64)
    bits, factors = BITS[format_], 0 if format_ == "bf16" else 4 * rows
    assert model.parameter_count == random_model(TINY, "bf16", CPU).parameter_count
    rest = model.parameter_count - experts - projections
    packed = experts * bits.experts.bits + projections * bits.projections.bits
    assert model.weight_bytes == 2 * rest + packed / 8 + factors
    with torch.no_grad():
        hidden = model.encode(torch.arange(20)[None]).hidden
    assert hidden.isfinite().all()


@pytest.mark.parametrize(
    ("format_", "experts", "dense"), [("bf16", 10.62, 1.08), ("fp8", 5.31, 0.55), ("nvfp4", 2.99, 0.55)]
)
def test_the_floor_of_a_step_on_an_h200_is_the_one_worked_out_by_hand(
    format_: str, experts: float, dense: float
) -> None:
    """Milliseconds of experts, dense matrices, head, self-conditioning and attention.

    In FP8 the dense matrices' bytes and their arithmetic take half as long.
    """
    rates, bits = Rates(bytes=4.3e12, flops=790e12, e4m3_flops=1580e12), BITS[format_]
    assert step_floor(RELEASED, 256, 8192, bits, rates) * 1e3 == pytest.approx(
        experts + dense + 0.48 + 0.48 + 0.62, rel=0.02
    )
    without = Rates(bytes=4.3e12, flops=790e12, e4m3_flops=790e12)
    assert step_floor(RELEASED, 256, 8192, bits, without) * 1e3 == pytest.approx(
        experts + 1.08 + 0.48 + 0.48 + 0.62, rel=0.02
    ), "where a device multiplies no e4m3, the arithmetic takes as long as in bf16"
    assert step_floor(RELEASED, 64, 8192, bits, rates) < step_floor(RELEASED, 256, 8192, bits, rates)
    assert step_floor(RELEASED, 256, 512, bits, rates) < step_floor(RELEASED, 256, 8192, bits, rates)


@torch.no_grad()
@pytest.mark.parametrize("slots", [64, 256])
def test_transformers_runs_over_the_very_weights_and_computes_the_same(slots: int) -> None:
    pytest.importorskip("transformers", minversion="5.23.0")
    model = random_model(TINY, "bf16", CPU).float()
    other = theirs.borrowed(model, slots)
    assert other.lm_head.weight.data_ptr() == model.decoder.embed_tokens.weight.data_ptr()
    tokens, canvas = torch.arange(3, 90)[None], torch.arange(200, 200 + slots)[None]
    expected = other(input_ids=tokens, decoder_input_ids=canvas).logits
    found = model.logits(model.decode(canvas, model.encode(tokens).cache, None))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    written = other.generate(tokens, max_new_tokens=slots, max_denoising_steps=1).sequences
    assert written.shape == (1, tokens.shape[1] + slots)


def test_transformers_is_not_measured_over_packed_weights() -> None:
    pytest.importorskip("transformers")
    with pytest.raises(EngineError, match="use --format bf16"):
        theirs.borrowed(random_model(TINY, "fp8", CPU))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--full-size", "--holes", "3"], "--holes is for measurements without --full-size"),
        (["--format", "fp8"], "--format is for measurements with --full-size"),
        (["--fresh"], "--fresh is for measurements with --full-size"),
        (["--full-size", "--format", "fp8", "--against", "eager"], "--against is for --format bf16"),
    ],
)
def test_an_option_that_nothing_would_read_is_refused(options: list[str], complaint: str) -> None:
    result = CliRunner().invoke(main, ["bench", *options])
    assert result.exit_code == 2
    assert complaint in result.output
