"""Keys over their life: listed, rotated, imported, exported, retired."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from kluis.engine import change
from kluis.engine.clock import now
from kluis.engine.guard import Guard
from kluis.engine.opening import Opened
from kluis.errors import ChangeRefused, DocumentError, Locked, UnknownKey, UsageError
from kluis.facade.usage import Usage
from kluis.keyring import exchange, keys
from kluis.keyring.exchange import Foreign
from kluis.keyring.keys import Key, Version
from kluis.keyring.strict import JSON
from kluis.servers.declared import KeyPath
from kluis.service import custody
from kluis.service.bootstrap.given_record import GivenRecord
from kluis.service.house import House, explain_error
from kluis.service.journal import record, recorded
from kluis.service.operations import Args, text
from kluis.service.retiring import weigh


async def key_list(house: House, args: Args) -> dict[str, JSON]:
    """Every key with its kind and versions; for shares of a server what is kept, if it is open."""
    found: dict[str, JSON] = {}
    for guard in house.guards.values():
        shares = any(key.kind == "unseal-shares" for key in guard.document.keys.values())
        if shares and not house.serving:
            await guard.try_open()
        for name, key in guard.document.keys.items():
            found[f"{guard.name}/{name}"] = {
                "kind": key.kind,
                "latest": key.latest,
                "minimum": key.minimum,
                "kept": _kept(house, guard, name) if key.kind == "unseal-shares" else None,
            }
    return {"keys": found}


def _kept(house: House, guard: Guard, name: str) -> JSON:
    """What a key of shares has; None while its keyring is locked, or where it can't be read."""
    try:
        kept = custody.kept(house, KeyPath(guard.name, name))
    except (Locked, DocumentError):
        return None
    return {
        "purpose": kept.purpose,
        "shares": len(kept.shares),
        "threshold": kept.threshold,
        "step": kept.step,
    }


async def key_rotate(house: House, args: Args) -> dict[str, JSON]:
    """One more version of a key; older versions still decrypt.

    One that ``kluis bootstrap`` was given may be other nodes' as well: it takes ``alone``.
    """
    async with house.changing:
        guard, name, opened, _ = await _opened_key(house, args)
        if args.get("alone") is not True:
            _refuse_given(house, guard.name, name)
        changed = change.rotate_key(opened, name, now())
        latest = changed.opened.document.keys[name].latest
        with recorded(house, "key-rotate", keyring=guard.name, key=name, version=str(latest)):
            guard.save(changed.opened)
    return {"key": f"{guard.name}/{name}", "latest": latest}


async def key_import(house: House, args: Args) -> dict[str, JSON]:
    """Take a Transit key of another server, with all its versions.

    It becomes a key that kluis.toml declares: a new one, or one that has the same material so
    far. With ``replace``, one that no client ever used.
    """
    foreign = exchange.read(text(args, "export").encode())
    keyring, _, name = text(args, "key").partition("/")
    async with house.changing:
        house.redraw()
        guard = house.guard(keyring)
        _refuse_undeclared(house, keyring, name)
        if not house.serving:
            await guard.try_open()
        old, new = guard.require_open().contents.keys.get(name), _taken(foreign)
        made = new if old is None else keys.joined(old, new)
        if replaced := made is None:
            async with usage_of(house) as usage:
                _refuse_loss(house, guard, name, usage, allowed=args.get("replace") is True)
                made = _put(house, guard, name, new, "key-import", what="in place of another")
        elif changed := made != old:
            _put(house, guard, name, made, "key-import")
    return {
        **_shown(guard, name, made),
        "imported": foreign.name,
        "changed": replaced or changed,
        "replaced": replaced,
        "clients": [n for n, known in guard.document.clients.items() if name in known.keys],
    }


async def key_export(house: House, args: Args) -> dict[str, JSON]:
    """All of a transit key, as ``transit/restore`` of a stock server takes it: secret material."""
    async with house.changing:
        guard, name, _, key = await _opened_key(house, args, "transit")
        made_s = {
            number: int(datetime.fromisoformat(version.created).timestamp())
            for number, version in key.versions.items()
        }
        backup = exchange.backup(name, key, made_s)
        record(house, "key-export", keyring=guard.name, key=name, version=str(key.latest))
    return {**_shown(guard, name, key), "backup": backup}


async def key_retire(house: House, args: Args) -> dict[str, JSON]:
    """Let versions below ``before`` decrypt nothing any more, if nobody is known to need them.

    With ``dry_run``, only say what each client and each known backup needs.
    """
    before = _version(args, "before")
    async with house.changing:
        guard, name, _, key = await _opened_key(house, args, "transit")
        retired = keys.with_minimum(key, max(before, key.minimum))
        changes = retired != key and args.get("dry_run") is not True
        async with usage_of(house) as usage:
            backups = house.blueprint.stores[guard.name].load_backups(guard.name).of(name)
            uses = usage.of(guard.name, name)
            weighed = weigh(
                guard.document, name, before, uses, backups, runs=(guard.name, name) in house.runs
            )
            refusal = weighed.refusal(accept_unknown=args.get("accept_unknown") is True)
            if changes and refusal is not None:
                raise refusal
            if changes:
                key = _put(house, guard, name, retired, "key-retire")
    return {
        **_shown(guard, name, key),
        "before": before,
        "allowed": refusal is None,
        "why_not": None if refusal is None else {**explain_error(refusal)},
        "changed": changes,
        **weighed.shown(),
    }


async def key_reinstate(house: House, args: Args) -> dict[str, JSON]:
    """Let versions from ``first`` on, which were retired, decrypt again."""
    first = _version(args, "first")
    async with house.changing:
        guard, name, _, key = await _opened_key(house, args, "transit")
        reinstated = keys.with_minimum(key, min(first, key.minimum))
        if changes := reinstated != key:
            _put(house, guard, name, reinstated, "key-reinstate")
    return {**_shown(guard, name, reinstated), "changed": changes}


def _refuse_given(house: House, keyring: str, name: str) -> None:
    if GivenRecord(house.blueprint.folders[keyring], keyring).readable(name) is not None:
        raise UsageError(
            f"{keyring}/{name} was given by kluis bootstrap",
            "other nodes that were given it could not read what this one writes with a new version",
            "where no other node has it: --alone",
        )


@asynccontextmanager
async def usage_of(house: House) -> AsyncIterator[Usage]:
    """What clients did with keys, to this very moment: what follows may not wait for anything.

    Raises AuditError.
    """
    path = house.audit.path if house.audit is not None else house.blueprint.audit
    if path is None:
        raise UsageError(
            "there is no audit log", "what clients need is not known", "declare it in [facade]"
        )
    expected = house.audit.head.digest if house.audit is not None and house.audit.head.seq else ""
    usage = Usage(path, expected)
    try:
        await asyncio.to_thread(usage.read)  # a long log must not hold up those who unseal
        usage.catch_up()
        yield usage
    finally:
        usage.close()


def _put(house: House, guard: Guard, name: str, key: Key, event: str, what: str = "") -> Key:
    """Write a key, and put it on record before; without a pause. Raises Locked or StoreError."""
    changed = change.put_key(guard.require_open(), name, key, now())
    version = str(key.latest if event == "key-import" else key.minimum)
    with recorded(house, event, keyring=guard.name, key=name, version=version, what=what):
        guard.save(changed.opened)
    return key


async def _opened_key(house: House, args: Args, kind: str = "") -> tuple[Guard, str, Opened, Key]:
    """The key that is meant, in its open keyring. Raises UnknownKey or Locked."""
    keyring, _, name = text(args, "key").partition("/")
    guard = house.guard(keyring)
    if not house.serving:
        await guard.try_open()
    opened = guard.require_open()
    key = opened.contents.keys.get(name)
    if key is None:
        raise UnknownKey(
            f"{keyring} has no key {name or '?'}",
            "a key is named KEYRING/KEY",
            "kluis key list shows the keys",
        )
    if kind not in ("", key.kind):
        raise UnknownKey(
            f"{keyring}/{name} is a key of kind {key.kind}",
            f"this is for keys of kind {kind}: what servers need of others is not on record",
            "kluis key list shows the keys",
        )
    return guard, name, opened, key


def _version(args: Args, name: str) -> int:
    value = args.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(
            f"{name} names no version", "versions count from 1", "kluis key list shows the keys"
        )
    return value


def _refuse_undeclared(house: House, keyring: str, name: str) -> None:
    wanted = house.blueprint.wanted.get(keyring)
    kind = wanted.keys.get(name) if wanted is not None else None
    if kind != "transit":
        raise UsageError(
            f"kluis.toml declares no transit key {keyring}/{name or '?'}",
            "kluis apply would destroy a key that is not declared",
            f'add [keyrings.{keyring}.keys.{name or "NAME"}] with kind = "transit" to kluis.toml',
        )


def _refuse_loss(house: House, guard: Guard, name: str, usage: Usage, *, allowed: bool) -> None:
    """A key's material is given up only when nothing can have been sealed with it."""
    known = "the audit log does not go back to its beginning" if not usage.complete else ""
    if users := sorted(usage.of(guard.name, name)):
        known = f"{', '.join(users)} used it"
    if house.blueprint.stores[guard.name].load_backups(guard.name).of(name):
        known = "a known backup needs it"
    if known:
        raise ChangeRefused(
            f"{guard.name}/{name} has other material, and {known}",
            "what was sealed with it would be lost for good",
            "declare another key in kluis.toml, and import into that",
        )
    if not allowed:
        raise ChangeRefused(
            f"{guard.name}/{name} has other material, which was made here",
            "the import would destroy it; by the audit log no client ever used it",
            "kluis key import --replace takes the imported key in its place",
        )


def _taken(foreign: Foreign) -> Key:
    """A key of ours with the versions of another server."""
    return Key(
        "transit",
        {
            number: Version(material, _moment(foreign.created_s.get(number)))
            for number, material in foreign.versions.items()
        },
        foreign.minimum,
    )


def _moment(made_s: int | None) -> str:
    if made_s is None:
        return now()
    return datetime.fromtimestamp(made_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _shown(guard: Guard, name: str, key: Key) -> dict[str, JSON]:
    return {
        "key": f"{guard.name}/{name}",
        "first": min(key.versions),
        "latest": key.latest,
        "minimum": key.minimum,
    }
