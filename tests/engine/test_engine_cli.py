"""The engine's command line: lazy commands, and errors of one line that say what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from dg_engine.cli import load_engine, main
from dg_engine.paths import shipped_model


def test_every_listed_command_exists() -> None:
    context = click.Context(main)
    for name in main.list_commands(context):
        assert isinstance(main.get_command(context, name), click.Command)


@pytest.mark.parametrize(
    ("missing", "command", "extra"), [("uvicorn", "serve", "engine"), ("datasketch", "corpus", "train")]
)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(missing: str, command: str, extra: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from dg_engine.cli import main; main([{command!r}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == [
        f"Error: {missing} is not installed, which this command needs: pip install '.[{extra}]' in a checkout of dg-lsp"
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["serve", "--listen", "127.0.0.1"], "expected HOST:PORT"),
        (["serve", "--listen", "127.0.0.1:99999"], "expected HOST:PORT"),
        (["serve", "--listen", "127.0.0.1:²"], "expected HOST:PORT"),
        (["serve", "--listen", "192.0.2.1:80"], "on this machine alone"),
        (["bench", "--model", "/no/such/checkpoint"], "tokenizer.json"),
        (["serve", "--threads", "0"], "--threads"),
        (["generate", "--threads", "100000", str(Path(__file__))], "--threads"),
        (["generate", "--time-budget", "nan", str(Path(__file__))], "'nan' is no number"),
        (["serve", "--idle-timeout", "nan"], "'nan' is no number"),
        (["serve", "--idle-timeout", "inf"], "'inf' is no finite number"),
        (["train", "--corpus", "/no/such", "--minutes", "inf"], "'inf' is no finite number"),
        (["train", "--corpus", "/no/such", "--slice", "1e999"], "'1e999' is no finite number"),
        (["train", "--corpus", "/no/such", "--seed", "-1"], "--seed"),
        (["train", "--corpus", "/no/such", "--seed", "99999999999999999999999"], "--seed"),
        (["serve", "--socket", "."], "cannot listen on ."),
        (["serve", "--socket", f"{__file__}/x"], f"cannot listen on {__file__}/x"),
        (["serve", "--socket", "/proc/x.sock"], "cannot listen on /proc/x.sock"),
        (["serve", "--socket", f"{Path(__file__).parent}/{'x' * 300}"], "File name too long"),
        (["quantize", str(shipped_model()), f"{__file__}/x", "--format", "fp8"], f"{__file__}"),
        (["inspect", "--device", "gpu"], "gpu: expected a device such as cpu"),
        (["generate", "--device", "cuda:99", str(Path(__file__))], "cuda:99: is not here"),
        (["generate", "--seed", "99999999999999999999"], "--seed"),
        (["generate", "--model", "x", str(shipped_model() / "model.safetensors")], "the prompt is not UTF-8"),
    ],
)
def test_a_wrong_argument_gets_one_clear_line(arguments: list[str], expected: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code in (1, 2)
    assert expected in result.output


def test_on_a_terminal_loading_shows_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load_engine("")
    assert capsys.readouterr().err == "", "elsewhere it is quiet"
    monkeypatch.setenv("FORCE_COLOR", "1")
    load_engine("")
    assert "reading the weights" in capsys.readouterr().err
