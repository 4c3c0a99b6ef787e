"""One thread for every test, as for the engine (`dg_engine.cli.DEFAULT_THREADS`).

OpenMP's barriers wait for whichever thread was put aside: beside another program that wants a core, a test that takes
14 s on one thread took more than 300 s on two.
"""

from __future__ import annotations

import os

# Before torch is imported, and for the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
