"""How sure a model is of a length whatever stands there: the curve, and the command that prints it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from dg_engine.api import InfillRequest
from dg_engine.engine import Engine
from dg_engine.errors import EngineError, RequestError
from dg_engine.evaluation.cases import draw_cases
from dg_engine.evaluation.commands import evaluate
from dg_engine.evaluation.length_bias import fit
from dg_engine.evaluation.systems import System
from dg_engine.settings import LengthBias, LengthProbe
from dg_engine.testing import tiny_checkpoint
from dg_engine.training.corpus import documents


def test_a_bias_is_fitted_to_how_sure_the_model_is_of_each_length() -> None:
    true = LengthBias(a=1.0, b=1.77, c=0.56, d=0.06, e=0.24)
    means = {length: true.of(length) * (1.01 if length % 3 else 0.99) for length in LengthProbe().lengths}
    found = fit(means)
    for length in range(1, 129):
        assert found.of(length) == pytest.approx(true.of(length), rel=0.02)
    with pytest.raises(EngineError, match="4 lengths are too few"):
        fit(dict.fromkeys(range(4), 0.5))


@pytest.mark.parametrize("level", [0.02, 0.9])
def test_a_bias_is_found_where_all_lengths_are_alike(level: float) -> None:
    found = fit(dict.fromkeys(LengthProbe().lengths, level))
    assert [found.of(length) for length in (1, 16, 128)] == pytest.approx([level] * 3, rel=1e-3)


def test_the_command_says_what_to_put_into_the_configuration(tmp_path: Path, library_corpus: Path) -> None:
    directory = tiny_checkpoint(tmp_path)
    directory.joinpath("infill_config.json").unlink()
    released = Engine.load(directory, device="cpu")
    asked = ["--length-bias", "--split", "validation", "--cases", "5", "--corpus", str(library_corpus)]
    command = [*asked, "--model", str(directory)]
    ran = CliRunner().invoke(evaluate, command, catch_exceptions=False)
    name, _, value = ran.stdout.partition(": ")
    assert name == '"length_probe"'
    probe = msgspec.json.decode(value, type=LengthProbe)
    assert probe.bias is not None
    assert probe == msgspec.structs.replace(LengthProbe(), bias=probe.bias)
    one = draw_cases(list(documents(library_corpus, "validation")), 5)[0]
    found = released.sureness_of_lengths(System(name="", about="").request(one, 1), 128)
    assert list(found) == LengthProbe().up_to(released.model.config.canvas_length)
    assert [probe.bias.of(length) for length in found] == pytest.approx(list(found.values()), rel=0.5)
    for cases in ("0", "1"):
        too_few = CliRunner().invoke(evaluate, [*command, "--cases", cases])
        assert isinstance(too_few.exception, EngineError)
        assert "places are too few" in str(too_few.exception)


def test_a_checkpoint_that_learnt_filler_tries_no_lengths(tmp_path: Path) -> None:
    engine = Engine.load(tiny_checkpoint(tmp_path), device="cpu")
    with pytest.raises(RequestError, match="tries no lengths"):
        engine.sureness_of_lengths(InfillRequest(prefix="a = ", suffix=""), 8)
