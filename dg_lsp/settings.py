"""What the user may choose: frozen values, checked field by field, each wrong one refused by its name.

They come from `initializationOptions`, and over those from the section `dg` of `workspace/configuration` (or of
`workspace/didChangeConfiguration` for clients that push). Names are camelCase on the wire.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from dg_engine.api import Decoding

SECTION = "dg"

MultiLine = Literal["auto", "always", "never"]
DecodingChoice = Literal["auto", Decoding]
LogLevel = Literal["debug", "info", "warning", "error"]
Count = Annotated[int, Meta(ge=1)]
Amount = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]


class SettingsError(ValueError):
    """Settings that cannot be taken; `problems` has one sentence for each wrong field."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(" ".join(problems))
        self.problems = problems


def _about(text: str) -> Meta:
    """What a setting is for, in the words that editors show beside it."""
    return Meta(description=text)


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """Which engine answers, and how long to be patient with it."""

    model: Annotated[str, _about("Name or directory of a checkpoint; empty for the one that ships with dg-lsp.")] = ""
    adapter: Annotated[
        str, _about("Directory of an adapter that `dg-engine finetune` made for this model; empty for the model alone.")
    ] = ""
    address: Annotated[
        str, _about("`unix:/PATH` or `http://127.0.0.1:PORT`; empty for your own engine, which is started on demand.")
    ] = ""
    token: Annotated[str, _about("The bearer token of an engine on a loopback port.")] = ""
    autostart: Annotated[bool, _about("Start the engine when none answers.")] = True
    idle_timeout_s: Annotated[
        float, Meta(gt=0), _about("The engine stops itself after so many seconds without a request.")
    ] = 900.0
    answer_timeout_s: Annotated[
        float,
        Meta(gt=0),
        _about("A request is answered with nothing when the engine, its start included, takes more seconds than this."),
    ] = 10.0


class CompletionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """What can be chosen for each language by itself. `None` leaves the choice to the model."""

    enabled: Annotated[bool, _about("Offer completions.")] = True
    debounce_ms: Annotated[
        Amount,
        _about(
            "Keys that follow one another within so many milliseconds, as when one is held down, reach the engine only "
            "after such a pause; slower ones, and requests made by hand, at once."
        ),
    ] = 40.0
    multi_line: Annotated[
        MultiLine, _about("Whether completions may have several lines; `auto` decides by the syntax at the cursor.")
    ] = "auto"
    in_comments: Annotated[bool, _about("Offer completions inside comments.")] = True
    decoding: Annotated[
        DecodingChoice,
        _about(
            "How completions are made: in denoising steps (`diffusion`); from left to right without a look at what "
            "follows (`causal`), or with a search for the text that it follows best (`causal_fit`); `auto` is what the "
            "model does best."
        ),
    ] = "auto"
    max_new_tokens: Annotated[Count, _about("The longest completion, in tokens.")] = 64
    max_denoising_steps: Annotated[
        Count | None,
        _about(
            "Of completions that are made in denoising steps (`decoding`) the dial between speed and quality: more are "
            "slower and better. Empty: the model's own."
        ),
    ] = None
    entropy_bound: Annotated[
        Amount | None,
        _about(
            "How unsure, in nats, the tokens accepted in one denoising step may be together. Empty: the model's own."
        ),
    ] = None
    time_budget_ms: Annotated[
        Amount | None,
        _about("After so many milliseconds the confident left part of the draft is the answer. Empty: no limit."),
    ] = None
    min_probability: Annotated[
        Share,
        _about(
            "The chance of being right that an automatic completion must have to be shown if it spares ten keys, "
            "where the model knows it; one that spares fewer must be likelier. Of each answer the part is shown of "
            "which most is to be expected. Less shows more, and more that is wrong; 0 shows every answer whole."
        ),
    ] = 0.4
    min_score: Annotated[
        float,
        _about(
            "From a model that does not, those that it finds less likely than this, in nats per token, are not shown."
        ),
    ] = -2.5


class Settings(CompletionSettings, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """All settings."""

    languages: Annotated[
        dict[str, bool | dict[str, Any]],
        _about(
            "Language identifier to on or off, or to an object of those settings above that differ for this language, "
            'such as `{"multiLine": "never"}`; `*` stands for all languages that are not named.'
        ),
    ] = {}
    exclude: Annotated[
        tuple[str, ...],
        _about(
            "Globs, as in `.gitignore`, of files that are never read and never sent, on top of the built-in ones for "
            "secrets; `!secrets.py` takes one of these back."
        ),
    ] = ()
    drafts: Annotated[
        bool, _about("Watch completions crystallise: tell the editor of every draft while a completion is refined.")
    ] = False
    log_level: Annotated[LogLevel, _about("How much the server writes to its log.")] = "info"
    engine: EngineSettings = EngineSettings()

    def for_language(self, language: str) -> Settings:
        """These settings with what `languages` says of a language laid over them; off stays off."""
        choice = self.languages.get(language, self.languages.get("*", {}))
        over = choice if isinstance(choice, dict) else {"enabled": choice}
        return msgspec.structs.replace(self, **{**over, "enabled": self.enabled and over.get("enabled", True)})


def parse(*layers: Mapping[str, Any] | None) -> Settings:
    """Settings from layers of camelCase mappings, the later over the earlier, over the defaults.

    Raises:
        SettingsError: a key is unknown or a value is wrong; every problem is named with what is allowed.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _merge(merged, layer or {})
    problems: list[str] = []
    settings: Settings = _struct(Settings, merged, SECTION, problems)
    if problems:
        raise SettingsError(problems)
    return settings


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        both = isinstance(under, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(under, value) if both and isinstance(under, Mapping) else value
    return merged


def _struct(kind: Any, values: Mapping[str, Any], path: str, problems: list[str]) -> Any:
    known = _known(kind, values, path, problems)
    return None if problems else kind(**known)


def _known(kind: Any, values: Mapping[str, Any], path: str, problems: list[str]) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    fields = {field.encode_name: field.name for field in msgspec.structs.fields(kind)}
    known: dict[str, Any] = {}
    for key, value in values.items():
        if value is None:
            continue  # is not set: so clients put back what they had set
        if key not in fields:
            problems.append(f"{path}.{key} is not a setting; {path} has {', '.join(sorted(fields))}.")
        else:
            known[fields[key]] = _value(hints[fields[key]], value, f"{path}.{key}", problems)
    return known


def _value(kind: Any, value: Any, path: str, problems: list[str]) -> Any:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and isinstance(value, Mapping):
        return _struct(kind, value, path, problems)
    try:
        taken = msgspec.convert(value, kind)
    except msgspec.ValidationError:
        problems.append(f"{path} must be {_allowed(kind)}, not {_shown(value)}.")
        return None
    return _overrides(taken, path, problems) if isinstance(taken, dict) else taken


def _overrides(languages: Mapping[str, Any], path: str, problems: list[str]) -> dict[str, Any]:
    """The setting `languages` with the fields' own names in place of those on the wire."""
    return {
        language: _known(CompletionSettings, choice, f"{path}.{language}", problems)
        if isinstance(choice, Mapping)
        else choice
        for language, choice in languages.items()
    }


def _allowed(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        bounds = [bound for meta in kind.__metadata__ if (bound := _bounds(meta))]
        return " ".join([_allowed(arguments[0]), *bounds])
    if origin in {Union, types.UnionType}:
        return " or ".join(_allowed(argument) for argument in arguments)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is tuple:
        return "a list of strings"
    if origin is dict:
        return "a mapping of language to true, false or an object of settings"
    return _KINDS.get(kind, "an object")


_KINDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    type(None): "null",
}


def _bounds(meta: Meta) -> str:
    if meta.gt is not None:
        return f"above {meta.gt}"
    return f"of at least {meta.ge}" if meta.ge is not None else ""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
