"""A process that is no use without the one that started it."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Thread


def end_with_parent(gone: Callable[[], object]) -> None:
    """End this process, at once, when its parent has, however that ended.

    Args:
        gone: returns then, and not before; it is called in a thread.
    """

    def watch() -> None:
        gone()
        os._exit(1)

    Thread(target=watch, name="parent", daemon=True).start()
