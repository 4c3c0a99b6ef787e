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

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dg_engine.api import StopReason
from dg_engine.canvas import Belief, SeededDraws
from dg_engine.causal import gains_behind
from dg_engine.infill import Choose, Filling, confident, fill_chosen
from dg_engine.lengths import ByFiller, Gap
from dg_engine.model import DiffusionGemma
from dg_engine.rows import Row, can_choose
from dg_engine.settings import LengthBias, LengthProbe

JUDGED_SUFFIX = 16
"""Tokens of the suffix by which candidates are ranked; more say little more."""


class ByProbe:
    """Tries several lengths, and keeps the likeliest answer.

    Args:
        model: decoder and causal twin.
        probe: which lengths, and how many go on.
        banned: [V] booleans: tokens that end a text, and stand in no gap before a suffix; of filler nobody knows here.
        by_filler: fills the gaps without one.
    """

    def __init__(self, model: DiffusionGemma, probe: LengthProbe, banned: Tensor, by_filler: ByFiller) -> None:
        self._model, self._probe, self._banned = model, probe, banned.to(model.device, copy=True)
        self._banned[model.config.eos_token_id] = True
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

    def first_sureness(self, gap: Gap, longest: int) -> dict[int, float]:
        """How sure the model is of each length of up to so many slots, after the first step and without the bias."""
        found = dict[int, float]()
        hole = replace(gap.hole, initial=longest, longest=longest)

        def noted(states: Sequence[Filling]) -> list[int]:
            found.update((len(state.belief.argmax), sureness(state.belief, None)) for state in states)
            return [0]

        for _ in self._refined(replace(gap, hole=hole, plan=gap.plan.told(1, None)), noted):
            pass
        return found

    def _tried(self, gap: Gap) -> Iterator[Filling]:
        for step, states in enumerate(self._refined(gap, self._surest), 1):
            lead = states[0]
            if any(state.stop_reason == "time_budget" for state in states):
                yield Filling(lead.belief, confident(lead.belief, lead.end), step, "time_budget")
                return
            yield lead._replace(step=step, stop_reason=None)
        spent = any(state.stop_reason == "max_denoising_steps" for state in states)
        yield self._best(states, gap, step, "max_denoising_steps" if spent else "converged")

    def _refined(self, gap: Gap, choose: Choose) -> Iterator[tuple[Filling, ...]]:
        """The candidates that are chosen to go on after the first step, by the loop that suits the device."""
        asked = replace(gap.hole, banned=self._banned, filler_bias=0.0)
        lengths = self._probe.up_to(gap.hole.initial)
        holes = [replace(asked, initial=length, longest=length, draft=asked.draft[:length]) for length in lengths]
        loop = self._by_filler.device_loop
        rows = [
            Row(cache=gap.start.cache, suffix=gap.suffix, hole=hole, plan=gap.plan, seed=gap.seed) for hole in holes
        ]
        if loop is not None and can_choose(rows, self._probe.candidates):
            return loop.fill_chosen(rows, choose, deadline=gap.deadline)
        draws = [SeededDraws(self._model.config.vocab_size, gap.seed, self._model.device) for _ in holes]
        return fill_chosen(
            self._model, gap.start.cache, gap.suffix, holes, gap.plan, draws, choose, deadline=gap.deadline
        )

    def _surest(self, states: Sequence[Filling]) -> list[int]:
        return shortlist([sureness(state.belief, self._probe.bias) for state in states], self._probe.candidates)

    def _best(self, candidates: Sequence[Filling], gap: Gap, step: int, reason: StopReason) -> Filling:
        """The likeliest answer together with the suffix; of equal ones, that of which the probe was surer."""
        beliefs = [(one.belief, one.end) for one in candidates] + [_as_typed(gap)]
        answers: list[list[int]] = [belief.argmax[:end].tolist() for belief, end in beliefs]
        suffix = gap.suffix[:JUDGED_SUFFIX].tolist()
        passages = [[*answer, *suffix] for answer in answers]
        gains = gains_behind(self._model, gap.start, passages, self._by_filler.device_loop)
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
