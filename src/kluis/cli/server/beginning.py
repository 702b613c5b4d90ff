"""``kluis server migrate``: how a move is begun; the plan, the snapshot, the stanzas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kluis.cli import terminal
from kluis.cli.server import moving
from kluis.cli.session import Session
from kluis.errors import ChangeRefused, UsageError

if TYPE_CHECKING:
    from kluis.servers.migration.hcl import Stanza


@dataclass(frozen=True)
class Wish:
    """How a person wants it begun."""

    name: str
    to: str
    key: str
    client: str
    old: Path | None
    new: Path | None
    folder: Path
    snapshot: Path | None
    no_snapshot: bool
    issue: bool
    repoint: bool
    yes: bool
    token: str = field(default="", repr=False)


def begin(session: Session, wish: Wish) -> None:
    """Plan, ask, take the snapshot, write the stanzas, and put it on record. Raises KluisError."""
    old, new = moving.stanza(wish.old), moving.stanza(wish.new)
    if wish.to == "other" or wish.new is not None:
        new = _given(new, "")
    asked = {
        "server": wish.name,
        "to": wish.to,
        "key": wish.key,
        "client": wish.client,
        "seal": "" if new is None else new.kind,
        "issue": wish.issue,
        "repoint": wish.repoint,
        **(moving.probe(old) if wish.to == "facade" else {}),
    }
    found = session.call("server-migrate-plan", **asked)
    old = _old(found, old)
    if new is not None:
        new = _given(new, found["seal"])
    elif wish.to == "facade":
        moving.facade_address(session.file)  # so that a mistake there shows before anything is done
    _refuse_without_snapshot(found, wish)
    _confirm(found, wish)
    moving.make_folder(wish.folder)
    snapshot = _snapshot(session, found, wish)
    moving.write(wish.folder, _files(session, found, wish, old, new))
    session.call(
        "server-migrate-begin",
        **{**asked, "repoint": found["way"] == "re-point"},
        snapshot="" if snapshot is None else str(snapshot.absolute()),
        folder=str(wish.folder.absolute()),
    )


def _given(new: Stanza | None, kind: str) -> Stanza:
    from kluis.servers.migration import stanzas

    return stanzas.given(new, kind)


def _old(found: Mapping[str, Any], old: Stanza | None) -> Stanza | None:
    """The stanza of the seal that it has. Shamir has none, and needs none."""
    if found["from"] == "shamir":
        return None
    if old is None or old.kind != found["from"]:
        raise UsageError(
            f"the stanza of its seal is missing: {found['server']} has one of type {found['from']}",
            'it is needed with disabled = "true" to move away, and as it is to go back',
            "give the server's configuration with --old-config",
        )
    return old


def _refuse_without_snapshot(found: Mapping[str, Any], wish: Wish) -> None:
    if wish.no_snapshot or found["way"] == "re-point":
        return
    if found["storage"] != "raft":
        raise UsageError(
            f"no snapshot can be taken of storage {found['storage']}",
            "only raft gives one over the API",
            "back it up by its own means, and add --no-snapshot",
        )
    if not wish.token:
        raise UsageError(
            "there is no token of the server",
            "a snapshot is taken before anything is begun",
            "give one in BAO_TOKEN or with --token-stdin; or back up yourself: --no-snapshot",
        )


def _confirm(found: Mapping[str, Any], wish: Wish) -> None:
    for line in _plan(found, wish):
        terminal.note(line)
    if not wish.yes and not terminal.confirm("Begin?"):
        raise ChangeRefused(
            "nothing was begun", "you did not say yes", "run it again and say y, or add --yes"
        )


def _plan(found: Mapping[str, Any], wish: Wish) -> list[str]:
    """What will be done, in words."""
    nodes = len(found["nodes"])
    if found["way"] == "re-point":
        return [
            f"{found['server']}: kluis has the key of its seal, {found['key']}: nothing is moved.",
            f"  Its stanza gets another address and token (client {found['client']}).",
            "  You restart it with that; kluis sees that it came back by it.",
        ]
    what = "shares" if found["from"] == "shamir" else "recovery keys"
    seal = f"{found['seal']} ({found['key']})" if found["key"] else found["seal"]
    backup = "no snapshot" if wish.no_snapshot else "a snapshot first"
    was, now = ("unseal", "recovery") if found["from"] == "shamir" else ("recovery", "unseal")
    renamed = "shamir" in (found["from"], found["seal"])
    return [
        f"{found['server']}: from seal {found['from']} to {seal}; {backup}.",
        f"  You restart {'its ' + str(nodes) + ' nodes' if nodes > 1 else 'it'} twice, with stanzas"
        f" in {wish.folder}; kluis gives it {found['threshold']} {what} in between.",
        "  Until the second restart has proven it, --back goes back."
        + (f" Then {was} in kluis.toml becomes {now}." if renamed else ""),
    ]


def _snapshot(session: Session, found: Mapping[str, Any], wish: Wish) -> Path | None:
    if wish.no_snapshot or found["way"] == "re-point":
        return None
    path = wish.snapshot or wish.folder / f"before-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.snap"
    size = moving.take_snapshot(session.file, wish.name, found["active"], wish.token, path)
    terminal.note(f"snapshot: {path}, {size} bytes, whole")
    return path


def _files(
    session: Session, found: Mapping[str, Any], wish: Wish, old: Stanza | None, new: Stanza | None
) -> Mapping[str, str]:
    """The stanzas, by the names of their files."""
    from kluis.servers.migration import stanzas

    if new is None and wish.to == "facade":
        new = _facade(session, found, wish)
    elif new is None and wish.to == "static":
        new = stanzas.static()
    return stanzas.files(old, new, repoint=found["way"] == "re-point")


def _facade(session: Session, found: Mapping[str, Any], wish: Wish) -> Stanza:
    from kluis.servers.migration import stanzas

    address, (keyring, _, key) = moving.facade_address(session.file), found["key"].partition("/")
    token = ""
    if wish.issue:
        day_s = 24 * 3600  # older tokens still work meanwhile
        issued = session.call("client-issue", client=found["client"], overlap_s=day_s, expires_s=0)
        token = issued["token"]
    else:
        terminal.note(f"the token of {found['client']} is not in the stanzas: put it there")
    return stanzas.facade(address, keyring, key, found["client"], token)
