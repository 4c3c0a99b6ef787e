"""A corpus is what its sources, rules and mixture say, however often its making is killed; it is read where it lies."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from dg_engine.cli import main
from dg_engine.errors import EngineError
from dg_engine.testing import tiny_checkpoint, tiny_tokenizer
from dg_engine.tokenizer import Tokenizer
from dg_engine.training.card import write_card
from dg_engine.training.corpus import Manifest, Refused, documents, read_manifest, write_json
from dg_engine.training.corpus_command import corpus, reporting
from dg_engine.training.decontamination import Benchmarks
from dg_engine.training.encoded import EncodedSplit, encode_split, save_split
from dg_engine.training.gathering import Progress
from dg_engine.training.mixture import kept_shares, read_shares
from dg_engine.training.plan import PLAN_FILE
from dg_engine.training.prepare import Recipe, load_prepared, prepare
from dg_engine.training.projects import SPLITS
from dg_engine.training.schedule import Schedule
from dg_engine.training.sources import Document, Splits, read_sources
from dg_engine.training.tokenizer_training import SPECIAL_TOKENS, save_tokenizer

MIT = "Permission is hereby granted, free of charge, to any person obtaining a copy of this software"
VOCABULARY = 600


def module(seed: int, lines: int = 60) -> str:
    """Sound Python that resembles no other module."""
    rng = np.random.default_rng(seed)
    names = ["".join(map(chr, rng.integers(97, 123, 7))) for _ in range(lines)]
    return "".join(f"def {name}(value):\n    return value + {name[::-1]!r}\n" for name in names)


def go(seed: int) -> str:
    """Sound Go that resembles nothing else."""
    rng = np.random.default_rng(seed)
    names = ["".join(map(chr, rng.integers(97, 123, 7))) for _ in range(30)]
    return "package a\n\n" + "".join(
        f'func {name}(a int) string {{\n\treturn f(a, "{name[::-1]}")\n}}\n' for name in names
    )


def folder(place: Path, files: Mapping[str, str], licence: str = MIT) -> Path:
    for path, text in {"LICENSE": licence, **files}.items():
        file = place / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return place


@pytest.fixture
def sources(tmp_path: Path) -> list[str]:
    """Four projects: `alpha` is held out, `beta`, a wheel, is for validation; `delta` is an archive."""
    alpha, beta, gamma, delta = (
        folder(tmp_path / name, {f"{name}/{part}.py": module(seed + part) for part in range(3)})
        for name, seed in {"alpha": 10, "beta": 20, "gamma": 30, "delta": 40}.items()
    )
    folder(beta, {"beta-1.5.dist-info/METADATA": "Name: beta\nVersion: 1.5\nLicense-Expression: ISC\n"})
    zipped = Path(shutil.make_archive(str(tmp_path / "beta-1.5-py3-none-any"), "zip", beta))
    wheel = zipped.rename(zipped.with_suffix(".whl"))
    archive = shutil.make_archive(str(tmp_path / "delta-2.0"), "gztar", tmp_path, delta.name)
    return [str(alpha), str(wheel), str(gamma), archive]


def recipe(sources: list[str], benchmarks: list[Path] | None = None, **shares: float) -> Recipe:
    splits = Splits(validation=["beta"], held_out=["alpha"]) if len(sources) == 4 else Splits()
    return Recipe(
        sources=read_sources(sources, splits),
        vocabulary=VOCABULARY,
        benchmarks=benchmarks or [],
        shares=shares or {"python": 1.0},
    )


def quiet(progress: Progress) -> None:
    """Nobody watches."""


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def build(directory: Path, made_of: Recipe) -> Manifest:
    return prepare(directory, made_of, quiet)


def test_a_corpus_gives_back_its_documents_as_tokens_with_their_paths_and_spans(
    sources: list[str], tmp_path: Path
) -> None:
    manifest = build(tmp_path / "corpus", recipe(sources))
    assert [(one.name, one.split, one.files, one.source, one.licence, one.version) for one in manifest.projects] == [
        ("alpha", "held_out", 3, "folder", "MIT", ""),
        ("beta", "validation", 3, "archive", "ISC", "1.5"),
        ("delta", "train", 3, "archive", "MIT", ""),
        ("gamma", "train", 3, "folder", "MIT", ""),
    ]
    prepared = load_prepared(tmp_path / "corpus")
    assert (len(prepared.train), len(prepared.validation)) == (6, 3)
    assert prepared.train.total_tokens == sum(one.tokens for one in manifest.of("train"))
    texts = {
        prepared.tokenizer.decode(prepared.train.header(number)[2:].tolist()).strip(): prepared.tokenizer.decode(
            prepared.train.tokens(number).tolist()
        )
        for number in range(len(prepared.train))
    }
    assert texts == {one.path: one.text for one in documents(tmp_path / "corpus", "train")}
    assert texts["gamma/1.py"] == module(31)
    assert all(len(prepared.train.nodes(number).start) > 100 for number in range(6))


def test_a_build_that_is_killed_goes_on_and_ends_in_the_same_bytes(sources: list[str], tmp_path: Path) -> None:
    made_of = recipe(sources)
    whole = tmp_path / "whole"
    steps = list[Progress]()
    prepare(whole, made_of, steps.append)
    expected = contents(whole)

    for kill_at in range(len(steps)):
        directory = tmp_path / f"killed-{kill_at}"
        seen = list[Progress]()

        def killed(progress: Progress, seen: list[Progress] = seen, kill_at: int = kill_at) -> None:
            seen.append(progress)
            if len(seen) > kill_at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            prepare(directory, made_of, killed)
        finished = {path: path.stat().st_mtime_ns for path in directory.rglob("*.json*") if "projects" in path.parts}
        build(directory, made_of)
        assert contents(directory) == expected
        assert {path: path.stat().st_mtime_ns for path in finished} == finished, "nothing finished is made again"


def test_a_process_that_is_killed_outright_loses_nothing_finished(sources: list[str], tmp_path: Path) -> None:
    made_of, directory = recipe(sources), tmp_path / "killed"
    command = [
        sys.executable,
        "-c",
        "from dg_engine.cli import main; main()",
        "corpus",
        "build",
        *sources,
        "--directory",
        str(directory),
    ]
    command += ["--vocabulary", str(VOCABULARY), "--validation", "beta", "--held-out", "alpha"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("choosing 2/4"):
                os.kill(process.pid, signal.SIGKILL)
    assert not (directory / "manifest.json").exists()
    assert (directory / "projects" / "validation" / "beta.json").exists()
    build(directory, made_of)
    build(tmp_path / "whole", made_of)
    assert contents(directory) == contents(tmp_path / "whole")


def test_a_changed_source_and_all_that_depends_on_it_are_made_anew(sources: list[str], tmp_path: Path) -> None:
    directory = tmp_path / "corpus"
    build(directory, recipe(sources))
    (tmp_path / "alpha" / "alpha" / "3.py").write_text((tmp_path / "gamma" / "gamma" / "1.py").read_text())
    manifest = build(directory, recipe(sources))
    assert [one.files for one in manifest.projects] == [4, 3, 3, 2]
    assert manifest.of("train")[1].dropped == {"exact duplicate": 1}, "the held-out copy wins"
    build(tmp_path / "again", recipe(sources))
    assert contents(directory) == contents(tmp_path / "again")


@pytest.mark.parametrize("lost", ["projects/train/gamma.jsonl", "projects/train/gamma.sketches", "tokenizer.json"])
def test_a_file_that_was_lost_is_made_again(sources: list[str], tmp_path: Path, lost: str) -> None:
    build(tmp_path / "corpus", recipe(sources))
    expected = contents(tmp_path / "corpus")
    (tmp_path / "corpus" / lost).unlink()
    build(tmp_path / "corpus", recipe(sources))
    assert contents(tmp_path / "corpus") == expected


def test_only_the_fit_files_of_permissive_projects_are_kept(tmp_path: Path) -> None:
    benchmark = tmp_path / "tasks.jsonl"
    benchmark.write_bytes(msgspec.json.encode({"code": module(1, lines=2)}) + b"\n")
    good = module(2)
    files = {
        "good.py": good,
        "near.py": good.replace("value + ", "value  +  ", 5).replace("(value)", "(other)", 3),
        "secret.py": module(3) + "password = 'ghp_abcdefghijklmnopqrstuvwxyz0123456789'\n",
        "leak.py": module(4) + module(1, lines=2),
        "long.py": module(5) + "data = '" + "ab " * 500 + "'\n",
        "src/app.js": go(10).replace("package a\n\n", "").replace("func", "function").replace("a int) string", "a)"),
        "static/app.min.js": "function f(a){return a+1}\n" * 20,
        "static/small.js": "function f(a){return a+1}" * 50,
        "_vendor/other.py": module(6),
        "copied.py": "# SPDX-License-Identifier: GPL-3.0-or-later\n" + module(7),
        "tests/data/bad.py": "not python",
    }
    made = folder(tmp_path / "delta", files)
    (made / "latin.py").write_bytes(module(9).encode() + "x = 'é'\n".encode("latin-1"))
    refused = folder(tmp_path / "gamma", {"a.py": module(8)}, "GNU GENERAL PUBLIC LICENSE Version 3")
    directory = tmp_path / "corpus"
    manifest = build(directory, recipe([str(made), str(refused)], [benchmark], python=1.0, javascript=1.0))
    (record,) = manifest.projects
    kept = {one.language: one.path for one in documents(directory, "train")}
    assert kept["javascript"] == "src/app.js"
    assert kept["python"] in ("good.py", "near.py")
    reasons = ["benchmark", "licence", "minified", "secret", "unreadable", "vendored"]
    assert record.dropped == dict.fromkeys([*reasons, "near duplicate", "test data"], 1) | {"long lines": 2}
    assert (record.licence, record.source, record.files) == ("MIT", "folder", 2)
    assert [(one.name, one.reason) for one in manifest.refused] == [("gamma", "licence GPL")]
    assert manifest.settings["benchmarks"] == ["tasks.jsonl"]
    shown = CliRunner().invoke(corpus, ["show", str(directory), "--project", "delta"], catch_exceptions=False)
    assert ["leak.py", "benchmark"] in [line.split() for line in shown.output.splitlines()]


def test_a_folder_under_a_licence_of_its_own_gives_files_only_if_that_is_permissive(tmp_path: Path) -> None:
    files = {
        "ee/LICENSE": "The Example Enterprise License. All rights reserved.",
        "ee/secret.py": module(1),
        "ee/deep/secret.py": module(2),
        "contrib/COPYING.LESSER": "GNU LESSER GENERAL PUBLIC LICENSE Version 3",
        "contrib/a.py": module(3),
        "bsd/LICENSE.txt": "Redistribution and use in source and binary forms, with or without modification",
        "bsd/a.py": module(4),
        "eel/a.py": module(5),
        "eel/license.py": module(6),
        "eel/license-keys.json": "{}",
    }
    manifest = build(tmp_path / "corpus", recipe([str(folder(tmp_path / "gamma", files))]))
    assert manifest.projects[0].dropped == {"licence of its folder": 3}
    kept = {one.path for one in documents(tmp_path / "corpus", "train")}
    assert kept == {"bsd/a.py", "eel/a.py", "eel/license.py"}


def spoilt(archive: Path) -> Path:
    """One byte of each file of a zip archive is another one."""
    archive.write_bytes(archive.read_bytes().replace(b"Permission", b"Qermission").replace(b"return", b"saturn"))
    return archive


def locked(archive: Path) -> Path:
    """A zip archive that says of each of its files that it is encrypted."""
    content = bytearray(archive.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(signature)
        while at >= 0:
            content[at + flags] |= 1
            at = content.find(signature, at + 1)
    archive.write_bytes(content)
    return archive


@pytest.mark.parametrize("harm", [spoilt, locked])
def test_an_archive_that_cannot_be_read_is_left_out_and_the_build_goes_on(
    harm: Callable[[Path], Path], sources: list[str], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.zip"
    with zipfile.ZipFile(bad, "w") as archive:
        for name, text in {"LICENSE": MIT, "a.py": module(9)}.items():
            archive.writestr(name, text)
    manifest = build(tmp_path / "corpus", recipe([str(harm(bad)), *sources[2:]]))
    assert [(one.name, one.reason) for one in manifest.refused] == [("bad", "licence unknown")]
    assert [one.name for one in manifest.projects] == ["delta", "gamma"]
    with zipfile.ZipFile(bad, "a") as archive:
        archive.writestr("pyproject.toml", '[project]\nlicense = "MIT"\n')
    (one,) = (one for one in build(tmp_path / "corpus", recipe([str(bad), *sources[2:]])).projects if one.name == "bad")
    assert (one.files, one.dropped) == (0, {"unreadable": 1})


def test_files_of_an_archive_whose_names_are_no_text_are_passed_over(sources: list[str], tmp_path: Path) -> None:
    made = folder(tmp_path / "latin", {"a.py": module(8)})
    (made / os.fsdecode(b"caf\xe9.py")).write_text(module(9))
    with tarfile.open(tmp_path / "latin-1.0.tar.gz", "w:gz", encoding="latin-1") as archive:
        archive.add(made, "latin")
    with zipfile.ZipFile(tmp_path / "zipped.zip", "w") as zipped:
        for name, number in {"b.py": 7, "c\x07.py": 6}.items():
            zipped.writestr(name, module(number))
        zipped.writestr("LICENSE", MIT)
    made_of = recipe([str(tmp_path / "latin-1.0.tar.gz"), str(tmp_path / "zipped.zip"), sources[2]])
    assert {one.name: one.files for one in build(tmp_path / "corpus", made_of).projects} == {
        "gamma": 3,
        "latin": 1,
        "zipped": 1,
    }


@pytest.mark.parametrize(
    ("manifest", "text"), [("pyproject.toml", "a = " + "[" * 5000 + "]" * 5000), ("package.json", "[" * 100_000)]
)
def test_a_manifest_of_nothing_but_brackets_says_nothing(manifest: str, text: str, tmp_path: Path) -> None:
    made = folder(tmp_path / "gamma", {manifest: text, "a.py": module(1)})
    (record,) = build(tmp_path / "corpus", recipe([str(made)])).projects
    assert (record.licence, record.version) == ("MIT", "")


@pytest.mark.parametrize("place", [b"caf\xe9", b"caf\xe9.zip", b"a\tb"])
def test_a_source_whose_name_is_no_text_is_refused_with_what_to_do(place: bytes, tmp_path: Path) -> None:
    made = folder(tmp_path / "gamma", {"a.py": module(1)})
    source = tmp_path / os.fsdecode(place)
    if place.endswith(b".zip"):
        Path(shutil.make_archive(str(tmp_path / "made"), "zip", made)).rename(source)
    else:
        made.rename(source)
    with pytest.raises(EngineError, match=r"no name that.*rename it"):
        read_sources([str(source)], Splits())


@pytest.mark.parametrize("harm", ["garbled", "cut", "no gzip", "no JSON", "brackets", "Latin-1"])
def test_a_benchmark_that_cannot_be_read_is_named(harm: str, tmp_path: Path) -> None:
    header = gzip.compress(b"")[:10]
    content = {
        "garbled": header + b"\xff" * 50,
        "cut": gzip.compress(b'{"code": "x = 1"}\n')[:-9],
        "no gzip": b"plain",
        "no JSON": gzip.compress(b"plain"),
        "brackets": gzip.compress(b"[" * 100_000),
        "Latin-1": gzip.compress(b'{"code": "\xe9"}\n'),
    }
    (tmp_path / "tasks.jsonl.gz").write_bytes(content[harm])
    with pytest.raises(EngineError, match=r"tasks\.jsonl\.gz: is not of HumanEval's"):
        Benchmarks.read([tmp_path / "tasks.jsonl.gz"])


def test_benchmarks_are_kept_out_of_training_alone() -> None:
    text = module(1)
    assert Benchmarks([text]).leak_into(text)
    assert not Benchmarks().leak_into(text)


def test_no_project_and_no_tests_take_more_than_their_share(tmp_path: Path) -> None:
    files = {f"module_{number}.py": module(number) for number in range(30)}
    files |= {f"tests/test_{number}.py": module(100 + number) for number in range(30)}
    made_of = recipe([str(folder(tmp_path / "gamma", files))])
    limit = 20 * len(module(0))
    small = Recipe(sources=made_of.sources, vocabulary=VOCABULARY, max_project_bytes=limit)
    (record,) = build(tmp_path / "small", small).projects
    assert 0.9 * limit < record.bytes <= limit
    assert record.dropped == {"beyond the project's share": 60 - record.files}
    (record,) = build(tmp_path / "whole", made_of).projects
    assert record.dropped == {"beyond the project's share": 20}, "a quarter of a project may be tests"


@pytest.mark.parametrize("lost", ["projects", "tokenizer.json", "shards", "manifest.json"])
def test_a_full_disk_is_said_in_a_line_and_the_same_command_goes_on(
    lost: str, sources: list[str], tmp_path: Path
) -> None:
    resource = pytest.importorskip("resource")
    arguments = ["corpus", "build", *sources, "--directory", str(tmp_path / "corpus"), "--vocabulary", str(VOCABULARY)]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    expected = contents(tmp_path / "corpus")
    place = tmp_path / "corpus" / lost
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))  # the kernel then fails as on a disk that is full
    try:
        stopped = CliRunner().invoke(main, arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert stopped.exit_code == 1
    assert isinstance(stopped.exception, SystemExit)
    said = stopped.output.splitlines()[-1]
    assert said.startswith("Error: ")
    assert "File too large" in said
    assert said.endswith("make room, and the same command goes on")
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert contents(tmp_path / "corpus") == expected


def test_languages_stand_in_the_proportion_that_is_asked_for(tmp_path: Path) -> None:
    files = {f"a{number}.py": module(number) for number in range(60)} | {
        f"b{number}.go": go(number) for number in range(20)
    }
    made = str(folder(tmp_path / "gamma", files))
    manifest = build(tmp_path / "mixed", recipe([made], python=0.5, go=0.5))
    languages = manifest.of("train")[0].languages
    assert set(languages) == {"python", "go"}
    assert manifest.kept["go"] == 1.0
    sizes = [sum(len(text) for path, text in files.items() if path.endswith(ending)) for ending in (".go", ".py")]
    assert manifest.kept["python"] == pytest.approx(sizes[0] / sizes[1])
    split = load_prepared_train(tmp_path / "mixed")
    assert len(split) < 80
    alone = build(tmp_path / "alone", recipe([made])).of("train")[0]
    assert list(alone.languages) == ["python"]
    with pytest.raises(EngineError, match="no training file in rust"):
        build(tmp_path / "none", recipe([made], python=0.5, rust=0.5))


def test_a_split_without_projects_is_pointed_out(tmp_path: Path) -> None:
    made = str(folder(tmp_path / "gamma", {"a.py": module(1)}))
    building = ["build", made, "--directory", str(tmp_path / "corpus"), "--vocabulary", str(VOCABULARY)]
    done = CliRunner().invoke(corpus, [*building, "--validation", "gamma"], catch_exceptions=True)
    assert "no training file in python" in str(done.exception)
    done = CliRunner().invoke(corpus, building, catch_exceptions=False)
    assert "--validation NAME" in done.output
    assert "--held-out NAME" in done.output
    shown = CliRunner().invoke(corpus, ["show", str(tmp_path / "corpus")], catch_exceptions=False)
    assert shown.output.splitlines()[1].split()[:3] == ["gamma", "train", "1"]


def load_prepared_train(directory: Path) -> EncodedSplit:
    return load_prepared(directory).train


def test_names_in_brackets_are_shown_as_they_are(tmp_path: Path) -> None:
    made = folder(tmp_path / "pages", {"app/[slug]/page.py": "x = 1\n", "a.py": module(1)})
    build(tmp_path / "corpus", recipe([str(made)]))
    shown = CliRunner().invoke(main, ["corpus", "show", str(tmp_path / "corpus"), "--project", "pages"])
    assert "app/[slug]/page.py  too short" in shown.output
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with reporting(console) as report:
        report(Progress("choosing", 1, 1, "gamma: left out, [Errno 5]"))
    assert isinstance(console.file, io.StringIO)
    assert "left out, [Errno 5]" in console.file.getvalue()


def test_a_terminal_shows_a_bar_for_each_stage() -> None:
    console = Console(force_terminal=True, file=io.StringIO(), width=100)
    with reporting(console) as report:
        report(Progress("choosing", 3, 7, "gamma: 4 files, MIT"))
        report(Progress("encoding", 1, 1, "gamma: 5 tokens"))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert all(part in shown for part in ("choosing", "3/7", "4 files, MIT", "encoding", "5 tokens"))


def test_shares_are_read_as_weights_and_wrong_ones_are_refused_by_name() -> None:
    assert read_shares([]) == {"python": 1.0}
    assert read_shares(["python=3", "go=1"]) == {"python": 0.75, "go": 0.25}
    assert kept_shares({"python": 300, "go": 100}, {"python": 0.5, "go": 0.5}) == {"python": 1 / 3, "go": 1.0}
    for wrong in ("cobol=1", "python", "python=0", "python=x", "python=inf"):
        with pytest.raises(EngineError, match=wrong):
            read_shares([wrong])


def test_a_corpus_takes_the_vocabulary_of_a_checkpoint(sources: list[str], tmp_path: Path) -> None:
    older = tmp_path / "older"
    trained = tiny_tokenizer(VOCABULARY, special_tokens=(*SPECIAL_TOKENS, "<|mark|>"))
    save_tokenizer(trained, older)
    build(tmp_path / "corpus", replace(recipe(sources), tokenizer=older))
    adopted = load_prepared(tmp_path / "corpus").tokenizer
    assert adopted.backend.get_vocab() == trained.get_vocab()
    told = json.loads((tmp_path / "corpus" / "tokenizer_config.json").read_bytes())
    assert told["additional_special_tokens"] == ["<|file|>", "<|mark|>"]


def test_the_split_is_the_same_in_one_shard_and_in_several(tmp_path: Path) -> None:
    tokenizer = Tokenizer(tiny_tokenizer(VOCABULARY))
    texts = [Document("own", f"{number}.py", module(number)) for number in range(5)]
    together = EncodedSplit(encode_split(texts, tokenizer))
    save_split(encode_split([], tokenizer), tmp_path / "empty.safetensors")
    apart = EncodedSplit(
        encode_split(texts[:2], tokenizer),
        EncodedSplit.load(tmp_path / "empty.safetensors").shards[0],
        encode_split(texts[2:], tokenizer),
    )
    assert len(apart) == len(together) == 5
    assert apart.lengths.tolist() == together.lengths.tolist()
    for number in range(5):
        np.testing.assert_array_equal(apart.tokens(number), together.tokens(number))
        np.testing.assert_array_equal(apart.header(number), together.header(number))
        for ours, theirs in zip(apart.nodes(number), together.nodes(number), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n" * 30])
def test_a_shard_without_documents_or_without_spans_is_read_too(tmp_path: Path, text: str) -> None:
    tokenizer = Tokenizer(tiny_tokenizer(VOCABULARY))
    save_split(encode_split([Document("own", "a.py", text)], tokenizer), tmp_path / "a.safetensors")
    (shard,) = EncodedSplit.load(tmp_path / "a.safetensors").shards
    assert len(shard) == bool(text)
    assert shard.tokens_by_language() == ({"python": int(shard.lengths.sum())} if text else {})
    assert all(len(part) == 0 for number in range(len(shard)) for part in shard.nodes(number))


def test_a_document_without_room_for_a_hole_is_left_out() -> None:
    tokenizer = Tokenizer(tiny_tokenizer(VOCABULARY))
    texts = [Document("own", "short.py", "x = 1\n"), Document("own", "long.py", module(1))]
    assert len(EncodedSplit(encode_split(texts, tokenizer))) == 1


def test_a_half_made_corpus_is_not_mistaken_for_the_one_in_the_manifest(sources: list[str], tmp_path: Path) -> None:
    directory = tmp_path / "corpus"
    build(directory, recipe(sources))
    shard = directory / "shards" / "train" / "gamma.safetensors"
    kept = shard.read_bytes()
    save_split(encode_split([Document("gamma", "a.py", module(9))], load_prepared(directory).tokenizer), shard, "other")
    with pytest.raises(EngineError, match="another build"):
        load_prepared(directory)
    shard.write_bytes(b"nothing")
    with pytest.raises(EngineError, match=r"gamma\.safetensors"):
        load_prepared(directory)
    shard.write_bytes(kept)
    save_tokenizer(tiny_tokenizer(VOCABULARY), directory)
    with pytest.raises(EngineError, match="another vocabulary"):
        load_prepared(directory)


def test_documents_of_another_build_than_the_manifest_are_not_taken_for_its_own(
    sources: list[str], tmp_path: Path
) -> None:
    directory = tmp_path / "corpus"
    build(directory, recipe(sources))
    expected = contents(directory)

    def killed(progress: Progress) -> None:
        if progress.stage == "choosing" and progress.done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(directory, replace(recipe(sources), max_project_bytes=2 * len(module(0))), killed)
    for split in SPLITS:
        with pytest.raises(EngineError, match=r"\.jsonl: is of another build than the manifest.*to its end"):
            list(documents(directory, split))
    build(directory, recipe(sources))
    assert contents(directory) == expected
    with (directory / "projects" / "train" / "gamma.jsonl").open("ab") as file:
        file.write(b"[")
    with pytest.raises(EngineError, match=r"gamma\.jsonl: is of another build"):
        list(documents(directory, "train"))
    build(directory, recipe(sources))
    assert contents(directory) == expected, "what the advice says mends it"


def test_who_asks_for_more_tokens_than_there_are_is_told(sources: list[str], tmp_path: Path) -> None:
    building = ["build", *sources, "--directory", str(tmp_path / "corpus"), "--vocabulary"]
    done = CliRunner().invoke(corpus, [*building, "60000"], catch_exceptions=False)
    found = load_prepared(tmp_path / "corpus").tokenizer.vocab_size
    assert found < 10_000
    assert f"the vocabulary has {found:,} tokens: the sources repeat too little for 60,000" in done.output
    done = CliRunner().invoke(corpus, [*building, "512"], catch_exceptions=False)
    assert "too little" not in done.output


def test_a_card_says_of_each_project_that_was_left_out_why(tmp_path: Path) -> None:
    given = [folder(tmp_path / name, {"a.py": module(number)}) for number, name in enumerate(("gamma", "delta"))]
    (given[1] / "LICENSE").unlink()
    directory, model, run = tmp_path / "corpus", tiny_checkpoint(tmp_path / "model"), tmp_path / "run"
    manifest = build(directory, recipe(list(map(str, given))))
    unfetched = Refused(name="epsilon", reason="no answer within 180 s")
    write_json(directory / "manifest.json", msgspec.structs.replace(manifest, refused=[unfetched, *manifest.refused]))
    run.mkdir()
    write_json(run / PLAN_FILE, {"seconds": 60.0, "schedule": asdict(Schedule())})
    write_card(model, directory, run)
    card = (model / "README.md").read_text(encoding="utf-8")
    assert "Projects left out: epsilon (no answer within 180 s); delta (no licence found)." in card


def test_a_malformed_manifest_says_what_to_run(tmp_path: Path) -> None:
    for wrong in (b"{", b'{"settings": 1}', b'{"settings": {"a": "\xe9"}}'):
        (tmp_path / "manifest.json").write_bytes(wrong)
        with pytest.raises(EngineError, match=r"manifest\.json.*dg-engine corpus build"):
            read_manifest(tmp_path)


def test_a_missing_manifest_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="dg-engine corpus build"):
        read_manifest(tmp_path)
