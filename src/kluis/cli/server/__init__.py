"""``kluis server``: servers as they are found, made, kept, and moved in and out."""

from __future__ import annotations

import typer

app = typer.Typer(
    help="Servers: pinned, watched, made safely, moved in and out.", no_args_is_help=True
)
