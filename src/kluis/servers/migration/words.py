"""What a person is told: where it stands, and what comes next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kluis.keyring.migrations import Migration
from kluis.servers.migration.plan import Decision, Place
from kluis.servers.migration.standing import Stand
from kluis.servers.migration.stanzas import AFTER, BACK, BEFORE, MIGRATE


@dataclass(frozen=True, slots=True)
class Next:
    """What a person does next: ``what``, at these nodes, with this file; and a hint, if any.

    ``otherwise`` is the file to take where the first one leaves it sealed.
    """

    what: str
    file: str = ""
    nodes: tuple[str, ...] = ()
    hint: str = ""
    otherwise: str = ""


_ONE_BY_ONE: Final = "one after another, each when kluis says that the one before has its shares"


def following(one: Migration, decision: Decision, found: Mapping[str, Stand]) -> Next:
    """What comes next; nothing when it is over."""
    nodes, words = decision.nodes, Next("")
    match decision.place:
        case Place.RESTART:
            words = _restart(one, decision, len(found) > 1)
        case Place.LAST:
            words = Next(_LAST, "", nodes, _VOTERS)
        case Place.PROVE:
            words = _prove(one, decision, found)
        case Place.RESTORE:
            words = Next(_PUT_BACK, BEFORE, nodes, _UNMOVED)
        case Place.STRAY:
            words = _stray(one, decision, found)
        case Place.CARRY | Place.SETTLE:
            words = Next(f"kluis server migrate {one.server} goes on from here", "", nodes)
        case Place.DONE | Place.GONE_BACK | Place.DOUBT:
            pass
    return words


_LAST: Final = (
    "make the active node step down (bao operator step-down); another one takes over, and moves"
    " the server"
)
_VOTERS: Final = "a node that joined just now can't take over yet: bao operator raft list-peers"
_PUT_BACK: Final = "put back the stanza from before, and restart it"
_OLD_KMS: Final = "the KMS of the old seal must still work meanwhile"
_LOG: Final = "if it does not start, its log says why: the stanza may need tls_ca_cert, or a token"
_UNMOVED: Final = "nothing was moved yet, so that is all"


def file_migrate(one: Migration) -> str:
    """The file for the restart that begins it."""
    return BACK if one.back else MIGRATE


def file_after(one: Migration) -> str:
    """The file for the restart that proves it."""
    return BEFORE if one.back else AFTER


def _restart(one: Migration, decision: Decision, many: bool) -> Next:
    how = f" of the standbys, {_ONE_BY_ONE}" if many else ""
    hint = _LOG if one.source == "shamir" else f"{_OLD_KMS}; {_LOG}"
    return Next(
        "put this into the server's configuration in place of any seal stanza, and restart"
        f" it{how}; it starts sealed, and kluis gives it its shares",
        file_migrate(one),
        decision.nodes,
        hint,
    )


def _prove(one: Migration, decision: Decision, found: Mapping[str, Stand]) -> Next:
    sealed = [address for address in decision.nodes if found[address] is Stand.SEALED]
    what = "now put the new stanza alone into the configuration, and restart"
    if one.repoint:
        what = "put this into the configuration in place of the seal stanza, and restart"
    what += ", one node after another" if len(found) > 1 else ""
    end = " it; it has to come back by itself" if one.target != "shamir" else " it"
    hint = ""
    if sealed and one.target != "shamir":
        hint = (
            f"{', '.join(sealed)} is sealed: it does not unseal while the disabled stanza is in"
            " its configuration, or while the KMS of the new seal does not answer"
        )
    unsure = file_migrate(one) if sealed and one.progress.sending else ""
    return Next(what + end, file_after(one), decision.nodes, hint, unsure)


def _stray(one: Migration, decision: Decision, found: Mapping[str, Stand]) -> Next:
    if any(found[address] is Stand.FOREIGN for address in decision.nodes):
        return Next(
            f"restart with a seal of type {one.source} or {one.target}: it has another one",
            file_migrate(one),
            decision.nodes,
        )
    return Next(
        "it was restarted to go the other way: say --back to mean that, or restart it with this",
        file_after(one) if one.progress.moved else file_migrate(one),
        decision.nodes,
    )


def notes(one: Migration, unseal: str, recovery: str) -> list[str]:
    """What a person should see to after it is over.

    ``unseal`` and ``recovery`` are the keys of those names in kluis.toml, empty where not given.
    """
    said = [] if one.back or one.repoint else [*_kept(one, unseal, recovery), _snapshots(one)]
    return [*said, f"the files in {one.folder} may hold tokens: remove them when all is well"]


def misnamed(one: Migration, unseal: str, recovery: str) -> tuple[str, str] | None:
    """The field of kluis.toml that names the shares as what they were, and what it is to be."""
    if one.back or one.repoint:
        return None
    was, now = one.source == "shamir", one.target == "shamir"
    if was and not now and unseal == one.shares:
        return "unseal", "recovery"
    if now and not was and recovery == one.shares:
        return "recovery", "unseal"
    return None


def _kept(one: Migration, unseal: str, recovery: str) -> list[str]:
    """What the shares are good for now."""
    was, now = one.source == "shamir", one.target == "shamir"
    said: list[str] = []
    if was and not now:
        said.append("the shares are recovery keys from now on: they unseal nothing any more")
    if now and not was:
        said.append("the recovery keys are its shares from now on: they unseal it")
    if names := misnamed(one, unseal, recovery):
        said.append(f'in [servers.{one.server}] write {names[1]} = "{one.shares}", not {names[0]}')
    return said


def _snapshots(one: Migration) -> str:
    if one.source == "shamir":
        return "snapshots from before need a server without a seal stanza, and these shares"
    return "snapshots from before need the old seal: keep its KMS for as long as you keep them"
