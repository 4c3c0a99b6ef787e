"""One denoising step on canvases of a fixed length, every decision of it taken on the device. Token ids only.

`canvas.denoise_step` and `infill.fill` are the readable twin: there the host looks at each draft, and the length of the
hole is the shape of a tensor. Here it is a number in a tensor, like the step, the rules and the reason to stop, so that
shapes depend on `Shape` alone and nothing waits for the device: one CUDA graph serves every request of a shape.

A canvas is hole, pinned suffix and padding that no slot sees. Rows are independent of one another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from dg_engine.api import StopReason
from dg_engine.infill import CERTAIN, SPARE
from dg_engine.model import DiffusionGemma, Masks
from dg_engine.policies import within_bound
from dg_engine.prefix_cache import Seen
from dg_kernels import AllowedTokens, LogitBias, VisibleRuns, random_numbers

REASONS: tuple[StopReason | None, ...] = (None, "converged", "max_denoising_steps")
"""What the numbers in `State.reason` mean."""
_RUNNING, _CONVERGED, _SPENT = range(3)


class Shape(NamedTuple):
    """All that the shapes of a step depend on, beside the model."""

    batch: int
    """B rows."""
    canvas: int
    """C slots: hole, pinned suffix and padding."""
    hole: int
    """F slots that a hole may have, at most C: of the others nothing is asked."""
    prefix: int
    """P places for the keys of a prefix."""
    prefixes: int
    """Prefixes: B, or one that all rows stand behind."""

    @property
    def behind(self) -> int:
        """Places for the keys of canvases behind each prefix."""
        return self.canvas * self.batch // self.prefixes

    @property
    def apart(self) -> int:
        """Places between the canvases of two rows; 0 where each has its own prefix before it."""
        return self.canvas if self.prefixes < self.batch else 0

    def of(self, batch: int) -> Shape:
        """The same for so many rows behind one prefix."""
        return self._replace(batch=batch)


class Rules(NamedTuple):
    """What each of B rows was told; constant while it runs."""

    seed: Tensor
    """[B] int64."""
    prefix: Tensor
    """[B] encoded tokens, at most P."""
    suffix: Tensor
    """[B] pinned slots."""
    angles: Tensor
    """[2, B, C, W] of the slots' positions, as `DiffusionGemma.angles`."""
    longer: Tensor
    """[B, C + 1] the length to which a full hole of each length grows; its own where it may not."""
    ends: Tensor
    """[B, V] booleans: tokens that end the answer."""
    allowed: Tensor
    """[2 B, V] booleans: with what each answer may begin, then what may stand in its other slots."""
    mask: Tensor
    """[B, 2] the numbers of a row's masks among these, first slot and others; -1 where anything may stand."""
    filler: Tensor
    """[B]."""
    filler_bias: Tensor
    """[B] fp32, nats."""
    steps: Tensor
    """[B] `max_denoising_steps`."""
    t_min: Tensor
    """[B] fp64."""
    t_max: Tensor
    """[B] fp64."""
    entropy_bound: Tensor
    """[B] fp32, nats."""
    stability: Tensor
    """[B] steps for which the draft must not have changed."""
    confidence: Tensor
    """[B] fp64: the mean entropy, in nats, below which a stable draft is final."""


class State(NamedTuple):
    """B canvases between two steps."""

    tokens: Tensor
    """[B, C]."""
    signal: Tensor
    """[B, C, H] self-conditioning, zeros where nothing is known."""
    hole: Tensor
    """[B] free slots, at least one: those at the start of the canvas."""
    step: Tensor
    """[B] steps done."""
    judged: Tensor
    """[B, C] the last draft with the token that ended it, -1 behind."""
    unchanged: Tensor
    """[B] for how many steps it has been the same."""
    reason: Tensor
    """[B] an index into REASONS."""
    report: Tensor
    """[B, 4 + 4 C] fp32, what the host is told: reason, step, end and hole of the step, then per slot draft, accepted,
    confidence and entropy. One tensor, because it is one copy; fp32 holds every token id, up to 2^24, exactly."""


class Found(NamedTuple):
    """What a step finds at the slots of B canvases: as in `SamplingStatistics`, zeros beyond the F that are asked."""

    argmax: Tensor
    """[B, C]."""
    confidence: Tensor
    """[B, C]."""
    entropy: Tensor
    """[B, C] nats."""
    sample: Tensor
    """[B, C]."""


def blank_places(model: DiffusionGemma, prefix: int, prefixes: int, behind: int) -> list[Seen]:
    """Places in every layer for so many prefixes, and behind each for canvases.

    Sliding layers need those of a prefix only for the window. Zeros and not what was in the memory: a place that is
    masked still counts, as zero times what it holds.
    """
    weight = model.decoder.embed_tokens.weight
    seen = []
    for layer in range(model.config.num_hidden_layers):
        heads, width = model.config.head_shape(layer)
        places = _places(model, prefix, sliding=model.config.is_sliding(layer)) + behind
        keys = weight.new_zeros(prefixes, heads, places, width)
        seen.append(Seen(keys, torch.zeros_like(keys), room=True))
    return seen


def static_step(model: DiffusionGemma, shape: Shape, seen: Sequence[Seen], rules: Rules, state: State) -> State:
    """Refine every canvas once; rows that have a reason to stop stay as they are.

    Args:
        model: the decoder.
        shape: of all that follows.
        seen: each layer's keys and values of the prefixes; the places behind them are written.
        rules: what each row was told.
        state: the state before; not changed.
    """
    slots = torch.arange(shape.canvas, device=state.tokens.device)
    free = slots < state.hole[:, None]
    uniform, noise = random_numbers(rules.seed, state.step, shape.canvas, model.config.vocab_size)
    embedded = model.embed(state.tokens)
    hidden = _decoded(model, shape, seen, rules, state, embedded)
    found, believed = _sampled(model, shape, rules, state, hidden, uniform)

    uncertain = found.entropy.masked_fill(~free, torch.inf)
    accepted = within_bound(uncertain, rules.entropy_bound[:, None]) & free
    tokens = torch.where(free, torch.where(accepted, found.sample, noise), state.tokens)
    signal = torch.where(free[..., None], believed, embedded)

    end = torch.where(rules.ends.gather(1, found.argmax) & free, slots, state.hole[:, None]).amin(dim=1)
    hole = _next_hole(rules, state, found, end, slots)
    judged = torch.where((slots <= end[:, None]) & free, found.argmax, -1)
    unchanged = torch.where((judged == state.judged).all(dim=1), state.unchanged + 1, 0)
    reason = _reason(rules, state, unchanged, _mean(found.entropy, judged >= 0), growing=hole > state.hole)

    head = torch.stack((reason, state.step + 1, end, state.hole), dim=1)
    report = torch.cat((head, found.argmax, accepted, found.confidence, found.entropy), dim=1)
    moved = _moved(state.hole, hole, rules.suffix, tokens, signal, noise, slots)
    after = State(*moved, hole, state.step + 1, judged, unchanged, reason, report)
    running = state.reason == _RUNNING
    return State(*(_where(running, *pair) for pair in zip(after, state, strict=True)))


def _decoded(
    model: DiffusionGemma, shape: Shape, seen: Sequence[Seen], rules: Rules, state: State, embedded: Tensor
) -> Tensor:
    """[B, F, H]."""
    own = state.hole + rules.suffix
    places = (_places(model, shape.prefix, sliding=sliding) for sliding in (False, True))
    masks = Masks(*(VisibleRuns(rules.prefix, own, each, shape.apart) for each in places))
    read = slice(shape.hole) if shape.hole < shape.canvas else None
    return model.decode_over(embedded, seen, state.signal, rules.angles, masks, read)


def _sampled(
    model: DiffusionGemma, shape: Shape, rules: Rules, state: State, hidden: Tensor, uniform: Tensor
) -> tuple[Found, Tensor]:
    """Of every slot, at the temperature of the step: [B, C], and the mean embedding [B, C, H]."""
    # In fp64, so that the temperature is rounded as the twin's is.
    temperature = rules.t_min + (rules.t_max - rules.t_min) * (rules.steps - state.step) / rules.steps
    told = (temperature.float(), rules.filler, rules.filler_bias)
    warmth, filler, nats = (one[:, None].expand(-1, shape.hole).flatten() for one in told)
    slots = torch.arange(shape.hole, device=hidden.device)
    number = torch.where(slots == 0, rules.mask[:, :1], rules.mask[:, 1:]).flatten()
    found = model.sampled(
        hidden.flatten(0, 1),
        warmth,
        uniform[:, : shape.hole].flatten(),
        LogitBias(filler, nats),
        AllowedTokens(rules.allowed, number),
    )
    beyond = (0, shape.canvas - shape.hole)
    of_slots = (found.argmax, found.confidence, found.entropy, found.sample)
    believed = model.soft_embedding(found.probabilities).view(shape.batch, shape.hole, -1)
    of_canvas = (functional.pad(part.view(shape.batch, shape.hole), beyond) for part in of_slots)
    return Found(*of_canvas), functional.pad(believed, (0, 0, *beyond))


def _places(model: DiffusionGemma, prefix: int, *, sliding: bool) -> int:
    """Places for the prefix in a layer of that kind."""
    return min(prefix, model.config.window - 1) if sliding else prefix


def _next_hole(rules: Rules, state: State, found: Found, end: Tensor, slots: Tensor) -> Tensor:
    """[B] as `infill.resized`: longer where the answer fills the hole, shorter where certain filler is behind it."""
    tail = (slots >= end[:, None]) & (slots < state.hole[:, None])
    filled = ((found.argmax == rules.filler[:, None]) | ~tail).all(dim=1)
    spare_from = end + SPARE
    removable = filled & (state.hole - spare_from >= SPARE) & (_mean(found.entropy, tail) < CERTAIN)
    hole = torch.where(removable, spare_from, state.hole)
    hole = torch.where(end == state.hole, rules.longer.gather(1, state.hole[:, None]).squeeze(1), hole)
    return torch.where(state.step > 0, hole, state.hole)


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """[B] fp64: the mean of each row's chosen values; 0 where none is chosen."""
    return torch.where(chosen, values, 0.0).sum(dim=1).double() / chosen.sum(dim=1).clamp_min(1)


def _reason(rules: Rules, state: State, unchanged: Tensor, mean_entropy: Tensor, *, growing: Tensor) -> Tensor:
    """[B] as `StableAndConfident`, which a hole about to grow does not meet; and the end of the steps."""
    met = (unchanged >= rules.stability) & (mean_entropy < rules.confidence) & ~growing
    spent = state.step + 1 >= rules.steps
    return torch.where(met, _CONVERGED, torch.where(spent, _SPENT, _RUNNING))


def _moved(
    before: Tensor, after: Tensor, suffix: Tensor, tokens: Tensor, signal: Tensor, noise: Tensor, slots: Tensor
) -> tuple[Tensor, Tensor]:
    """Tokens and signal with the suffix behind a hole of another length, as `Canvas.moved`."""
    in_hole = slots < after[:, None]
    source = torch.where(in_hole, slots, slots + (before - after)[:, None]).clamp(0, tokens.shape[1] - 1)
    fresh = in_hole & (slots >= before[:, None])
    padding = slots >= (after + suffix)[:, None]
    tokens = torch.where(fresh, noise, tokens.gather(1, source)).masked_fill(padding, 0)
    signal = signal.gather(1, source[..., None].expand_as(signal))
    return tokens, signal.masked_fill((fresh | padding)[..., None], 0.0)


def _where(rows: Tensor, chosen: Tensor, other: Tensor) -> Tensor:
    return torch.where(rows.view(-1, *[1] * (chosen.dim() - 1)), chosen, other)
