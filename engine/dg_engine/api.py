"""The engine's wire types: what a request says and what comes back. Text in, text out; no torch, no LSP.

One infill is a stream of events over HTTP, one JSON object per line (`application/x-ndjson`):

    POST /v1/infill  InfillRequest  ->  Draft*  Infill          (drafts only when `drafts` is true)
    POST /v1/score   ScoreRequest   ->  Score
    GET  /v1/model                  ->  ModelInfo
    GET  /health                    ->  Health

A request that cannot be carried out is answered with status 400 and a `Failure`; one that breaks on the way ends its
stream with a `Failure` line. Closing the connection cancels the work within one denoising step.

`GenerateRequest` and `Block` are of `Engine.generate` alone, which is not served.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Extent = Literal["line", "block"]
Decoding = Literal["diffusion", "causal", "causal_fit"]
StopReason = Literal[
    "converged", "max_denoising_steps", "time_budget", "superseded", "end_of_sequence", "max_new_tokens"
]
EngineState = Literal["loading", "ready", "failed"]


class Copy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What follows the same text elsewhere in the user's buffers."""

    text: str
    matched: int
    """Characters before the cursor that stand before the text too, blanks not counted."""
    elsewhere: bool = False
    """Whether it stands in another document than the one that is edited."""

    def __post_init__(self) -> None:
        """Refuse what matched nothing, and what no text has."""
        _within("matched", self.matched, 1, 2**31)


class InfillRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask for the text between `prefix` and `suffix`.

    `document` names the text being edited: its prefix cache is kept between requests, and a newer request of the same
    document replaces an older one that still runs. An empty name means neither.
    """

    prefix: str
    suffix: str = ""
    path: str = ""
    language: str = ""
    document: str = ""
    extent: Extent = "block"
    """`line` ends the answer at its first newline; `block` lets it run over several lines."""
    max_new_tokens: int = 64
    """Upper bound of the answer's length in tokens, growth of a full hole included."""
    max_denoising_steps: int | None = None
    """None takes the model's own default. More steps cost time and buy quality."""
    entropy_bound: float | None = None
    """Nats of joint uncertainty accepted per step; None takes the model's own default."""
    time_budget_ms: float | None = None
    """Return the confident left part of the draft at hand when this much time is spent."""
    decoding: Decoding | None = None
    """None is what the checkpoint does best. `diffusion` refines a canvas in steps. `causal` writes from left to right
    and does not see the suffix: the baseline. `causal_fit` seeks the text that the suffix follows best."""
    others: int = 0
    """Answers besides the best that are wanted, at most. Only `causal_fit` has some."""
    copied: Copy | None = None
    """What `causal_fit` may take over, and diffusion start from, if the checkpoint says how far to trust it."""
    seed: int = 0
    drafts: bool = False

    def __post_init__(self) -> None:
        """Refuse values outside their range, naming the field."""
        _check_limits(self)
        _at_least("others", self.others, 0)


class GenerateRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask for long text behind a prompt, as the model was built to write it; `Engine.generate` answers.

    `document` names a text that goes on: what was encoded of it is kept for the next request.
    """

    prompt: str
    chat: bool = False
    """Whether the prompt is a message that the model answers, or text that it continues."""
    document: str = ""
    max_new_tokens: int = 1024
    max_denoising_steps: int | None = None
    """For each block; None takes the model's own default."""
    entropy_bound: float | None = None
    """As in `InfillRequest`."""
    time_budget_ms: float | None = None
    """Stop with the confident left part of the block at work when this much time is spent."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values outside their range, naming the field."""
        _check_limits(self)


class Piece(msgspec.Struct, frozen=True):
    """A run of draft text; `settled` when the step accepted its tokens, otherwise they are renoised next."""

    text: str
    settled: bool


class Draft(msgspec.Struct, frozen=True, kw_only=True, tag="draft", tag_field="event"):
    """The argmax of the hole after one denoising step."""

    step: int
    pieces: tuple[Piece, ...]
    milliseconds: float

    @property
    def text(self) -> str:
        """The draft as plain text."""
        return "".join(piece.text for piece in self.pieces)


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """An answer's text up to a place where it may be cut: behind a word or a sign, or at the end of a line."""

    characters: int
    tokens: int
    score: float
    """As `Infill.score`, of these tokens."""
    probability: float | None = None
    """The calibrated chance that what was missing begins with it, or has just these lines; None from a checkpoint
    without calibration, and of a decoding that is not the one that it was fitted to."""


class Infill(msgspec.Struct, frozen=True, kw_only=True, tag="infill", tag_field="event"):
    """The answer.

    `score` is the mean log-probability per token (nats) that the causal twin gives to the text, or found in writing it.
    """

    text: str
    tokens: int
    steps: int
    milliseconds: float
    score: float | None
    stop_reason: StopReason
    prefix_tokens: int
    cached_tokens: int
    """How many of `prefix_tokens` came from the prefix cache."""
    others: tuple[str, ...] = ()
    """Texts that are likely, too, the likeliest first."""
    heads: tuple[Head, ...] = ()
    """The shortest first, the last of all the text; none where nothing was scored."""


class Block(msgspec.Struct, frozen=True, kw_only=True, tag="block", tag_field="event"):
    """A part of a long text that will not change any more. The last has a `stop_reason`.

    A character whose bytes are in two blocks comes with the second.
    """

    text: str
    tokens: int
    steps: int
    milliseconds: float
    stop_reason: StopReason | None


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag="failure", tag_field="event"):
    """The request failed; `message` is one sentence for people."""

    message: str


class ScoreRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask how likely the causal twin finds `text` after `prefix`, and then `suffix` after both."""

    prefix: str
    text: str
    suffix: str = ""
    path: str = ""
    language: str = ""


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """Summed log-probabilities in nats, with the number of tokens each sum runs over."""

    text: float
    text_tokens: int
    suffix: float
    suffix_tokens: int


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine has loaded and where it runs."""

    name: str
    path: str
    adapter: str = ""
    """Directory of the adapter that is merged into the weights; empty where none is."""
    parameters: int
    active_parameters: int
    device: str
    dtype: str
    vocab_size: int
    canvas_length: int
    max_prefix_tokens: int
    max_denoising_steps: int
    entropy_bound: float


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the engine is up. While it loads, `progress` goes from 0 to 1."""

    state: EngineState
    message: str = ""
    progress: float = 0.0
    version: str = ""
    pid: int = 0
    uptime_s: float = 0.0
    active_requests: int = 0


Event = Draft | Infill | Failure


def _check_limits(request: InfillRequest | GenerateRequest) -> None:
    _at_least("max_new_tokens", request.max_new_tokens, 1)
    _at_least("max_denoising_steps", request.max_denoising_steps, 1)
    _at_least("entropy_bound", request.entropy_bound, 0.0)
    _at_least("time_budget_ms", request.time_budget_ms, 0.0)
    _within("seed", request.seed, -(2**63), 2**63 - 1)


def _within(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name} must be between {least} and {most}, not {value}")


def _at_least(name: str, value: float | None, minimum: float) -> None:
    if value is not None and not value >= minimum:
        raise ValueError(f"{name} must be at least {minimum}, not {value}")
