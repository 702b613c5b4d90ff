"""Shares that no keyring took: a server was just initialised, and only this memory has them.

Nothing is lost in silence. While somebody is there the person decides: try again, or print them.
Where nobody is, it is tried for some minutes; then the error says what is lost, and that nothing
is in the server yet. Printed they are without being asked only with --show-secrets.
"""

from __future__ import annotations

import time
from typing import Any, Final

import typer

from kluis.cli import terminal
from kluis.cli.session import Session
from kluis.errors import InitLost, KluisError

TRIES_S: Final = 300.0
PAUSE_S: Final = 2.0


def keep(session: Session, name: str, answer: dict[str, Any], *, show_secrets: bool) -> None:
    """Keep them, or have them printed. Raises InitLost when neither came to be."""
    material = answer["material"]
    why = answer["why"]
    try:
        if terminal.interactive() and not terminal.as_json():
            _ask(session, name, material, why)
        elif not _try(session, name, material, why):
            if not show_secrets:
                raise _lost(name, why["seen"], service=answer["service"])
            _print(name, material)
            raise _printed(name)
    except KeyboardInterrupt:
        raise _lost(name, "interrupted", service=answer["service"]) from None


def _tell(why: dict[str, str]) -> None:
    means = "the server is initialised, and its shares are only in memory so far"
    terminal.error_beside(InitLost(why["seen"], means, why["next"]))


def _ask(session: Session, name: str, material: str, why: dict[str, str]) -> None:
    while True:
        _tell(why)
        if not terminal.confirm("try again to keep them? (n prints them here, once)"):
            _print(name, material)
            raise _printed(name)
        failure = _kept(session, name, material)
        if failure is None:
            return
        why = failure


def _try(session: Session, name: str, material: str, why: dict[str, str]) -> bool:
    _tell(why)
    terminal.note(f"it is tried for {TRIES_S:g} s")
    deadline = time.monotonic() + TRIES_S
    while time.monotonic() < deadline:
        if _kept(session, name, material) is None:
            return True
        time.sleep(PAUSE_S)
    return False


def _kept(session: Session, name: str, material: str) -> dict[str, str] | None:
    """None once they are kept; else why they are not."""
    try:
        found = session.call("server-init-keep", server=name, material=material)
    except KluisError as error:
        return {"seen": error.seen, "next": error.next_step}
    if found["kept"]:
        return None
    return {
        "seen": "the keyring has no intent of this init any more",
        "next": "print them, and import them with kluis key import --shares -",
    }


def _print(name: str, material: str) -> None:
    from base64 import b64decode

    from kluis.keyring import custody
    from kluis.service.house import explain_error

    kept = custody.from_bytes(b64decode(material))
    shares = [share.hex() for share in kept.shares]
    if terminal.as_json():
        secrets = {"shares": shares, "threshold": kept.threshold, "root_token": kept.root_token}
        terminal.data({"secrets": secrets, "error": explain_error(_printed(name))})
        terminal.error_beside(_printed(name))
        raise typer.Exit(1)
    terminal.line(f"the shares of {name}, {kept.threshold} needed:")
    for share in shares:
        terminal.line(share)
    terminal.line(f"root token: {kept.root_token}")


def _printed(name: str) -> InitLost:
    return InitLost(
        f"the shares of {name} are in no keyring; they were printed",
        "kluis can do nothing with the server until it has them",
        "keep them safe; mend the keyring, then kluis key import KEYRING/KEY --shares - --replace",
    )


def _lost(name: str, seen: str, *, service: bool) -> InitLost:
    if service:
        return InitLost(
            f"the shares of {name} are in no keyring: {seen}",
            "the running service has them in its memory still, and only there",
            "do not stop the service; make the keyring writable, then kluis server init"
            f" {name} keeps them",
        )
    return InitLost(
        f"the shares of {name} are lost: {seen}",
        "the server is initialised, and nobody can ever unseal it; nothing is in it yet",
        f"make the keyring writable, empty the server's storage, restart it, then"
        f" kluis server init {name}",
    )
