"""The commands as people type them: what they print, and with which status they end."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dg_engine.paths import shipped_model
from dg_lsp.testing_client import scripted

RULES = (
    {"after": "return ", "text": "a + b", "steps": 3},
    {"after": "crash = ", "then": "crash"},
)


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dg_lsp", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=cwd)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "a: b.py"
    path.write_text("def add(a, b):\n    return \ncrash = \n")
    return path


def complete(source: Path, place: str, *options: str) -> subprocess.CompletedProcess[str]:
    return run(*scripted(source.parent, *RULES), "complete", f"{source}:{place}", *options, cwd=source.parent)


def test_complete_prints_the_text_alone(source: Path) -> None:
    done = complete(source, "2:12")
    assert (done.returncode, done.stdout, done.stderr) == (0, "a + b\n", "")


def test_complete_as_json_tells_range_steps_time_score_and_stop_reason(source: Path) -> None:
    done = complete(source, "2:12", "--json")
    values = json.loads(done.stdout)
    assert values.pop("milliseconds") >= 0
    place = {"line": 2, "column": 12}
    assert values == {
        "text": "a + b",
        "range": {"start": place, "end": place},
        "steps": 3,
        "engineMilliseconds": 0.0,
        "score": None,
        "stopReason": "converged",
    }


def test_complete_watched_ends_with_the_whole_line_and_its_figures(source: Path) -> None:
    done = complete(source, "2:12", "--watch")
    assert done.returncode == 0
    assert "    return a + b" in done.stdout
    assert "3 steps, 0 ms in the engine" in done.stdout


def test_nothing_to_offer_is_status_1_with_the_reason(source: Path) -> None:
    done = complete(source, "1:1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip()


def test_an_engine_that_fails_is_status_3_with_its_words(source: Path) -> None:
    done = complete(source, "3:9")
    assert (done.returncode, done.stdout) == (3, "")
    assert "The scripted engine broke on the way." in done.stderr


def test_an_engine_that_does_not_start_is_status_3_with_its_words(source: Path) -> None:
    arguments = scripted(source.parent, startError="no such checkpoint")
    done = run(*arguments, "complete", f"{source}:2:12")
    assert (done.returncode, done.stdout) == (3, "")
    assert "no such checkpoint" in done.stderr


@pytest.mark.parametrize(
    ("place", "words"),
    [("9:1", "no line 9"), ("1:99", "no column 99"), ("0:1", "FILE:LINE:COL"), ("1", "FILE:LINE:COL"), ("x:y", "LINE")],
)
def test_a_place_that_does_not_exist_is_status_2(source: Path, place: str, words: str) -> None:
    done = complete(source, place)
    assert done.returncode == 2
    assert words in done.stderr


def test_a_decoding_that_does_not_exist_is_status_2_and_those_that_do_are_named(source: Path) -> None:
    assert complete(source, "2:12", "--decoding", "causal_fit").stdout == "a + b\n"
    done = complete(source, "2:12", "--decoding", "telepathic")
    assert done.returncode == 2
    assert "causal_fit" in done.stderr


def test_a_file_that_cannot_be_read_is_status_2(source: Path) -> None:
    done = complete(source.with_name("absent.py"), "1:1")
    assert done.returncode == 2
    assert "cannot be read" in done.stderr


def test_an_excluded_file_is_not_read(source: Path) -> None:
    secret = source.with_name(".env")
    secret.write_text("return ")
    done = complete(secret, "1:8")
    assert (done.returncode, done.stdout) == (1, "")


def test_invalid_utf8_is_read_with_replacements(source: Path) -> None:
    source.write_bytes(b"# \xff\xfe\ndef add(a, b):\r\n    return \r\n")
    assert complete(source, "3:12").stdout == "a + b\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--backend", "scripted"],
        ["--backend", "scripted", "--script", "/absent.json"],
        ["--stdio", "--tcp", "127.0.0.1:0"],
        ["--log-file", "/absent/log"],
        ["complete", "a:1:1", "--watch", "--json"],
    ],
)
def test_a_wrong_command_line_is_refused_without_a_traceback(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode in {1, 2}
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_said_without_a_traceback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("--tcp", f"127.0.0.1:{taken.getsockname()[1]}")
    assert done.returncode == 1
    assert "address already in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_log_goes_to_the_file_that_is_asked_for(tmp_path: Path) -> None:
    log = tmp_path / "log"
    run("--log-file", str(log), "--log-level", "debug", *scripted(tmp_path))
    assert log.exists()


def test_doctor_names_every_part_and_finds_this_installation_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="dg") as home:
        monkeypatch.setenv("XDG_RUNTIME_DIR", home)
        monkeypatch.setenv("XDG_STATE_HOME", home)
        done = run("doctor")
    assert done.returncode == 0, done.stdout
    for part in ("Python", "pygls", "grammars", "torch", "device", "model", "engine", "not running"):
        assert part in done.stdout
    assert "broken" not in done.stdout


def test_without_a_place_for_a_log_doctor_says_so_and_all_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="dg") as home:
        monkeypatch.setenv("XDG_RUNTIME_DIR", home)
        monkeypatch.setenv("XDG_STATE_HOME", "/proc/absent")
        done = run("doctor")
    assert done.returncode == 0, done.stdout
    assert "none is written: [Errno 2] No such file or directory: '/proc/absent" in " ".join(done.stdout.split())


def test_doctor_knows_models_by_their_names_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    shutil.copytree(shipped_model(), tmp_path / "models--owner--model" / "snapshots" / ("0" * 40))
    assert "lacks" not in run("doctor", "--model", "owner/model").stdout
    told = " ".join(run("doctor", "--model", "owner/absent").stdout.split())
    assert "not in the hub's cache; try: dg-engine download" in told


def test_a_terminal_that_knows_ascii_alone_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    assert run("doctor", "--model", "größe").returncode == 1
    monkeypatch.setenv("PYTHONUTF8", "0")
    assert "gr??e" in run("doctor", "--model", "größe").stdout


def test_a_picture_that_could_not_be_written_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    done = run("demo", "--picture", str(tmp_path / "absent" / "x.svg"))
    assert done.returncode == 2
    assert "is no directory" in done.stderr


def test_doctor_says_what_to_do_about_a_wrong_model_and_ends_with_status_1(tmp_path: Path) -> None:
    done = run("doctor", "--model", str(tmp_path))
    assert done.returncode == 1
    assert "lacks config.json" in " ".join(done.stdout.split())
    assert "dg.engine.model" in done.stdout
