"""``kluis bootstrap``: an init container's work; seal a key that a Secret gives once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kluis.cli import terminal
from kluis.cli.options import Config, Format, Rollback
from kluis.cli.session import Session

if TYPE_CHECKING:
    from kluis.service.bootstrap.sealing import Asked

Key = Annotated[str, typer.Option("--key", metavar="KEYRING/KEY", help="A static-seal key.")]
From = Annotated[
    Path | None,
    typer.Option("--from", metavar="FILE", help="The key, as a static seal takes it from a file."),
]
PaperTo = Annotated[
    Path | None,
    typer.Option("--paper-to", metavar="FILE", help="For what is shown once; on a tmpfs."),
]
Reseal = Annotated[
    bool,
    typer.Option("--reseal", help="If its anchors are lost for good, make the keyring anew."),
]
AcceptLocked = Annotated[
    bool,
    typer.Option("--accept-locked", help="Exit with 0 also while it does not open."),
]


def bootstrap(
    key: Key,
    source: From = None,
    config: Config = None,
    output: Format = terminal.Output.TEXT,
    paper_to: PaperTo = None,
    reseal: Reseal = False,
    accept_locked: AcceptLocked = False,
    accept_rollback: Rollback = False,
) -> None:
    """Seal a key that is given once by this machine's anchors, and prove that they open it.

    Made for an init container: a later run changes nothing, and needs no key any more. It says
    when the Secret may be deleted: on this machine, after the proof. A keyring that does not open
    is left as it is, with exit code 2; with --reseal it is made anew where nothing is lost by
    that, and the old one is kept.

    Example: kluis bootstrap --key homelab/unseal --from /run/secrets/seal.key
    """
    import asyncio

    from kluis import compose
    from kluis.service.bootstrap import given_key, paper_file
    from kluis.service.bootstrap import sealing as service
    from kluis.service.harden import harden

    harden()
    if paper_to is not None:
        paper_file.refuse_disk(paper_to)
    keyring, _, name = key.partition("/")
    asked = service.Asked(keyring, name, given_key.read(source), paper_to, reseal)
    house = compose.house(Session(config).file, alone=True, accept_rollback=accept_rollback)
    try:
        found = asyncio.run(service.bootstrap(house, asked))
    finally:
        house.close()
    if terminal.as_json():
        terminal.data(found)
    else:
        _show(found, asked)
    if not found["open"] and not accept_locked:
        raise typer.Exit(2)


_DONE = {
    "made": "was made, with the key that was given",
    "resealed": "was made anew, with the key that was given",
    "imported": "has the key that was given now",
    "nothing": "is there; nothing was changed",
}


def _show(found: dict[str, Any], asked: Asked) -> None:
    terminal.line(f"{found['keyring']}: {_DONE[found['done']]}")
    for name, said in found["away"].items():
        terminal.note(f"note: {name} was away and is not sealed yet: {said['seen']}")
    if found["kept"] is not None:
        terminal.line(f"  the one before is kept as {found['kept']}")
    if found["paper"] is not None:
        terminal.line(f"  what is shown once is in {found['paper']}: fetch it first of all")
    if not found["open"]:
        _show_locked(found)
        return
    compared = "; the key is the one that was given" if found["compared"] else ""
    terminal.line(f"  proven: opened afresh by {', '.join(found['proven_by'])} alone{compared}")
    _show_secret(found, mounted=asked.given is not None)


def _show_locked(found: dict[str, Any]) -> None:
    terminal.line("  it does not open now; the Secret may be needed, keep it")
    terminal.entries(
        (name, said["state"], [text for text in (said["seen"], said["next"]) if text])
        for name, said in found["anchors"].items()
    )


def _show_secret(found: dict[str, Any], *, mounted: bool) -> None:
    if alone := found["single_losses"]:
        terminal.line(f"  keep the Secret: without {alone[0]} nothing else would open the keyring")
        if lost := found["unanswered"]:
            terminal.line(f"  {', '.join(lost)} opened nothing now; kluis status says why")
        terminal.line("  next: add another way to the rule: 'or' and people with paper, say")
    elif not found["secret_may_be_deleted"]:
        terminal.line("  no key was compared: if there is a Secret, keep it")
        terminal.line("  next: mount it, and name its file with --from")
    elif mounted:
        terminal.line("  on this machine the Secret is not needed any more: it may be deleted")
    else:
        terminal.line("  no Secret is needed on this machine")
