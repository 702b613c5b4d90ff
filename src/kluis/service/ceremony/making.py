"""The init itself: the server makes its shares, and a keyring has them before anything else.

The one moment that can't be had back is between the server's answer and the keyring's write.
Nothing but the end of the process by force comes in between; then the server is empty, and its
storage has to be emptied before it is made again.

When the keyring can't be written the shares are tried again for some seconds. Then they go to the
command that asked, which asks the person; a service remembers them as well until it ends, and
keeps them with the next step that anybody asks for.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from dataclasses import replace
from typing import Final

from kluis.engine import change
from kluis.engine.clock import now
from kluis.errors import KluisError, ServerAnswered, ServerError, UsageError
from kluis.keyring import custody as shares_format
from kluis.keyring.crypto import random_bytes
from kluis.keyring.custody import Custody
from kluis.keyring.document import to_bytes
from kluis.keyring.keys import Key, Version
from kluis.keyring.strict import JSON
from kluis.servers.ceremony import standing
from kluis.servers.client import Initialised
from kluis.service.ceremony import seal_proof
from kluis.service.ceremony.standing import (
    EVENT,
    Ceremony,
    at_work,
    declared,
    keep,
    kept_if_any,
    number,
    underway,
)
from kluis.service.ceremony.uninterrupted import Uninterrupted, signals_wait
from kluis.service.house import House, explain_error
from kluis.service.operations import Args, text

KEEP_TRIES_S: Final = 1.0
KEEP_PAUSE_S: Final = 0.2
_SHARE_BYTES: Final = 33
_TOKEN_CHARS: Final = 128
_ID_CHARS: Final = 64


def numbers(at: Ceremony, args: Args) -> tuple[int, int]:
    """How many shares a new server gets, and how many are enough. Raises UsageError."""
    wanted = number(args, "shares"), number(args, "threshold")
    count, enough = standing.shares_wanted(at.server, *wanted, None)
    standing.refuse_undeclared_numbers(at.server, count, enough)
    return count, enough


async def intend(at: Ceremony, args: Args) -> dict[str, JSON]:
    """Check that the seal works, and write down that an init is begun: so the keyring can be."""
    if not at.to_be_made:
        return {"changed": False, "custody": str(at.path), "proof": ""}
    count, enough = numbers(at, args)
    proof = f"the seal is of type {at.seal.status.seal_type}"
    if at.seal.status.seal_type == "transit":
        proof = await seal_proof.prove(at.house, at.server.name, at.seal.address)
    begun = Custody(
        at.seal.purpose,
        0,
        (),
        step="begun",
        node=at.seal.address,
        attempt=random_bytes(16).hex(),
    )
    _refuse_overfull(at, begun, count, enough)
    await at.keep(begun)
    return {"changed": True, "custody": str(at.path), "proof": proof}


def _refuse_overfull(at: Ceremony, begun: Custody, count: int, enough: int) -> None:
    """The document must have room for what will come. Raises TooLarge."""
    large = replace(
        begun,
        threshold=enough,
        shares=tuple(bytes(_SHARE_BYTES) for _ in range(count)),
        root_token="x" * _TOKEN_CHARS,
        cluster_id="x" * _ID_CHARS,
    )
    material = shares_format.to_bytes(large)
    shares_format.from_bytes(material)
    opened = at.house.guard(at.path.keyring).require_open()
    key = Key("unseal-shares", {1: Version(material, now())})
    to_bytes(change.put_key(opened, at.path.key, key, now()).opened.document)


async def make(at: Ceremony, args: Args) -> dict[str, JSON]:
    """Initialise the server, and keep what it gives before anything else happens.

    When no keyring takes it, it is in the answer: then the person decides.
    """
    if not at.to_be_made:
        return {"changed": False, "kept": True}
    count, enough = numbers(at, args)
    if at.kept is None:
        raise UsageError(
            "the init was not begun", "its intent is written first", "kluis server init does both"
        )
    begun = at.kept
    with signals_wait(serving=at.house.serving) as came:
        async with Uninterrupted() as whole:
            made = await whole.apart(lambda: _initialise(at, begun, count, enough))
            failure = await whole.here(lambda: _keep_or_remember(at, made))
        if failure is not None:
            came.clear()  # the person is asked at once; nothing may be lost before that
    if failure is None:
        return {"changed": True, "kept": True}
    return {
        "changed": True,
        "kept": False,
        "why": {**explain_error(failure)},
        "service": at.house.serving,
        "material": base64.b64encode(shares_format.to_bytes(made)).decode("ascii"),
    }


async def _initialise(at: Ceremony, begun: Custody, count: int, enough: int) -> Custody:
    try:
        async with at.client() as client:
            if begun.purpose == "unseal":
                made = await client.init(count, enough, kind="secret")
            else:
                made = await client.init(count, enough, kind="recovery")
        return _custody(at, begun, made, enough)
    except ServerError as error:
        raise await _why_not(at, error) from None


def _custody(at: Ceremony, begun: Custody, made: Initialised, enough: int) -> Custody:
    try:
        shares = tuple(bytes.fromhex(share) for share in made.shares)
        kept = replace(
            begun, threshold=enough, shares=shares, root_token=made.root_token, step="kept"
        )
        return shares_format.from_bytes(shares_format.to_bytes(kept))
    except (ValueError, KluisError):
        raise ServerError(
            f"{at.server.name} answered to sys/init what OpenBao and Vault do not",
            "another service may listen there",
            "check the address",
        ) from None


async def _why_not(at: Ceremony, error: ServerError) -> KluisError:
    """The error of an init: whether the server is initialised all the same makes the difference."""
    try:
        async with at.client() as client:
            initialized = (await client.seal_status()).initialized
    except ServerError:
        return error
    if not initialized:
        return error
    lost = standing.init_lost(at.server, at.seal)
    if isinstance(error, ServerAnswered):  # its seal refused to wrap the key
        lost.seen = f"{at.server.name} set up its storage, and could not finish its init"
        lost.means = f"it answered {error.status}: {error.means}; nobody has a share of it"
    return lost


async def _keep_or_remember(at: Ceremony, made: Custody) -> KluisError | None:
    """Keep it, tried for some seconds; else remember it while this process lives, and say why."""
    unkept = underway(at.house).unkept
    unkept[at.server.name] = made
    loop = asyncio.get_running_loop()
    deadline = loop.time() + KEEP_TRIES_S
    while True:
        try:
            await at.keep(made)
        except KluisError as error:
            if loop.time() > deadline:
                return error
            await asyncio.sleep(KEEP_PAUSE_S)
        else:
            del unkept[at.server.name]
            return None


async def server_init_keep(house: House, args: Args) -> dict[str, JSON]:
    """Keep what an init gave and no keyring took so far; ``material`` came with that answer.

    It is kept only where the intent of that very init still stands.
    """
    server = await declared(house, text(args, "server"))
    try:
        made = shares_format.from_bytes(base64.b64decode(text(args, "material"), validate=True))
    except binascii.Error:
        raise UsageError("this is no material", "it is base64", "run kluis server init") from None
    path = server.unseal if made.purpose == "unseal" else server.recovery
    if path is None:
        raise UsageError(
            f"{server.name} has no place for its shares any more",
            "kluis.toml was changed meanwhile",
            f"name it again in [servers.{server.name}]: unseal, or recovery",
        )
    async with at_work(house, server.name):
        old = await kept_if_any(house, path)
        if old is not None and (old.step, old.attempt) == ("begun", made.attempt):
            await keep(house, path, made, EVENT)
            underway(house).unkept.pop(server.name, None)
            return {"kept": True}
    return {"kept": old is not None and old.shares == made.shares}
