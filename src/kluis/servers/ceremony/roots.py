"""A new root token, out of the shares: ``sys/generate-root``."""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Mapping, Sequence

from kluis.errors import ChangeRefused, ServerAnswered, ServerError, WrongServer
from kluis.keyring.custody import Shares
from kluis.servers.ceremony.answers import members, number, text, token_in
from kluis.servers.ceremony.roads import Road
from kluis.servers.client import ServerClient


async def generate(
    client: ServerClient, road: Road, shares: Shares, *, cancel_other: bool = False
) -> str:
    """A root token. An attempt that fails is cancelled. Raises ServerError or ChangeRefused.

    ``cancel_other`` cancels an attempt that somebody else is at.
    """
    attempt = f"{road.prefix}/attempt"
    before = members(await client.call("GET", attempt, token=road.token))
    refuse_other_threshold(number(before, "required"), shares)
    if before.get("started") is True:
        if not cancel_other:
            raise under_way("generation of a root token", number(before, "progress"))
        await client.call("DELETE", attempt, token=road.token)
    begun = members(await client.call("PUT", attempt, {}, token=road.token))
    nonce, otp = text(begun, "nonce"), text(begun, "otp")
    try:
        last = await _enter(client, road, nonce, shares.some())
        return decode(text(last, "encoded_token") or text(last, "encoded_root_token"), otp)
    except BaseException:
        with contextlib.suppress(ServerError):
            await _cancel(client, road, nonce)
        raise


def refuse_other_threshold(required: int, shares: Shares) -> None:
    """Before a share is shown to a server: it must want as many as are enough. Raises WrongServer.

    Otherwise one that lies would be shown more of them.
    """
    if required != shares.threshold:
        raise WrongServer(
            f"the server wants {required} shares, and of those that are kept"
            f" {shares.threshold} are enough",
            "it is another server, or it was rekeyed by somebody else",
            "take its present shares in: kluis key import KEYRING/KEY --shares - --replace",
        )


def under_way(what: str, progress: int) -> ChangeRefused:
    """Somebody else is at the same work."""
    return ChangeRefused(
        f"a {what} is under way already, with {progress} shares entered",
        "somebody else is at it, or a command of this kind was killed",
        "ask; to cancel it add --cancel-other",
    )


async def _enter(
    client: ServerClient, road: Road, nonce: str, shares: Sequence[str]
) -> Mapping[str, object]:
    for share in shares:
        body = {"key": share, "nonce": nonce}
        said = members(await client.call("PUT", f"{road.prefix}/update", body, token=road.token))
        if said.get("complete") is True:
            return said
    raise ServerError(
        "the server took all shares, and gave no token",
        "somebody else cancelled the attempt, or its threshold changed",
        "run the same command again",
    )


async def _cancel(client: ServerClient, road: Road, nonce: str) -> None:
    attempt = f"{road.prefix}/attempt"
    now = members(await client.call("GET", attempt, token=road.token))
    if now.get("started") is True and text(now, "nonce") == nonce:
        await client.call("DELETE", attempt, token=road.token)


def decode(encoded: str, otp: str) -> str:
    """The token in what the server gave: base64 of the token XOR the one-time pad.

    Raises ServerError.
    """
    try:
        data = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        pad = otp.encode("ascii")
        token = bytes(a ^ b for a, b in zip(data, pad, strict=True)).decode("ascii")
    except (ValueError, binascii.Error):
        token = ""
    if not token_in(token):
        raise ServerError(
            "what the server gave is no token under its one-time pad",
            "another service may listen there",
            "check the address; the attempt was cancelled",
        )
    return token


def refused_as_shares(error: ServerAnswered, path: str) -> WrongServer:
    """What to say when a server refuses the shares that are kept for it."""
    return WrongServer(
        f"the server does not take the shares of {path}",
        f"it answered {error.status}: they are another server's, or void",
        f"take its present shares in: kluis key import {path} --shares - --replace",
    )
