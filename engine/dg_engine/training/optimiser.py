"""Muon for the hidden matrices, AdamW for everything else, on fp32 masters of a model that computes in bf16.

Muon: Keller Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024): the momentum of a matrix,
made nearly orthogonal by five Newton-Schulz steps. AdamW: Loshchilov and Hutter, arXiv 1711.05101.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dg_engine.model import DiffusionGemma
from dg_engine.training.bounds import bounded


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """Learning rates at the top of the schedule, and what goes with them."""

    matrices: float = 0.03
    embedding: float = 0.02
    vectors: float = 0.01
    matrix_decay: float = 0.05
    momentum: float = 0.95
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    """Largest norm of the gradients that AdamW sees."""

    def __post_init__(self) -> None:
        """Refuse rates and decays that step nowhere, or away."""
        for name in ("matrices", "embedding", "vectors", "matrix_decay"):
            bounded(name, getattr(self, name), least=0)
        if len(self.betas) != 2:
            raise ValueError(f"betas: expected two numbers, found {len(self.betas)}")
        for name, value in (("momentum", self.momentum), *(("betas", beta) for beta in self.betas)):
            bounded(name, value, least=0, below=1)
        bounded("clip", self.clip, above=0)


class _Group(NamedTuple):
    """Parameters of one shape, stepped as one batch."""

    names: list[str]
    shape: torch.Size


class Optimiser:
    """Steps the masters of a model and writes them back into it.

    Its `state` is a flat dictionary of tensors: `master.*`, `momentum.*` (Muon), `first.*` and `second.*` (AdamW).
    """

    def __init__(self, model: DiffusionGemma, rates: Rates) -> None:
        self.rates = rates
        self._parameters = dict(model.named_parameters())
        # The model's own type: without bf16 instructions a step in bf16 takes four times as long as one in fp32.
        self._compute = model.decoder.embed_tokens.weight.dtype
        self._masters = {name: value.detach().float().clone() for name, value in self._parameters.items()}
        self._matrices = {name for name, value in self._parameters.items() if _is_hidden_matrix(name, value)}
        self._groups = _by_shape({name: self._masters[name] for name in self._matrices})
        self._momentum = {name: torch.zeros_like(self._masters[name]) for name in self._matrices}
        others = [name for name in self._masters if name not in self._matrices]
        self._first = {name: torch.zeros_like(self._masters[name]) for name in others}
        self._second = {name: torch.zeros_like(self._masters[name]) for name in others}
        self._steps = 0

    def state(self) -> dict[str, Tensor]:
        """Everything that a later step depends on; views, not copies."""
        groups = {"master": self._masters, "momentum": self._momentum, "first": self._first, "second": self._second}
        tensors = {f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()}
        return tensors | {"steps": torch.tensor(self._steps)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state`; the model gets its parameters too."""
        for name, value in self.state().items():
            value.copy_(state[name])
        self._steps = int(state["steps"])
        self._write_back()

    @property
    def masters(self) -> dict[str, Tensor]:
        """The fp32 parameters by name."""
        return self._masters

    @torch.no_grad()
    def step(self, scale: float) -> float:
        """Apply the gradients that the model holds, and clear them.

        Args:
            scale: the schedule's factor on all learning rates.

        Returns:
            The norm of the gradients that AdamW saw, before clipping.
        """
        self._steps += 1
        for group in self._groups:
            self._muon(group, scale)
        norm = self._adamw(scale)
        self._write_back()
        for parameter in self._parameters.values():
            parameter.grad = None
        return norm

    def _muon(self, group: _Group, scale: float) -> None:
        gradients = torch.stack([self._gradient(name) for name in group.names])
        momenta = torch.stack([self._momentum[name] for name in group.names])
        momenta.lerp_(gradients, 1 - self.rates.momentum)
        nesterov = gradients.lerp(momenta, self.rates.momentum)
        updates = orthogonalised(nesterov.flatten(0, -3).to(self._compute)).view_as(nesterov)
        rate = self.rates.matrices * scale
        taller = max(1.0, group.shape[-2] / group.shape[-1]) ** 0.5
        for name, update, momentum in zip(group.names, updates, momenta, strict=True):
            self._momentum[name].copy_(momentum)
            self._masters[name].mul_(1 - rate * self.rates.matrix_decay).sub_(update, alpha=rate * taller)

    def _adamw(self, scale: float) -> float:
        names = list(self._first)
        gradients = [self._gradient(name) for name in names]
        norm = float(torch.stack(torch._foreach_norm(gradients)).norm())
        torch._foreach_mul_(gradients, min(1.0, self.rates.clip / (norm + 1e-6)))
        beta_1, beta_2 = self.rates.betas
        bias_1, bias_2 = 1 - beta_1**self._steps, 1 - beta_2**self._steps
        for name, gradient in zip(names, gradients, strict=True):
            first = self._first[name].lerp_(gradient, 1 - beta_1)
            second = self._second[name].lerp_(gradient.square(), 1 - beta_2)
            rate = (self.rates.embedding if "embed_tokens" in name else self.rates.vectors) * scale
            self._masters[name].addcdiv_(first / bias_1, (second / bias_2).sqrt_().add_(1e-10), value=-rate)
        return norm

    def _gradient(self, name: str) -> Tensor:
        gradient = self._parameters[name].grad
        return torch.zeros_like(self._masters[name]) if gradient is None else gradient.float()

    @torch.no_grad()
    def _write_back(self) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(self._masters[name])


def orthogonalised(matrices: Tensor, steps: int = 5) -> Tensor:
    """Matrices [N, R, C] with all singular values moved towards 1, by Newton-Schulz iteration; returns fp32.

    The coefficients of the quintic are Jordan's: they are steepest at zero and leave values between 0.7 and 1.2.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.float().norm(dim=(-2, -1), keepdim=True).to(x.dtype) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    back: Tensor = x.mT if tall else x
    return back.float()


def _is_hidden_matrix(name: str, value: Tensor) -> bool:
    """Norms, scales and the router are vectors in spirit; the embedding is a table."""
    return value.dim() >= 2 and "embed_tokens" not in name and "router" not in name


def _by_shape(tensors: dict[str, Tensor]) -> list[_Group]:
    shapes = sorted({tuple(value.shape) for value in tensors.values()})
    return [
        _Group([name for name, value in tensors.items() if tuple(value.shape) == shape], torch.Size(shape))
        for shape in shapes
    ]
