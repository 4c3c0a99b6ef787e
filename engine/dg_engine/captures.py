"""Work on the device captured as CUDA graphs, and copies of what it reports on the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

import torch
from torch import Tensor

from dg_engine.model import DiffusionGemma
from dg_kernels.launching import served


def can_capture(model: DiffusionGemma) -> bool:
    """Whether a pass of this model can be a CUDA graph.

    Where rows choose among experts, only a kernel leaves it on the device how many rows each of them got.
    """
    chosen = model.config.top_k_experts < model.config.num_experts
    weights = [layer.experts.parameters() for layer in model.decoder.layers]  # type: ignore[union-attr]
    embedding = model.decoder.embed_tokens.weight
    return model.device.type == "cuda" and (not chosen or served(embedding, *chain.from_iterable(weights)))


class Graphs:
    """Captures work on the current CUDA device.

    All graphs compute in the same memory: they run one after the other, and what is to outlast one lies in buffers.
    """

    def __init__(self) -> None:
        self._memory = torch.cuda.graph_pool_handle()

    def captured(self, work: Callable[[], None]) -> Callable[[], None]:
        """What repeats the work as one graph, at the addresses that it uses now.

        Args:
            work: never looks at what it computes; it is run a few times.
        """
        # Libraries allocate their workspaces and choose their kernels in the first runs; a capture must not.
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                work()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._memory):
            work()
        return graph.replay


class HostCopy:
    """A copy on the host of a tensor on the device, made behind the work launched before."""

    def __init__(self, source: Tensor) -> None:
        self._source = source
        on_cuda = source.is_cuda
        self._copy = torch.empty(source.shape, dtype=source.dtype, pin_memory=on_cuda)
        self._made = torch.cuda.Event() if on_cuda else None  # type: ignore[no-untyped-call]

    def begin(self) -> None:
        """Launch the copy."""
        self._copy.copy_(self._source, non_blocking=True)
        if self._made is not None:
            self._made.record()

    def wait(self) -> Tensor:
        """What was copied; it changes when the next copy begins."""
        if self._made is not None:
            self._made.synchronize()
        return self._copy


def write(buffers: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Put values where graphs read them."""
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value)
