"""Batches made by other processes before they are asked for: one GPU trains on more than one Python can cut."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from multiprocessing.connection import wait

from dg_engine.parent import end_with_parent
from dg_engine.training.batches import Batch, Batcher, Layout

DEPTH = 4
"""Batches in the making for each process."""


class Ahead(AbstractContextManager["Ahead"]):
    """The batches of a `Batcher`, the same ones whatever the number of processes.

    Args:
        batcher: makes them.
        workers: processes; with 0 a batch is made when it is asked for.
    """

    def __init__(self, batcher: Batcher, workers: int = 0) -> None:
        self._batcher = batcher
        self._wanted = workers * DEPTH
        self._making: dict[tuple[int, Layout], Future[Batch]] = {}
        # Forked, so that the split stays where it is mapped; before the GPU is used, which a fork would not survive.
        context = multiprocessing.get_context("fork") if workers else None
        self._pool = ProcessPoolExecutor(workers, context, _adopt, (batcher,)) if workers else None
        if self._pool is not None:
            list(self._pool.map(_started, range(workers)))

    def batch(self, number: int, layout_of: Callable[[int], Layout]) -> Batch:
        """A batch; those behind it are begun.

        Args:
            number: of the batch.
            layout_of: the layouts of this batch and, as far as is known, of the next ones.
        """
        if self._pool is None:
            return self.made(number, layout_of(number))
        keys = [(one, layout_of(one)) for one in range(number, number + self._wanted)]
        for key in self._making.keys() - set(keys):
            self._making.pop(key).cancel()
        for key in keys:
            if key not in self._making:
                self._making[key] = self._pool.submit(_make, *key)
        return self._making.pop(keys[0]).result()

    def made(self, number: int, layout: Layout) -> Batch:
        """A batch that is made here and now."""
        return self._batcher.batch(number, layout)

    def __exit__(self, *_: object) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


_adopted: list[Batcher] = []


def _adopt(batcher: Batcher) -> None:
    # A terminal interrupts all processes of a command: what it means is for the first of them to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        end_with_parent(partial(wait, [parent.sentinel]))
    _adopted.append(batcher)


def _started(index: int) -> int:
    return index


def _make(number: int, layout: Layout) -> Batch:
    return _adopted[0].batch(number, layout)
