"""The losses on documents that are not trained on, at fixed noise, always on the same batches."""

from __future__ import annotations

from collections import defaultdict

import torch

from dg_engine.config import ModelConfig
from dg_engine.training.batches import Batcher, Layout
from dg_engine.training.encoded import EncodedSplit
from dg_engine.training.objective import Loss
from dg_engine.training.spans import Vocabulary

CORRUPTIONS = (1.0, 0.75, 0.5, 0.25)
"""Noise levels at which the denoising loss is taken; 1 is how every answer begins."""


class Validation:
    """A few fixed batches of a split."""

    def __init__(
        self, data: EncodedSplit, vocabulary: Vocabulary, config: ModelConfig, layout: Layout, batches: int
    ) -> None:
        batcher = Batcher(data, vocabulary, config, seed=1)
        self._batches = [batcher.batch(number, layout) for number in range(batches)]

    @torch.no_grad()
    def losses(self, loss: Loss, *, pinned_signal: bool = True) -> dict[str, float]:
        """`causal` and, where there are canvases, `denoising_<corruption>`: means in nats per token.

        The generator is lent: the run's randomness is the same with and without validation.
        """
        lent, loss.generator = loss.generator, torch.Generator().manual_seed(1)
        sums: defaultdict[str, float] = defaultdict(float)
        for batch in self._batches:
            levels = CORRUPTIONS if batch.canvases is not None else CORRUPTIONS[:1]
            for corruption in levels:
                found = loss.at(batch, corruption, pinned_signal=pinned_signal)
                sums["causal"] += float(found.causal) / len(levels)
                if batch.canvases is not None:
                    sums[f"denoising_{corruption:g}"] += float(found.denoising)
        loss.generator = lent
        return {key: value / len(self._batches) for key, value in sums.items()}
