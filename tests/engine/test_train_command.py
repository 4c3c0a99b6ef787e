"""`dg-engine train` leads from a corpus to a checkpoint, and refuses a corpus that it cannot train on."""

from __future__ import annotations

import json
import math
import re
import shutil
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from dg_engine.api import Infill, InfillRequest
from dg_engine.cli import main
from dg_engine.engine import Engine
from dg_engine.errors import EngineError
from dg_engine.settings import read_infill_config
from dg_engine.training.card import keep_measured, keep_recipe
from dg_engine.training.commands import train
from dg_engine.training.corpus import read_manifest, write_json
from dg_engine.training.plan import read_plan
from dg_engine.training.run_state import read_metrics


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
    assert "In turn: causal language modelling; causal and denoising losses together" in card
    arguments[3:4] = [str(tmp_path / "further"), "--init", str(run / "model"), "--mode", "eager"]
    arguments += ["--set", "schedule.causal_until=0"]
    assert CliRunner().invoke(train, arguments, catch_exceptions=False).exit_code == 0
    card = (tmp_path / "further" / "model" / "README.md").read_text(encoding="utf-8")
    assert "\n> 0 minutes of training on " in card
    assert "\nIn turn: causal and denoising losses together" in card, "there was no stage from left to right alone"


def test_a_run_goes_on_through_its_own_batches_alone(tmp_path: Path, library_corpus: Path) -> None:
    arguments = ["--corpus", str(library_corpus), "--run", str(tmp_path / "run"), "--mode", "eager", "--shape", "tiny"]
    begun = CliRunner().invoke(train, [*arguments, "--minutes", "0.001", "--chunks", "1"], catch_exceptions=False)
    assert begun.exit_code == 0
    others = {
        "--seed=1": "--seed 0, not 1",
        "--chunks=2": "--chunks 1, not 2",
        "--context=256": "--context 512, not 256",
    }
    for option, told in others.items():
        with pytest.raises(EngineError, match=f"the run was begun with {told}"):
            CliRunner().invoke(train, [*arguments, "--chunks", "1", option], catch_exceptions=False)


def test_who_has_no_compiler_is_told_how_to_train_without(
    tmp_path: Path, library_corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    arguments = ["--corpus", str(library_corpus), "--run", str(tmp_path / "run"), "--device", "cpu"]
    with pytest.raises(EngineError, match="no C\\+\\+ compiler to compile with: install g\\+\\+, or give --mode eager"):
        CliRunner().invoke(train, arguments, catch_exceptions=False)


def test_a_card_in_another_encoding_keeps_no_run_from_beginning(tmp_path: Path) -> None:
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "README.md").write_bytes(b"## Recipe and compute\n\nTrained in Orl\xe9ans.\n")
    keep_recipe(tmp_path / "start", tmp_path)
    assert (tmp_path / "earlier.md").read_text(encoding="utf-8") == "Trained in Orl\ufffdans."


def with_tokens_exchanged(corpus: Path, target: Path) -> Path:
    """The same corpus under another vocabulary of the same size."""
    shutil.copytree(corpus, target)
    path = target / "tokenizer.json"
    tokenizer = json.loads(path.read_bytes())
    numbers = tokenizer["model"]["vocab"]
    numbers["e"], numbers["q"] = numbers["q"], numbers["e"]
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    digest = sha256(path.read_bytes()).hexdigest()
    write_json(target / "manifest.json", msgspec.structs.replace(read_manifest(target), tokenizer=digest))
    return target


def test_weights_are_trained_under_their_own_vocabulary_alone(tmp_path: Path, library_corpus: Path) -> None:
    other = with_tokens_exchanged(library_corpus, tmp_path / "other")
    words = ["--shape", "tiny", "--mode", "eager", "--chunks", "1", "--minutes", "0.02", "--slice", "0.005"]

    def trained(corpus: Path, run: str, *further: str) -> Result:
        return CliRunner().invoke(train, ["--corpus", str(corpus), "--run", str(tmp_path / run), *words, *further])

    assert trained(library_corpus, "run").exit_code == 0
    start = tmp_path / "run" / "model"
    before = (start / "model.safetensors").read_bytes()
    for refused in (trained(other, "run"), trained(other, "further", "--init", str(start))):
        assert isinstance(refused.exception, EngineError)
        assert re.search(rf"another vocabulary .*`dg-engine corpus build --tokenizer {start}`", str(refused.exception))
    assert (start / "model.safetensors").read_bytes() == before
    assert not (tmp_path / "further").exists()

    # As another version of the library writes the same vocabulary.
    path = start / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_bytes())), encoding="utf-8")
    assert trained(library_corpus, "further", "--init", str(start)).exit_code == 0


@pytest.mark.parametrize("tells", [True, False], ids=["says of which", "from before it was kept"])
def test_a_card_quotes_an_evaluation_of_its_own_weights_alone(
    tmp_path: Path, library_corpus: Path, *, tells: bool
) -> None:
    corpus, model = ["--corpus", str(library_corpus)], tmp_path / "run" / "model"
    words = ["train", *corpus, "--run", str(model.parent), "--shape", "tiny", "--mode", "eager", "--chunks", "1"]

    def card(minutes: float) -> str:
        done = CliRunner().invoke(main, [*words, "--minutes", str(minutes)], catch_exceptions=False)
        assert done.exit_code == 0
        return (model / "README.md").read_text(encoding="utf-8")

    card(0.01)
    measured = ["evaluate", *corpus, "--model", str(model), "--cases", "1", "--systems", "copy"]
    assert CliRunner().invoke(main, [*measured, "--ledger", str(tmp_path / "ledger.jsonl")]).exit_code == 0
    findings = json.loads((model / "evaluation.json").read_bytes())
    if not tells:
        write_json(model / "evaluation.json", {key: value for key, value in findings.items() if key != "weights"})
    heading, elsewhere = "### Infill on projects that were not trained on", "is of other weights: run `dg-engine eval"
    quoted = card(0.01)
    assert heading in quoted
    assert elsewhere not in quoted
    for _ in range(2):
        after = card(0.02)
        assert heading not in after
        assert elsewhere in after
    assert json.loads((model / "evaluation.json").read_bytes()) == findings


def test_an_evaluation_that_cannot_be_read_keeps_no_model_back(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_bytes(b'{"weights": "\xff"}')
    keep_measured(tmp_path)
    assert (tmp_path / "evaluation.json").read_bytes() == b'{"weights": "\xff"}'


def test_a_run_in_which_filler_counts_nothing_is_exported(tmp_path: Path, library_corpus: Path) -> None:
    run = tmp_path / "run"
    words = ["--corpus", str(library_corpus), "--run", str(run), "--shape", "tiny", "--mode", "eager", "--chunks", "1"]
    settings = ["schedule.objective.filler_weight=0", "schedule.causal_until=0", "layouts.usual.canvases=1"]
    words += ["--minutes", "0.01", *(word for one in settings for word in ("--set", one))]
    assert CliRunner().invoke(train, words, catch_exceptions=False).exit_code == 0
    assert read_infill_config(run / "model").filler_bias == 0
    assert all(math.isfinite(line["loss"]) for line in read_metrics(run) if "loss" in line)


def test_a_model_is_given_in_use_as_much_before_the_cursor_as_it_was_trained_with(
    tmp_path: Path, library_corpus: Path
) -> None:
    words = ["--corpus", str(library_corpus), "--run", str(tmp_path), "--shape", "tiny", "--mode", "eager"]
    words += ["--chunks", "1", "--accumulate", "1", "--minutes", "0.001", "--context"]
    assert CliRunner().invoke(train, [*words, "640"], catch_exceptions=False).exit_code == 0
    plan = read_plan(tmp_path)
    assert plan is not None
    assert plan.layouts.usual.encoder_tokens == 640
    assert Engine.load(tmp_path / "model").info.max_prefix_tokens == 640
    for tokens in ("63", "1000"):
        with pytest.raises(EngineError, match=f"a context of {tokens} tokens: expected 64 to 928 with this shape"):
            CliRunner().invoke(train, [*words, tokens], catch_exceptions=False)


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
