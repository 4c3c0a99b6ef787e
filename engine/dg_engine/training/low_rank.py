"""Training an adapter: the model computes with W + scale B A in place of W, and only A and B learn.

Nothing in the model knows of it. Backward gives the gradient G of the whole matrix, and by the chain rule that of B is
scale G A^T and that of A is scale B^T G; G is let go as soon as it was folded into those two. For matrices as small as
ours that is cheaper than two thin products for each use of a layer, and code that compiles as it does in training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dg_engine.adapters import Adapter, Factors, adaptable
from dg_engine.model import DiffusionGemma


@dataclass(frozen=True, kw_only=True, slots=True)
class LowRank:
    """The size of an adapter, and how fast it learns."""

    rank: int = 64
    alpha: float = 128.0
    rate: float = 1.5e-3
    """AdamW's at the top of the schedule, for a width of 256; it falls as the width grows (muP, arXiv 2203.03466)."""
    betas: tuple[float, float] = (0.9, 0.99)
    decay: float = 0.01
    clip: float = 1.0
    """Largest norm of the factors' gradients."""


class LowRankOptimiser:
    """Steps the factors of a model's matrices, in fp32, and writes the sums into the model.

    A begins uniform as a linear layer does, B at zero, so that the first step begins with the model as it is. All
    parameters that have no factors are frozen, the router among them.
    """

    def __init__(self, model: DiffusionGemma, plan: LowRank, seed: int) -> None:
        self.plan = plan
        model.requires_grad_(requires_grad=False)
        generator = torch.Generator().manual_seed(seed)
        self._weights = adaptable(model)
        self._bases = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._factors = {name: _begin(weight, plan.rank, generator) for name, weight in self._weights.items()}
        self._learnt = [factor for factors in self._factors.values() for factor in factors]
        self._rate = plan.rate * _WIDTH / model.config.hidden_size
        self._adam = torch.optim.AdamW(self._learnt, self._rate, plan.betas, weight_decay=plan.decay)
        for factor in self._learnt:
            factor.grad = torch.zeros_like(factor)
        for name, weight in self._weights.items():
            weight.requires_grad_()
            weight.register_post_accumulate_grad_hook(self._folding(name))  # type: ignore[no-untyped-call]

    @property
    def adapter(self) -> Adapter:
        """What was learnt; views of the factors, not copies."""
        return Adapter(rank=self.plan.rank, alpha=self.plan.alpha, factors=self._factors)

    def state(self) -> dict[str, Tensor]:
        """Everything that a later step depends on; the factors are views."""
        tensors = {f"factor.{index}": factor.detach() for index, factor in enumerate(self._learnt)}
        for index, moments in self._adam.state_dict()["state"].items():
            tensors |= {f"moment.{index}.{key}": value for key, value in moments.items()}
        return tensors

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state`; the model gets its weights too."""
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            kind, _, rest = name.partition(".")
            if kind == "factor":
                self._learnt[int(rest)].copy_(value)
            elif kind == "moment":
                index, key = rest.split(".")
                moments.setdefault(int(index), {})[key] = value
        self._adam.load_state_dict({**self._adam.state_dict(), "state": moments})
        self._write_back()

    @torch.no_grad()
    def step(self, scale: float) -> float:
        """Apply the gradients since the last step, and clear them.

        Args:
            scale: the schedule's factor on the learning rate.

        Returns:
            The norm of the gradients before clipping.
        """
        norm = torch.nn.utils.clip_grad_norm_(self._learnt, self.plan.clip)
        for group in self._adam.param_groups:
            group["lr"] = self._rate * scale
        self._adam.step()
        self._adam.zero_grad(set_to_none=False)
        self._write_back()
        return float(norm)

    def _folding(self, name: str) -> Callable[[Tensor], None]:
        factors, scale = self._factors[name], self.adapter.scale

        def fold(weight: Tensor) -> None:
            assert weight.grad is not None  # noqa: S101  (the hook's contract; so are the factors' own)
            assert factors.a.grad is not None  # noqa: S101
            assert factors.b.grad is not None  # noqa: S101
            gradient = weight.grad.float()
            factors.a.grad += scale * (factors.b.mT @ gradient)
            factors.b.grad += scale * (gradient @ factors.a.mT)
            weight.grad = None

        return fold

    def _write_back(self) -> None:
        for name, weight in self._weights.items():
            weight.copy_(self._bases[name].float() + self._factors[name].update(self.adapter.scale))


_WIDTH = 256


def _begin(weight: Tensor, rank: int, generator: torch.Generator) -> Factors:
    *experts, out, inner = weight.shape
    a = (2 * torch.rand(*experts, rank, inner, generator=generator) - 1) * inner**-0.5
    return Factors(a.to(weight.device), torch.zeros(*experts, out, rank, device=weight.device))
