"""The API of OpenBao and Vault, as far as a transit anchor asks it: calls, and what came of them.

What a server is and what it knows of a key is asked by status and member, never read from texts.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kluis.anchors import http
from kluis.anchors.http import Answer
from kluis.errors import AnchorError, Misconfigured, Unreachable

OK: Final = 200
MAX_NUMBER: Final = 2**53 - 1
MAX_WORD_CHARS: Final = 256

_ACTIVE: Final = 200
_STANDBYS: Final = (429, 473)
_SEALED: Final = 503
_STATES: Final[Mapping[int, tuple[str, str, str]]] = {
    # sys/health: the state in a word; what it means; what to do
    429: ("standby", "another server of its cluster is to do the work", "wait, or name that one"),
    472: (
        "a disaster recovery secondary",
        "such a cluster answers nobody until it is promoted",
        "name a server of the primary cluster, or promote this one",
    ),
    473: ("performance standby", "another server does the work", "wait, or name that one"),
    474: (
        "a standby without its active server",
        "it can't reach the one that does the work",
        "check the other servers of its cluster",
    ),
    501: (
        "not initialised",
        "it is new, or its storage is not the one it had",
        "initialise it, or bring its storage back",
    ),
    503: (
        "sealed",
        "it came up, and nobody unsealed it yet",
        "unseal it, or see why it does not unseal itself",
    ),
    530: (
        "removed from its cluster",
        "it answers nobody any more",
        "name another server of the cluster",
    ),
}


@dataclass(frozen=True, slots=True)
class Health:
    """What ``sys/health`` says. ``status`` is one that only OpenBao, Vault and kluis give."""

    status: int
    version: str

    @property
    def state(self) -> str:
        """The state in a word or two."""
        return _STATES[self.status][0] if self.status in _STATES else "active"

    @property
    def active(self) -> bool:
        """Whether it does its work itself."""
        return self.status == _ACTIVE

    @property
    def standby(self) -> bool:
        """Whether it hands on what it is asked, or answers some of it itself."""
        return self.status in _STANDBYS


@dataclass(frozen=True, slots=True)
class Server:
    """One server, for the length of one call of the anchor."""

    address: str
    namespace: str | None
    mount: str
    tls: ssl.SSLContext | None

    @property
    def host(self) -> str:
        """Host and port, for a person."""
        return http.host(self.address)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        token: str = "",
        body: Mapping[str, object] | None = None,
        rooted: bool = False,
    ) -> Answer:
        """The answer to ``/v1/<path>``, whatever its status. ``rooted``: not of the namespace."""
        headers = {"X-Vault-Request": "true"}  # some listeners ask for it, against forgeries
        if token:
            headers["X-Vault-Token"] = token
        if self.namespace and not rooted:
            headers["X-Vault-Namespace"] = self.namespace
        content = None if body is None else json.dumps(body).encode()
        url = f"{self.address.rstrip('/')}/v1/{path}"
        return await http.call(method, url, body=content, headers=headers, tls=self.tls)

    async def health(self) -> Health:
        """Its state. Raises Unreachable, Misconfigured when it is none of OpenBao or Vault."""
        answer = await self.ask("GET", "sys/health", rooted=True)
        found = answer.json()
        known = isinstance(found.get("sealed"), bool) and isinstance(found.get("initialized"), bool)
        if not known or (answer.status != _ACTIVE and answer.status not in _STATES):
            raise self.strange(answer, "sys/health")
        status = _ACTIVE if self._opened_here(found) else answer.status
        return Health(status, word(found, "version"))

    def _opened_here(self, found: Mapping[str, object]) -> bool:
        """A kluis with several keyrings, one of them locked, counts as sealed; this one may not."""
        keyrings = found.get("keyrings")
        if not isinstance(keyrings, dict):
            return False
        named = [keyrings[self.mount]] if self.mount in keyrings else list(keyrings.values())
        return any(isinstance(one, dict) and one.get("state") == "open" for one in named)

    async def refuse_unready(self) -> Health:
        """Its state, when it is worth asking. Raises Unreachable when it is not."""
        health = await self.health()
        if health.active or (health.standby and await self._knows_leader()):
            return health
        raise self.unready(health)

    async def _knows_leader(self) -> bool:
        leader = (await self.ask("GET", "sys/leader", rooted=True)).json()
        return bool(leader.get("leader_address")) and leader.get("is_self") is not True

    def unready(self, health: Health) -> Unreachable:
        """The error for a server in a state in which it does not do its work."""
        state, means, next_step = _STATES[health.status]
        return Unreachable(f"{self.host} is {state}", means, next_step)

    async def trouble(self, answer: Answer, path: str) -> AnchorError | None:
        """What is amiss with the server itself, of whatever it is asked; None when nothing is."""
        status = answer.status
        if status == 429:
            return Unreachable(
                f"{self.host} answers to too many requests already",
                "a rate limit holds for it, for this path or for this client",
                "kluis asks again; raise the limit if it stays so",
                retry_s=answer.retry_after_s or 1.0,
            )
        if 300 <= status < 400:
            return await self._redirected()
        if status >= 500 or status == 412:  # 412: Vault's replica is not up to date yet
            return await self._failing(answer)
        if status >= 400 and not isinstance(answer.json().get("errors"), list):
            return self.strange(answer, path)
        return None

    async def _redirected(self) -> AnchorError:
        health = await self.health()
        if health.standby:
            return Unreachable(
                f"{self.host} is a standby that hands nothing on",
                "it points elsewhere, and a token does not follow",
                "name the active server, or an address that leads to it",
            )
        return Misconfigured(
            f"{self.host} answers with a redirect",
            "a token does not follow it",
            "name the address that it leads to",
        )

    async def _failing(self, answer: Answer) -> AnchorError:
        health = await self.health()
        if health.status not in (_ACTIVE, *_STANDBYS):
            return self.unready(health)
        return Unreachable(
            f"{self.host} is {health.state} and answers {answer.status}",
            "something fails behind it: its storage, its cluster, or what it asks itself",
            "look into its log",
            retry_s=answer.retry_after_s,
        )

    def strange(self, answer: Answer, path: str) -> AnchorError:
        """The error for an answer that neither OpenBao nor Vault gives."""
        if answer.status in (502, 503, 504):
            return Unreachable(
                f"something before {self.host} answers {answer.status}",
                "a proxy or load balancer has no server behind it",
                "check that the server itself runs",
                retry_s=answer.retry_after_s,
            )
        return Misconfigured(
            f"{self.host} answers {answer.status} to {path}, and not as OpenBao or Vault do",
            "another service or a proxy listens there",
            "check the address",
        )


def member(found: Mapping[str, object], name: str) -> Mapping[str, object]:
    """A member that is an object; empty when it is something else."""
    value = found.get(name)
    return value if isinstance(value, dict) else {}


def number(found: Mapping[str, object], name: str) -> int:
    """A member that is a whole number; 0 when it is something else, and never below."""
    value = found.get(name)
    return max(0, min(value, MAX_NUMBER)) if type(value) is int else 0


def word(found: Mapping[str, object], name: str) -> str:
    """A member that is a text, in one line that may be shown; empty when it is something else."""
    value = found.get(name)
    text = value[:MAX_WORD_CHARS] if isinstance(value, str) else ""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
