"""Two ways to the same work: endpoints that take a token, and those that take none.

OpenBao 2.5 and later take no unauthenticated rekey, and later ones no unauthenticated generation
of a root token (they answer 405), unless the listener says otherwise; their authenticated
endpoints have other names. Vault and older OpenBaos know the unauthenticated ones only.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from kluis.errors import ServerAnswered, UsageError
from kluis.keyring.custody import Purpose
from kluis.servers.client import ServerClient

_ANY: Final = frozenset({200, 403, 404, 405})


@dataclass(frozen=True, slots=True)
class Work:
    """Something that shares authorise: where it is asked for with a token, and without one.

    ``status`` is the endpoint that tells how far it is; ``setting`` is the listener's. ``needs`` is
    what a token has to be allowed.
    """

    name: str
    with_token: str
    without: str
    status: str
    setting: str
    needs: str


GENERATE_ROOT: Final = Work(
    "generation of a root token",
    "sys/generate-root-token",
    "sys/generate-root",
    "attempt",
    "disable_unauthed_generate_root_endpoints",
    "update on sys/generate-root-token/*",
)
ROTATE: Final = replace(GENERATE_ROOT, name="rotation", needs="update and sudo on sys/rotate")
"""With a root token that is made for it; whoever has a token needs none."""
REKEY: Final[dict[Purpose, Work]] = {
    "unseal": Work(
        "rekey",
        "sys/rotate/root",
        "sys/rekey",
        "init",
        "disable_unauthed_rekey_endpoints",
        "update on sys/rotate/root/*",
    ),
    "recovery": Work(
        "rekey",
        "sys/rotate/recovery",
        "sys/rekey-recovery-key",
        "init",
        "disable_unauthed_rekey_endpoints",
        "update on sys/rotate/recovery/*",
    ),
}


@dataclass(frozen=True, slots=True)
class Road:
    """The endpoints that this server has for a work, and the token that goes with each call."""

    prefix: str
    token: str = field(default="", repr=False)


async def find(client: ServerClient, work: Work, token: str) -> Road:
    """The way to a work. Raises UsageError where it needs a token, or another one."""
    refused: ServerAnswered | None = None
    for prefix in (work.with_token, work.without) if token else (work.without,):
        path = f"{prefix}/{work.status}"
        try:
            await client.call("GET", path, token=token)
        except ServerAnswered as error:
            if error.status not in _ANY:
                raise
            refused = refused or (error if error.status == 403 else None)
            continue
        return Road(prefix, token)
    if refused is not None:
        raise UsageError(
            f"the server does not let this token do a {work.name}",
            f"it is no valid token, or lacks {work.needs}",
            "give another one with --token-stdin or in BAO_TOKEN",
        )
    raise UsageError(
        f"the server does a {work.name} only for somebody with a token",
        "its shares alone are not enough for it; so newer OpenBaos have it",
        f"give a token with --token-stdin or in BAO_TOKEN: it needs {work.needs}; or set"
        f" {work.setting} = false in its listener for a while, and restart it",
    )
