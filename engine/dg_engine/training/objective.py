"""What is minimised: the causal loss of the encoder, and the denoising loss of the canvases that share its cache.

The denoising loss is a flat cross-entropy over all slots of the hole, replaced or not, as in the public recipes for
this architecture; filler counts less than text. Half of the steps run a first pass without gradient and condition the
second on it (Chen et al., arXiv 2208.04202). In some of those the model also sees its own mistakes in place of uniform
noise, as it will while sampling (LLaDA 2.1's token-to-token training, CDLM, arXiv 2512.15596).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from dg_engine.model import DiffusionGemma
from dg_engine.prefix_cache import PrefixCache
from dg_engine.training.batches import Batch, Canvases, Chunks, noised
from dg_engine.training.bounds import bounded
from dg_engine.training.spans import longest_hole
from dg_engine.training.views import View, canvas_view


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """Weights and noise at one moment of a run."""

    causal_weight: float = 1.0
    filler_weight: float = 0.3
    all_noise_share: float = 0.2
    """Of canvases that are noise altogether, as every answer begins."""
    least_corruption: float = 0.1
    most_corruption: float = 1.0
    conditioned_share: float = 0.5
    """Of steps with a first pass."""
    own_noise_share: float = 0.0
    """Of canvases in such steps whose noise is drawn from the model itself."""
    certainty_weight: float = 0.0
    """Of the entropy at slots whose argmax is right already, so that fewer steps are needed (LLaDA 2.0's CAP)."""
    grid: tuple[float, ...] = ()
    """Corruptions to draw from in place of the interval."""
    pinned_signal: bool = True
    """Condition pinned slots on their own embedding in the first pass too, as `canvas.new_canvas` may."""

    def __post_init__(self) -> None:
        """Refuse weights below nothing, and shares and corruptions that are none."""
        for name in ("causal_weight", "filler_weight", "certainty_weight"):
            bounded(name, getattr(self, name), least=0)
        for name in ("all_noise_share", "least_corruption", "most_corruption", "conditioned_share", "own_noise_share"):
            bounded(name, getattr(self, name), least=0, most=1)
        for corruption in self.grid:
            bounded("grid", corruption, least=0, most=1)


class Losses(NamedTuple):
    """Means in nats per token; `total` is what is minimised."""

    total: Tensor
    causal: Tensor
    denoising: Tensor
    """Zero in a batch without canvases."""


class RowLosses(NamedTuple):
    """Per row of the head's input."""

    cross_entropy: Tensor
    entropy: Tensor
    right: Tensor
    """Whether the argmax is the target."""


def row_losses(model: DiffusionGemma, hidden: Tensor, target: Tensor) -> RowLosses:
    """Losses of [R, H] hidden states against [R] tokens, in fp32."""
    scores = model.logits(hidden)
    logs = scores.log_softmax(dim=-1)
    entropy = -(logs.exp() * logs).sum(dim=-1)
    # Compared, not counted: an argmax is a reduction of its own, and slow where it is compiled for a CPU.
    found = logs.gather(1, target[:, None])
    return RowLosses(-found[:, 0], entropy, (logs <= found).all(dim=1))


def row_cross_entropy(model: DiffusionGemma, hidden: Tensor, target: Tensor) -> Tensor:
    """[R] cross-entropy in nats of [R, H] hidden states against [R] tokens."""
    return functional.cross_entropy(model.logits(hidden), target, reduction="none")


class Loss:
    """The objective over one model, with its compiled parts.

    Args:
        model: trained in place.
        generator: all randomness.
    """

    def __init__(self, model: DiffusionGemma, generator: torch.Generator) -> None:
        self.model = model
        self.generator = generator
        self.row_cross_entropy = row_cross_entropy
        self.row_losses = row_losses

    def compile(self) -> None:
        """Compile the layers and the head, not the whole: equal layers share their code, which takes 25 s, not 100."""
        for layer in self.model.decoder.layers:
            layer.compile(dynamic=False)
        self.row_cross_entropy = torch.compile(row_cross_entropy, dynamic=False)
        self.row_losses = torch.compile(row_losses, dynamic=False)

    def __call__(self, batch: Batch, objective: Objective) -> Losses:
        """The losses of a batch, wherever it lies."""
        chunks, canvases = batch.to(self.model.device)
        encoded = self.model.encode(chunks.tokens)
        zero = encoded.hidden.new_zeros((), dtype=torch.float32)
        causal = self._causal(encoded.hidden, chunks)
        denoising = zero if canvases is None else self._denoising(encoded.cache, canvases, objective)
        return Losses(denoising + objective.causal_weight * causal, causal, denoising)

    def at(self, batch: Batch, corruption: float, *, pinned_signal: bool = True) -> Losses:
        """The losses with every canvas corrupted alike, as a first step of sampling meets them: for validation."""
        chosen = Objective(all_noise_share=0.0, grid=(corruption,), conditioned_share=0.0, pinned_signal=pinned_signal)
        return self(batch, chosen)

    def _causal(self, hidden: Tensor, chunks: Chunks) -> Tensor:
        each = self.row_cross_entropy(self.model, hidden[:, :-1].flatten(0, 1), chunks.tokens[:, 1:].flatten())
        real = chunks.real[:, 1:].flatten()
        return (each * real).sum() / real.sum()

    def _denoising(self, cache: PrefixCache, canvases: Canvases, objective: Objective) -> Tensor:
        view = canvas_view(self.model.config, cache, canvases)
        corruption = self._corruption(canvases, objective)
        noise, uniform = self._noise(canvases), self._uniform(canvases.clean.shape)
        canvas, replaced = noised(canvases, corruption, noise, uniform)
        pinned = self.model.embed(canvases.clean)
        untold = canvases.open if objective.pinned_signal else torch.ones_like(canvases.open)
        signal = pinned.masked_fill(untold[..., None], 0.0)
        if float(torch.rand((), generator=self.generator)) < objective.conditioned_share:
            first = self._harder(corruption)
            with torch.no_grad():
                found = self._first_pass(noised(canvases, first, noise, uniform)[0], view, signal, canvases)
                own = replaced & (self._uniform((len(canvas), 1)) < objective.own_noise_share)
                canvas = torch.where(own, _wider(found.sample, canvas), canvas)
            signal = torch.where(canvases.open[..., None], _wider(found.signal, pinned), pinned)
        hidden = self._decode(canvas, view, signal)
        return self._slot_loss(hidden, canvases, objective)

    def _slot_loss(self, hidden: Tensor, canvases: Canvases, objective: Objective) -> Tensor:
        width = longest_hole(canvases.clean.shape[1])
        rows, target = hidden[:, :width].flatten(0, 1), canvases.clean[:, :width].flatten()
        weight = canvases.open[:, :width].flatten().float()
        weight = weight * torch.where(target == self.model.config.eos_token_id, objective.filler_weight, 1.0)
        if not objective.certainty_weight:
            return _mean(self.row_cross_entropy(self.model, rows, target), weight)
        found = self.row_losses(self.model, rows, target)
        certainty = found.entropy * found.right * objective.certainty_weight
        return _mean(found.cross_entropy + certainty, weight)

    def _first_pass(self, canvas: Tensor, view: View, signal: Tensor, canvases: Canvases) -> _FirstPass:
        """Signal and samples at the slots that a hole may have, at a random temperature for each canvas."""
        hidden = self._decode(canvas, view, signal)[:, : longest_hole(canvases.clean.shape[1])]
        temperature = 0.5 + 0.5 * self._uniform((len(canvas), 1, 1))
        scores = self.model.logits(hidden) / temperature
        probabilities = scores.softmax(dim=-1)
        # The Gumbel trick with one uniform number a token would cost V of them: invert the cumulative sum instead.
        running = probabilities.cumsum(dim=-1)
        target = self._uniform((*hidden.shape[:2], 1)) * running[..., -1:]
        sample = torch.searchsorted(running, target, right=True)[..., 0].clamp_max(scores.shape[-1] - 1)
        return _FirstPass(self.model.soft_embedding(probabilities), sample)

    def _decode(self, canvas: Tensor, view: View, signal: Tensor) -> Tensor:
        cache, masks, positions = view
        return self.model.decode(canvas, cache, signal, positions, masks)

    def _corruption(self, canvases: Canvases, objective: Objective) -> Tensor:
        """[N, C]: one number for all slots in half of the canvases, one for each in the others."""
        count, slots = canvases.clean.shape
        each = self._uniform((count, slots))
        together = self._uniform((count, 1)) < 0.5
        drawn = torch.where(together, each[:, :1], each)
        if objective.grid:
            chosen = (each[:, :1] * len(objective.grid)).long()
            t = torch.tensor(objective.grid, device=chosen.device)[chosen].expand(count, slots)
        else:
            t = objective.least_corruption + (objective.most_corruption - objective.least_corruption) * drawn
        all_noise = self._uniform((count, 1)) < objective.all_noise_share
        return torch.where(all_noise, objective.most_corruption, t)

    def _harder(self, corruption: Tensor) -> Tensor:
        """While sampling, a signal is a step old: in half of the canvases the first pass sees more noise."""
        more = corruption + (1 - corruption) * self._uniform((len(corruption), 1))
        return torch.where(self._uniform((len(corruption), 1)) < 0.5, more, corruption)

    def _noise(self, canvases: Canvases) -> Tensor:
        """Uniform over the whole vocabulary, as `Draws.noise` while sampling."""
        size = self.model.config.vocab_size
        return torch.randint(0, size, canvases.clean.shape, generator=self.generator).to(self.model.device)

    def _uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Drawn where the generator is, on the CPU, so that a run's randomness is the same on every device."""
        return torch.rand(shape, generator=self.generator).to(self.model.device)


class _FirstPass(NamedTuple):
    signal: Tensor
    sample: Tensor


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted; zero where nothing counts, as in holes that should stay empty where filler does not."""
    return (values * weight).sum() / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)


def _wider(values: Tensor, like: Tensor) -> Tensor:
    """Pad dimension 1 with zeros to that of `like`."""
    missing = like.shape[1] - values.shape[1]
    padding = (0, 0, 0, missing) if values.dim() == 3 else (0, missing)
    return functional.pad(values, padding)
