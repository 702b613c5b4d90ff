"""A small client for stock OpenBao and Vault servers: seal state, init, unseal, KV version 2."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Literal, Self, TypeVar

import aiohttp

from kluis.errors import ServerAnswered, ServerError, UsageError
from kluis.servers.http import SUCCESS, TIMEOUT_S, Answer, HttpApi
from kluis.servers.tls import ServerTls

INIT_TIMEOUT_S: Final = 120.0  # an auto seal is asked several times, each with its own retries

# What GET sys/health answers; each is a state of the server and not a failure.
HEALTH_STATES: Final = frozenset({200, 429, 472, 473, 501, 503})
UNSEALED_STATES: Final = frozenset({200, 429, 472, 473})  # active, or one kind of standby

SYSTEM_TLS: Final = ServerTls()  # the system's authorities

FIRST_POLL_S: Final = 0.02
LONGEST_POLL_S: Final = 0.5
STANDBY_S: Final = 5.0

# What decides whether a server may get a share: never of another type.
_SEAL_STATE: Final[Mapping[str, bool | int | str]] = {
    "type": "",
    "initialized": False,
    "sealed": True,
    "t": 0,
    "n": 0,
    "progress": 0,
    "nonce": "",
    "migration": False,
    "recovery_seal": False,
}

T = TypeVar("T", bool, int, str)


@dataclass(frozen=True)
class SealStatus:
    """``GET sys/seal-status``. The cluster's name and id are empty while it is sealed."""

    seal_type: str
    initialized: bool
    sealed: bool
    threshold: int
    shares: int
    progress: int
    nonce: str
    version: str
    migration: bool
    recovery_seal: bool
    storage_type: str
    cluster_name: str
    cluster_id: str


@dataclass(frozen=True)
class Health:
    """``GET sys/health``; ``status`` is the HTTP status, one of ``HEALTH_STATES``."""

    status: int
    initialized: bool
    sealed: bool
    standby: bool
    version: str
    cluster_id: str = ""

    @property
    def active(self) -> bool:
        """Unsealed, and the one that does the work."""
        return self.status == 200

    @property
    def unsealed(self) -> bool:
        """Active or a standby."""
        return self.status in UNSEALED_STATES


@dataclass(frozen=True)
class Initialised:
    """What an init gave, once: the root token and the shares, in hex. Not printed."""

    root_token: str = field(repr=False)
    shares: tuple[str, ...] = field(repr=False)


class ServerClient:
    """One server, by its address (``https://host:port``); used as ``async with``.

    ``tls`` says whom to believe. ``False`` is for watching the health of a server on loopback
    whose certificate names another host: it accepts any certificate, so it is refused for other
    addresses and for every other call. A ``connector`` that makes the connections in another way
    decides by itself whom it believes. ``quiet``: the server had shares, now or earlier; so no
    error repeats its words, which could be one.

    Raises:
        UsageError: the address or the CA file can't be used.
    """

    def __init__(
        self,
        address: str,
        *,
        tls: ServerTls | Literal[False] = SYSTEM_TLS,
        timeout_s: float = TIMEOUT_S,
        connector: aiohttp.BaseConnector | None = None,
        quiet: bool = False,
    ) -> None:
        self._api = HttpApi(address, tls, timeout_s, connector, quiet=quiet)
        self._verify = tls is not False
        self._timeout_s = timeout_s

    async def __aenter__(self) -> Self:
        self._api.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._api.close()

    @property
    def proxied(self) -> bool:
        """Whether the last answer told of a proxy on the way."""
        return self._api.proxied

    # -- the seal

    async def health(self) -> Health:
        """The state of the server; sealed, standby and not initialised are states, not errors."""
        answer = await self._api.call("GET", "sys/health", accepted=HEALTH_STATES)
        body = self._with_seal_state("sys/health", answer)
        return Health(
            status=answer.status,
            initialized=_get(body, "initialized", False),
            sealed=_get(body, "sealed", False),
            standby=_get(body, "standby", False),
            version=_in_form(_VERSION, body, "version"),
            cluster_id=_in_form(_UUID, body, "cluster_id"),
        )

    async def led(self) -> bool:
        """Whether it is the active node, or knows which one is; True where it does not tell."""
        try:
            body = (await self.call("GET", "sys/leader")).body
        except ServerAnswered:
            return True
        knows = body.get("is_self") is True or bool(body.get("leader_address"))
        return knows or body.get("ha_enabled") is not True

    async def wait_active(self, standby_s: float = STANDBY_S) -> Health:
        """Poll the health until the server does its work. Has no deadline of its own.

        Every server is a standby for a moment after its unseal, so a standby counts when it has
        been one for ``standby_s`` seconds. Polls each 20 ms at first, and more slowly the longer
        it takes, each 0.5 s at the end.
        """
        now = asyncio.get_running_loop().time
        poll_s = FIRST_POLL_S
        standby_since: float | None = None
        while True:
            health = await self._health_if_reachable()
            if health is None or not health.unsealed:
                standby_since = None
            else:
                standby_since = standby_since or now()
                if health.active or now() - standby_since >= standby_s:
                    return health
            await asyncio.sleep(poll_s)
            poll_s = min(poll_s * 1.1, LONGEST_POLL_S)

    async def _health_if_reachable(self) -> Health | None:
        try:
            return await self.health()
        except ServerError:
            return None

    async def seal_status(self) -> SealStatus:
        """The state of the seal, and how many shares were entered."""
        answer = await self.call("GET", "sys/seal-status")
        return _seal_status(self._with_seal_state("sys/seal-status", answer))

    async def init(
        self, shares: int, threshold: int, *, kind: Literal["secret", "recovery"]
    ) -> Initialised:
        """Initialise a new server: ``secret`` shares for Shamir, ``recovery`` for an auto seal."""
        body = {f"{kind}_shares": shares, f"{kind}_threshold": threshold}
        answer = await self.call("PUT", "sys/init", body, timeout_s=INIT_TIMEOUT_S)
        keys = answer.body.get("keys" if kind == "secret" else "recovery_keys")
        if not isinstance(keys, list):
            self._api.unexpected("sys/init")
        return Initialised(
            _get(answer.body, "root_token", ""), tuple(key for key in keys if isinstance(key, str))
        )

    async def unseal(
        self, share: str, *, migrate: bool = False, timeout_s: float | None = None
    ) -> SealStatus:
        """Enter one share, in hex or base64. Ask ``seal_status`` again before another one.

        ``migrate`` moves a server to the seal that its configuration names now.
        """
        body = {"key": share, **({"migrate": True} if migrate else {})}
        answer = await self.call("PUT", "sys/unseal", body, timeout_s=timeout_s)
        return _seal_status(self._with_seal_state("sys/unseal", answer))

    async def seal(self, token: str) -> None:
        """Seal the server."""
        await self.call("PUT", "sys/seal", token=token)

    async def step_down(self, token: str) -> None:
        """Make the active node of a cluster a standby."""
        await self.call("PUT", "sys/step-down", token=token)

    # -- KV version 2

    async def mount_kv(self, token: str, mount: str) -> None:
        """Mount a KV engine, version 2, at ``mount``, and wait until it takes writes."""
        body = {"type": "kv", "options": {"version": "2"}}
        await self.call("POST", f"sys/mounts/{mount}", body, token=token)
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        while asyncio.get_running_loop().time() < deadline:
            # A new mount answers 400 for the moment in which it upgrades itself.
            accepted = frozenset({200, 400})
            answer = await self.call("GET", f"{mount}/config", token=token, accepted=accepted)
            if answer.status == 200:
                return
            await asyncio.sleep(FIRST_POLL_S)
        raise ServerError(
            f"{mount} at {self._api.address} took no writes within {self._timeout_s:g} s",
            "a new KV mount upgrades itself first",
            "try again",
        )

    async def kv_put(self, token: str, mount: str, path: str, values: Mapping[str, str]) -> None:
        """Write a secret."""
        await self.call("POST", f"{mount}/data/{path}", {"data": dict(values)}, token=token)

    async def kv_get(self, token: str, mount: str, path: str) -> dict[str, str]:
        """Read a secret; the values that are text."""
        answer = await self.call("GET", f"{mount}/data/{path}", token=token)
        outer = answer.body.get("data")
        values = outer.get("data") if isinstance(outer, dict) else None
        if not isinstance(values, dict):
            self._api.unexpected(f"{mount}/data/{path}")
        return {name: value for name, value in values.items() if isinstance(value, str)}

    def _with_seal_state(self, path: str, answer: Answer) -> Mapping[str, object]:
        """The body, which must say whether the server is sealed: a guess would be dangerous."""
        body = answer.body
        if "sealed" not in body or any(
            type(body.get(name, default)) is not type(default)
            for name, default in _SEAL_STATE.items()
        ):
            self._api.unexpected(path)
        return body

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        token: str = "",
        timeout_s: float | None = None,
        accepted: frozenset[int] = SUCCESS,
    ) -> Answer:
        """Call ``/v1/<path>``; it may carry secrets, so the server's certificate is verified.

        Raises ServerError, and UsageError before a secret would go over the wire in the clear.
        """
        if not self._verify:
            raise UsageError(
                f"{path} is not asked of {self._api.address} without verifying its certificate",
                "only its health is",
                "name its certificate authority",
            )
        if self._api.in_the_clear and (token or body):
            raise UsageError(
                f"{path} is not sent to {self._api.address} over plain http",
                "others on the way could read along",
                "give the server a certificate, and name it with https://",
            )
        return await self._api.call(
            method, path, body, token=token, timeout_s=timeout_s, accepted=accepted
        )


# What a server says of itself is believed in its form only: it is printed, and it may be kept.
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_WORD: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_VERSION: Final = re.compile(r"v?[0-9]{1,4}(?:\.[0-9]{1,4}){1,3}(?:[-+][A-Za-z0-9.]{1,24})?")
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,40})")


def _seal_status(body: Mapping[str, object]) -> SealStatus:
    return SealStatus(
        seal_type=_in_form(_WORD, body, "type"),
        initialized=_get(body, "initialized", False),
        sealed=_get(body, "sealed", True),
        threshold=_get(body, "t", 0),
        shares=_get(body, "n", 0),
        progress=_get(body, "progress", 0),
        nonce=_in_form(_UUID, body, "nonce"),
        version=_in_form(_VERSION, body, "version"),
        migration=_get(body, "migration", False),
        recovery_seal=_get(body, "recovery_seal", False),
        storage_type=_in_form(_WORD, body, "storage_type"),
        cluster_name=_in_form(_NAME, body, "cluster_name"),
        cluster_id=_in_form(_UUID, body, "cluster_id"),
    )


def _in_form(form: re.Pattern[str], body: Mapping[str, object], name: str) -> str:
    """A text; "?" for one that has not the form that it should have."""
    text = _get(body, name, "")
    return text if not text or form.fullmatch(text) else "?"


def _get(body: Mapping[str, object], name: str, default: T) -> T:
    """A member of the default's type; absent or of another type, the default."""
    value = body.get(name)
    return value if type(value) is type(default) else default
