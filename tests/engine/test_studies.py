"""A study's runs are made once and measured alike, and what came of them is told with the card."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from dg_engine.cli import main
from dg_engine.errors import EngineError
from dg_engine.studies import command
from dg_engine.studies.running import Study
from dg_engine.studies.variants import STUDIES, Variant
from dg_engine.training.plan import Plan, keep_plan, layouts, with_settings
from dg_engine.training.run_state import METRICS_FILE
from dg_engine.training.shapes import SHAPES

CAUSAL = Variant(
    name="causal",
    about="nothing else",
    shape="tiny",
    settings=("schedule.causal_until=1", "schedule.joint_until=1"),
)
JOINT = Variant(
    name="joint", about="behind it", shape="tiny", settings=("schedule.causal_until=0",), start="causal", share=0.5
)
VARIANTS = (CAUSAL, JOINT)


def test_a_study_makes_each_run_once_and_writes_what_the_card_quotes(
    tmp_path: Path, library_corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STUDIES, "scaling", VARIANTS)
    monkeypatch.setattr(command, "Study", lambda **given: Study(**given, mode="eager"))
    words = ["study", "scaling", "--corpus", str(library_corpus), "--directory", str(tmp_path), "--output"]
    numbers = ["--minutes", "0.02", "--cases", "1"]
    done = CliRunner().invoke(main, [*words, str(tmp_path / "out"), *numbers], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    text = (tmp_path / "out" / "study-scaling.md").read_text(encoding="utf-8")
    assert text in done.output
    rows = [line for line in text.splitlines() if re.match(r"\| (causal|joint) \|", line)]
    assert len(rows) == 4, "a row of losses and one of answers for each"
    assert (tmp_path / "out" / "study-scaling.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "joint" / "earlier.md").exists(), "it began with the other's weights"

    metrics = [(tmp_path / one.name / METRICS_FILE).read_bytes() for one in VARIANTS]
    again = CliRunner().invoke(main, [*words, str(tmp_path / "out"), *numbers], catch_exceptions=False)
    assert "training for" not in again.output
    assert [(tmp_path / one.name / METRICS_FILE).read_bytes() for one in VARIANTS] == metrics

    other = CliRunner().invoke(main, [*words, str(tmp_path / "out"), "--minutes", "0.1", "--cases", "1"])
    assert other.exit_code == 1
    assert "was begun with another number of minutes" in other.output


def test_a_run_that_fails_names_its_log_and_stops_the_study(tmp_path: Path) -> None:
    study = Study(
        variants=VARIANTS, directory=tmp_path, corpus=tmp_path / "nothing", minutes=1, cases=1, jobs=2, mode="eager"
    )
    said = list[str]()
    with pytest.raises(EngineError, match=re.escape(str(tmp_path / "causal" / "train.log"))):
        study.run(said.append)
    assert "run `dg-engine corpus build`" in (tmp_path / "causal" / "train.log").read_text(encoding="utf-8")
    assert not any(line.startswith("joint") for line in said)


@pytest.mark.parametrize("minutes", [18.0, 600.0, 1000.0])
def test_a_run_is_known_again_by_the_minutes_with_which_it_was_begun(tmp_path: Path, minutes: float) -> None:
    variants = STUDIES["ablations"]
    study = Study(variants=variants, directory=tmp_path, corpus=tmp_path, minutes=minutes, cases=1, jobs=1)
    for variant in variants:
        words = study._training(variant)
        run = Path(words[words.index("--run") + 1])
        run.mkdir()
        keep_plan(Plan(seconds=60 * float(words[words.index("--minutes") + 1]), layouts=layouts(4)), run)
        assert not study._is_trained(variant), "begun, not refused"


@pytest.mark.parametrize("name", STUDIES)
def test_every_run_of_a_study_is_a_plan_of_its_own(name: str) -> None:
    variants = STUDIES[name]  # type: ignore[index]
    plan = Plan(seconds=60.0, layouts=layouts(4))
    plans = [(one.shape, one.start, with_settings(plan, one.settings)) for one in variants]
    assert all(one.shape in SHAPES for one in variants)
    assert len({repr(each) for each in plans}) == len({one.name for one in variants}) == len(variants)
    assert all(one.start in {other.name for other in variants} for one in variants if one.start)
