"""`python -m dg_lsp` is the command `dg-lsp`."""

from dg_lsp.cli import main

main()
