"""Every system on every case, through the engine's own interface, with the same rules for all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from dg_engine.api import Head
from dg_engine.engine import Engine
from dg_engine.evaluation.cases import Case, CaseKind
from dg_engine.evaluation.metrics import Scores, compared, score
from dg_engine.evaluation.systems import System, answer, warm_up


class Key(msgspec.Struct, frozen=True):
    """What is measured once."""

    case: str
    """`Case.name`."""
    system: str
    settings: str
    """`System.settings`: a system of the same name that decodes in another way, or copies from other files, is measured
    anew."""
    seed: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one system did on one case."""

    key: Key
    kind: CaseKind
    project: str
    answer: str
    truth: str
    steps: int
    tokens: int
    milliseconds: float
    """Of the whole answer, the prefix being encoded already."""
    log_probability: float | None
    """Nats per token of the answer, by the causal twin; None where there is no answer, or the engine told none."""
    scores: Scores
    heads: tuple[Head, ...] = ()
    """Of the answer, as the engine gave them."""


Known = dict[Key, Outcome]


def keys(case: Case, systems: Sequence[System], seeds: int) -> list[tuple[System, Key]]:
    """What there is to measure of a case. Systems take turns, so that a busy moment hits all of them alike."""
    return [
        (system, Key(case.name, system.name, system.settings(case), seed))
        for seed in range(seeds)
        for system in systems
        if system.is_sampled or not seed
    ]


def count(cases: Sequence[Case], systems: Sequence[System], seeds: int) -> int:
    """How many outcomes `run` yields."""
    return len(cases) * sum(seeds if system.is_sampled else 1 for system in systems)


def run(
    engine: Engine,
    cases: Sequence[Case],
    systems: Sequence[System],
    *,
    seeds: int = 1,
    known: Known | None = None,
) -> Iterator[Outcome]:
    """Yield the outcome of every system on every case, case by case; what is known already is not measured again, but
    compared with the truth again.

    Before a case is timed its prefix is encoded, as it is while somebody types.
    """
    for case in cases:
        wanted = keys(case, systems, seeds)
        if any(known is None or key not in known for _, key in wanted):
            warm_up(engine, case)
        for system, key in wanted:
            found = known.get(key) if known is not None else None
            yield _judged_anew(case, found) if found else _measure(engine, case, system, key)


def _judged_anew(case: Case, found: Outcome) -> Outcome:
    """What was measured once, by today's rules as far as they cost nothing."""
    return msgspec.structs.replace(found, scores=found.scores._replace(**compared(case, found.answer)))


def _measure(engine: Engine, case: Case, system: System, key: Key) -> Outcome:
    # The engine writes the end of the prefix anew where a token may go on from there, and counts it.
    true_tokens = len(engine.tokenizer.encode(engine.heal(case.prefix, system.decoding).cut + case.answer))
    found = answer(engine, system, case, true_tokens, key.seed)
    return Outcome(
        key=key,
        kind=case.kind,
        project=case.project,
        answer=found.text,
        truth=case.answer,
        steps=found.steps,
        tokens=found.tokens,
        milliseconds=found.milliseconds,
        log_probability=found.log_probability,
        scores=score(case, found.text, found.tokens, true_tokens),
        heads=found.heads,
    )
