"""What a fine-tuning learns and is judged by follows from how the checkpoint answers."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from itertools import count
from pathlib import Path

import pytest
import torch
from rich.console import Console

from dg_engine import checkpoint
from dg_engine.api import Decoding
from dg_engine.settings import InfillConfig
from dg_engine.testing import tiny_checkpoint
from dg_engine.tokenizer import Tokenizer
from dg_engine.training.batches import Layout
from dg_engine.training.encoded import EncodedSplit, encode_split
from dg_engine.training.finetune import CAUSAL_SIDE, Check, FineTuning, Plan
from dg_engine.training.finetune_report import Result, show
from dg_engine.training.finetune_run import Measured
from dg_engine.training.low_rank import LowRank, LowRankOptimiser
from dg_engine.training.plan import Layouts, layouts
from dg_engine.training.sources import Document
from dg_engine.training.spans import Vocabulary
from dg_engine.training.trainer import Progress

SECONDS = 4.0


def planned(decoding: Decoding, block: Decoding, *, diffusion: bool = False) -> Plan:
    config = InfillConfig(decoding=decoding, block_decoding=block)
    return Plan.of(config, layouts(4), seconds=SECONDS, diffusion=diffusion)


def shapes(plan: Plan) -> set[Layout]:
    """Of all batches of a run."""
    moments = (plan.schedule.at(fraction / 100) for fraction in range(100))
    return {plan.layouts.pick(moment.stage, number) for number, moment in enumerate(moments)} | {plan.checked}


def test_what_only_writes_from_left_to_right_never_sees_a_canvas() -> None:
    assert shapes(planned("causal_fit", "causal_fit")) == {Layout(chunks=4, encoder_tokens=512, canvases=0, slots=0)}
    assert CAUSAL_SIDE.at(1.0).rate == 0, "no stage behind the last one is needed to end"


@pytest.mark.parametrize(("line", "block"), [("diffusion", "diffusion"), ("causal_fit", "diffusion")])
def test_what_denoises_anything_learns_that_in_every_batch(line: Decoding, block: Decoding) -> None:
    assert shapes(planned(line, block)) == {layouts(4).usual, layouts(4).wide}


@pytest.mark.parametrize("signal", [True, False])
def test_denoising_is_learnt_with_the_signal_that_the_checkpoint_is_given_when_it_answers(*, signal: bool) -> None:
    plan = Plan.of(InfillConfig(pinned_signal=signal), layouts(4), seconds=SECONDS)
    assert all(plan.schedule.at(fraction / 10).objective.pinned_signal == signal for fraction in range(11))


def test_diffusion_is_learnt_by_who_asks_for_it() -> None:
    assert planned("causal_fit", "causal_fit", diffusion=True) == planned("diffusion", "diffusion")


@pytest.mark.parametrize("name", ["causal", "denoising_1"])
def test_who_is_given_a_model_without_diffusion_is_told(name: str, tmp_path: Path) -> None:
    checks = [Check(update=update, elapsed=60.0 * update, losses={name: 2.0 - update}) for update in (0, 1)]
    measured = Measured(paths=["a.py"], exact=[1.0], similarity=[1.0])
    said = StringIO()
    show(Result(checks, checks[1], measured, measured), tmp_path, Console(file=said), full=False)
    assert ("learnt no diffusion" in said.getvalue()) == (name == "causal")


def test_a_causal_fine_tuning_is_judged_by_the_causal_loss_which_falls(tmp_path: Path) -> None:
    base = tiny_checkpoint(tmp_path / "base")
    tokenizer = Tokenizer.load(base)
    documents = [
        Document("own", f"module_{number}.py", f"def width_{number}(record):\n    return record.width\n\n\n" * 8)
        for number in range(16)
    ]
    train, held_out = (EncodedSplit(encode_split(part, tokenizer)) for part in (documents[4:], documents[:4]))
    usual = Layout(chunks=2, encoder_tokens=64, canvases=2, slots=32)
    small = Layouts(causal=replace(usual, canvases=0), usual=usual, wide=usual)
    config = InfillConfig(decoding="causal_fit", block_decoding="causal_fit")
    plan = replace(Plan.of(config, small, seconds=SECONDS, seed=0), checks=2, checked_batches=1)
    model = checkpoint.load(base)
    run, kept = tmp_path / "run", list[Check]()
    run.mkdir()
    half_seconds = count(0.5, 0.5).__next__
    learner = LowRankOptimiser(model, LowRank(rank=4, alpha=8.0), seed=0)
    vocabulary = Vocabulary.of(tokenizer)
    tuning = FineTuning(
        model, learner, train, held_out, vocabulary, plan, run, lambda: kept.append(tuning.best), half_seconds
    )
    stages = list[Progress]()
    tuning.run(stages.append)
    assert {progress.stage for progress in stages} == {"causal"}
    assert all(torch.equal(progress.losses.total, progress.losses.causal) for progress in stages)
    assert all(check.losses == {"causal": check.score} for check in tuning.checks)
    assert kept[-1].score < tuning.checks[0].score - 0.1
