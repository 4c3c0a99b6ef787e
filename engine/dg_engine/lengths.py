"""A gap to fill, and the first of two ways to find how long its answer is: by the filler that the model writes.

The other, for a checkpoint that did not learn filler, is `probe.ByProbe`. Both are asked by `fill`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from dg_engine.canvas import SeededDraws
from dg_engine.captures import can_capture
from dg_engine.causal import Start
from dg_engine.device_loop import DeviceLoop
from dg_engine.infill import Filling, Hole, fill
from dg_engine.model import DiffusionGemma
from dg_engine.policies import Denoising
from dg_engine.rows import Row, canvas_bucket
from dg_engine.sharing import SharedLoop


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """A hole with what stands around it, and how to fill it."""

    start: Start
    """Behind the encoded prefix."""
    suffix: Tensor
    """[S] pinned token ids behind the hole."""
    hole: Hole
    plan: Denoising
    seed: int
    deadline: float | None = None
    """`time.perf_counter()` seconds after which to stop with what is certain; at least one step is run."""


class ByFiller:
    """The hole is long, the model writes filler behind its answer, and the hole grows where it writes none."""

    def __init__(self, model: DiffusionGemma) -> None:
        self._model = model
        self.device_loop = DeviceLoop(model) if can_capture(model) else None
        """What fills holes where steps can be captured; None elsewhere."""
        self._shared = None if self.device_loop is None else SharedLoop(model, self.device_loop)

    def fill(self, gap: Gap) -> Iterator[Filling]:
        """Yield the state after each step, by the loop that suits the device; the last carries a stop reason."""
        model, cache = self._model, gap.start.cache
        if self._shared is not None:
            row = Row(cache=cache, suffix=gap.suffix, hole=gap.hole, plan=gap.plan, seed=gap.seed)
            if canvas_bucket(row) is not None:
                return self._shared.fill(row, deadline=gap.deadline)
        draws = SeededDraws(model.config.vocab_size, gap.seed, model.device)
        return fill(model, cache, gap.suffix, gap.hole, gap.plan, draws, deadline=gap.deadline)
