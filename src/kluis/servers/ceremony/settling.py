"""What follows the init of a server, each thing done once however often it is asked for.

``token`` is a token that may do it: the root token of the init.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Literal

from kluis.errors import ChangeRefused, ServerAnswered, ServerError, ServerHung
from kluis.servers.ceremony.answers import inner, members, text, token_in
from kluis.servers.client import SealStatus, ServerClient

ACTIVE_S: Final = 60.0
_FOUND_OR_NOT: Final = frozenset({200, 404})


async def unseal(
    client: ServerClient,
    shares: Sequence[str],
    refuse_unfit: Callable[[SealStatus], None],
    timeout_s: float = ACTIVE_S,
) -> None:
    """Enter these shares, and wait until the server does its work. Raises ServerError.

    ``refuse_unfit`` raises unless the server may get shares as it is now; it is asked before each
    one. What others entered before may not fit; then the server forgets all, and one more try is
    made.
    """
    try:
        await _enter(client, shares, refuse_unfit)
    except ServerAnswered:
        await _enter(client, shares, refuse_unfit)
    await wait_active(client, timeout_s)


async def _enter(
    client: ServerClient, shares: Sequence[str], refuse_unfit: Callable[[SealStatus], None]
) -> None:
    for share in shares:
        status = await client.seal_status()
        if not status.sealed:
            return
        refuse_unfit(status)
        await client.unseal(share)


async def wait_active(client: ServerClient, timeout_s: float = ACTIVE_S) -> SealStatus:
    """Wait until the server is unsealed and works; its seal then. Raises ServerHung."""
    try:
        async with asyncio.timeout(timeout_s):
            await client.wait_active()
            return await client.seal_status()
    except TimeoutError:
        raise ServerHung(
            f"the server is not active after {timeout_s:g} s",
            "it is sealed, or works on its unseal; what it has so far is kept",
            "see its log, and run the same command again",
        ) from None


async def audit_file(client: ServerClient, token: str, path: str) -> bool:
    """Have the server write its audit log to a file; whether that was new. Raises KluisError."""
    devices = members(await client.call("GET", "sys/audit", token=token))
    for name in devices:
        device = inner(devices, name)
        if text(inner(device, "options"), "file_path") == path:
            return False
    body = {"type": "file", "options": {"file_path": path}}
    try:
        await client.call("PUT", "sys/audit/kluis", body, token=token)
    except ServerAnswered as error:
        raise ChangeRefused(
            f"the server did not take {path} as its audit log: it answered {error.status}",
            "it can't write there (its log says why); or it is an OpenBao, which takes audit"
            " devices from its configuration only, unless unsafe_allow_api_audit_creation is set",
            f'write audit "file" "kluis" {{ options {{ file_path = "{path}" }} }} into its'
            " configuration, send it SIGHUP, and run this again; or leave --audit out",
        ) from None
    return True


async def policy(client: ServerClient, token: str, name: str, wanted: str) -> bool:
    """Have a policy of this text; whether it was new. Raises ChangeRefused, ServerError."""
    path = f"sys/policies/acl/{name}"
    answer = await client.call("GET", path, token=token, accepted=_FOUND_OR_NOT)
    if answer.status == 404:
        await client.call("PUT", path, {"policy": wanted}, token=token)
        return True
    if text(members(answer), "policy").strip() != wanted.strip():
        raise ChangeRefused(
            f"the server has a policy {name} already, and it says something else",
            "somebody wrote it, and may need it so",
            "take another name",
        )
    return False


async def transit_key(client: ServerClient, token: str, key: str) -> None:
    """Have the Transit engine at ``transit/``, and a key in it. Raises ChangeRefused."""
    mounts = members(await client.call("GET", "sys/mounts", token=token))
    found = text(inner(mounts, "transit/"), "type")
    if not found:
        await client.call("PUT", "sys/mounts/transit", {"type": "transit"}, token=token)
    elif found != "transit":
        raise ChangeRefused(
            "at transit/ of the server is an engine of another type",
            "the Transit engine is to be there",
            "move that engine, or mount Transit elsewhere by hand",
        )
    path = f"transit/keys/{key}"
    answer = await client.call("GET", path, token=token, accepted=_FOUND_OR_NOT)
    if answer.status == 404:
        await client.call("PUT", path, {}, token=token)


async def token_for(
    client: ServerClient, token: str, name: str, kind: Literal["period", "ttl"], life: str
) -> str:
    """A new orphan token with one policy and nothing else, not even ``default``."""
    body = {
        "policies": [name],
        "no_default_policy": True,
        "display_name": name,
        kind: life,
    }
    answer = await client.call("POST", "auth/token/create-orphan", body, token=token)
    made = token_in(text(inner(answer.body, "auth"), "client_token"))
    if not made:
        raise ServerError(
            "the server made no token",
            "its answer held none, or something else",
            "see its log, and run the same command again",
        )
    return made


async def revoke(client: ServerClient, token: str) -> None:
    """Revoke a token, and prove that it is dead. Raises ServerError."""
    if await _alive(client, token):
        await client.call("POST", "auth/token/revoke-self", token=token)
        if await _alive(client, token):
            raise ServerError(
                "the server says that it revoked the token, and still takes it",
                "that must not be",
                "see its log, and run the same command again",
            )


async def _alive(client: ServerClient, token: str) -> bool:
    accepted = frozenset({200, 403})
    answer = await client.call("GET", "auth/token/lookup-self", token=token, accepted=accepted)
    return answer.status == 200
