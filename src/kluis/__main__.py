"""``python -m kluis``: the same as ``kluis``."""

from kluis.cli.main import main

main()
