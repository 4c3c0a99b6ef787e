"""All editors that the tests know."""

from __future__ import annotations

import driver_emacs
import driver_helix
import driver_neovim
import driver_vim
import driver_vscode
from driver import Known

EDITORS: dict[str, Known] = {
    **driver_vscode.EDITORS,
    **driver_neovim.EDITORS,
    **driver_emacs.EDITORS,
    **driver_vim.EDITORS,
    **driver_helix.EDITORS,
}
