"""Secrets and excluded files are left alone, and a rule that nobody understands leaves everything alone."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from dg_engine.exclusion import IGNORE_FILE, SECRETS, Exclusions


def uri_of(path: Path) -> str:
    return path.as_uri()


def reason(rules: Exclusions, path: Path) -> str | None:
    return rules.reason(path, uri_of(path))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "src").mkdir(parents=True)
    (root / "src" / "a.py").write_text("x = 1\n")
    return root


@pytest.mark.parametrize(
    "name",
    [
        ".env",
        ".env.local",
        "src/.ENV",
        "server.pem",
        "keys/Private.KEY",
        "id_rsa",
        "id_ed25519.pub",
        ".ssh/config",
        ".aws/credentials",
        ".kube/config",
        "config/secrets.yml",
        "secrets/readme.md",
        "credentials.json",
        "data.sqlite3",
        "prod.tfvars",
    ],
)
def test_files_of_secrets_are_known_by_their_names(folder: Path, name: str) -> None:
    found = reason(Exclusions([folder]), folder / name)
    assert found is not None
    assert "secrets" in found


@pytest.mark.parametrize("name", ["src/a.py", "environment.py", "keyboard.py", "README.md", "dbapi.py", "secretary.py"])
def test_other_files_are_free(folder: Path, name: str) -> None:
    assert reason(Exclusions([folder]), folder / name) is None


def test_every_built_in_rule_excludes_something(folder: Path) -> None:
    rules = Exclusions([folder])
    for secret in SECRETS:
        name = secret.replace("*", "x") + ("x" if secret.endswith("/") else "")
        assert reason(rules, folder / name) is not None, secret


def test_a_secret_outside_of_every_folder_is_a_secret(tmp_path: Path) -> None:
    assert reason(Exclusions(), tmp_path / ".ssh" / "config") is not None
    assert reason(Exclusions([tmp_path / ".ssh"]), tmp_path / ".ssh" / "config") is not None


def test_a_document_on_no_disk_goes_by_its_uri() -> None:
    assert Exclusions().reason(None, "untitled:Untitled-1") is None
    assert Exclusions().reason(None, "untitled:.env") is not None
    assert Exclusions().reason(None, "git:/a/%2Eenv?ref=main") is not None


def test_ignore_files_hold_for_what_is_on_no_disk_yet(folder: Path) -> None:
    (folder / ".dglspignore").write_text("src/\n")
    rules = Exclusions([folder])
    for scheme, name in (("untitled", "src/new.py"), ("vscode-notebook-cell", "src/book.ipynb")):
        assert rules.reason(None, f"{scheme}:{folder}/{name}") is not None
        assert rules.reason(None, f"{scheme}:{folder}/lib.py") is None


def test_globs_of_the_settings_go_by_the_path_in_the_folder(folder: Path) -> None:
    rules = Exclusions([folder], ["/src/", "*.min.js"])
    assert reason(rules, folder / "src" / "a.py") == "The setting `exclude` names this file."
    assert reason(rules, folder / "lib" / "x.min.js") is not None
    assert reason(rules, folder / "lib" / "src" / "a.py") is None


def test_the_settings_can_take_a_built_in_rule_back(folder: Path) -> None:
    rules = Exclusions([folder], ["!.env.example"])
    assert reason(rules, folder / ".env.example") is None
    assert reason(rules, folder / ".env") is not None


def test_ignore_files_hold_for_what_lies_beneath_and_the_nearer_one_decides(folder: Path) -> None:
    (folder / IGNORE_FILE).write_text("*.gen.py\n# a comment\n\nvendor/\n")
    (folder / "src" / IGNORE_FILE).write_text("!kept.gen.py\n/only_here.py\n")
    rules = Exclusions([folder])
    excluded = [
        name
        for name in (
            "x.gen.py",
            "src/x.gen.py",
            "src/kept.gen.py",
            "vendor/a.py",
            "src/only_here.py",
            "only_here.py",
            "src/a.py",
        )
        if reason(rules, folder / name)
    ]
    assert excluded == ["x.gen.py", "src/x.gen.py", "vendor/a.py", "src/only_here.py"]


TREE = ("a.py", "b.py", "src/a.py", "src/gen/a.py", "src/gen/x.txt", "vendor/a.py", "vendor/lib/c.py", "gen/a.py")
RULES = (
    *(
        "*",
        "!*/",
        "!*.py",
        "*.py",
        "src/",
        "!src/",
        "/src",
        "src/*",
        "!src/a.py",
        "src/**",
        "!src/**",
        "**/gen",
        "gen/",
    ),
    *("!gen/", "vendor", "!vendor/lib/", "vendor/*", "!vendor/lib/c.py", "a.py", "!a.py", "/a.py", "**/a.py", "lib/"),
    *("src/gen/*", "!src/gen/a.py", "[ab].py", "[!a].py", "?.py", "/*", "!/src/", "src/gen", "*/lib", "#c", "a.py "),
)


def test_ignore_files_leave_out_what_git_leaves_out_by_the_same_rules(tmp_path: Path) -> None:
    draw = random.Random(0)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    for name in TREE:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    for _ in range(150):
        chosen = [draw.choices(RULES, k=3), draw.choices(RULES, k=draw.randint(0, 2))]
        for ignore_file in (".gitignore", IGNORE_FILE):
            for folder, lines in zip((tmp_path, tmp_path / "src"), chosen, strict=True):
                (folder / ignore_file).write_text("".join(f"{line}\n" for line in lines))
        asked = ["git", "-C", str(tmp_path), "check-ignore", "--no-index", "--", *TREE]
        told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.splitlines()
        # Anew each time: ignore files of one size may follow each other within a tick of the file system's clock.
        rules = Exclusions([tmp_path])
        assert [name for name in TREE if reason(rules, tmp_path / name)] == told, chosen


def test_a_byte_order_mark_is_no_part_of_the_first_rule(folder: Path) -> None:
    (folder / IGNORE_FILE).write_text("src/\n", encoding="utf-8-sig")
    assert reason(Exclusions([folder]), folder / "src" / "a.py") is not None


def test_ignore_files_above_a_workspace_folder_hold_in_it(folder: Path) -> None:
    (folder / IGNORE_FILE).write_text("/src/private/\n")
    assert reason(Exclusions([folder / "src"]), folder / "src" / "private" / "a.py") is not None


def test_an_ignore_file_cannot_open_a_file_of_secrets(folder: Path) -> None:
    (folder / IGNORE_FILE).write_text("!.env\n")
    assert reason(Exclusions([folder]), folder / ".env") is not None


def test_a_changed_ignore_file_is_read_anew(folder: Path) -> None:
    rules, path, ignore = Exclusions([folder]), folder / "src" / "a.py", folder / IGNORE_FILE
    assert reason(rules, path) is None
    ignore.write_text("a.py\n")
    assert reason(rules, path) is not None
    ignore.write_text("other.py\n")
    assert reason(rules, path) is None
    ignore.unlink()
    assert reason(rules, path) is None


def test_a_link_to_a_secret_is_a_secret(folder: Path) -> None:
    (folder / "server.pem").write_text("")
    (folder / "harmless.py").symlink_to(folder / "server.pem")
    assert reason(Exclusions([folder]), folder / "harmless.py") is not None


def test_a_link_into_an_excluded_folder_is_excluded(folder: Path) -> None:
    (folder / "private").mkdir()
    (folder / "private" / "b.py").write_text("")
    (folder / "b.py").symlink_to(folder / "private" / "b.py")
    assert reason(Exclusions([folder], ["private/"]), folder / "b.py") is not None


def test_a_folder_reached_by_a_link_has_its_rules(folder: Path, tmp_path: Path) -> None:
    (folder / IGNORE_FILE).write_text("/src/a.py\n")
    (tmp_path / "link").symlink_to(folder)
    for root in (folder, tmp_path / "link"):
        for opened in (folder, tmp_path / "link"):
            assert reason(Exclusions([root]), opened / "src" / "a.py") is not None


def test_links_in_a_circle_are_left_alone(folder: Path) -> None:
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")
    assert reason(Exclusions([folder]), folder / "a" / "c.py") is not None
    assert reason(Exclusions([folder / "a", folder]), folder / "src" / "a.py") is None


@pytest.mark.parametrize("rule", ["!", "[z-a]", "[abc", "trailing\\"])
def test_a_broken_glob_blocks_everything_and_says_so(folder: Path, rule: str) -> None:
    found = reason(Exclusions([folder], ["*.ok", rule]), folder / "src" / "a.py")
    assert found is not None
    assert found.startswith("No file is completed until a broken rule is mended: the setting `exclude`")


def test_a_broken_ignore_file_blocks_its_folder_and_is_named(folder: Path) -> None:
    ignore = folder / IGNORE_FILE
    for content in (b"[z-a]\n", b"\xff\xfe\n"):
        ignore.write_bytes(content)
        found = reason(Exclusions([folder]), folder / "src" / "a.py")
        assert found is not None
        assert str(ignore) in found
    ignore.unlink()
    ignore.mkdir()
    assert reason(Exclusions([folder]), folder / "src" / "a.py") is not None


def test_the_file_itself_is_never_opened(folder: Path) -> None:
    pipe = folder / "pipe.py"
    os.mkfifo(pipe)  # opening it for reading would wait forever
    assert reason(Exclusions([folder], ["*.js"]), pipe) is None
    assert reason(Exclusions([folder]), folder / "missing.py") is None


def test_outside_every_workspace_folder_the_ignore_files_above_a_file_hold(folder: Path) -> None:
    (folder / IGNORE_FILE).write_text("src/\n")
    assert reason(Exclusions(), folder / "src" / "a.py") is not None
    assert reason(Exclusions([folder.parent / "elsewhere"]), folder / "src" / "a.py") is not None
    (folder / "b.py").write_text("")
    assert reason(Exclusions(), folder / "b.py") is None


def test_an_address_that_cannot_be_read_excludes_its_document() -> None:
    found = Exclusions().reason(None, "file://[")
    assert found is not None
    assert "address" in found
