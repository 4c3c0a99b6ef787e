"""`python -m dg_engine`."""

from dg_engine.cli import main

main()
