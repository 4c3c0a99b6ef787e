"""The JSON Schema of the settings, from which editors' settings and documents are made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from dg_lsp.settings import SECTION, CompletionSettings, Settings


def schema() -> dict[str, Any]:
    """All settings as one JSON Schema without references; bounds, defaults and descriptions included."""
    _, definitions = msgspec.json.schema_components([CompletionSettings, Settings], ref_template="{name}")
    whole: dict[str, Any] = _inlined(definitions["Settings"], definitions)
    whole["properties"]["languages"]["additionalProperties"] = {
        "anyOf": [{"type": "boolean"}, _overrides(definitions["CompletionSettings"])]
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole, "title": SECTION}


def table() -> str:
    """The settings as a Markdown table, for documents."""
    rows = ["| setting | values | default | |", "|---|---|---|---|"]
    return "\n".join(rows + [row for name, part in schema()["properties"].items() for row in _rows(name, part)])


def _rows(name: str, part: Mapping[str, Any]) -> list[str]:
    if "properties" in part:
        return [row for key, inner in part["properties"].items() for row in _rows(f"{name}.{key}", inner)]
    default = msgspec.json.encode(part["default"]).decode().removesuffix(".0")
    return [f"| `{name}` | {_values(part)} | `{default}` | {part['description']} |"]


def _values(part: Mapping[str, Any]) -> str:
    if "enum" in part:
        return ", ".join(f"`{value}`" for value in part["enum"])
    if "anyOf" in part:
        return " or ".join(_values(choice) for choice in part["anyOf"])
    kind = {"array": "list of strings", "number": "number", "integer": "whole number"}.get(part["type"], part["type"])
    bounds = {"minimum": "from {} on", "exclusiveMinimum": "above {}", "maximum": "at most {}"}
    return ", ".join([kind, *(words.format(part[key]) for key, words in bounds.items() if key in part)])


def _overrides(definition: Mapping[str, Any]) -> dict[str, Any]:
    """What may differ for one language. Without defaults: what is not named is as for all languages."""
    properties = {
        name: {key: value for key, value in specification.items() if key != "default"}
        for name, specification in definition["properties"].items()
    }
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _inlined(part: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(part, list):
        return [_inlined(item, definitions) for item in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return {**_inlined(definitions[part["$ref"]], definitions), **{k: v for k, v in part.items() if k != "$ref"}}
    return {key: _inlined(value, definitions) for key, value in part.items()}
