"""A migration is begun: planned without a change, then put on record."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from kluis.engine.clock import now
from kluis.errors import UsageError
from kluis.keyring.migrations import Migration, Progress
from kluis.keyring.strict import JSON
from kluis.service.house import House
from kluis.service.journal import recorded
from kluis.service.migration.checks import Checked, check
from kluis.service.migration.proof import last_unseal
from kluis.service.migration.record import EVENT, forget_elsewhere, refuse_second, save
from kluis.service.operations import Args, text

_PATH: Final = r"[^\x00-\x1f\x7f\ud800-\udfff]{0,1024}"


async def server_migrate_plan(house: House, args: Args) -> dict[str, JSON]:
    """Whether it can be begun, and all that its stanzas need. Nothing is changed."""
    async with house.changing:
        house.redraw()
    refuse_second(house, text(args, "server"))
    checked = await check(house, args)
    to = checked.target
    return {
        "server": checked.server.name,
        "from": checked.source,
        "to": to.to,
        "seal": to.seal,
        "way": "re-point" if checked.repoint else "migrate",
        "shares": None if checked.shares is None else str(checked.shares),
        "threshold": checked.threshold,
        "key": None if to.key is None else str(to.key),
        "client": to.client or None,
        "storage": checked.storage,
        "nodes": list(checked.nodes),
        "active": checked.active,
    }


async def server_migrate_begin(house: House, args: Args) -> dict[str, JSON]:
    """Put it on record that a server is to be moved; where its snapshot and stanzas lie."""
    name = text(args, "server")
    checked = await check(house, args)
    one = _begun(checked, _path(args, "snapshot"), _path(args, "folder"))
    if checked.repoint and checked.target.key is not None:
        mark = await last_unseal(house, checked.target.key, checked.target.client)
        one = replace(one, progress=_repointed(checked, mark))
    async with house.changing:
        refuse_second(house, name)
        with recorded(house, EVENT, keyring=checked.keyring, server=name, what=f"to {one.to}"):
            save(house, checked.keyring, one)
            forget_elsewhere(house, checked.keyring, name)
    return {"server": name, "began": one.began}


def _begun(checked: Checked, snapshot: str, folder: str) -> Migration:
    to = checked.target
    return Migration(
        server=checked.server.name,
        source=checked.source,
        target=to.seal,
        to=to.to,
        shares="" if checked.shares is None else str(checked.shares),
        began=now(),
        repoint=checked.repoint,
        key="" if to.key is None else str(to.key),
        client=to.client,
        snapshot=snapshot,
        folder=folder,
    )


def _repointed(checked: Checked, unsealed: str) -> Progress:
    """There is nothing to move, so it has moved: what is left is the restart that proves it."""
    return Progress(
        moved=now(),
        nodes=tuple(sorted(checked.nodes)),
        active_time=checked.active_time,
        unsealed=unsealed,
    )


def _path(args: Args, name: str) -> str:
    path = text(args, name)
    if not re.fullmatch(_PATH, path):
        raise UsageError(
            f"the path of the {name} can't be put on record",
            "it is too long, or has characters that can't be shown",
            "name another one",
        )
    return path
