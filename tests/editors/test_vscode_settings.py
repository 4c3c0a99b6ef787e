"""The settings that VS Code shows are the server's own: by name, type, bounds, default and words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dg_lsp.schema import schema

MANIFEST = json.loads((Path(__file__).parents[2] / "editors/vscode/package.json").read_text(encoding="utf-8"))
SHOWN: dict[str, Any] = {
    name: setting for group in MANIFEST["contributes"]["configuration"] for name, setting in group["properties"].items()
}

OURS = {"dg.server.path", "dg.server.arguments", "dg.server.package", "dg.trace.server"}
"""Those of the extension, which the server never sees."""


def _leaves(prefix: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in properties.items():
        name = f"{prefix}.{key}"
        leaves |= _leaves(name, value["properties"]) if "properties" in value else {name: value}
    return leaves


SCHEMA = json.loads(json.dumps(schema()))
SERVERS = _leaves("dg", SCHEMA["properties"])


def test_every_setting_of_the_server_is_there_and_no_other() -> None:
    assert set(SHOWN) - OURS == set(SERVERS)


@pytest.mark.parametrize("name", SERVERS)
def test_a_setting_is_what_the_server_takes(name: str) -> None:
    wanted, shown = SERVERS[name], SHOWN[name]
    alternatives = wanted.get("anyOf", [wanted])
    types = [alternative["type"] for alternative in alternatives if "type" in alternative]
    assert shown.get("type") in ([None] if not types else [types, types[0]])
    for bound in ("minimum", "maximum", "exclusiveMinimum", "enum", "items"):
        values = [alternative[bound] for alternative in alternatives if bound in alternative]
        assert shown.get(bound) == (values[0] if values else None), bound
    assert shown["default"] == wanted["default"]
    assert shown.get("markdownDescription", shown.get("description")) == wanted["description"]


def test_what_can_differ_by_language_can_in_vs_code() -> None:
    kinds = SCHEMA["properties"]["languages"]["additionalProperties"]["anyOf"]
    overrides = next(kind["properties"] for kind in kinds if kind["type"] == "object")
    by_language = {name for name, setting in SHOWN.items() if setting["scope"] == "language-overridable"}
    assert by_language == {f"dg.{key}" for key in overrides}


def test_an_untrusted_folder_chooses_neither_the_program_nor_the_engine() -> None:
    restricted = MANIFEST["capabilities"]["untrustedWorkspaces"]["restrictedConfigurations"]
    assert set(restricted) == {name for name in SHOWN if name.startswith(("dg.server.", "dg.engine."))}


def test_every_command_that_is_offered_is_made() -> None:
    source = (Path(__file__).parents[2] / "editors/vscode/src/commands.ts").read_text(encoding="utf-8")
    for command in MANIFEST["contributes"]["commands"]:
        assert f'"{command["command"]}"' in source
