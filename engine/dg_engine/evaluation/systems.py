"""Every way of filling a hole that is compared: the checkpoint's own decodings, ranked candidates, and copying."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, NamedTuple

import msgspec

from dg_engine.api import Copy, Decoding, Head, Infill, InfillRequest, ScoreRequest
from dg_engine.copying import continuation
from dg_engine.engine import Engine
from dg_engine.errors import EngineError
from dg_engine.evaluation.cases import Case
from dg_engine.evaluation.copying import copied
from dg_engine.settings import InfillConfig

Length = Literal["unknown", "given"]

MAX_NEW_TOKENS = 64
LADDER_STEPS = (1, 2, 4, 8, 12)
"""Step budgets at which the dial between speed and quality is read."""

RANKING_CHARACTERS = 100
"""Of the suffix, when it ranks candidates: some 32 tokens, as many as the shipped model pins."""


class Try(NamedTuple):
    """One candidate of a system that ranks several."""

    seed: int = 0
    """Added to the seed of the run."""
    max_new_tokens: int = MAX_NEW_TOKENS
    """A short bound is also a short hole to begin with: another guess at the length."""


_ONE_TRY = Try()


@dataclass(frozen=True, kw_only=True, slots=True)
class System:
    """A way of filling holes, as data."""

    name: str
    about: str
    decoding: Decoding | Literal["copy"] = "diffusion"
    length: Length = "unknown"
    """`given` tells how many tokens the truth has, to show what not knowing costs."""
    max_denoising_steps: int | None = None
    copies: Literal["no", "file", "project"] = "no"
    """Where what follows the same text is looked for, of which the engine is told as by the server."""
    others: int = 0
    """Answers besides the best of which the right one is taken, if one is: what is found by looking through them."""
    tries: tuple[Try, ...] = (_ONE_TRY,)
    """More than one are ranked by the causal log-probability of the answer and of the suffix behind it: as every
    candidate is followed by the same suffix, this is Bayes' rule for the answer given both sides."""

    @property
    def is_sampled(self) -> bool:
        """Whether another seed may give another answer."""
        return self.decoding == "diffusion"

    def settings(self, case: Case) -> str:
        """A digest of all that decides what it answers, besides the hole: also of other files, where it reads them."""
        own = repr((self.decoding, self.length, self.max_denoising_steps, self.copies, self.others, self.tries))
        beside = case.beside if self.copies == "project" else ()
        return sha256("\0".join((own, *beside)).encode()).hexdigest()[:8]

    def request(self, case: Case, true_tokens: int, seed: int = 0, one: Try = _ONE_TRY) -> InfillRequest:
        """What the engine is asked for one candidate.

        Raises:
            ValueError: this system does not ask the engine.
        """
        if self.decoding == "copy":
            raise ValueError(f"{self.name} does not ask the engine")
        return InfillRequest(
            prefix=case.prefix,
            suffix=case.suffix,
            path=case.path,
            language="python" if case.is_python else "",
            document=f"{case.project}/{case.path}",
            extent="line" if case.in_line else "block",
            max_new_tokens=max(1, true_tokens) if self.length == "given" else one.max_new_tokens,
            max_denoising_steps=self.max_denoising_steps,
            decoding=self.decoding,
            others=self.others,
            copied=self._copied(case),
            seed=seed * len(self.tries) + one.seed,
        )

    def _copied(self, case: Case) -> Copy | None:
        if self.copies == "no":
            return None
        return continuation(case.prefix, case.suffix, case.beside if self.copies == "project" else ())


SYSTEMS = (
    System(name="diffusion", about="with the checkpoint's own steps and entropy bound"),
    System(
        name="diffusion-copied",
        about="diffusion that starts from what is likely copied from the same file, where there is something",
        copies="file",
    ),
    System(name="diffusion-given", about="diffusion that is told the number of tokens", length="given"),
    System(name="diffusion-1", about="one step of diffusion", max_denoising_steps=1),
    System(name="causal", about="the same weights from left to right, which do not see the suffix", decoding="causal"),
    System(
        name="causal-given",
        about="from left to right without the suffix, told the number of tokens",
        decoding="causal",
        length="given",
    ),
    System(
        name="causal-fit",
        about="the text that the suffix follows best, sought from left to right and in copies from the same file",
        decoding="causal_fit",
        copies="file",
    ),
    System(
        name="causal-fit-project",
        about="as `causal-fit`, and copied from the files beside it too, as in an editor",
        decoding="causal_fit",
        copies="project",
    ),
    System(
        name="causal-fit-choice",
        about="as `causal-fit-project`, or its next two answers if one of them is right: by hand all three are shown",
        decoding="causal_fit",
        copies="project",
        others=2,
    ),
    System(
        name="causal-fit-alone",
        about="as `causal-fit`, without copying",
        decoding="causal_fit",
    ),
    System(
        name="causal-fit-given",
        about="causal fit among the texts of the right number of tokens alone",
        decoding="causal_fit",
        copies="file",
        length="given",
    ),
    System(
        name="rerank",
        about="diffusion from two seeds in short and long holes, ranked by the causal score of answer and suffix",
        tries=tuple(Try(seed, length) for seed in (0, 1) for length in (8, MAX_NEW_TOKENS)),
    ),
    System(
        name="causal-rerank",
        about="causal answers of several lengths, ranked by the causal score of answer and suffix",
        decoding="causal",
        tries=tuple(Try(max_new_tokens=length) for length in (2, 4, 8, 16, 32, MAX_NEW_TOKENS)),
    ),
    System(
        name="copy", about="what stands in the file where it is most alike on both sides of the hole", decoding="copy"
    ),
)
LADDER = tuple(
    System(name=f"diffusion-{steps}", about=f"at most {steps} steps of diffusion", max_denoising_steps=steps)
    for steps in LADDER_STEPS
)


def ordered(config: InfillConfig) -> tuple[System, ...]:
    """All systems; the first is what a checkpoint does when it is not told."""
    own = next(one for one in SYSTEMS if one.decoding == config.decoding)
    return (own, *(one for one in SYSTEMS if one is not own))


def chosen(names: Iterable[str], config: InfillConfig, *, ladder: bool = False) -> tuple[System, ...]:
    """The systems of these names in this order, or all where there are none, and the ladder's.

    Raises:
        EngineError: there is no system of a name; the message has those that there are.
    """
    known = {system.name: system for system in (*LADDER, *SYSTEMS)}
    wanted = list(names) or [system.name for system in ordered(config)]
    for name in wanted:
        if name not in known:
            raise EngineError(f"{name}: is no system; there are {', '.join(sorted(known))}")
    return tuple(known[name] for name in dict.fromkeys([*wanted, *(step.name for step in LADDER if ladder)]))


class Answer(NamedTuple):
    """What a system found for a hole."""

    text: str
    tokens: int
    steps: int
    """Passes of the model over a canvas, or over one token where it decodes from left to right; of all candidates."""
    milliseconds: float
    log_probability: float | None
    """Nats per token that the causal twin gives to the text; None where the engine tells none."""
    heads: tuple[Head, ...]
    """As the engine gave them; none where it told none of this text."""


def answer(engine: Engine, system: System, case: Case, true_tokens: int, seed: int = 0) -> Answer:
    """Fill a hole in the way of a system.

    Args:
        engine: with the case's prefix in its cache, as it is while somebody types.
        system: the way.
        case: the hole.
        true_tokens: how many the truth has behind the healed prefix; only told to systems whose length is given.
        seed: of the run.
    """
    started = time.perf_counter()
    if system.decoding == "copy":
        text, steps, likelihood, heads = copied(case), 0, None, tuple[Head, ...]()
        # As the truth is counted: with what is cut off the prefix.
        cut = engine.heal(case.prefix, system.decoding).cut
        tokens = len(engine.tokenizer.encode(cut + text)) if text else 0
    else:
        candidates = list(_candidates(engine, system, case, true_tokens, seed))
        best = candidates[0] if len(candidates) == 1 else _best(engine, case, candidates)
        text, tokens, likelihood, heads = best.text, best.tokens, best.score, best.heads
        steps = sum(one.steps for one in candidates)
        if case.answer in best.others:
            # Of those the engine tells the text alone.
            text, tokens, likelihood, heads = case.answer, true_tokens, None, ()
    return Answer(text, tokens, steps, (time.perf_counter() - started) * 1000, likelihood, heads)


def _candidates(engine: Engine, system: System, case: Case, true_tokens: int, seed: int) -> Iterator[Infill]:
    exact = true_tokens if system.length == "given" and system.decoding == "causal_fit" else None
    for one in system.tries:
        *_, last = engine.infill(system.request(case, true_tokens, seed, one), exact)
        assert isinstance(last, Infill)  # noqa: S101  (the engine's contract)
        yield last
        if system.decoding == "causal" and last.stop_reason == "end_of_sequence":
            return  # it ended by itself, and would with any larger bound


def _best(engine: Engine, case: Case, candidates: list[Infill]) -> Infill:
    """The likeliest candidate between prefix and suffix; an empty one only where all are."""
    different = {one.text: one for one in candidates if one.text} or {one.text: one for one in candidates}
    suffix = case.suffix[:RANKING_CHARACTERS]

    def joint(text: str) -> float:
        found = engine.score(ScoreRequest(prefix=case.prefix, text=text, suffix=suffix, path=case.path))
        return found.text + found.suffix

    return different[max(different, key=joint) if len(different) > 1 else next(iter(different))]


def warm_up(engine: Engine, case: Case) -> None:
    """Have the engine encode a case's prefix, so that no system pays for it."""
    request = System(name="warm-up", about="", max_denoising_steps=1).request(case, 1)
    for _ in engine.infill(msgspec.structs.replace(request, max_new_tokens=1)):
        pass
