"""`dg-engine` as a study calls it: it ends with the study, and leaves no run with two trainers when that goes on.

Standard input is a pipe that the study holds open and writes nothing to.
"""

from __future__ import annotations

import os
import sys
from functools import partial

from dg_engine.cli import main
from dg_engine.parent import end_with_parent

if __name__ == "__main__":
    # Not through `sys.stdin`, whose lock the interpreter would wait for at its end.
    end_with_parent(partial(os.read, sys.stdin.fileno(), 1))
    main()
