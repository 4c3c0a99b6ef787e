"""A plan's numbers are set by name, within bounds; what a run leaves on disk is whole whenever it is killed."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from dg_engine.errors import EngineError
from dg_engine.training.batches import Layout
from dg_engine.training.objective import Objective
from dg_engine.training.plan import PLAN_FILE, Layouts, Plan, keep_plan, layouts, read_plan, with_settings
from dg_engine.training.run_state import METRICS_FILE, Metrics, read_metrics
from dg_engine.training.schedule import Schedule

CAUSAL = Layout(chunks=2, encoder_tokens=64, canvases=0, slots=0)
USUAL = Layout(chunks=2, encoder_tokens=64, canvases=2, slots=32)
WIDE = Layout(chunks=2, encoder_tokens=64, canvases=1, slots=48)


def test_any_number_of_a_plan_is_set_by_its_name() -> None:
    plan = Plan(seconds=60, layouts=Layouts(causal=CAUSAL, usual=USUAL, wide=WIDE))
    named = ["schedule.objective.filler_weight=1", "rates.betas=[0.8, 0.9]", "accumulate=3", "layouts.usual.canvases=5"]
    changed = with_settings(plan, named)
    assert changed.schedule.at(0.9).objective.filler_weight == 1.0
    assert changed.rates.betas == (0.8, 0.9)
    assert (changed.accumulate, changed.layouts.usual.canvases) == (3, 5)
    assert with_settings(changed, ["schedule.objective.filler_weight=0.3"]).layouts == changed.layouts


def test_settings_are_judged_together_whatever_their_order() -> None:
    plan = Plan(seconds=60, layouts=Layouts(causal=CAUSAL, usual=USUAL, wide=WIDE))
    causal_alone = ["schedule.causal_until=1", "schedule.joint_until=1"]
    assert with_settings(plan, causal_alone) == with_settings(plan, reversed(causal_alone))
    with pytest.raises(EngineError, match=r"--set schedule\.causal_until=1: stages out of order"):
        with_settings(plan, causal_alone[:1])


@pytest.mark.parametrize("setting", ["shedule.warm_up=1", "accumulate=half", "accumulate=1.5", "rates=1", "seed.x=1"])
def test_a_setting_that_a_plan_does_not_have_is_refused_by_name(setting: str) -> None:
    plan = Plan(seconds=60, layouts=Layouts(causal=CAUSAL, usual=USUAL, wide=WIDE))
    with pytest.raises(EngineError, match=re.escape(f"--set {setting}")):
        with_settings(plan, [setting])


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("seconds=3", "--minutes"),
        ("seconds=0", "--minutes"),
        ("seed=3", "--seed"),
        ("accumulate=0", "accumulate: expected at least 1, found 0"),
        ("average_decay=2", "average_decay: expected at least 0 and less than 1, found 2"),
        ("save_every=-1", "save_every: expected at least 0, found -1"),
        ("layouts.wide_every=0", "wide_every: expected at least 1, found 0"),
        ("layouts.usual.slots=4", "slots: expected at least 8, found 4"),
        ("layouts.usual.encoder_tokens=1", "encoder_tokens: expected at least 64, found 1"),
        ("rates.betas=[0.9]", "betas: expected two numbers, found 1"),
        ("rates.betas=[0.9,1]", "betas: expected at least 0 and less than 1, found 1"),
        ("rates.clip=0", "clip: expected more than 0, found 0"),
        ("rates.matrices=-1", "matrices: expected at least 0, found -1"),
        ("schedule.warm_up=-1", "warm_up: expected at least 0, found -1"),
        ("schedule.own_noise_share=2", "own_noise_share: expected at least 0 and at most 1, found 2"),
        ("schedule.objective.filler_weight=-1", "filler_weight: expected at least 0, found -1"),
        ("schedule.objective.grid=[0.5, 2]", "grid: expected at least 0 and at most 1, found 2"),
    ],
)
def test_a_number_by_which_no_run_can_go_is_refused_with_what_may_stand_there(setting: str, told: str) -> None:
    plan = Plan(seconds=60, layouts=Layouts(causal=CAUSAL, usual=USUAL, wide=WIDE))
    with pytest.raises(EngineError, match=re.escape(f"--set {setting}: ") + ".*" + re.escape(told)):
        with_settings(plan, [setting])


def test_a_plan_bends_to_every_moment_of_its_schedule() -> None:
    objective = Objective(least_corruption=0.9, filler_weight=0, causal_weight=0)
    schedule = Schedule(objective=objective, last_causal_weight=0, corruption_ramp=0.7, warm_up=0)
    assert {schedule.at(step / 1000).stage for step in range(1001)} == {"causal", "joint", "finish"}


@pytest.mark.parametrize("name", [field.name for field in fields(Objective)])
def test_every_number_of_the_objective_counts_where_holes_are_filled(name: str) -> None:
    plan = Plan(seconds=60, layouts=Layouts(causal=CAUSAL, usual=USUAL, wide=WIDE))
    value = {"grid": "[0.4]", "pinned_signal": "false"}.get(name, "0.25")
    changed = with_settings(plan, [f"schedule.objective.{name}={value}"])
    assert changed.schedule.at(0.4) != plan.schedule.at(0.4)


WORTHLESS = ["", '{"update": 5, "elap', "12", "[]", "null", '{"elapsed": 1}', '{"update": "5"}']


def test_metrics_survive_what_is_none_of_their_lines(tmp_path: Path) -> None:
    kept = [{"update": number, "loss": 1.5} for number in (1, 2, 3)]
    first, *others = (json.dumps(line) for line in kept)
    text = "\n".join([first, *WORTHLESS, *others]).encode()
    (tmp_path / METRICS_FILE).write_bytes(text + b'\n{"update": 4, "stage": "\xff\xfe')
    assert read_metrics(tmp_path) == kept
    Metrics(tmp_path, 2).add({"update": 3, "loss": 1.0})
    assert read_metrics(tmp_path) == [*kept[:2], {"update": 3, "loss": 1.0}]


DYING = """
import os, signal, sys
from pathlib import Path
from dg_engine.training.plan import Plan, keep_plan, layouts
from dg_engine.training.run_state import Metrics
def write(self, data, *_, **__):
    open(self, "wb").close()
    os.kill(os.getpid(), signal.SIGKILL)
Path.write_bytes = Path.write_text = write
directory = Path(sys.argv[2])
Metrics(directory, 3) if sys.argv[1] == "metrics" else keep_plan(Plan(seconds=2.0, layouts=layouts(1)), directory)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
@pytest.mark.parametrize("what", ["metrics", "plan"])
def test_a_file_of_a_run_is_whole_though_its_writer_dies(tmp_path: Path, what: str) -> None:
    plan = Plan(seconds=1.0, layouts=layouts(1))
    keep_plan(plan, tmp_path)
    metrics = Metrics(tmp_path, 0)
    metrics.add({"update": 1})
    died = subprocess.run([sys.executable, "-c", DYING, what, str(tmp_path)], check=False)
    assert died.returncode == -signal.SIGKILL
    assert read_plan(tmp_path) == plan
    assert read_metrics(tmp_path) == [{"update": 1}]


def test_a_damaged_plan_is_told_how_to_be_mended(tmp_path: Path) -> None:
    (tmp_path / PLAN_FILE).write_bytes(b'{"seconds": 60, "lay')
    with pytest.raises(EngineError, match=rf"{PLAN_FILE}: is no plan of a run \(.*\); delete it"):
        read_plan(tmp_path)
