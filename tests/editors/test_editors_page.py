"""`editors/README.md` is the protocol for authors of clients, and says what the code does."""

from __future__ import annotations

from typing import get_args

import scenario_table
from page import code, rows, section
from pygls import exceptions
from registry import EDITORS

from dg_lsp import schema, server
from dg_lsp.status import State


def test_every_method_is_named_and_no_other() -> None:
    named = {name for row in rows("Methods") for name in code(row[0])}
    assert named == {name for name in server.FEATURES if not name.startswith("initialize")} | {
        "workspace/executeCommand"
    }


def test_every_command_is_named_and_no_other() -> None:
    assert {code(row[0])[0] for row in rows("Commands")} == set(server.COMMANDS)


def test_every_state_is_explained() -> None:
    explained = code(section("Notifications from the server").split("Its `state` is")[1])
    assert set(get_args(State)) <= set(explained)


def test_the_table_of_settings_is_the_server_s_own() -> None:
    assert schema.table() in section("Settings"), "make it anew with dg-lsp schema --table"


def test_the_error_codes_are_those_that_are_answered() -> None:
    answered = (
        exceptions.JsonRpcParseError,
        exceptions.JsonRpcInvalidRequest,
        exceptions.JsonRpcMethodNotFound,
        exceptions.JsonRpcInvalidParams,
        exceptions.JsonRpcServerNotInitialized,
        exceptions.JsonRpcRequestCancelled,
    )
    assert {int(row[0]) for row in rows("Errors")} == {error.CODE for error in answered}


def test_the_table_of_scenarios_is_the_one_that_is_run() -> None:
    expected = scenario_table.table()
    assert expected in section("One behaviour everywhere"), "make it anew with python tests/editors/scenario_table.py"


def test_an_editor_is_excused_only_from_scenarios_that_exist() -> None:
    for name, known in EDITORS.items():
        assert set(known.cannot) <= set(scenario_table.scenarios()), name
