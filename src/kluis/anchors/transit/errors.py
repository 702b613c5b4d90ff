"""Why a Transit engine said no. It is asked, by status and member; its texts are not read.

A 403 is a bad token or a policy; a 404 is no namespace, no engine, another engine or no key; a 400
of a decrypt is a key that is gone, of the wrong type, too old a version, or damage.
"""

from __future__ import annotations

from dataclasses import dataclass

from kluis.anchors.http import Answer
from kluis.anchors.transit.api import Server
from kluis.anchors.transit.key import KeyFacts, NoFacts, mount_type, read_key, unfit
from kluis.anchors.transit.token import is_good
from kluis.errors import AnchorError, Changed, Damaged, Misconfigured, Missing, Refused


@dataclass(frozen=True, slots=True)
class Use:
    """A use of a key by a token. ``version`` is the leaf's, 0 where there is none yet.

    ``fresh``: the token is that of a login just made, so it is good whatever it may do.
    """

    server: Server
    key: str
    token: str
    fresh: bool
    version: int = 0

    def path(self, operation: str) -> str:
        """The path of an operation: ``encrypt``, ``decrypt`` or ``keys``."""
        return f"{self.server.mount}/{operation}/{self.key}"

    async def facts(self) -> KeyFacts | NoFacts:
        """What there is to know of the key. Raises AnchorError."""
        return await read_key(self.server, self.key, self.token)


async def why_not(use: Use, operation: str, answer: Answer) -> AnchorError:
    """The error for an answer to ``encrypt`` or ``decrypt`` that was not the one hoped for."""
    path = use.path(operation)
    if error := await use.server.trouble(answer, path):
        return error
    match answer.status:
        case 403:
            return await forbidden(use, path, "update")
        case 404:
            return await missing(use)
        case 400:
            return await _refused(use, operation)
        case _:
            return use.server.strange(answer, path)


async def forbidden(use: Use, path: str, capability: str) -> AnchorError:
    """The error for a 403: the token, the policy, or a use of a key that is not there."""
    host = use.server.host
    if not use.fresh and not await is_good(use.server, use.token):
        return Refused(
            f"{host} refuses the token",
            "it expired, was revoked, is for other addresses or uses, or may do nothing at all",
            "put a new token in its place; one with a period, that kluis renews, does not end",
        )
    if path != use.path("keys") and await use.facts() is NoFacts.MISSING:
        return await missing(use)
    return Refused(
        f"{host} denies {capability} on {path}",
        "the token is good, and no policy of it allows this; a kluis: the client lacks the key",
        f'add to its policy: path "{path}" {{ capabilities = ["{capability}"] }}',
    )


async def missing(use: Use) -> AnchorError:
    """The error for a 404: which part of the way is not there."""
    server = use.server
    kind = await mount_type(server, use.token)
    if kind == "transit":
        return Missing(
            f"there is no key {use.key} in {server.mount}/ of {server.host}",
            "it was deleted, was never made, or the server was set back to before",
            "restore it from the server's backup; a lost one is made by"
            " kluis anchor create-key, and the leaf sealed anew",
        )
    if kind:
        return other_engine(use, kind)
    if server.namespace and await _no_namespace(use):
        return Misconfigured(
            f"{server.host} has no namespace {server.namespace}",
            "it was deleted, or has another name",
            "set namespace to one that there is",
        )
    return Misconfigured(
        f"{server.host} has no Transit engine at {server.mount}/",
        "it is mounted elsewhere, was never enabled or was disabled; a kluis: no such keyring",
        f"set mount, or: bao secrets enable -path={server.mount} transit",
    )


def other_engine(use: Use, kind: str) -> Misconfigured:
    """The error for a mount of something else, which may take what is sent for its own."""
    return Misconfigured(
        f"{use.server.mount}/ of {use.server.host} is an engine of type {kind}",
        "only a Transit engine serves this anchor",
        "set mount to that of the Transit engine",
    )


def exists(use: Use) -> Refused:
    """The error for a key that was to be made, and is there."""
    return Refused(
        f"{use.path('keys')} of {use.server.host} is there already",
        "kluis makes a key only where there is none",
        "use it as it is, or name another",
    )


async def why_no_key(use: Use, answer: Answer) -> AnchorError:
    """The error for a key that could not be made."""
    path = use.path("keys")
    if error := await use.server.trouble(answer, path):
        return error
    if answer.status == 403:
        return await forbidden(use, path, "update")
    return Misconfigured(
        f"{use.server.host} answers {answer.status} and makes no key {path}",
        "it does not take the name or the type; or it is a kluis, which has keys of its own",
        f"make it there by hand: bao write -f {path}; or in the kluis.toml of that kluis",
    )


async def _no_namespace(use: Use) -> bool:
    answer = await use.server.ask("GET", "auth/token/lookup-self", token=use.token)
    return answer.status == 404


async def _refused(use: Use, operation: str) -> AnchorError:
    """The error for a 400: by what the key is."""
    facts = await use.facts()
    if facts is NoFacts.MISSING:
        return await missing(use)
    if isinstance(facts, NoFacts):
        return _unknown(use, operation)
    if error := unfit(use.server, use.key, facts):
        return error
    if operation == "encrypt":
        return Misconfigured(
            f"{use.server.host} refuses to encrypt with {use.path('keys')}",
            "the key is there and of a fitting type, and yet is not for this use",
            "look at the key's settings: min_encryption_version, for one",
        )
    return _bad_leaf(use, facts)


def _unknown(use: Use, operation: str) -> Refused:
    keys = use.path("keys")
    return Refused(
        f"{use.server.host} refuses to {operation} with the key {use.key}, and kluis may not"
        " ask why",
        "the key is gone, of another type, the leaf's version retired, or the leaf damaged",
        f'let it read the key: path "{keys}" {{ capabilities = ["read"] }}',
    )


def _bad_leaf(use: Use, facts: KeyFacts) -> AnchorError:
    keys, version = use.path("keys"), use.version
    if version < facts.minimum:
        return Changed(
            f"the leaf has version {version} of {keys}, and the least is {facts.minimum}",
            "min_decryption_version was raised: older versions decrypt nothing",
            f"set it back to {version}, or open by another way and run kluis heal",
        )
    if version > facts.latest:
        return Damaged(
            f"the leaf has version {version} of {keys}, and the latest is {facts.latest}",
            "the key was made anew, the server set back to before, or the leaf is damaged",
            "bring the old key back, or open by another way and run kluis heal",
        )
    return Damaged(
        f"version {version} of {keys} does not open this leaf",
        "the key was made anew, or the leaf is damaged or of another place in the keyring",
        "bring the old key back, or open by another way and run kluis heal",
    )
