"""A server's shares, or its recovery keys, taken into a keyring."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kluis.errors import ChangeRefused, DocumentError, UsageError, WrongShares
from kluis.keyring import share_sets
from kluis.keyring.custody import Custody, Purpose, parse_shares
from kluis.keyring.policy import KEY_NAME_PATTERN
from kluis.keyring.strict import JSON
from kluis.servers.declared import KeyPath
from kluis.service import custody
from kluis.service.house import House
from kluis.service.operations import Args, text

WHOLE_KEY_BYTES = 32
"""A server with one share only gives its key itself: no byte of x follows."""


@dataclass(frozen=True, slots=True)
class _Given:
    shares: tuple[bytes, ...]
    threshold: int | None
    purpose: Purpose
    replace: bool


async def shares_import(house: House, args: Args) -> dict[str, JSON]:
    """Take the shares of a server: new ones, or more of the set that is kept already.

    With ``replace``, another set in the place of the one that is kept.
    """
    path = _path(text(args, "key"))
    given = _given(args)
    async with house.changing:
        _refuse_declared(house, path)
        if not house.serving:
            await house.guard(path.keyring).try_open()
        old = _kept(house, path, given)
        made = _made(house, path, given, old)
        proven = share_sets.require_one_set(made.shares, made.threshold)
        if changed := made != old:
            custody.keep(house, path, made, "shares-import")
    replaced = changed and old is not None and not set(old.shares) <= set(made.shares)
    return {
        "key": str(path),
        "purpose": made.purpose,
        "threshold": made.threshold,
        "shares": len(made.shares),
        "changed": changed,
        "replaced": replaced,
        "proven": proven,
        "servers": [
            name
            for name, server in house.blueprint.servers.items()
            if path in (server.unseal, server.recovery)
        ],
    }


def _kept(house: House, path: KeyPath, given: _Given) -> Custody | None:
    try:
        return custody.kept_if_any(house, path)
    except DocumentError as error:
        if given.replace:
            return None
        error.next_step = "add --replace to import them in its place"
        raise


def _made(house: House, path: KeyPath, given: _Given, old: Custody | None) -> Custody:
    """What will be kept. Raises UsageError, WrongShares or ChangeRefused."""
    if old is not None and (joined := _joined(old, given)) is not None:
        return joined
    cluster_id, declared = _declared_for(house, path)
    threshold = _threshold(given.shares, given.threshold, declared)
    new = Custody(given.purpose, threshold, given.shares, cluster_id)
    if old is not None and not given.replace:
        raise ChangeRefused(
            f"{path} keeps another set: {len(old.shares)} shares, {old.threshold} needed"
            f" ({old.purpose}){_besides(old)}",
            "the import would destroy it, and a server may need it",
            "name another key; or add --replace, if no server needs that set any more",
        )
    if old is not None:
        _refuse_needed(house, path, old, new)
    return new


def _refuse_needed(house: House, path: KeyPath, old: Custody, new: Custody) -> None:
    """The kept set is not destroyed for another one while a declared server fits only the kept."""
    for name, server in house.blueprint.servers.items():
        wanted = server.identity.threshold
        if path in (server.unseal, server.recovery) and old.threshold == wanted != new.threshold:
            raise ChangeRefused(
                f"{name} is declared with {wanted} needed shares; of these {new.threshold} are",
                "the kept ones fit it; these are of another server, or it was given new ones",
                f"name another key; if {name} was given new ones: kluis server add {name} first",
            )


def _besides(old: Custody) -> str:
    token = ", and a root token" if old.root_token else ""
    return token + (", and where an unfinished ceremony stands" if old.step else "")


def _joined(old: Custody, given: _Given) -> Custody | None:
    """The kept set with what was given; None when that is of another set."""
    added = tuple(share for share in given.shares if share not in old.shares)
    whole = (*old.shares, *added)
    if given.purpose != old.purpose or not old.shares:
        return None
    if not added:
        return replace(old, threshold=_threshold(whole, given.threshold, old.threshold))
    try:
        if share_sets.needed(whole) is None:
            return None
    except WrongShares:
        return None
    return replace(old, shares=whole, threshold=_threshold(whole, given.threshold, None))


def _threshold(shares: Sequence[bytes], said: int | None, declared: int | None) -> int:
    """How many are needed: as said, as the shares show, or as it is known of the server."""
    shown = _shown_threshold(shares)
    wanted = next((count for count in (said, shown, declared) if count is not None), None)
    if wanted is None:
        raise UsageError(
            "how many of the shares are needed is not known",
            "with exactly as many as are needed, the shares do not show it themselves",
            "say it with --threshold; sys/seal-status of the server tells it (t)",
        )
    if not 1 <= wanted <= len(shares):
        raise UsageError(
            f"{wanted} shares are needed, and {len(shares)} came",
            "what is kept must be enough to unseal the server",
            "give more of them, or correct --threshold",
        )
    if shown is not None and shown != wanted:
        raise UsageError(
            f"{shown} of these shares are needed, not {wanted}",
            "the shares show it themselves: they lie on one polynomial",
            f"leave --threshold out, or say --threshold {shown}",
        )
    share_sets.require_one_set(shares, wanted)
    return wanted


def _shown_threshold(shares: Sequence[bytes]) -> int | None:
    if len(shares) == 1 and len(shares[0]) == WHOLE_KEY_BYTES:
        return 1
    return share_sets.needed(shares)


def _declared_for(house: House, path: KeyPath) -> tuple[str, int | None]:
    """The cluster id and the threshold of the server whose shares these are, where known."""
    owners = [s for s in house.blueprint.servers.values() if path in (s.unseal, s.recovery)]
    if len(owners) != 1:
        return "", None
    return owners[0].identity.cluster_id or "", owners[0].identity.threshold


def _given(args: Args) -> _Given:
    threshold = args.get("threshold")
    if isinstance(threshold, bool) or not isinstance(threshold, int | None):
        raise UsageError("threshold is not a number", "it counts shares", "correct it")
    return _Given(
        shares=parse_shares(text(args, "shares").splitlines()),
        threshold=threshold,
        purpose="recovery" if args.get("recovery") is True else "unseal",
        replace=args.get("replace") is True,
    )


def _path(path: str) -> KeyPath:
    keyring, _, key = path.partition("/")
    if re.fullmatch(KEY_NAME_PATTERN, key) is None:
        raise UsageError(
            f"{path or '?'} can't be the name of a key",
            "a key is named KEYRING/KEY: letters, digits, '.', _ and -",
            "write it like homelab/old-vault",
        )
    return KeyPath(keyring, key)


def _refuse_declared(house: House, path: KeyPath) -> None:
    """A key that kluis.toml declares is made by kluis; shares are kept beside those."""
    wanted = house.blueprint.wanted.get(path.keyring)
    if wanted is not None and path.key in wanted.keys:
        raise UsageError(
            f"kluis.toml declares {path} as a key of kind {wanted.keys[path.key]}",
            "shares are kept in a key of their own, which is not declared",
            "name another key",
        )
