"""One denoising step on one canvas: decode, sample, accept, renoise, restore what is pinned. Token ids only.

A canvas is a run of slots after an encoded prefix. Its *free* slots are to be filled and hold noise until a step
accepts a token for them; every other slot is *pinned*. Nothing accepted is frozen: each step judges every free slot.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dg_engine.model import DiffusionGemma
from dg_engine.policies import EntropyBound
from dg_engine.prefix_cache import PrefixCache
from dg_kernels import sampling_statistics

# Far below every capped logit, and finite: minus infinity times a probability of zero would be no number.
BANNED = -1e4


class TokenBias(NamedTuple):
    """Nats to add to the logit of one token."""

    token: int
    nats: float


class Draws(Protocol):
    """Where a loop gets its randomness; two loops with equal draws must agree."""

    def uniform(self, count: int) -> Tensor:
        """[count] fp32 in [0, 1)."""

    def noise(self, count: int) -> Tensor:
        """[count] token ids, uniform over the vocabulary."""


class SeededDraws:
    """Draws from one generator, so that a seed names a result."""

    def __init__(self, vocab_size: int, seed: int, device: torch.device | None = None) -> None:
        self._vocab_size = vocab_size
        self._device = device
        self._generator = torch.Generator().manual_seed(seed)

    def uniform(self, count: int) -> Tensor:
        """[count] fp32 in [0, 1)."""
        return torch.rand(count, generator=self._generator).to(self._device)

    def noise(self, count: int) -> Tensor:
        """[count] token ids, uniform over the vocabulary."""
        return torch.randint(0, self._vocab_size, (count,), generator=self._generator).to(self._device)


@dataclass(frozen=True, kw_only=True, slots=True)
class Canvas:
    """The state between two steps."""

    tokens: Tensor
    """[C] token ids; noise where nothing is accepted."""
    free: Tensor
    """[F] indices of the free slots, ascending; the others are pinned."""
    signal: Tensor | None
    """[C, H] self-conditioning, or None before anything is known."""

    def moved(self, keep: Tensor, fresh: Tensor) -> Canvas:
        """A canvas whose hole has another length: the free slots `keep` of this one, then `fresh` noise.

        Args:
            keep: [K] numbers of free slots (0 is the first free one) that stay, ascending.
            fresh: [N] token ids for N new free slots right behind them.

        Pinned slots keep their tokens and move with the end of the hole. The hole must be one run of slots.
        """
        first, after = int(self.free[0]), int(self.free[-1]) + 1
        kept = self.free[keep]
        tokens = torch.cat((self.tokens[:first], self.tokens[kept], fresh, self.tokens[after:]))
        free = torch.arange(first, first + len(keep) + len(fresh), device=self.free.device)
        signal = self.signal
        if signal is not None:
            unknown = signal.new_zeros(len(fresh), signal.shape[1])
            signal = torch.cat((signal[:first], signal[kept], unknown, signal[after:]))
        return Canvas(tokens=tokens, free=free, signal=signal)


class Belief(NamedTuple):
    """What one step found at the F free slots."""

    argmax: Tensor
    """[F] the draft."""
    confidence: Tensor
    """[F] probability of the draft's token."""
    entropy: Tensor
    """[F] nats."""
    accepted: Tensor
    """[F] boolean."""


def new_canvas(model: DiffusionGemma, hole: int, suffix: Tensor, draws: Draws, *, pinned_signal: bool) -> Canvas:
    """A hole of noise followed by pinned tokens.

    Args:
        model: gives the pinned tokens' embeddings.
        hole: free slots.
        suffix: [S] token ids that follow the hole.
        draws: the noise.
        pinned_signal: tell the model which slots are known, by self-conditioning them on their own embedding from the
            first step on. Right only for a checkpoint that was trained so.
    """
    noise = draws.noise(hole).to(suffix.device)
    signal = None
    if pinned_signal and len(suffix):
        known = model.embed(suffix)
        signal = torch.cat((known.new_zeros(hole, known.shape[1]), known))
    return Canvas(tokens=torch.cat((noise, suffix)), free=torch.arange(hole, device=suffix.device), signal=signal)


def denoise_step(
    model: DiffusionGemma,
    cache: PrefixCache,
    canvas: Canvas,
    *,
    temperature: float,
    acceptance: EntropyBound,
    draws: Draws,
    first_allowed: Tensor | None = None,
    bias: TokenBias | None = None,
) -> tuple[Canvas, Belief]:
    """Refine the canvas once.

    Logits, statistics and randomness are spent on free slots alone; pinned slots keep their token and, after the first
    step, are self-conditioned on its embedding.

    Args:
        model: the decoder.
        cache: the encoded prefix.
        canvas: the state before.
        temperature: of this step.
        acceptance: which of the sampled tokens to keep.
        draws: one uniform number and one noise token per free slot.
        first_allowed: [V] booleans; tokens outside are banned from the first free slot.
        bias: added at every free slot.

    Returns:
        The state after, and what was found.
    """
    signal = None if canvas.signal is None else canvas.signal[None]
    hidden = model.decode(canvas.tokens[None], cache, signal, read=canvas.free)[0]
    logits = model.logits(hidden)
    if bias is not None:
        logits[:, bias.token] += bias.nats
    if first_allowed is not None:
        logits[0].masked_fill_(~first_allowed, BANNED)
    found = sampling_statistics(logits, temperature, draws.uniform(len(canvas.free)))
    accepted = acceptance.accept(found.entropy)
    tokens = canvas.tokens.clone()
    tokens[canvas.free] = torch.where(accepted, found.sample, draws.noise(len(canvas.free)))
    known = model.embed(canvas.tokens)
    known[canvas.free] = model.soft_embedding(found.probabilities)
    after = replace(canvas, tokens=tokens, signal=known)
    return after, Belief(found.argmax, found.confidence, found.entropy, accepted)
