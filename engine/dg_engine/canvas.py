"""One denoising step: decode, sample, accept, renoise, restore what is pinned. Token ids only.

A canvas is a run of slots after an encoded prefix. Its *free* slots are to be filled and hold noise until a step
accepts a token for them; every other slot is *pinned*. Nothing accepted is frozen: each step judges every free slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dg_engine.model import DiffusionGemma, Masks
from dg_engine.policies import EntropyBound
from dg_engine.prefix_cache import PrefixCache
from dg_kernels import BANNED as BANNED
from dg_kernels import AllowedTokens, LogitBias


class TokenBias(NamedTuple):
    """Nats to add to the logit of one token."""

    token: int
    nats: float

    def of(self, slots: Tensor) -> LogitBias:
        """The same for each of some slots."""
        return LogitBias(torch.full_like(slots, self.token), torch.full_like(slots, self.nats, dtype=torch.float32))


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


def new_canvas(
    model: DiffusionGemma,
    hole: int,
    suffix: Tensor,
    draws: Draws,
    *,
    pinned_signal: bool,
    draft: Sequence[int] = (),
) -> Canvas:
    """A hole of noise, or of a draft and noise, followed by pinned tokens.

    Args:
        model: gives the pinned tokens' embeddings.
        hole: free slots.
        suffix: [S] token ids that follow the hole.
        draws: the noise.
        pinned_signal: tell the model which slots are known, by self-conditioning them on their own embedding from the
            first step on. Right only for a checkpoint that was trained so.
        draft: [D] token ids for the first D free slots, which are conditioned on them as if a step had found them.
    """
    tokens = torch.cat((draws.noise(hole).to(suffix.device), suffix))
    tokens[: len(draft)] = torch.tensor(draft, dtype=torch.long, device=suffix.device)
    told = torch.zeros(len(tokens), dtype=torch.bool, device=suffix.device)
    told[: len(draft)] = True
    told[hole:] = pinned_signal
    known = bool(draft) or (pinned_signal and len(suffix) > 0)
    signal = model.embed(tokens) * told[:, None] if known else None
    return Canvas(tokens=tokens, free=torch.arange(hole, device=suffix.device), signal=signal)


def denoise_step(
    model: DiffusionGemma,
    cache: PrefixCache,
    canvas: Canvas,
    *,
    temperature: float,
    acceptance: EntropyBound,
    draws: Draws,
    first_allowed: Tensor | None = None,
    banned: Tensor | None = None,
    bias: TokenBias | None = None,
) -> tuple[Canvas, Belief]:
    """`denoise_together` of one canvas."""
    (refined,) = denoise_together(
        model,
        cache,
        [canvas],
        temperature=temperature,
        acceptance=acceptance,
        draws=[draws],
        first_allowed=first_allowed,
        banned=banned,
        bias=bias,
    )
    return refined


def denoise_together(
    model: DiffusionGemma,
    cache: PrefixCache,
    canvases: Sequence[Canvas],
    *,
    temperature: float,
    acceptance: EntropyBound,
    draws: Sequence[Draws],
    first_allowed: Tensor | None = None,
    banned: Tensor | None = None,
    bias: TokenBias | None = None,
) -> list[tuple[Canvas, Belief]]:
    """Refine each of several canvases over one prefix once, in one pass of the decoder.

    Logits, statistics and randomness are spent on free slots alone; pinned slots keep their token and, after the first
    step, are self-conditioned on its embedding. The canvases lie one behind the other in one row, so that the prefix is
    not copied and nothing is padding; masks and positions make each see the prefix and itself alone.

    Args:
        model: the decoder.
        cache: the encoded prefix.
        canvases: the states before, all of the same number of steps.
        temperature: of this step.
        acceptance: which of a canvas's sampled tokens to keep.
        draws: for each canvas, one uniform number and one noise token per free slot.
        first_allowed: [V] booleans; tokens outside are banned from the first free slot of each canvas.
        banned: [V] booleans; tokens banned from every free slot.
        bias: added at every free slot.

    Returns:
        For each canvas the state after, and what was found.
    """
    row, slots = _joined(canvases), [len(canvas.free) for canvas in canvases]
    positions, masks = (None, None) if len(canvases) == 1 else _apart(model, cache, canvases)
    signal = None if row.signal is None else row.signal[None]
    hidden = model.decode(row.tokens[None], cache, signal, positions, masks, read=row.free)[0]
    each = list(zip(draws, slots, strict=True))
    uniform = torch.cat([own.uniform(count) for own, count in each])
    found = model.sampled(
        hidden,
        torch.full_like(uniform, temperature),
        uniform,
        None if bias is None else bias.of(row.free),
        _allowed(slots, first_allowed, banned),
    )
    accepted = torch.cat([acceptance.accept(entropy) for entropy in torch.split(found.entropy, slots)])
    tokens = row.tokens.clone()
    noise = torch.cat([own.noise(count) for own, count in each])
    tokens[row.free] = torch.where(accepted, found.sample, noise)
    known = model.embed(row.tokens)
    known[row.free] = model.soft_embedding(found.probabilities)
    lengths = [len(canvas.tokens) for canvas in canvases]
    parts = (found.argmax, found.confidence, found.entropy, accepted)
    beliefs = map(Belief, *(torch.split(part, slots) for part in parts))
    states = zip(canvases, torch.split(tokens, lengths), torch.split(known, lengths), strict=True)
    after = [replace(canvas, tokens=its, signal=believed) for canvas, its, believed in states]
    return list(zip(after, beliefs, strict=True))


def _allowed(slots: Sequence[int], first_allowed: Tensor | None, banned: Tensor | None) -> AllowedTokens | None:
    """Of the free slots, of which each canvas has so many: one mask for the first of each and one for the others."""
    told = banned if first_allowed is None else first_allowed
    if told is None:
        return None
    others = torch.ones_like(told) if banned is None else ~banned
    first = others if first_allowed is None else others & first_allowed
    number = torch.ones(sum(slots), dtype=torch.long, device=told.device)
    number[list(accumulate(slots[:-1], initial=0))] = 0
    return AllowedTokens(torch.stack((first, others)), number)


def _joined(canvases: Sequence[Canvas]) -> Canvas:
    """The canvases as one row."""
    starts = accumulate((len(canvas.tokens) for canvas in canvases[:-1]), initial=0)
    signals = [canvas.signal for canvas in canvases if canvas.signal is not None]
    return Canvas(
        tokens=torch.cat([canvas.tokens for canvas in canvases]),
        free=torch.cat([canvas.free + start for canvas, start in zip(canvases, starts, strict=True)]),
        signal=torch.cat(signals) if signals else None,
    )


def _apart(model: DiffusionGemma, cache: PrefixCache, canvases: Sequence[Canvas]) -> tuple[Tensor, Masks]:
    """Positions [C] and masks with which each canvas of the row stands right behind the prefix, alone."""
    device = canvases[0].tokens.device
    lengths = torch.tensor([len(canvas.tokens) for canvas in canvases], device=device)
    owner = torch.arange(len(canvases), device=device).repeat_interleave(lengths)
    positions = torch.cat([torch.arange(len(canvas.tokens), device=device) for canvas in canvases]) + cache.length
    near = torch.arange(cache.length, device=device) > cache.length - model.config.window
    own = owner[:, None] == owner
    full, sliding = (
        torch.cat((prefix.expand(len(owner), -1), own), dim=1)[None] for prefix in (torch.ones_like(near), near)
    )
    return positions, Masks(full, sliding)
