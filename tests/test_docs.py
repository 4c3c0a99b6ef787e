"""What the documents say is what the code does: settings, commands, files."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from dg_engine.cli import main as engine_cli
from dg_lsp.cli import main as server_cli
from dg_lsp.settings import EngineSettings, Settings

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [
    path
    for path in (*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), ROOT / "engine/dg_engine/checkpoints/small/README.md")
    if path.exists()
]


def names(kind: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(kind)}


def test_the_readme_names_every_setting_and_no_other() -> None:
    sentence = README[README.index("Settings\ngo into") : README.index("A wrong key is refused")]
    ours, engines = sentence.split("`engine` (")
    server_words, engine_words = (set(re.findall(r"`([a-z]\w+)`", part)) for part in (ours, engines))
    assert server_words - {"dg", "initializationOptions"} == names(Settings) - {"engine"}
    assert engine_words == names(EngineSettings)


def test_every_command_in_the_readme_exists() -> None:
    used = re.findall(r"\b(dg-lsp|dg-engine) ([a-z]+(?:, [a-z]+)*)", README)
    assert used
    commands = {"dg-lsp": set(server_cli.commands), "dg-engine": set(engine_cli.list_commands(None))}  # type: ignore[arg-type]
    wrong = [
        f"{program} {name}" for program, rest in used for name in rest.split(", ") if name not in commands[program]
    ]
    assert not wrong


def test_every_make_target_in_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"^make (\w+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", document.read_text(encoding="utf-8"))
    assert not [target for target in targets if not (document.parent / target).exists()]


def test_every_module_in_the_code_map_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = text[text.index("## Code map") : text.index("## Invariants")]
    missing = []
    for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE):
        folder = ROOT
        for name in re.findall(r"`([^`]+)`", row):
            path = ROOT / name if "/" in name else folder / name
            folder = path.parent if path.suffix else path
            if "<" not in name and not path.exists():
                missing.append(name)
    assert not missing
