"""`dg-engine train` leads from a corpus to a checkpoint, and refuses a corpus that it cannot train on."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from dg_engine.api import Infill, InfillRequest
from dg_engine.engine import Engine
from dg_engine.errors import EngineError
from dg_engine.training.commands import train
from dg_engine.training.corpus import read_manifest, write_json
from dg_engine.training.plan import read_plan


def test_the_commands_lead_from_documents_to_a_checkpoint_that_the_engine_opens(
    tmp_path: Path, library_corpus: Path
) -> None:
    run = tmp_path / "run"
    arguments = ["--corpus", str(library_corpus), "--run", str(run), "--minutes", "0.01", "--chunks", "1"]
    plans = []
    for _ in range(2):
        done = CliRunner().invoke(train, [*arguments, "--mode", "eager"], catch_exceptions=False)
        assert done.exit_code == 0
        assert "tokens/s from left to right" in done.output
        plans.append(read_plan(run))
    assert plans[0] == plans[1], "what the first sitting decided holds for the next"
    engine = Engine.load(run / "model")
    *_, answer = engine.infill(InfillRequest(prefix="import os\n", suffix="\n", max_denoising_steps=2))
    assert isinstance(answer, Infill)
    assert engine.info.parameters == 6_109_958
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    for fact in ("license: ", "| python-standard-library |", "PSF-2.0", '"seconds": 0.6', "loss.png", "at t = 1"):
        assert fact in card
    assert all(record.tokens > 0 for record in read_manifest(library_corpus).projects)
    arguments[3:4] = [str(tmp_path / "further"), "--init", str(run / "model"), "--mode", "eager"]
    assert CliRunner().invoke(train, arguments, catch_exceptions=False).exit_code == 0
    card = (tmp_path / "further" / "model" / "README.md").read_text(encoding="utf-8")
    assert "\n> 0 minutes of training on " in card


@pytest.mark.parametrize(("lacking", "advice"), [("train", "more sources"), ("validation", "--validation NAME")])
def test_a_corpus_that_lacks_a_split_is_not_trained_on(
    tmp_path: Path, library_corpus: Path, lacking: str, advice: str
) -> None:
    partial = shutil.copytree(library_corpus, tmp_path / "corpus")
    manifest = read_manifest(partial)
    others = [one for one in manifest.projects if one.split != lacking]
    write_json(partial / "manifest.json", msgspec.structs.replace(manifest, projects=others))
    done = CliRunner().invoke(train, ["--corpus", str(partial), "--run", str(tmp_path / "run"), "--minutes", "0.01"])
    assert isinstance(done.exception, EngineError)
    assert re.search(rf"the split {lacking}\b.*{advice}", str(done.exception))
    assert not (tmp_path / "run").exists()
