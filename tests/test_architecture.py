"""The law of the layout: imports point downward, nothing shadows a library, the server starts without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import dg_engine
import dg_lsp

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "dg_lsp": ROOT / "dg_lsp",
    "dg_engine": ROOT / "engine" / "dg_engine",
    "dg_kernels": ROOT / "kernels" / "dg_kernels",
}
FORBIDDEN = {
    "dg_kernels": {"dg_engine", "dg_lsp", "pygls", "lsprotocol", "transformers", "safetensors", "tokenizers"},
    "dg_engine": {"dg_lsp", "pygls", "lsprotocol"},
    "dg_lsp": {"dg_kernels", "torch", "triton", "tokenizers", "safetensors", "transformers"},
}
TORCH_FREE = {
    "api",
    "client",
    "copying",
    "errors",
    "exclusion",
    "hub",
    "launcher",
    "options",
    "own_files",
    "paths",
    "streams",
}
"""The modules of the engine that the language server may import."""
PROTOCOL_TYPES = {"convert", "server"}
"""The modules that may know lsprotocol's types."""
TOP_LEVEL = {
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "dg_lsp",
    "editors",
    "engine",
    "kernels",
    "pyproject.toml",
    "tests",
}
LONGEST_FILE = 400


def modules(package: str) -> Iterator[Path]:
    yield from sorted(PACKAGES[package].rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a module imports, at any depth of its code."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_downward(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        for name in imports(path)
        if name.split(".")[0] in FORBIDDEN[package]
    ]
    assert not wrong


def test_the_server_sees_only_the_torch_free_half_of_the_engine() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules("dg_lsp")
        for name in imports(path)
        if name.startswith("dg_engine.") and name.split(".")[1] not in TORCH_FREE
    ]
    assert not wrong


def test_the_engine_parses_code_only_to_learn_from_it() -> None:
    knowing = {
        path.parent.name for path in modules("dg_engine") if any(n.startswith("tree_sitter") for n in imports(path))
    }
    assert knowing == {"training"}


def test_transformers_is_imported_only_to_be_measured() -> None:
    knowing = {path.stem for path in modules("dg_engine") if any(n.startswith("transformers") for n in imports(path))}
    assert knowing == {"theirs"}


def test_protocol_types_stay_in_handlers_and_conversion() -> None:
    knowing = {path.stem for path in modules("dg_lsp") if any(n.startswith("lsprotocol") for n in imports(path))}
    assert knowing == PROTOCOL_TYPES


@pytest.mark.parametrize("module", ["dg_lsp.server", "dg_lsp.cli", "dg_engine.client", "dg_engine.launcher"])
def test_torch_is_not_imported_by(module: str) -> None:
    code = (
        f"import sys, {module}; sys.exit(bool(sys.modules.keys() & {{'torch', 'tokenizers', 'safetensors', 'numpy'}}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_server_engine_and_package_are_of_one_release() -> None:
    """The server looks for an engine of its own release, and warns of any other."""
    package = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert dg_lsp.__version__ == dg_engine.__version__ == package


def test_nothing_shadows_a_library() -> None:
    """A package called `kernels` would hide Hugging Face's, also as tests/kernels."""
    folders = [ROOT, ROOT / "engine", ROOT / "kernels", ROOT / "editors", *(ROOT / "tests").rglob("*")]
    assert not [folder for folder in folders if (folder / "__init__.py").exists()]


def test_the_top_level_is_exactly_what_was_agreed() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = {line.split("/")[0] for line in tracked.splitlines()}
    assert {name for name in found if not name.startswith(".")} == TOP_LEVEL


@pytest.mark.parametrize("package", PACKAGES)
def test_files_fit_in_the_head(package: str) -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in modules(package)}
    assert not {str(path.relative_to(ROOT)): length for path, length in lengths.items() if length > LONGEST_FILE}


def test_every_test_file_holds_tests() -> None:
    empty = [
        path.name
        for path in (ROOT / "tests").rglob("test_*.py")
        if not any(
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        )
    ]
    assert not empty


def test_the_wheel_holds_the_three_packages_and_nothing_else(tmp_path: Path) -> None:
    import zipfile

    build = [sys.executable, "-c", f"import hatchling.build as b; print(b.build_wheel({str(tmp_path)!r}))"]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "dg_engine/checkpoints/small/model.safetensors" in names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
