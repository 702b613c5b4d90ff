"""How an anchor proves to OpenBao, Vault or kluis who it is: a token, or a login that gives one."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from kluis.anchors.sources import Source
from kluis.anchors.transit.api import Server
from kluis.errors import AnchorError, Misconfigured, Refused

_OUTSIDE: Final = re.compile(rb"[^\x21-\x7e]")  # whatever is not for a header
FIRST_REST_S: Final = 60.0
LAST_REST_S: Final = 300.0
"""OpenBao and Vault lock a role for 15 minutes after 5 wrong secret ids in 15 minutes."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token, from a source that another program may keep fresh."""

    source: Source


@dataclass(frozen=True, slots=True)
class AppRole:
    """A role id, and a secret id from a source."""

    role_id: str
    source: Source
    mount: str = "approle"


@dataclass(frozen=True, slots=True)
class Jwt:
    """A signed token from a source; also that of a Kubernetes service account."""

    role: str
    source: Source
    mount: str = "jwt"


@dataclass(frozen=True, slots=True)
class Certificate:
    """The client certificate of the connection; without a role the server picks one."""

    role: str | None = None
    mount: str = "cert"


Login = AppRole | Jwt | Certificate
Auth = Token | Login


@dataclass(frozen=True, slots=True)
class Credentials:
    """What is sent to log in."""

    path: str
    body: Mapping[str, object] = field(repr=False)


def credentials(login: Login) -> Credentials:
    """What this login sends. Reads its source, so it may block. Raises AnchorError."""
    path = f"auth/{login.mount}/login"
    match login:
        case AppRole():
            secret_id = read_text(login.source)
            return Credentials(path, {"role_id": login.role_id, "secret_id": secret_id})
        case Jwt():
            return Credentials(path, {"role": login.role, "jwt": read_text(login.source)})
        case Certificate():
            return Credentials(path, {} if login.role is None else {"name": login.role})


def read_text(source: Source) -> str:
    """A token, a secret id or a JWT: printable ASCII, with white space around it at most.

    Reads the source, so it may block. Raises AnchorError; the message never shows what was read.
    """
    text = source.read().strip()
    if not text or _OUTSIDE.search(text):
        raise Misconfigured(
            f"{source} has {len(text)} bytes that are no credential",
            "a token, a secret id or a JWT is one word of printable ASCII",
            "put there just that word",
        )
    return text.decode("ascii")


_WORDS: Final[Mapping[type[Login], tuple[str, str]]] = {
    AppRole: (
        "the role id or the secret id is unknown, expired or used up, or too many wrong ones"
        " locked the role for a while",
        "issue a new secret id, without a limit of uses, and put it where it is read",
    ),
    Jwt: (
        "the JWT expired, is for another audience or not signed for it, the role does not exist,"
        " or the server can't ask who signed it",
        "check the role's bounds, the JWT's age, and what the server's log says",
    ),
    Certificate: (
        "no role there takes the certificate: it expired, another authority signed it, or it has"
        " another name",
        "check the role's certificate and bounds, and renew the certificate",
    ),
}


async def refusal(server: Server, login: Login, status: int) -> AnchorError:
    """The error for a login that was refused, by whether there is something to log in to."""
    path = f"auth/{login.mount}/login"
    # Nothing but a login's path is answered without a token otherwise than by 403 or 404.
    looked = await server.ask("GET", path)
    if status in (403, 404) and looked.status in (403, 404):
        return Misconfigured(
            f"{server.host} has no login at {path}",
            "no auth method is mounted there, or the namespace is another",
            f"bao auth list shows what there is; set mount, now {login.mount}",
        )
    means, next_step = _WORDS[type(login)]
    return Refused(f"{server.host} refuses the login at {path} ({status})", means, next_step)


class Restraint:
    """Credentials that were refused are not sent again at once: a role would be locked by it.

    Others, which somebody put in their place, are.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._digest = b""
        self._failures = 0
        self._until_s = 0.0
        self._error: AnchorError | None = None

    def check(self, sent: Credentials) -> None:
        """Raises the last refusal again while the same credentials have to wait."""
        left_s = self._until_s - self._clock()
        if self._error is None or left_s <= 0 or _digest(sent) != self._digest:
            return
        raise Refused(
            self._error.seen,
            self._error.means,
            f"{self._error.next_step}; the same is sent again in {left_s:.0f} s",
        )

    def refused(self, sent: Credentials, error: AnchorError) -> None:
        """The server refused these credentials."""
        rest_s = LAST_REST_S if self._failures else FIRST_REST_S
        self._digest, self._error = _digest(sent), error
        self._failures, self._until_s = self._failures + 1, self._clock() + rest_s

    def accepted(self) -> None:
        """The server accepted credentials."""
        self._failures, self._error = 0, None


def _digest(sent: Credentials) -> bytes:
    return hashlib.sha256(json.dumps(sent.body, sort_keys=True).encode()).digest()
