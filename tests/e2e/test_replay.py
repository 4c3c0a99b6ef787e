"""Real code typed again: what is counted, with a scripted engine."""

from __future__ import annotations

import heapq
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from dg_lsp.cli import main
from dg_lsp.replay import CHARACTERS, LINES, Passage, Tally, code_in, passages, replay, table
from dg_lsp.testing_client import RawClient, scripted

EAGER = {"debounceMs": 0}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return Path(shutil.copy(heapq.__file__, tmp_path / "queue.py"))


def test_passages_are_lines_of_the_files_where_they_stand_and_the_seed_decides_which(source: Path) -> None:
    text = source.read_text(encoding="utf-8")
    found = passages({source: text}, 30)
    assert len(found) == 30
    for passage in found:
        assert passage.before + passage.text + passage.behind == text
        assert passage.before.rsplit("\n", 1)[-1].strip() == ""
        assert not passage.text[0].isspace()
        assert passage.text.count("\n") < LINES
        assert sum(len(line.strip()) for line in passage.text.split("\n")) <= CHARACTERS
    assert passages({source: text}, 30) == found
    assert passages({source: text}, 30, seed=1) != found


def test_a_right_offer_is_taken_by_one_key_and_a_wrong_one_costs_none(tmp_path: Path) -> None:
    path = tmp_path / "sums.py"
    passage = Passage(
        path, "def add(first, second):\n    ", "return first + second\n    # done", "\n\n\nprint(add(1, 2))\n"
    )
    rules = ({"after": "    return", "text": " first + second"}, {"after": "# ", "text": "to do"})
    with RawClient(scripted(tmp_path, *rules)) as client:
        tally = replay([passage], client, EAGER)
    assert tally.by_hand == len("return first + second") + 1 + len("# done")
    assert tally.keys == tally.by_hand - len(" first + second") + 1
    assert (tally.offers, tally.right) == (2, 1)
    assert tally.showing == 2
    assert len(tally.milliseconds) == tally.keys
    assert len(tally.milliseconds_behind) == 1
    shown = [str(cell) for column in table(tally).columns for cell in column.cells]
    assert f"{tally.keys} (50.0 % fewer)" in shown


def test_an_offer_that_is_typed_along_counts_once(tmp_path: Path) -> None:
    passage = Passage(tmp_path / "sums.py", "x = 1\nvalue = ", "first", "\ny = 2\n")
    with RawClient(scripted(tmp_path, {"after": "value = ", "text": "firmly"})) as client:
        tally = replay([passage], client, EAGER)
    assert (tally.offers, tally.right, tally.keys) == (1, 0, len("first"))
    assert tally.showing == len("fir") + 1, "until something else is typed"


def test_in_an_editor_that_closes_brackets_the_closers_stand_behind_what_is_offered(tmp_path: Path) -> None:
    passage = Passage(tmp_path / "sums.py", "x = 1\nvalue = ", "add(first, [second])", "\ny = 2\n")
    rule = {"after": "add(", "text": "first, [second])"}
    keys = []
    for pairs in (False, True):
        with RawClient(scripted(tmp_path, rule)) as client:
            tally = replay([passage], client, EAGER, pairs=pairs)
        assert (tally.offers, tally.right) == (1, 1)
        keys.append(tally.keys)
    assert keys == [len("add(") + 1, len("add(") + 1 + len(")")], "what is there already is not offered"


def test_what_closes_behind_the_passage_alone_makes_no_offer_wrong(tmp_path: Path) -> None:
    passage = Passage(tmp_path / "sums.js", "let a;\n", "if (a) {\n  value = first", ";\n}\n")
    with RawClient(scripted(tmp_path, {"after": "value = ", "text": "first"})) as client:
        tally = replay([passage], client, EAGER, pairs=True)
    assert (tally.offers, tally.right) == (1, 1)
    assert tally.keys == len("if (a) {") + 1 + len("value = ") + 1 + len("}"), "what is there twice is deleted"


def test_times_of_what_did_not_happen_are_none() -> None:
    shown = [
        str(cell) for column in table(Tally(by_hand=1, keys=1, milliseconds=[3.0])).columns for cell in column.cells
    ]
    assert shown[-2:] == ["p50 3, p95 3", "none"]


def test_of_a_folder_the_users_own_code_is_typed_in_every_known_language(tmp_path: Path) -> None:
    wanted = {"a.py", "web/b.ts", "c.go"}
    others = {"notes.txt", ".hidden/d.py", "node_modules/e.js", "mine/pyvenv.cfg", "mine/lib/f.py", "secret.py"}
    for name in wanted | others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n", encoding="utf-8")
    (tmp_path / "latin.py").write_bytes(b"x = '\xe9'\n")
    (tmp_path / ".dglspignore").write_text("secret.py\n", encoding="utf-8")
    assert {path.relative_to(tmp_path.resolve()).as_posix() for path, _ in code_in(tmp_path)} == wanted


def test_of_a_folder_in_a_repository_what_git_ignores_is_left_out(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text("made.py\n", encoding="utf-8")
    (tmp_path / "src").mkdir()
    for name in ("made.py", "written.py"):
        (tmp_path / "src" / name).write_text("x = 1\n", encoding="utf-8")
    assert [path.name for path, _ in code_in(tmp_path / "src")] == ["written.py"]


def test_a_file_that_is_named_and_cannot_be_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    named = tmp_path / "latin.py"
    named.write_bytes(b"x = '\xe9'\n" * 40)
    done = CliRunner().invoke(main, ["replay", str(named)])
    assert done.exit_code == 1
    assert "latin.py: cannot be read" in done.output


def test_an_engine_that_does_not_start_is_an_error_with_its_words(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    done = CliRunner().invoke(main, ["replay", "--passages", "1", "--model", absent, __file__])
    assert done.exit_code == 3
    assert f"{absent}/tokenizer.json" in done.output.replace("\n", "")


def test_files_without_a_passage_are_an_error(tmp_path: Path) -> None:
    short = tmp_path / "short.py"
    short.write_text("x = 1\n", encoding="utf-8")
    done = CliRunner().invoke(main, ["replay", str(short)])
    assert done.exit_code == 1
    assert "no passage" in done.output
