"""Every way of decoding on every case, through the engine's own interface, with the same rules for all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import msgspec

from dg_engine.api import Decoding, Infill, InfillRequest
from dg_engine.engine import Engine
from dg_engine.evaluation.cases import Case, CaseKind
from dg_engine.evaluation.metrics import Scores, score

Length = Literal["unknown", "given"]

MAX_NEW_TOKENS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class System:
    """A way of decoding with the checkpoint's weights."""

    name: str
    decoding: Decoding = "diffusion"
    length: Length = "unknown"
    """`given` tells how many tokens the truth has, to show what not knowing costs."""
    max_denoising_steps: int | None = None
    seed: int = 0

    def request(self, case: Case, true_tokens: int) -> InfillRequest:
        """What the engine is asked. A line is asked for where the truth is one; everything else is a block."""
        return InfillRequest(
            prefix=case.prefix,
            suffix=case.suffix,
            path=case.path,
            language="python",
            document=f"{case.project}/{case.path}",
            extent="line" if case.kind == "line" else "block",
            max_new_tokens=max(1, true_tokens) if self.length == "given" else MAX_NEW_TOKENS,
            max_denoising_steps=self.max_denoising_steps,
            decoding=self.decoding,
            seed=self.seed,
        )


SYSTEMS = (
    System(name="diffusion"),
    System(name="diffusion, length given", length="given"),
    System(name="diffusion, 4 steps", max_denoising_steps=4),
    System(name="diffusion, 1 step", max_denoising_steps=1),
    System(name="causal, same weights", decoding="causal"),
    System(name="causal, length given", decoding="causal", length="given"),
)
"""The causal baseline sees no suffix and stops at a line break (for a line) or at its bound."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one system did on one case."""

    system: str
    kind: CaseKind
    project: str
    answer: str
    truth: str
    steps: int
    tokens: int
    milliseconds: float
    """Of the whole infill, the prefix being encoded already."""
    scores: Scores


def run(engine: Engine, cases: list[Case], systems: tuple[System, ...] = SYSTEMS) -> Iterator[Outcome]:
    """Yield the outcome of every system on every case, case by case.

    Before a case is timed its prefix is encoded, as it is while somebody types.
    """
    for case in cases:
        true_tokens = len(engine.tokenizer.encode(case.answer))
        warm = System(name="", max_denoising_steps=1).request(case, true_tokens)
        _answer(engine, warm)
        for system in systems:
            found = _answer(engine, system.request(case, true_tokens))
            yield Outcome(
                system=system.name,
                kind=case.kind,
                project=case.project,
                answer=found.text,
                truth=case.answer,
                steps=found.steps,
                tokens=found.tokens,
                milliseconds=found.milliseconds,
                scores=score(case, found.text, found.tokens, true_tokens),
            )


def _answer(engine: Engine, request: InfillRequest) -> Infill:
    *_, last = engine.infill(request)
    assert isinstance(last, Infill)  # noqa: S101  (the engine's contract)
    return last
