"""Whatever a project comes as, the same files, version and licence are found in it."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from dg_engine.cli import main
from dg_engine.errors import EngineError
from dg_engine.training.downloads import fetch_wheels, find_wheel
from dg_engine.training.licences import LicenceRefused
from dg_engine.training.metadata import licence_texts, restricted_folders
from dg_engine.training.projects import HELD_OUT, STANDARD_LIBRARY, VALIDATION
from dg_engine.training.sources import DEFAULT, Source, Splits, about, open_source, read_sources, stamp
from dg_engine.training.trees import FolderTree

MIT = "Permission is hereby granted, free of charge, to any person obtaining a copy of this software"
CODE = "def area(width, height):\n    return width * height\n"
METADATA = "Metadata-Version: 2.4\nName: demo\nVersion: 1.5\nLicense-Expression: MIT\n"
MANIFESTS = {
    "PKG-INFO": METADATA,
    "pyproject.toml": '[project]\nname = "demo"\nversion = "1.5"\nlicense = {text = "MIT"}\n',
    "package.json": '{"name": "demo", "version": "1.5", "license": "MIT"}',
    "Cargo.toml": '[package]\nname = "demo"\nversion = "1.5"\nlicense = "MIT/GPL-2.0-only"\n',
}


def read(source: Source) -> tuple[dict[str, str], str, str]:
    """The Python files of a source, its version and its licence."""
    with open_source(source) as tree:
        files = {path: tree.read(path).decode() for path in tree.sizes() if path.endswith(".py")}
        return files, *about(source, tree)


def only(text: Path | str) -> Source:
    (source,) = read_sources([str(text)], Splits())
    return source


def zipped(path: Path, files: Mapping[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def tarred(path: Path, files: Mapping[str, str], mode: str) -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
        link = tarfile.TarInfo("demo-1.5/link.py")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return path


def test_a_wheel_gives_its_files_version_and_licence(tmp_path: Path) -> None:
    files = {"demo/shapes.py": CODE, "demo-1.5.dist-info/METADATA": METADATA}
    source = only(zipped(tmp_path / "demo-1.5-py3-none-any.whl", files))
    assert (source.name, source.kind) == ("demo", "archive")
    assert read(source) == ({"demo/shapes.py": CODE}, "1.5", "MIT")
    assert find_wheel("Demo", tmp_path) == source.path


@pytest.mark.parametrize("root", ["demo-1.5/", "./demo-1.5/", "example.org/me/demo@v1.5/"])
@pytest.mark.parametrize(
    ("ending", "mode"), [(".tar", "w"), (".tar.gz", "w:gz"), (".tar.bz2", "w:bz2"), (".tar.xz", "w:xz")]
)
def test_an_archive_is_read_without_the_folder_that_all_of_it_lies_in(
    tmp_path: Path, root: str, ending: str, mode: str
) -> None:
    files = {f"{root}src/shapes.py": CODE, f"{root}PKG-INFO": METADATA}
    source = only(tarred(tmp_path / f"demo-1.5{ending}", files, mode))
    assert source.name == "demo"
    assert read(source) == ({"src/shapes.py": CODE}, "1.5", "MIT"), "links are passed over"
    packed = only(zipped(tmp_path / "other-1.5.zip", files))
    assert read(packed) == ({"src/shapes.py": CODE}, "1.5", "MIT")


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_a_folder_says_in_any_manifest_what_it_is(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / manifest).write_text(MANIFESTS[manifest])
    source = only(tmp_path / "demo")
    assert (source.name, source.kind) == ("demo", "folder")
    assert read(source) == ({}, "1.5", "MIT OR GPL-2.0-only" if manifest == "Cargo.toml" else "MIT")


def test_a_folder_without_a_manifest_is_under_the_licence_in_its_file(tmp_path: Path) -> None:
    (tmp_path / "lib" / "deep").mkdir(parents=True)
    (tmp_path / "lib" / "deep" / "LICENSE").write_text("GNU GENERAL PUBLIC LICENSE")
    (tmp_path / "lib" / "package.json").write_text("{broken")
    with pytest.raises(LicenceRefused, match="no licence"):
        read(only(tmp_path / "lib"))
    (tmp_path / "lib" / "LICENCE.md").write_text(MIT)
    assert read(only(tmp_path / "lib")) == ({}, "", "MIT")
    (tmp_path / "lib" / "COPYING").write_text("GNU GENERAL PUBLIC LICENSE")
    with pytest.raises(LicenceRefused, match="GPL"):
        read(only(tmp_path / "lib"))


def test_only_a_folders_own_files_are_read(tmp_path: Path) -> None:
    for path in ("a.py", "node_modules/b.py", ".hidden/c.py", "env/d.py", "ignored.py"):
        (tmp_path / "lib" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lib" / path).write_text(CODE)
    (tmp_path / "lib" / "env" / "pyvenv.cfg").touch()
    (tmp_path / "lib" / "link.py").symlink_to(tmp_path / "lib" / "a.py")
    (tmp_path / "lib" / "LICENSE").write_text(MIT)
    assert sorted(read(only(tmp_path / "lib"))[0]) == ["a.py", "ignored.py"]
    (tmp_path / "lib" / ".gitignore").write_text("ignored.py\nenv\nnode_modules\n.hidden\n")
    subprocess.run(["git", "init", "-q", tmp_path / "lib"], check=True)
    assert sorted(read(only(tmp_path / "lib"))[0]) == ["a.py"], "what git ignores is not the project's own"


def test_of_a_folder_in_a_repository_and_of_one_of_repositories_what_git_ignores_is_not_read(tmp_path: Path) -> None:
    for path in ("all/one/src/a.py", "all/one/src/ignored/b.py", "all/c.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(CODE)
    for place in ("all", "all/one/src"):
        (tmp_path / place / "LICENSE").write_text(MIT)
    (tmp_path / "all" / "one" / ".gitignore").write_text("ignored\n")
    subprocess.run(["git", "init", "-q", tmp_path / "all" / "one"], check=True)
    assert sorted(read(only(tmp_path / "all" / "one" / "src"))[0]) == ["a.py"]
    assert sorted(read(only(tmp_path / "all"))[0]) == ["c.py", "one/src/a.py"]
    subprocess.run(["git", "init", "-q", tmp_path / "all"], check=True)
    assert sorted(read(only(tmp_path / "all"))[0]) == ["c.py", "one/src/a.py"]


def as_anybody(code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Python without the right to read everything, which the superuser has."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv is not here, and the superuser may read everything")
        rights = "-dac_override,-dac_read_search"
        command = ["setpriv", "--bounding-set", rights, "--inh-caps", rights, *command]
    return subprocess.run(command, capture_output=True, text=True, check=False)


SHOWN = """
import sys
from dg_engine.training.sources import Splits, about, open_source, read_sources
(source,) = read_sources(sys.argv[1:], Splits())
with open_source(source) as tree:
    print(sorted(tree.sizes()), *about(source, tree))
"""


def test_what_may_not_be_read_is_passed_over(tmp_path: Path) -> None:
    for path in ("a.py", "sealed/b.py", "listed/c.py", "deep/sealed/d.py"):
        (tmp_path / "lib" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lib" / path).write_text(CODE)
    (tmp_path / "lib" / "LICENSE").write_text(MIT)
    for path, mode in {"sealed": 0, "deep/sealed": 0, "listed": 0o444}.items():
        (tmp_path / "lib" / path).chmod(mode)
    shown = as_anybody(SHOWN, tmp_path / "lib")
    assert (shown.stdout.strip(), shown.stderr) == ("['LICENSE', 'a.py']  MIT", "")
    subprocess.run(["git", "init", "-q", tmp_path / "lib"], check=True)
    assert as_anybody(SHOWN, tmp_path / "lib").stdout == shown.stdout
    (tmp_path / "lib" / "LICENSE").chmod(0)
    assert "LicenceRefused: licence unknown" in as_anybody(SHOWN, tmp_path / "lib").stderr


def test_an_installed_package_and_the_standard_library_are_read_where_they_are() -> None:
    files, version, licence = read(only("installed:click"))
    assert "click/core.py" in files
    assert (bool(version), licence) == (True, "BSD-3-Clause")
    library = next(one for one in read_sources([DEFAULT], Splits()) if one.name == STANDARD_LIBRARY)
    with open_source(library) as tree:
        assert "json/decoder.py" in tree.sizes()
        assert not any("site-packages" in path for path in tree.sizes())
        assert about(library, tree)[1] == "PSF-2.0"
    with pytest.raises(EngineError, match="not installed"):
        read(only("installed:no-such-package-here"))


def test_a_stamp_changes_with_the_source_and_only_then(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "a.py").write_text(CODE)
    source = only(tmp_path / "lib")
    before = stamp(source)
    assert stamp(source) == before
    (tmp_path / "lib" / "a.py").write_text(CODE + CODE)
    assert stamp(source) != before
    archive = only(zipped(tmp_path / "a.zip", {"a.py": CODE}))
    before = stamp(archive)
    zipped(tmp_path / "a.zip", {"a.py": CODE + CODE})
    assert stamp(archive) != before


def test_a_file_of_an_archive_is_unpacked_no_further_than_it_says(tmp_path: Path) -> None:
    told = CODE.encode() * 9
    plain = zipped(tmp_path / "plain.zip", {"a.py": CODE * 9}).read_bytes()
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(told + bytes(1 << 28)) + packer.flush()
    local = plain[:10] + struct.pack("<2H3L", 0, 33, zlib.crc32(told), len(packed), len(told)) + plain[26:34]
    begun = plain.index(b"PK\x01\x02")
    central = plain[begun : begun + 12] + local[10:26] + plain[begun + 28 : begun + 50]
    local, central = local[:8] + b"\x08\0" + local[10:], central[:10] + b"\x08\0" + central[12:]
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(central), len(local) + len(packed), 0)
    (tmp_path / "lying.zip").write_bytes(local + packed + central + end)
    with open_source(only(tmp_path / "lying.zip")) as tree:
        tracemalloc.start()
        try:
            assert tree.read("a.py") == told
            assert tracemalloc.get_traced_memory()[1] < 1 << 24
        finally:
            tracemalloc.stop()


def test_an_archive_that_unpacks_to_far_more_than_it_is_does_not_fill_the_disk(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "huge-1.0.tar.gz", "wb") as packed:
        for _ in range(80):
            packed.write(bytes(1 << 20))
    with (
        pytest.raises(EngineError, match="it unpacks to more than 200 times its size"),
        open_source(only(tmp_path / "huge-1.0.tar.gz")),
    ):
        raise AssertionError("was opened")


def test_an_archive_for_which_there_is_no_room_is_not_called_a_bad_one(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    archive = tarred(tmp_path / "demo-1.5.tar.gz", {"demo-1.5/a.py": CODE}, "w:gz")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))  # as on a disk that is full
    try:
        done = CliRunner().invoke(main, ["corpus", "build", str(archive), "--directory", str(tmp_path / "corpus")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (done.exit_code, done.output) == (1, "Error: File too large; make room, and the same command goes on\n")


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_an_archive_with_a_name_or_a_number_that_is_none_is_told_as_any_broken_one(suffix: str, tmp_path: Path) -> None:
    broken = tmp_path / f"broken{suffix}"
    if suffix == ".zip":
        content = zipped(broken, {"caf\u00e9.py": CODE}).read_bytes().replace("\u00e9".encode(), b"\xe9\xe9")
    else:
        with tarfile.open(broken, "w") as archive:
            entry = tarfile.TarInfo("a.py")
            entry.size, entry.pax_headers = 9, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
            archive.addfile(entry, io.BytesIO(b"no number"))
        content = broken.read_bytes()
    broken.write_bytes(content)
    with pytest.raises(EngineError, match=f"broken{suffix}: is no readable archive"), open_source(only(broken)):
        raise AssertionError("was opened")


def test_a_licence_file_that_is_too_large_is_not_read_and_is_nobodys_licence(tmp_path: Path) -> None:
    made = tmp_path / "demo"
    for name, text in {"LICENSE": MIT, "own/COPYING": MIT}.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(text, encoding="utf-8")
    for name in ("COPYING", "other/LICENSE"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).touch()
        os.truncate(made / name, 1 << 40)
    tree = FolderTree(made)
    assert [*licence_texts(tree)] == ["", MIT]
    assert restricted_folders(tree) == {"other"}


def test_a_wheel_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    pytest.importorskip("pip")
    links, wheels = tmp_path / "links", tmp_path / "wheels"
    links.mkdir()
    about_it = {"demo-1.5.dist-info/METADATA": METADATA, "demo-1.5.dist-info/WHEEL": "Wheel-Version: 1.0\n"}
    wheel = zipped(links / "demo-1.5-py3-none-any.whl", about_it | {"demo.py": CODE * 1000})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # as on a disk that is full
    try:
        (failed,) = fetch_wheels(["demo"], wheels)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (failed.wheel, "File too large" in failed.reason) == (None, True)
    (fetched,) = fetch_wheels(["demo"], wheels)
    assert fetched.wheel is not None
    assert fetched.wheel.read_bytes() == wheel.read_bytes()
    assert [*wheels.iterdir()] == [fetched.wheel]


def test_a_broken_archive_is_named(tmp_path: Path) -> None:
    for name in ("broken.whl", "broken.tar.gz", "broken.tar"):
        (tmp_path / name).write_bytes(b"no archive")
        with pytest.raises(EngineError, match=name):
            read(only(tmp_path / name))


def test_the_default_projects_have_their_splits_and_others_one_by_their_name() -> None:
    sources = read_sources([DEFAULT], Splits())
    assert {one.name for one in sources if one.split == "held_out"} == set(HELD_OUT)
    assert {one.name for one in sources if one.split == "validation"} == set(VALIDATION)
    assert [one.split for one in sources] == sorted(
        (one.split for one in sources), key=["held_out", "validation", "train"].index
    )
    names = [f"project-{number}" for number in range(1000)]
    drawn = [Splits().of(name) for name in names]
    assert drawn == [Splits().of(name) for name in names]
    assert 10 < drawn.count("held_out") < 60
    assert 5 < drawn.count("validation") < 45
    assert Splits(validation=["My.Project"]).of("my-project") == "validation"
    assert Splits(held_out=["numpy"]).of("numpy") == "held_out"


def test_a_source_that_cannot_be_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no archive")
    for wrong in (tmp_path / "notes.txt", tmp_path / "missing"):
        with pytest.raises(EngineError, match=wrong.name):
            read_sources([str(wrong)], Splits())
    with pytest.raises(EngineError, match="two sources are called click"):
        read_sources(["click", "installed:click"], Splits())
    with pytest.raises(EngineError, match="installed:: expected installed:NAME"):
        read_sources(["installed:"], Splits())


@pytest.mark.parametrize("wrong", ["libary", "/path/library", "numpy"])
@pytest.mark.parametrize("split", ["held_out", "validation"])
def test_a_project_that_no_source_is_cannot_be_put_into_a_split(tmp_path: Path, split: str, wrong: str) -> None:
    (tmp_path / "library").mkdir()
    sources = [str(tmp_path / "library"), "click"]
    with pytest.raises(EngineError, match=rf"{wrong}.*{split}.*click, library"):
        read_sources(sources, Splits(**{split: ["Library", wrong]}))
    assert split in [one.split for one in read_sources(sources, Splits(**{split: ["Library"]}))]


@pytest.mark.parametrize("branch", ["main", "master"])
def test_a_repositorys_archive_is_called_as_the_repository_is(tmp_path: Path, branch: str) -> None:
    source = only(zipped(tmp_path / f"httpx-{branch}.zip", {f"httpx-{branch}/a.py": CODE}))
    assert (source.name, source.split) == ("httpx", "held_out")
    assert only(zipped(tmp_path / "main.zip", {"a.py": CODE})).name == "main"
