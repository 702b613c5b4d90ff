"""``kluis simulate``: open or locked after a loss, and by which way."""

from __future__ import annotations

from typing import Annotated

import typer

from kluis.cli import terminal
from kluis.cli.explain import SomeKeyring
from kluis.cli.options import Config, Format
from kluis.cli.session import Session
from kluis.cli.status import EXIT_LOCKED

Lose = Annotated[
    list[str] | None,
    typer.Option(
        help="Anchors that are lost, by commas; family:2 means two shares of family."
        " May be repeated.",
        metavar="NAMES",
    ),
]
LoseDomain = Annotated[
    list[str] | None,
    typer.Option(
        help="Domains of which everything is lost, by commas. May be repeated.", metavar="NAMES"
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        help="Only these anchors are there, less what is lost; family:2 means two shares.",
        metavar="NAMES",
    ),
]


def simulate(
    keyring: SomeKeyring = None,
    lose: Lose = None,
    lose_domain: LoseDomain = None,
    only: Only = None,
    config: Config = None,
    output: Format = terminal.Output.TEXT,
) -> None:
    """Say whether a keyring opens after a loss, and by which way.

    It reads the rule in kluis.toml and asks no anchor. Exit code 0: open, 2: locked, 1: error.

    Example: kluis simulate homelab --lose disk
    """
    from kluis.cli import sentences
    from kluis.service.explain import explaining, losses

    settings = Session(config).file.settings
    wish = losses.Wish(lose or (), lose_domain or (), only)
    found = losses.simulate(settings, explaining.chosen(settings, keyring), wish)
    if terminal.as_json():
        terminal.data({each.keyring: losses.as_json(each) for each in found})
    else:
        for each in found:
            terminal.folded(sentences.simulated(each))
    if not all(each.outcome.opens for each in found):
        raise typer.Exit(EXIT_LOCKED)
