"""Options that many commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kluis.cli.terminal import Output, choose


def _choose(output: Output) -> Output:
    choose(output)
    return output


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="The configuration; else $KLUIS_CONFIG, ./kluis.toml, /etc/kluis/kluis.toml.",
        show_default=False,
    ),
]

Format = Annotated[
    Output,
    typer.Option("--output", "-o", help="text for people, json for programs.", callback=_choose),
]

Rollback = Annotated[
    bool,
    typer.Option(
        "--accept-rollback",
        help="Accept a document older than one seen here: you restored it yourself.",
    ),
]
