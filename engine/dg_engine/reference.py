"""The denoising loop, one slot after the other in plain Python: the truth to which `infill.fill` is held.

And the randomness with which `infill`'s loops draw what the step of fixed shapes draws.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dg_engine.canvas import Draws, TokenBias
from dg_engine.model import DiffusionGemma
from dg_engine.policies import Denoising
from dg_engine.prefix_cache import PrefixCache
from dg_engine.rows import CANVAS_BUCKETS
from dg_kernels import BANNED, random_numbers, signed


class NumberedDraws:
    """The static step's randomness for its readable twins: named by step and slot, in the order they ask for it."""

    def __init__(self, seed: int, vocab_size: int, device: torch.device | None = None) -> None:
        self._seed, self._vocab_size, self._device = torch.tensor([signed(seed)]), vocab_size, device
        self._step, self._slot = -1, 0

    def uniform(self, count: int) -> Tensor:
        """[count] fp32 in [0, 1), of the next step."""
        self._step, self._slot = self._step + 1, 0
        return self._drawn()[0][:count]

    def noise(self, count: int) -> Tensor:
        """[count] token ids, of the next slots."""
        first, self._slot = self._slot, self._slot + count
        return self._drawn()[1][first : first + count]

    def _drawn(self) -> tuple[Tensor, Tensor]:
        step = torch.tensor([self._step])
        uniform, noise = random_numbers(self._seed, step, CANVAS_BUCKETS[-1], self._vocab_size)
        return uniform[0].to(self._device), noise[0].to(self._device)


def denoise_reference(
    model: DiffusionGemma,
    cache: PrefixCache,
    tokens: list[int],
    free: list[int],
    plan: Denoising,
    draws: Draws,
    *,
    pinned_signal: bool = False,
    first_allowed: Tensor | None = None,
    banned: Tensor | None = None,
    bias: TokenBias | None = None,
) -> list[list[int]]:
    """The drafts of every step on a canvas whose length stays as it is.

    Args:
        model: the decoder.
        cache: the encoded prefix.
        tokens: the canvas; noise in the free slots.
        free: indices of the free slots, ascending.
        plan: steps, temperature, acceptance, stopping.
        draws: the randomness.
        pinned_signal: whether pinned slots are self-conditioned before the first step.
        first_allowed: [V] booleans; tokens outside are banned from the first free slot.
        banned: [V] booleans; tokens banned from every free slot.
        bias: added at every free slot.
    """
    drafts: list[list[int]] = []
    unknown = torch.zeros(model.config.hidden_size)
    known = [unknown if slot in free else model.embed(torch.tensor(token)) for slot, token in enumerate(tokens)]
    signal = known if pinned_signal else None
    unchanged = 0
    for step in range(plan.max_denoising_steps):
        temperature = plan.temperature.at(step, plan.max_denoising_steps)
        uniform = draws.uniform(len(free)).tolist()
        distributions = _distributions(model, cache, tokens, signal, free, temperature, first_allowed, banned, bias)
        entropies = [-sum(p * math.log(p) for p in row.tolist() if p > 0) for row in distributions]
        accepted = _accept_by_entropy(entropies, plan.acceptance.entropy_bound)
        noise = draws.noise(len(free)).tolist()
        signal = [model.embed(torch.tensor(token)) for token in tokens]
        tokens = list(tokens)
        for number, slot in enumerate(free):
            sampled = _invert(distributions[number], uniform[number])
            tokens[slot] = sampled if number in accepted else noise[number]
            signal[slot] = model.soft_embedding(distributions[number])
        draft = [int(row.argmax()) for row in distributions]
        unchanged = unchanged + 1 if drafts and drafts[-1] == draft else 0
        drafts.append(draft)
        if plan.stopping.met(unchanged, sum(entropies) / len(entropies)):
            break
    return drafts


def _distributions(
    model: DiffusionGemma,
    cache: PrefixCache,
    tokens: list[int],
    signal: list[Tensor] | None,
    free: list[int],
    temperature: float,
    first_allowed: Tensor | None,
    banned: Tensor | None,
    bias: TokenBias | None,
) -> list[Tensor]:
    hidden = model.decode(torch.tensor([tokens]), cache, None if signal is None else torch.stack(signal)[None])[0]
    distributions = []
    for slot in free:
        logits = model.logits(hidden[slot])
        if bias is not None:
            logits[bias.token] += bias.nats
        if slot == free[0] and first_allowed is not None:
            logits = torch.where(first_allowed, logits, BANNED)
        if banned is not None:
            logits = torch.where(banned, BANNED, logits)
        distributions.append(torch.softmax(logits / temperature, dim=-1))
    return distributions


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
