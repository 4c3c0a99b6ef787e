"""Settings: layers, defaults, and wrong ones refused by name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dg_lsp.settings import EngineSettings, Settings, SettingsError, parse


def problems(values: dict[str, Any]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parse(values)
    return caught.value.problems


def test_no_layer_at_all_gives_the_defaults() -> None:
    assert parse(None, {}) == Settings()


def test_later_layers_win_key_by_key_within_engine_and_languages_too() -> None:
    first = {"debounceMs": 1, "languages": {"c": False}, "engine": {"model": "a", "autostart": False}}
    second = {"debounceMs": 2, "languages": {"go": False}, "engine": {"model": "b"}}
    assert parse(first, second) == Settings(
        debounce_ms=2, languages={"c": False, "go": False}, engine=EngineSettings(model="b", autostart=False)
    )


def test_null_means_the_default() -> None:
    assert parse({"debounceMs": None, "engine": None, "entropyBound": None}) == Settings()


def test_a_key_that_was_wrong_and_is_put_back_is_no_problem() -> None:
    assert parse({"colour": None, "engine": {"adress": None}}) == Settings()


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"multiLine": "sometimes"}, "dg.multiLine must be one of auto, always, never, not 'sometimes'."),
        ({"debounceMs": -1}, "dg.debounceMs must be a number of at least 0, not -1."),
        ({"debounceMs": "40"}, "dg.debounceMs must be a number of at least 0, not '40'."),
        ({"maxNewTokens": 0}, "dg.maxNewTokens must be a whole number of at least 1, not 0."),
        ({"maxDenoisingSteps": 1.5}, "dg.maxDenoisingSteps must be a whole number of at least 1 or null, not 1.5."),
        ({"enabled": "yes"}, "dg.enabled must be true or false, not 'yes'."),
        ({"exclude": "*.key"}, "dg.exclude must be a list of strings, not '*.key'."),
        (
            {"languages": {"c": 1}},
            "dg.languages must be a mapping of language to true, false or an object of settings, not {'c': 1}.",
        ),
        ({"engine": {"idleTimeoutS": 0}}, "dg.engine.idleTimeoutS must be a number above 0, not 0."),
        ({"engine": "gpu"}, "dg.engine must be an object, not 'gpu'."),
    ],
)
def test_a_wrong_value_is_refused_by_name_with_what_is_allowed(values: dict[str, Any], problem: str) -> None:
    assert problems(values) == [problem]


def test_an_unknown_key_is_refused_with_the_known_ones() -> None:
    (problem,) = problems({"engine": {"adress": "x"}})
    assert problem.startswith("dg.engine.adress is not a setting; dg.engine has adapter, address, answerTimeoutS,")


def test_every_problem_is_named_not_only_the_first() -> None:
    assert len(problems({"a": 1, "debounceMs": "x", "engine": {"b": 2}})) == 3


def test_a_long_wrong_value_is_shown_shortened() -> None:
    (problem,) = problems({"enabled": "x" * 1000})
    assert len(problem) < 100


def test_languages_fall_back_to_the_star_and_the_star_to_on() -> None:
    chosen = parse({"languages": {"*": False, "python": True}})
    assert [chosen.for_language(language).enabled for language in ("python", "markdown")] == [True, False]
    assert parse({"languages": {"python": False}}).for_language("markdown").enabled
    assert not parse({"enabled": False, "languages": {"python": True}}).for_language("python").enabled


def test_a_language_has_its_own_settings_over_those_for_all() -> None:
    chosen = parse(
        {"multiLine": "always", "minScore": -1, "languages": {"go": {"multiLine": "never", "enabled": None}}}
    )
    assert chosen.for_language("go") == msgspec.structs.replace(chosen, multi_line="never")
    assert chosen.for_language("c") == chosen


def test_a_wrong_setting_of_a_language_is_refused_by_its_whole_name() -> None:
    assert problems({"languages": {"go": {"multiLine": 1, "engine": {}}}})[0] == (
        "dg.languages.go.multiLine must be one of auto, always, never, not 1."
    )
    assert problems({"languages": {"go": {"engine": {}}}})[0].startswith("dg.languages.go.engine is not a setting; ")


@pytest.mark.parametrize("kind", [Settings, EngineSettings])
def test_settings_cannot_be_changed_in_place(kind: type[Settings | EngineSettings]) -> None:
    settings = kind()
    name = msgspec.structs.fields(kind)[0].name
    with pytest.raises(AttributeError):
        setattr(settings, name, None)
