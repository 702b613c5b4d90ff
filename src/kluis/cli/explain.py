"""``kluis explain``: who can open a keyring, what may be lost, what must not be stolen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kluis.cli import terminal
from kluis.cli.options import Config, Format
from kluis.cli.session import Session
from kluis.errors import UsageError

if TYPE_CHECKING:
    from kluis.configuration import ConfigurationFile
    from kluis.service.explain.explaining import Explained
    from kluis.service.explain.supplies import Home

EXIT_WARNED = 1

SomeKeyring = Annotated[
    str | None,
    typer.Argument(help="The keyring's name; all of them without it.", show_default=False),
]
Also = Annotated[
    list[Path] | None,
    typer.Option(
        help="The kluis.toml of another installation: circles through it are found too."
        " May be repeated.",
        metavar="FILE",
    ),
]
Picture = Annotated[
    Path | None,
    typer.Option(help="Draw it into this file, an SVG.", metavar="FILE", show_default=False),
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit code 1 when there are warnings.")]


def explain(
    keyring: SomeKeyring = None,
    config: Config = None,
    also: Also = None,
    picture: Picture = None,
    strict: Strict = False,
    output: Format = terminal.Output.TEXT,
) -> None:
    """Say who can open a keyring, what may be lost, and what must never be stolen together.

    It warns of single points of loss and theft, of anchors in one place (their domain), and of
    circles: an anchor served by a server that the keyring unseals. It reads kluis.toml and asks
    no anchor.

    Example: kluis explain homelab
    """
    from kluis.service.explain import explaining

    file = Session(config).file
    names = explaining.chosen(file.settings, keyring)
    if picture is not None and len(names) > 1:
        raise UsageError(
            f"kluis.toml declares {len(names)} keyrings", "a picture is of one", "name the keyring"
        )
    homes = _homes(file, also or [])
    found = [explaining.explain(homes, name) for name in names]
    if picture is not None:
        from kluis.cli import picture as pictures

        pictures.write(picture, pictures.draw(found[0], file.settings.anchors))
        terminal.note(f"wrote {picture}")
    _show(file, found)
    if strict and any(each.warnings for each in found):
        raise typer.Exit(EXIT_WARNED)


def _homes(file: ConfigurationFile, also: list[Path]) -> list[Home]:
    """The installation itself, and the others by the paths of their files."""
    from kluis import configuration
    from kluis.service.explain.supplies import Home

    others = [path for path in also if path.resolve() != file.path.resolve()]
    return [
        Home("", file.settings),
        *(Home(str(path), configuration.read(path).settings) for path in dict.fromkeys(others)),
    ]


def _show(file: ConfigurationFile, found: list[Explained]) -> None:
    from kluis.cli import sentences
    from kluis.service.explain import explaining

    if terminal.as_json():
        anchors = file.settings.anchors
        terminal.data({each.keyring: explaining.as_json(each, anchors) for each in found})
        return
    for number, each in enumerate(found):
        if number:
            terminal.line()
        terminal.folded(sentences.explained(each))
