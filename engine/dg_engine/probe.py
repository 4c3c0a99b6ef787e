"""Filling a hole by a model that did not learn filler: several lengths are tried at once, the likeliest answer is kept.

The first step is the probe. It refines a hole of every length, and the few of which the model is surest go on (CAL,
arXiv 2602.00476, climbs to one length by the same measure). A probe under-selects long answers, so one place is kept
for the surest of the longer holes.

What the candidates have become is ranked by the same weights as a causal model: by Bayes' rule the likeliest text
between a prefix and a suffix is that for which the text behind the prefix and the suffix behind both are likeliest
together. To insert nothing is a candidate too, and would win too often: every token that is written makes a text less
likely, however good it is. So the sum is divided by a power of the number of tokens. Token ids only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dg_engine.api import StopReason
from dg_engine.canvas import Belief, Canvas, SeededDraws, denoise_together, new_canvas
from dg_engine.causal import Passage, gains_behind
from dg_engine.infill import Filling, Settling, answer_end, confident
from dg_engine.lengths import ByFiller, Gap
from dg_engine.model import DiffusionGemma
from dg_engine.settings import LengthBias, LengthProbe

JUDGED_SUFFIX = 16
"""Tokens of the suffix by which candidates are ranked; more say little more."""


class Candidate:
    """A hole of one length, after its first step."""

    def __init__(self, gap: Gap, canvas: Canvas, belief: Belief) -> None:
        self._gap = gap
        self._settling = Settling()
        self.refined(canvas, belief)

    def refined(self, canvas: Canvas, belief: Belief) -> None:
        """Take what a step made of it."""
        self.canvas, self.belief = canvas, belief
        self.end = answer_end(belief.argmax, self._gap.hole.ends)
        self.done = self._settling.settled(belief, self.end, self._gap.plan.stopping)


class ByProbe:
    """Tries several lengths, and keeps the likeliest answer.

    Args:
        model: decoder and causal twin.
        probe: which lengths, and how many go on.
        banned: [V] booleans: tokens that end a text, and stand in no gap before a suffix.
        by_filler: fills the gaps without one.
    """

    def __init__(self, model: DiffusionGemma, probe: LengthProbe, banned: Tensor, by_filler: ByFiller) -> None:
        self._model, self._probe, self._banned = model, probe, banned.to(model.device)
        self._by_filler = by_filler

    def fill(self, gap: Gap) -> Iterator[Filling]:
        """Yield the candidate in the lead after each step, and then the best of all, which has a stop reason.

        A text without a suffix has no length to find: the model ends it as it ends every text. It may not do so at
        once, because a model that is asked for little often says nothing.
        """
        if len(gap.suffix):
            return self._tried(gap)
        given = gap.hole.first_allowed
        allowed = ~self._banned if given is None else given & ~self._banned
        return self._by_filler.fill(replace(gap, hole=replace(gap.hole, first_allowed=allowed)))

    def _tried(self, gap: Gap) -> Iterator[Filling]:
        draws = SeededDraws(self._model.config.vocab_size, gap.seed, self._model.device)
        candidates = self._probed(gap, draws)
        for step in range(1, gap.plan.max_denoising_steps + 1):
            lead, running = candidates[0], [one for one in candidates if not one.done]
            if running and gap.deadline is not None and time.perf_counter() >= gap.deadline:
                yield Filling(lead.belief, confident(lead.belief, lead.end), step, "time_budget")
                return
            yield Filling(lead.belief, lead.end, step, None)
            if not running or step == gap.plan.max_denoising_steps:
                yield self._best(candidates, gap, step, "max_denoising_steps" if running else "converged")
                return
            refined = self._step(gap, step, [one.canvas for one in running], draws)
            for candidate, (canvas, belief) in zip(running, refined, strict=True):
                candidate.refined(canvas, belief)

    def _probed(self, gap: Gap, draws: SeededDraws) -> list[Candidate]:
        """The candidates that go on after the first step, the surest first."""
        model, longest, pinned = self._model, gap.hole.initial, gap.hole.pinned_signal
        lengths = [length for length in self._probe.lengths if length <= longest] or [longest]
        canvases = [new_canvas(model, length, gap.suffix, draws, pinned_signal=pinned) for length in lengths]
        refined = self._step(gap, 0, canvases, draws)
        found = [sureness(belief, self._probe.bias) for _, belief in refined]
        return [Candidate(gap, *refined[number]) for number in shortlist(found, self._probe.candidates)]

    def _step(self, gap: Gap, step: int, canvases: Sequence[Canvas], draws: SeededDraws) -> list[tuple[Canvas, Belief]]:
        return denoise_together(
            self._model,
            gap.start.cache,
            canvases,
            temperature=gap.plan.temperature.at(step, gap.plan.max_denoising_steps),
            acceptance=gap.plan.acceptance,
            draws=draws,
            first_allowed=gap.hole.first_allowed,
            banned=self._banned,
        )

    def _best(self, candidates: Sequence[Candidate], gap: Gap, step: int, reason: StopReason) -> Filling:
        """The likeliest answer together with the suffix; of equal ones, that of which the probe was surer."""
        beliefs = [(one.belief, one.end) for one in candidates] + [_as_typed(gap)]
        answers: list[list[int]] = [belief.argmax[:end].tolist() for belief, end in beliefs]
        suffix = gap.suffix[:JUDGED_SUFFIX].tolist()
        gains = gains_behind(self._model, gap.start, [Passage([*answer, *suffix]) for answer in answers])
        scores = [sum(each) / len(each) ** self._probe.score_exponent for each in gains]
        best = scores.index(max(scores))
        belief, end = beliefs[best]
        return Filling(belief, end, step, reason, gains[best][:end])


def sureness(belief: Belief, bias: LengthBias | None) -> float:
    """The mean probability of the draft's tokens, against what it is for holes of this length."""
    mean = float(belief.confidence.mean())
    return mean if bias is None else mean / bias.of(len(belief.argmax))


def shortlist(found: Sequence[float], count: int) -> list[int]:
    """Numbers of the candidates that go on, the surest first.

    Args:
        found: how sure the model is of each, the shortest first.
        count: how many go on; the last of several is the surest of those longer than all the others, if there are any.
    """
    order = sorted(range(len(found)), key=lambda number: -found[number])
    best = order[: max(count - 1, 1)]
    rest = order[len(best) :]
    longer = [number for number in rest if number > max(best)]
    return best + (longer or rest)[: count - len(best)]


def _as_typed(gap: Gap) -> tuple[Belief, int]:
    """Nothing inserted: the answer is what the user typed of it already."""
    typed = torch.tensor(gap.hole.typed, dtype=torch.long, device=gap.suffix.device)
    certain = torch.ones(len(typed), device=typed.device)
    return Belief(typed, certain, torch.zeros_like(certain), certain.bool()), len(typed)
