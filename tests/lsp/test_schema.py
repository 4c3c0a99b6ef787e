"""The JSON Schema of the settings says what `parse` takes."""

from __future__ import annotations

from typing import Any

import msgspec

from dg_lsp.schema import schema
from dg_lsp.settings import CompletionSettings, EngineSettings, Settings, parse

PROPERTIES: dict[str, Any] = schema()["properties"]


def names(kind: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(kind)}


def test_every_setting_is_in_the_schema_with_a_description() -> None:
    assert set(PROPERTIES) == names(Settings)
    assert set(PROPERTIES["engine"]["properties"]) == names(EngineSettings)
    for specification in (*PROPERTIES.values(), *PROPERTIES["engine"]["properties"].values()):
        assert specification["description"].endswith(".")


def test_the_defaults_of_the_schema_are_the_defaults() -> None:
    given = {name: specification["default"] for name, specification in PROPERTIES.items() if name != "engine"}
    assert parse(given) == Settings()


def test_a_language_may_be_given_each_completion_setting_and_no_other() -> None:
    per_language = PROPERTIES["languages"]["additionalProperties"]["anyOf"][1]
    assert set(per_language["properties"]) == names(CompletionSettings)
    assert per_language["additionalProperties"] is False
    assert not any("default" in specification for specification in per_language["properties"].values())


def test_nothing_is_left_to_be_looked_up() -> None:
    assert "$ref" not in msgspec.json.encode(schema()).decode()
