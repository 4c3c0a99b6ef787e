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

SECTION = "dg"

MultiLine = Literal["auto", "always", "never"]
LogLevel = Literal["debug", "info", "warning", "error"]
Count = Annotated[int, Meta(ge=1)]
Amount = Annotated[float, Meta(ge=0)]


class SettingsError(ValueError):
    """Settings that cannot be taken; `problems` has one sentence for each wrong field."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(" ".join(problems))
        self.problems = problems


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """Which engine answers, and how long to be patient with it."""

    address: str = ""
    """`unix:/PATH` or `http://127.0.0.1:PORT`; empty for the user's own engine, which is started on demand."""
    token: str = ""
    """The bearer token of an engine on a loopback port."""
    autostart: bool = True
    model: str = ""
    """Name or directory of a checkpoint; empty for the one that ships with the project."""
    idle_timeout_s: Annotated[float, Meta(gt=0)] = 900.0
    """The engine stops itself after this long without a request."""
    answer_timeout_s: Annotated[float, Meta(gt=0)] = 10.0
    """A request is answered with nothing when the engine, its start included, takes longer."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """All settings. `None` leaves the choice to the model."""

    enabled: bool = True
    languages: dict[str, bool] = {}
    """Language identifier to on or off; `*` stands for all the others."""
    debounce_ms: Amount = 40.0
    """Pause before an automatic request reaches the engine; an invoked one goes at once."""
    multi_line: MultiLine = "auto"
    in_comments: bool = True
    exclude: tuple[str, ...] = ()
    """Globs, as in `.gitignore`, of files that are never read and never sent, on top of the built-in ones."""
    max_new_tokens: Count = 64
    max_denoising_steps: Count | None = None
    entropy_bound: Amount | None = None
    time_budget_ms: Amount | None = None
    """The engine returns the confident left part of its draft when this much time is spent."""
    min_score: float = -2.5
    """Automatic completions that the model itself finds less likely than this, in nats per token, are not shown."""
    drafts: bool = False
    """Tell the client of every draft of a completion it waits for, by the notification `dg/draft`."""
    log_level: LogLevel = "info"
    engine: EngineSettings = EngineSettings()

    def enabled_for(self, language: str) -> bool:
        """Whether completions are wanted in a language."""
        return self.enabled and self.languages.get(language, self.languages.get("*", True))


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
    hints = get_type_hints(kind, include_extras=True)
    fields = {field.encode_name: field.name for field in msgspec.structs.fields(kind)}
    known: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            problems.append(f"{path}.{key} is not a setting; {path} has {', '.join(sorted(fields))}.")
        elif value is not None:
            known[fields[key]] = _value(hints[fields[key]], value, f"{path}.{key}", problems)
    return None if problems else kind(**known)


def _value(kind: Any, value: Any, path: str, problems: list[str]) -> Any:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and isinstance(value, Mapping):
        return _struct(kind, value, path, problems)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        problems.append(f"{path} must be {_allowed(kind)}, not {_shown(value)}.")
        return None


def _allowed(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return f"{_allowed(arguments[0])} {_bounds(kind.__metadata__)}"
    if origin in {Union, types.UnionType}:
        return " or ".join(_allowed(argument) for argument in arguments)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is tuple:
        return "a list of strings"
    if origin is dict:
        return "a mapping of language to true or false"
    return _KINDS.get(kind, "an object")


_KINDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    type(None): "null",
}


def _bounds(metadata: tuple[Meta, ...]) -> str:
    meta = metadata[0]
    return f"above {meta.gt}" if meta.gt is not None else f"of at least {meta.ge}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
