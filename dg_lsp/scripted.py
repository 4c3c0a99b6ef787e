"""The test double: a backend that answers from a script, and fails from it too.

    {"rules": [
        {"after": "return ", "text": "a + b", "steps": 3},
        {"after": "hang", "then": "hang"},
        {"after": "crash", "then": "crash"}
    ]}

The first rule whose `after` ends the prefix answers, of those for this `model` or for any; without one the answer is
empty.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Literal

import msgspec

from dg_engine.api import Draft, Infill, InfillRequest, Piece
from dg_engine.errors import MALFORMED, EngineFailed, EngineUnavailable
from dg_lsp.backends import Loading, Report


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """What happens to a request whose prefix ends with `after`."""

    after: str
    text: str = ""
    others: tuple[str, ...] = ()
    """Answers that are likely, too."""
    model: str | None = None
    """The setting `engine.model` under which the rule holds; by default under each."""
    steps: int = 1
    delay_ms: float = 0.0
    """Pause before each step."""
    then: Literal["answer", "hang", "crash", "die"] = "answer"
    """After the steps: answer; never end; break on the way; be gone, as an engine that was killed."""


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Rules in order of precedence, and how the start goes."""

    rules: tuple[Rule, ...] = ()
    start_error: str = ""
    """The start fails with this message, each time."""
    loading: tuple[float, ...] = ()
    """Fractions reported while the model loads."""


def read_script(path: Path) -> Script:
    """Read a script from a JSON file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no script; the message says where.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Script)
    except MALFORMED as error:
        raise ValueError(f"{path}: {error}") from error


class ScriptedBackend:
    """Answers as its script says, whatever a model would."""

    def __init__(self, script: Script, model: str = "") -> None:
        self._script = script
        self._rules = [rule for rule in script.rules if rule.model in {None, model}]

    async def start(self, report: Report) -> None:
        """Report the scripted loading, then be ready or fail."""
        for fraction in self._script.loading:
            report(Loading("scripted", fraction))
            await asyncio.sleep(0)
        if self._script.loading:
            report(None)
        if self._script.start_error:
            raise EngineUnavailable(self._script.start_error)

    async def restart(self) -> None:
        """Start again, with the same outcome."""
        await self.start(lambda loading: None)

    async def infill(self, request: InfillRequest) -> AsyncGenerator[Draft | Infill, None]:
        """Yield one draft per step, each with a larger settled part, then end as the rule says."""
        await self.restart()
        prefix = request.prefix
        rule = next((rule for rule in self._rules if prefix.endswith(rule.after)), Rule(""))
        for step in range(1, rule.steps + 1):
            await asyncio.sleep(rule.delay_ms / 1000)
            if request.drafts:
                yield _draft(rule, step)
        if rule.then == "hang":
            await asyncio.Event().wait()
        if rule.then == "crash":
            raise EngineFailed("The scripted engine broke on the way.")
        if rule.then == "die":
            raise EngineUnavailable("The scripted engine is gone.")
        yield _answer(rule, request)

    async def close(self) -> None:
        """Nothing is held."""


def _draft(rule: Rule, step: int) -> Draft:
    settled = len(rule.text) * step // rule.steps
    noise = "".join("\n" if character == "\n" else "·" for character in rule.text[settled:])
    pieces = (Piece(rule.text[:settled], settled=True), Piece(noise, settled=False))
    return Draft(step=step, pieces=pieces, milliseconds=rule.delay_ms * step)


def _answer(rule: Rule, request: InfillRequest) -> Infill:
    tokens = len(rule.text.split())
    return Infill(
        text=rule.text,
        tokens=tokens,
        steps=rule.steps,
        milliseconds=rule.delay_ms * rule.steps,
        score=None,
        stop_reason="converged",
        prefix_tokens=len(request.prefix.split()),
        cached_tokens=0,
        others=rule.others[: request.others],
    )
