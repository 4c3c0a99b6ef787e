"""The denoising loop on one canvas whose length stays as it is, and its slow, readable twin."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from dg_engine.canvas import BANNED, Belief, Canvas, Draws, denoise_step
from dg_engine.model import DiffusionGemma, PrefixCache
from dg_engine.policies import Denoising


class Denoised(NamedTuple):
    """The canvas after a step, what was found, and whether the stopping rule is met."""

    canvas: Canvas
    belief: Belief
    stopped: bool


def denoise(
    model: DiffusionGemma, cache: PrefixCache, canvas: Canvas, plan: Denoising, draws: Draws
) -> Iterator[Denoised]:
    """Yield after each step, until the stopping rule is met or the steps are spent.

    Stability and confidence are judged on the free slots alone: pinned ones are stable and certain by definition.
    """
    previous: Tensor | None = None
    unchanged = 0
    for step in range(plan.max_denoising_steps):
        temperature = plan.temperature.at(step, plan.max_denoising_steps)
        canvas, belief = denoise_step(
            model, cache, canvas, temperature=temperature, acceptance=plan.acceptance, draws=draws
        )
        same = previous is not None and torch.equal(previous, belief.argmax)
        unchanged = unchanged + 1 if same else 0
        previous = belief.argmax
        stopped = plan.stopping.met(unchanged, float(belief.entropy.mean()))
        yield Denoised(canvas, belief, stopped)
        if stopped:
            return


def denoise_reference(
    model: DiffusionGemma,
    cache: PrefixCache,
    tokens: list[int],
    free: list[int],
    plan: Denoising,
    draws: Draws,
    first_allowed: Tensor | None = None,
) -> list[list[int]]:
    """The drafts of every step, one slot after the other in plain Python: the truth for `denoise`.

    Pinned slots carry no self-conditioning before the first step, as in a checkpoint that was not told of them.
    """
    drafts: list[list[int]] = []
    signal: list[Tensor] | None = None
    unchanged = 0
    for step in range(plan.max_denoising_steps):
        stacked = None if signal is None else torch.stack(signal)[None]
        hidden = model.decode(torch.tensor([tokens]), cache, stacked)[0]
        temperature = plan.temperature.at(step, plan.max_denoising_steps)
        uniform = draws.uniform(len(free)).tolist()
        distributions = []
        for slot in free:
            logits = model.logits(hidden[slot])
            if slot == free[0] and first_allowed is not None:
                logits = torch.where(first_allowed, logits, BANNED)
            distributions.append(torch.softmax(logits / temperature, dim=-1))
        entropies = [-sum(p * math.log(p) for p in row.tolist() if p > 0) for row in distributions]
        sampled = [_invert(row, u) for row, u in zip(distributions, uniform, strict=True)]
        accepted = _accept_by_entropy(entropies, plan.acceptance.entropy_bound)
        noise = draws.noise(len(free)).tolist()
        signal = [model.embed(torch.tensor(token)) for token in tokens]
        tokens = list(tokens)
        for number, slot in enumerate(free):
            tokens[slot] = sampled[number] if number in accepted else noise[number]
            signal[slot] = model.soft_embedding(distributions[number])
        draft = [int(row.argmax()) for row in distributions]
        unchanged = unchanged + 1 if drafts and drafts[-1] == draft else 0
        drafts.append(draft)
        if plan.stopping.met(unchanged, sum(entropies) / len(entropies)):
            break
    return drafts


def _invert(distribution: Tensor, uniform: float) -> int:
    running = 0.0
    for token, probability in enumerate(distribution.tolist()):
        running += probability
        if running > uniform:
            return token
    return int(distribution.nonzero()[-1])


def _accept_by_entropy(entropies: list[float], bound: float) -> set[int]:
    accepted: set[int] = set()
    spent = 0.0
    for number in sorted(range(len(entropies)), key=entropies.__getitem__):
        if spent > bound:
            break
        accepted.add(number)
        spent += entropies[number]
    return accepted
