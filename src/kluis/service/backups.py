"""Known backups of servers: what their restoring would need is not retired."""

from __future__ import annotations

import re

from kluis.engine.clock import now
from kluis.engine.guard import Guard
from kluis.errors import UnknownKey, UsageError
from kluis.keyring.backups import LABEL_PATTERN
from kluis.keyring.document import KeyEntry
from kluis.keyring.strict import JSON
from kluis.service.house import House
from kluis.service.keys import usage_of
from kluis.service.operations import Args, text


async def backup_list(house: House, args: Args) -> dict[str, JSON]:
    """Every known backup, and what it needs."""
    found: dict[str, JSON] = {}
    for name, store in house.blueprint.stores.items():
        for backup in store.load_backups(name).known:
            found[f"{name}/{backup.number}"] = {
                "label": backup.label,
                "key": f"{name}/{backup.key}",
                "version": backup.version,
                "noted": backup.noted,
            }
    return {"backups": found}


async def backup_note(house: House, args: Args) -> dict[str, JSON]:
    """Note a backup: which version of a key it needs, or whose it is.

    Without a version it is the one that the client's last unseal needed.
    """
    label = text(args, "label")
    if re.fullmatch(LABEL_PATTERN, label) is None:
        raise UsageError(
            "the label can't be used",
            "it has up to 96 letters, digits, spaces and . _ : @ / + -, as in: restic 2026-11-20",
            "choose a plainer one",
        )
    async with house.changing:
        guard, key, entry = _key(house, text(args, "key"))
        version = args.get("version")
        if version is None:
            version = await _last_needed(house, guard, key, args.get("client") or label)
        if isinstance(version, bool) or not isinstance(version, int):
            raise UsageError("version is not a number", "versions count from 1", "correct it")
        if not 1 <= version <= entry.latest:
            raise UsageError(
                f"{guard.name}/{key} has no version {version}",
                f"its versions are 1 to {entry.latest}",
                "kluis key list shows the keys",
            )
        store = house.blueprint.stores[guard.name]
        noted = store.load_backups(guard.name).noted(label, key, version, now())
        store.save_backups(guard.name, noted)
    number = noted.known[-1].number
    return {
        "id": f"{guard.name}/{number}",
        "label": label,
        "key": f"{guard.name}/{key}",
        "version": version,
    }


async def backup_forget(house: House, args: Args) -> dict[str, JSON]:
    """Forget a backup that is gone."""
    name = text(args, "id")
    keyring, _, number = name.partition("/")
    if re.fullmatch(r"[1-9][0-9]{0,8}", number) is None:
        raise UsageError(
            f"{name or '?'} is not the number of a backup",
            "one reads homelab/3",
            "kluis backup list shows the numbers",
        )
    async with house.changing:
        guard = house.guard(keyring)
        store = house.blueprint.stores[guard.name]
        store.save_backups(keyring, store.load_backups(keyring).forgotten(int(number)))
    return {"id": name, "forgotten": True}


def _key(house: House, path: str) -> tuple[Guard, str, KeyEntry]:
    keyring, _, key = path.partition("/")
    guard = house.guard(keyring)
    entry = guard.document.keys.get(key)
    if entry is None or entry.kind != "transit":
        raise UnknownKey(
            f"{keyring} has no transit key {key or '?'}",
            "a key is named KEYRING/KEY",
            "kluis key list shows the keys",
        )
    return guard, key, entry


async def _last_needed(house: House, guard: Guard, key: str, named: JSON) -> int:
    """The version that the last unseal of a client needed; of the only one if none is named."""
    clients = [n for n, client in guard.document.clients.items() if key in client.keys]
    client = named if named in clients else clients[0] if len(clients) == 1 else None
    async with usage_of(house) as usage:
        use = usage.of(guard.name, key).get(str(client))
    if use is None or not use.unsealed:
        whose = f"of {client}" if client else "of a client that this names"
        raise UsageError(
            f"no unseal {whose} is on record",
            "so the version that the backup needs is not known",
            f"name the client, one of {', '.join(sorted(clients)) or 'none'}; or say --version N",
        )
    return use.unsealed
