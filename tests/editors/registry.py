"""All editors that the tests know. Run as a program it tells which are here, and fails without those that must be."""

from __future__ import annotations

import sys

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

ALWAYS = ("VS Code", "Neovim 0.7", "Emacs 28")
"""In these every run of continuous integration proves dg-lsp; the others come from places that move."""


def main() -> int:
    """Print what is here; the exit status is 1 if one of `ALWAYS` is not."""
    lacking = {name: reason for name, known in EDITORS.items() if (reason := known.missing()) is not None}
    for name in EDITORS:
        sys.stdout.write(f"{name}: {f'not here ({lacking[name]})' if name in lacking else 'here'}\n")
    if needed := [name for name in ALWAYS if name in lacking]:
        sys.stderr.write(f"MISSING: {', '.join(needed)}. Without these nothing is proved.\n")
    return 1 if needed else 0


if __name__ == "__main__":
    sys.exit(main())
