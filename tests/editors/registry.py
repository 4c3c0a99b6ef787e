"""All editors that the tests know."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from driver import Known

EDITORS: dict[str, Known] = {}
for _module in ("driver_vscode", "driver_neovim", "driver_emacs", "driver_vim", "driver_helix"):
    if find_spec(_module):
        EDITORS |= import_module(_module).EDITORS
