"""What proves that a server is on its new seal, with the old one out of its reach.

All its nodes came back after a restart: the plan sees to that. With an auto seal that is proof by
itself, for a server with a disabled stanza does not unseal by itself. On kluis's facade its unseal
is in the audit log, too; when a re-point is taken back, none may be there. Shamir's shares open it
with a disabled stanza as well as without; so there the server's configuration is looked at, which
takes a token, or a person's word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kluis.errors import ServerAnswered
from kluis.keyring.migrations import Migration
from kluis.servers.declared import KeyPath
from kluis.servers.migration.driver import Nodes
from kluis.servers.migration.standing import Seen
from kluis.service.house import House
from kluis.service.keys import usage_of

CONFIGURATION = "sys/config/state/sanitized"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a person adds: a token of the server, or the word that every node was restarted."""

    token: str = field(default="", repr=False)
    restarted: bool = False


async def last_unseal(house: House, key: KeyPath, client: str) -> str:
    """When the facade unsealed a client last with a key; empty: never. Raises AuditError."""
    async with usage_of(house) as usage:
        use = usage.of(key.keyring, key.key).get(client)
    return "" if use is None else use.unsealed_at


async def unproven(
    house: House, one: Migration, seen: Sequence[Seen], nodes: Nodes, evidence: Evidence
) -> str:
    """What is still in doubt of a server that came back, in words; empty when nothing is."""
    if evidence.token:
        try:
            left = await nodes.disabled_left([node.address for node in seen], evidence.token)
        except ServerAnswered as error:
            if error.status != 403:
                raise
            return f"the token may not read {CONFIGURATION}; give another one, or --restarted"
        if left:
            return "its configuration still has the disabled stanza: take it out, and restart"
    elif one.target == "shamir" and not evidence.restarted:
        return (
            "whether the disabled stanza is gone from its configuration is not known: give a token"
            f" that may read {CONFIGURATION}, or say --restarted"
        )
    if one.to == "facade" and (one.repoint or not one.back):
        last = await last_unseal(house, KeyPath(*one.key.split("/", 1)), one.client)
        if one.back:
            again = last != one.progress.unsealed
            return "kluis unsealed it again: its stanza still names kluis" if again else ""
        if not last or last == one.progress.unsealed:
            return f"it works, but kluis did not unseal {one.client} since: which seal has it?"
    return ""
