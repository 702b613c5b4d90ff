"""New shares for a server, verified before they are valid: ``sys/rekey`` and its successors.

A rekey is in the memory of the active node. It goes through three phases, and until the last one
is over the old shares are valid; a restart or a cancellation leaves everything as it was:

1. begun: a nonce is there;
2. authorised by the old shares: the new ones were handed out, and wait to be verified;
3. verified by the new ones: from now on these are valid, and only these.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from kluis.errors import ServerAnswered, ServerError
from kluis.keyring.custody import Shares
from kluis.servers.ceremony.answers import members, number, text, texts
from kluis.servers.ceremony.roads import Road
from kluis.servers.ceremony.roots import refuse_other_threshold
from kluis.servers.client import ServerClient


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rekey is. ``required`` is how many of the shares that are valid now it takes."""

    started: bool
    nonce: str
    required: int
    entered: int
    verifying: bool


async def progress(client: ServerClient, road: Road) -> Progress:
    """How far a rekey is, if one is under way."""
    said = members(await client.call("GET", f"{road.prefix}/init", token=road.token))
    return Progress(
        started=said.get("started") is True,
        nonce=text(said, "nonce"),
        required=number(said, "required"),
        entered=number(said, "progress"),
        verifying=bool(text(said, "verification_nonce")),
    )


async def begin(client: ServerClient, road: Road, shares: int, threshold: int) -> str:
    """Begin a rekey to so many shares; its nonce."""
    body = {"secret_shares": shares, "secret_threshold": threshold, "require_verification": True}
    said = members(await client.call("PUT", f"{road.prefix}/init", body, token=road.token))
    nonce = text(said, "nonce")
    if said.get("verification_required") is not True:
        await cancel(client, road, nonce)
        raise _odd("wants no verification of the new shares")
    return nonce


async def authorise(client: ServerClient, road: Road, nonce: str, old: Shares) -> Shares:
    """The new shares; they are not valid yet. Raises ServerAnswered when ``old`` are not."""
    refuse_other_threshold((await progress(client, road)).required, old)
    for share in old.some():
        body = {"key": share, "nonce": nonce}
        said = members(await client.call("PUT", f"{road.prefix}/update", body, token=road.token))
        if said.get("complete") is True:
            return await _new(client, road, texts(said, "keys"))
    raise _odd("took all shares, and gave no new ones")


async def _new(client: ServerClient, road: Road, keys: Sequence[str]) -> Shares:
    threshold = number(
        members(await client.call("GET", f"{road.prefix}/verify", token=road.token)), "t"
    )
    try:
        shares = tuple(bytes.fromhex(key) for key in keys)
    except ValueError:
        shares = ()
    if not 0 < threshold <= len(shares):
        raise _odd("gave no new shares")
    return Shares(threshold, shares)


async def verify(client: ServerClient, road: Road, new: Shares) -> None:
    """Show the new shares to the server: then they are valid. Raises ServerError.

    Shares that were entered before are forgotten first.
    """
    path = f"{road.prefix}/verify"
    said = members(await client.call("GET", path, token=road.token))
    if number(said, "progress"):
        said = members(await client.call("DELETE", path, token=road.token))
    nonce = text(said, "nonce")
    for share in new.some():
        body = {"key": share, "nonce": nonce}
        said = members(await client.call("PUT", path, body, token=road.token))
    if said.get("complete") is not True:
        raise _odd("took the new shares, and did not make them valid")


async def cancel(client: ServerClient, road: Road, nonce: str) -> None:
    """Cancel a rekey, if it still is the one of this nonce. Raises ServerError."""
    now = await progress(client, road)
    if now.started and now.nonce == nonce:
        await client.call("DELETE", f"{road.prefix}/init", token=road.token)


async def proves(client: ServerClient, road: Road, shares: Shares) -> bool:
    """Whether these are the shares that are valid now.

    A rekey that asks for a verification is begun with them, and cancelled: nothing changes.
    """
    if (await progress(client, road)).required != shares.threshold:
        return False
    nonce = await begin(client, road, len(shares.shares), shares.threshold)
    try:
        await authorise(client, road, nonce, shares)
    except ServerAnswered:
        return False
    finally:
        with contextlib.suppress(ServerError):
            await cancel(client, road, nonce)
    return True


def _odd(what: str) -> ServerError:
    return ServerError(
        f"the server {what}",
        "that is not an answer of OpenBao or Vault; the old shares are still valid",
        "check its address and its version; see its log",
    )
