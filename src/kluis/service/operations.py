"""What a person can ask of the keyrings, as functions from JSON to JSON.

The command line calls them in the running service over its control socket; without a service it
calls them in its own process. Both ways they are the same functions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from typing import Final

from kluis.engine.guard import Guard
from kluis.errors import KluisError, UsageError
from kluis.keyring import policy, tree, trust
from kluis.keyring.strict import JSON
from kluis.service.house import House, explain_error, explain_notice

Args = Mapping[str, JSON]
Operation = Callable[[House, Args], Awaitable[dict[str, JSON]]]


async def status(house: House, args: Args) -> dict[str, JSON]:
    """Every keyring, its anchors, and what expires."""
    await _open_here(house)
    keyrings: dict[str, JSON] = {}
    for name in sorted(house.blueprint.wanted.keys() | house.guards.keys()):
        guard = house.guards.get(name)
        keyrings[name] = _not_made(house, name) if guard is None else _keyring(guard)
    expiries: dict[str, JSON] = dict(sorted(house.expiries().items()))
    return {
        "keyrings": keyrings,
        "service": house.serving,
        "servers": _watched(house),
        "expires_in_days": expiries,
    }


def _watched(house: House) -> dict[str, JSON]:
    """The servers that this process watches; those that nobody watches are not asked here."""
    if house.watcher is None:
        return {}
    from kluis.service import servers

    return servers.watched(house)


def _not_made(house: House, name: str) -> dict[str, JSON]:
    return {
        "state": "locked",
        "epoch": 0,
        "revision": 0,
        "opens": policy.show(house.blueprint.wanted[name].opens),
        "anchors": {},
        "people": {},
        "needs": [],
        "held": False,
        "contradicted": False,
    }


def _keyring(guard: Guard) -> dict[str, JSON]:
    anchors: dict[str, JSON] = {
        name: {
            "state": said.state,
            "seen": said.seen,
            "means": said.means,
            "next": said.next_step,
            "notice": explain_notice(said.notice),
        }
        for name, said in guard.anchor_statuses().items()
    }
    people: dict[str, JSON] = {
        leaf.name: {
            "entered": guard.progress()[leaf.name][0],
            "needed": leaf.threshold,
            "shares": leaf.shares,
        }
        for _, leaf in tree.leaves(guard.document.tree)
        if isinstance(leaf, tree.PeopleLeaf)
    }
    needs: list[JSON] = [list(names) for names in guard.lacks()]
    return {
        "state": "open" if guard.is_open else "locked",
        "epoch": guard.document.epoch,
        "revision": guard.document.revision,
        "opens": guard.document.opens,
        "anchors": anchors,
        "people": people,
        "needs": needs,
        "held": guard.held,
        "contradicted": _contradicted(guard),
    }


def _contradicted(guard: Guard) -> bool:
    """Whether enough anchors answered, and yet nothing opens: the document does not verify."""
    answered = {name for name, said in guard.anchor_statuses().items() if said.state == "ok"}
    answered |= {name for name, (entered, needed) in guard.progress().items() if entered >= needed}
    return not guard.is_open and trust.opens_with(tree.to_policy(guard.document.tree), answered)


async def _open_here(house: House) -> None:
    """Without a running service nothing is open: ask the anchors, so that all is really tried."""
    if not house.serving:
        await house.open_once()
        for guard in house.guards.values():
            if guard.is_open:
                await guard.survey()


async def verify(house: House, args: Args) -> dict[str, JSON]:
    """Open every leaf for real; of a locked keyring, what its anchors say."""
    await _open_here(house)
    guard = house.guard(text(args, "keyring"))
    if await guard.try_open():
        await guard.survey()
    return {guard.name: _keyring(guard)}


async def progress(house: House, args: Args) -> dict[str, JSON]:
    """How far a keyring is from open; nothing is asked and nothing changes."""
    guard = house.guard(text(args, "keyring"))
    return {"entered": "", "keyring": _keyring(guard), "progress": _progress(guard)}


async def unlock(house: House, args: Args) -> dict[str, JSON]:
    """Take a share or a passphrase, or ask the anchors again; how far it is.

    The anchors are asked when nothing was entered, or when what was entered is whole and not
    enough: so a lock by hand ends by the people's word, not by a part of it.
    """
    guard = house.guard(text(args, "keyring"))
    entered, locks = "", guard.locks
    if not guard.is_open:
        entered, whole = await _enter(guard, args)
        if whole and not guard.is_open:
            guard.release(locks)
            await guard.try_open()
    return {**await progress(house, args), "entered": entered}


async def _enter(guard: Guard, args: Args) -> tuple[str, bool]:
    """Whose share or passphrase was entered, and whether that anchor has all it needs."""
    share, passphrase = args.get("share"), args.get("passphrase")
    if isinstance(share, str):
        people = guard.enter_share(share)
        entered, needed = guard.progress()[people]
        return people, entered >= needed
    if isinstance(passphrase, str):
        anchor = text(args, "anchor")
        await guard.enter_passphrase(anchor, passphrase)
        return anchor, True
    return "", True


def _progress(guard: Guard) -> JSON:
    return {name: [entered, needed] for name, (entered, needed) in guard.progress().items()}


async def lock(house: House, args: Args) -> dict[str, JSON]:
    """Drop the secrets of a keyring, and stay locked."""
    guard = house.guard(text(args, "keyring"))
    guard.lock()  # at once: a change that is under way is refused when it wants to write
    return {"keyring": _keyring(guard)}


async def reload(house: House, args: Args) -> dict[str, JSON]:
    """Take the configuration as it is now."""
    async with house.changing:
        house.redraw()
    return {}


def text(args: Args, name: str) -> str:
    """An argument that is a text. Raises UsageError."""
    value = args.get(name)
    if not isinstance(value, str):
        raise UsageError(f"{name} is missing", "the call is not complete", "see the help")
    return value


def texts(args: Args, name: str) -> tuple[str, ...]:
    """An argument that is a list of texts; empty when it is not there."""
    value = args.get(name)
    return tuple(str(item) for item in value) if isinstance(value, list) else ()


def said(errors: Mapping[str, KluisError]) -> dict[str, JSON]:
    """What was said of anchors or keyrings, by their names."""
    return {name: {**explain_error(error)} for name, error in errors.items()}


_HERE: Final[Mapping[str, Operation]] = {
    "status": status,
    "verify": verify,
    "progress": progress,
    "unlock": unlock,
    "lock": lock,
    "reload": reload,
}

_ELSEWHERE: Final[Mapping[str, str]] = {
    "plan": "applying:plan",
    "apply": "applying:apply",
    "heal": "healing:heal",
    "anchor-probe": "anchors:probe",
    "anchor-show": "anchors:show",
    "anchor-create-key": "anchors:create_key",
    "client-list": "admission:client_list",
    "client-issue": "admission:client_issue",
    "client-revoke": "admission:client_revoke",
    "key-list": "keys:key_list",
    "key-rotate": "keys:key_rotate",
    "key-import": "keys:key_import",
    "key-export": "keys:key_export",
    "key-retire": "keys:key_retire",
    "key-reinstate": "keys:key_reinstate",
    "backup-list": "backups:backup_list",
    "backup-note": "backups:backup_note",
    "backup-forget": "backups:backup_forget",
    "shares-import": "shares:shares_import",
    "server-list": "servers:server_list",
    "server-hold": "servers:server_hold",
    "server-release": "servers:server_release",
    "server-migration": "migration.moving:server_migration",
    "server-migrate": "migration.moving:server_migrate",
    "server-migrate-plan": "migration.beginning:server_migrate_plan",
    "server-migrate-begin": "migration.beginning:server_migrate_begin",
    "server-migrate-back": "migration.moving:server_migrate_back",
    "server-init": "ceremony.steps:server_init",
    "server-init-keep": "ceremony.making:server_init_keep",
    "server-generate-root": "ceremony.rooting:server_generate_root",
    "server-rekey": "ceremony.rekeying:server_rekey",
    "server-rotate": "ceremony.rooting:server_rotate",
    "server-wake": "watch.waking:server_wake",
    "watch-once": "watch.waking:watch_once",
}
"""Module of this package, and function. Imported when called: some have an HTTP client with them,
which other commands shall not wait for."""


def names() -> frozenset[str]:
    """The names of all operations."""
    return frozenset({*_HERE, *_ELSEWHERE})


def find(name: str) -> Operation | None:
    """The operation of a name; None when there is none."""
    if (place := _ELSEWHERE.get(name)) is None:
        return _HERE.get(name)
    module, _, function = place.partition(":")
    found: Operation = getattr(import_module(f"kluis.service.{module}"), function)
    return found


CHANGES: Final = frozenset(
    {
        *("apply", "heal", "client-issue", "client-revoke"),
        *("key-rotate", "key-import", "key-export", "key-retire", "key-reinstate"),
        *("backup-note", "backup-forget"),
        *("shares-import", "server-hold", "server-release"),
        *("server-migrate", "server-migrate-begin", "server-migrate-back"),
        *("server-init", "server-init-keep"),
        *("server-generate-root", "server-rekey", "server-rotate"),
    }
)
"""Operations that write, if only to the audit log; on their own they need the folders alone."""


async def call(house: House, name: str, args: Args) -> dict[str, JSON]:
    """Run one operation. Raises KluisError."""
    operation = find(name)
    if operation is None:
        raise UsageError(
            f"there is no operation {name}",
            "the service is of another version than the command",
            "restart the service after an upgrade",
        )
    return await operation(house, args)
