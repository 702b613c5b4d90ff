"""``kluis apply``: make the keyrings as declared."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kluis.cli import terminal
from kluis.cli.options import Config, Format, Rollback
from kluis.cli.session import Session
from kluis.errors import ChangeRefused

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
AllowDestroy = Annotated[
    bool, typer.Option("--allow-destroy", help="Also destroy keys and dismiss clients.")
]
Reissue = Annotated[
    list[str] | None,
    typer.Option(
        "--reissue",
        metavar="PEOPLE",
        help="Print new paper for these people; the old paper opens nothing any more.",
    ),
]
Replace = Annotated[
    list[str] | None,
    typer.Option(
        "--replace",
        metavar="ANCHOR",
        help="This anchor's key was stolen or changed: replace the root secret and all keys.",
    ),
]


def apply(
    config: Config = None,
    output: Format = terminal.Output.TEXT,
    yes: Yes = False,
    allow_destroy: AllowDestroy = False,
    reissue: Reissue = None,
    replace: Replace = None,
    accept_rollback: Rollback = False,
) -> None:
    """Make keyrings, keys and clients as kluis.toml declares them.

    Shows what it would do, asks, does it, and prints new paper and tokens once. A second run
    changes nothing. With a service running, the service does it and takes it over at once.

    Example: kluis apply --yes
    """
    session = Session(config, accept_rollback=accept_rollback)
    renewed = {"reissue": reissue or [], "replace": replace or []}
    shown = session.call("plan", **renewed, configuration=str(session.path.absolute()))
    _notes(shown["notes"])
    if shown["plan"] and not terminal.as_json():
        _plan(shown["plan"])
    done = {"shares": {}, "tokens": {}, "keyrings": shown["keyrings"]}
    if shown["plan"]:
        _refuse_destruction(shown["plan"], allowed=allow_destroy)
        if not yes and not terminal.confirm("do this?"):
            raise ChangeRefused(
                "nothing was changed", "you did not say yes", "run kluis apply again and say y"
            )
        done = session.call(
            "apply",
            digest=shown["digest"],
            allow_destroy=allow_destroy,
            passphrases={name: _new_passphrase(name) for name in shown["passphrases"]},
            **renewed,
        )
    if terminal.as_json():
        terminal.data(done)
    else:
        _done(done)
    if failed := done.get("failed"):
        terminal.error_beside(
            ChangeRefused(
                f"not everything was written: {failed['seen']}", failed["means"], failed["next"]
            )
        )
        raise typer.Exit(1)


def _new_passphrase(name: str) -> str:
    """What a person chose. Raises Misconfigured before anything else happens with it."""
    from kluis.anchors.passphrase import normalised

    passphrase = terminal.new_passphrase(name)
    normalised(passphrase)
    return passphrase


def _plan(plan: dict[str, Any]) -> None:
    for keyring, steps in plan.items():
        terminal.line(f"{keyring}:")
        for step in steps:
            terminal.line(f"  {'!' if step['destroys'] else '-'} {step['words']}")


def _refuse_destruction(plan: dict[str, Any], *, allowed: bool) -> None:
    lost = [step["words"] for steps in plan.values() for step in steps if step["destroys"]]
    if lost and not allowed:
        raise ChangeRefused(
            f"this would {lost[0]}",
            "nothing is destroyed without being told to; nothing was changed",
            "kluis apply --allow-destroy does it",
        )


def _notes(notes: dict[str, Any]) -> None:
    for name, said in notes.items():
        terminal.note(f"note: {name}: {said['seen']}")
        terminal.note(f"  why:  {said['means']}")
        terminal.note(f"  next: {said['next']}")


def _done(done: dict[str, Any]) -> None:
    for name, keyring in done["keyrings"].items():
        for anchor, said in keyring["away"].items():
            terminal.note(f"note: {name}/{anchor} was away and is not sealed yet: {said['seen']}")
        if not keyring["changed"]:
            terminal.line(f"{name}: nothing to change (revision {keyring['revision']})")
            continue
        terminal.line(
            f"{name}: done (epoch {keyring['epoch']}, revision {keyring['revision']},"
            f" opens with: {keyring['opens']})"
        )
    for people, shares in done["shares"].items():
        terminal.line()
        terminal.line(f"Paper shares of {people}. They are shown once; one person, one share.")
        for number, share in enumerate(shares, 1):
            terminal.line(f"  {number}. {share}")
    for client, token in done["tokens"].items():
        terminal.line()
        terminal.line(f"Token of {client}, shown once: {token}")
