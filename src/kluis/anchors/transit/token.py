"""The token of an anchor: looked up, renewed at half of its time, replaced when renewal ends.

    lease = await tokens.current(server)          # one that should do
    other = await tokens.other(server, lease)     # after a 403; None when no other can be had

What is kept is plain data in memory. When several calls run at once, one of them asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Final, Protocol, TypeVar
from weakref import WeakKeyDictionary

from kluis.anchors.base import Notice
from kluis.anchors.transit import lease as transit_lease
from kluis.anchors.transit.api import OK, Server, member, number, word
from kluis.anchors.transit.auth import (
    AppRole,
    Auth,
    Login,
    Restraint,
    Token,
    credentials,
    read_text,
    refusal,
)
from kluis.anchors.transit.lease import Lease
from kluis.errors import AnchorError, Refused, Unreachable
from kluis.keyring.strict import JSON

T = TypeVar("T")

REST_S: Final = 60.0


class InThread(Protocol):
    """Runs what may block elsewhere."""

    def __call__(self, call: Callable[[], T]) -> Awaitable[T]:
        """What the call gives."""


class Tokens:
    """The tokens of one anchor. ``notice`` is what a person should know of the present one."""

    def __init__(
        self,
        auth: Auth,
        in_thread: InThread,
        renewal_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A renewal may take ``renewal_s``: while a token is good, nobody waits for longer."""
        self.notice: Notice | None = None
        self._auth = auth
        self._in_thread = in_thread
        self._renewal_s = renewal_s
        self._clock = clock
        self._lease: Lease | None = None
        self._kept_fresh = False
        self._fault: Notice | None = None
        self._restraint = Restraint(clock)
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]
        self._locks = WeakKeyDictionary()

    async def current(self, server: Server) -> Lease:
        """A token that is good as far as known. Raises AnchorError."""
        async with self._lock():
            if isinstance(self._auth, Token):
                text = await self._in_thread(partial(read_text, self._auth.source))
                lease = await self._of_source(server, text)
                now_s = self._clock()
                self.notice = transit_lease.notice(lease, now_s, kept_fresh=self._kept_fresh)
            else:
                lease = await self._of_login(server, self._auth)
                self.notice = self._fault
            self._lease = lease
            return lease

    async def other(self, server: Server, refused: Lease, *, for_policies: bool) -> Lease | None:
        """Another token after this one was refused; None when there is none.

        A good one is replaced only ``for_policies``: its role may have been given others since.
        Raises AnchorError when the token is bad and the login for another one fails.
        """
        async with self._lock():
            if self._lease is not None and self._lease.token != refused.token:
                return self._lease
            if isinstance(self._auth, Token):
                text = await self._in_thread(partial(read_text, self._auth.source))
                if text == refused.token:
                    return None
                self._lease = await self._looked_up(server, text)
                return self._lease
            if await is_good(server, refused.token):
                if not for_policies:
                    return None
                return await self._with_other_policies(server, self._auth, refused)
            self._lease = None
            self._lease = await self._login(server, self._auth)
            return self._lease

    # -- a token that somebody put somewhere

    async def _of_source(self, server: Server, text: str) -> Lease:
        lease, now_s = self._lease, self._clock()
        if lease is None or lease.token != text:
            self._kept_fresh = self._kept_fresh or lease is not None
            lease = await self._looked_up(server, text)
        elif now_s >= lease.over_s:  # unless somebody else renewed it
            lease = await self._looked_up(server, text)
        if now_s >= lease.renew_s:
            lease = await self._try_renewal(server, lease)
        return lease

    async def _looked_up(self, server: Server, token: str) -> Lease:
        answer = await server.ask("GET", "auth/token/lookup-self", token=token)
        if answer.status == OK:
            return transit_lease.met(token, member(answer.json(), "data"), self._clock())
        if error := await server.trouble(answer, "auth/token/lookup-self"):
            raise error
        return Lease(token, self._clock())  # it may not look itself up, or is bad: a use will tell

    async def _try_renewal(self, server: Server, lease: Lease) -> Lease:
        """The token after an attempt to renew it; it is good for the present in any case."""
        try:
            async with asyncio.timeout(self._renewal_s):
                found = await self._renewed(server, lease)
        except (AnchorError, TimeoutError):
            found = None
        if found is not None:
            return found
        now_s = self._clock()
        return replace(lease, renew_s=now_s + min(REST_S, max(0.0, lease.over_s - now_s) / 4))

    async def _renewed(self, server: Server, lease: Lease) -> Lease | None:
        """The token after its renewal; None when the server is in trouble."""
        path = "auth/token/renew-self"
        answer = await server.ask("POST", path, token=lease.token, body={})
        if answer.status == OK:
            return transit_lease.renewed(lease, answer.json(), self._clock())
        if await server.trouble(answer, path) is not None:
            return None
        return transit_lease.not_renewable(lease)

    # -- a token that a login gives

    async def _of_login(self, server: Server, login: Login) -> Lease:
        lease, now_s = self._lease, self._clock()
        if lease is None or now_s >= lease.over_s:
            self._lease = None
            return await self._login(server, login)
        if now_s < lease.renew_s:
            return lease
        if lease.renewable:
            lease = await self._try_renewal(server, lease)
        return await self._replaced(server, login, lease) if lease.spent else lease

    async def _replaced(self, server: Server, login: Login, lease: Lease) -> Lease:
        """The token of another login; this one, as long as it is good, when that fails."""
        fault: AnchorError
        try:
            async with asyncio.timeout(self._renewal_s):
                return await self._login(server, login)
        except TimeoutError:
            fault = Unreachable(
                f"{server.host} does not answer to a login",
                "it hangs, or the one that it hands logins to is away",
                "look into its log",
            )
        except AnchorError as error:
            fault = error
        now_s = self._clock()
        left_s = lease.over_s - now_s
        seen = f"{fault.seen}; the present token ends in {transit_lease.span(left_s)}"
        self._fault = Notice(seen, fault.means, fault.next_step)
        return replace(lease, renew_s=now_s + min(REST_S, left_s / 4))

    async def _with_other_policies(
        self, server: Server, login: Login, refused: Lease
    ) -> Lease | None:
        """A token of another login, as the role's policies may be others by now.

        Not more often than once a minute: each login leaves a token on the server.
        """
        if self._clock() - refused.since_s < REST_S:
            return None
        try:
            lease = await self._login(server, login)
        except AnchorError:
            return None
        self._lease = lease
        with contextlib.suppress(AnchorError):
            await server.ask("POST", "auth/token/revoke-self", token=refused.token, body={})
        return lease

    async def _login(self, server: Server, login: Login) -> Lease:
        sent = await self._in_thread(partial(credentials, login))
        if isinstance(login, AppRole):
            self._restraint.check(sent)
        answer = await server.ask("POST", sent.path, body=sent.body)
        lease = transit_lease.given(answer.json(), self._clock()) if answer.status == OK else None
        if lease is not None:
            self._restraint.accepted()
            self._fault = None
            return lease
        if error := await server.trouble(answer, sent.path):
            raise error
        if answer.status not in (400, 403, 404):
            raise server.strange(answer, sent.path)
        error = await refusal(server, login, answer.status)
        if isinstance(error, Refused):
            self._restraint.refused(sent, error)
        raise error

    def _lock(self) -> asyncio.Lock:
        return self._locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())


async def is_good(server: Server, token: str) -> bool:
    """Whether the server knows the token, by what tokens may ask, or by what it may do here."""
    looked = await server.ask("GET", "auth/token/lookup-self", token=token)
    if looked.status == OK:
        return True
    # Answered to a token that may do anything at all in this mount.
    mount = await server.ask("GET", f"sys/internal/ui/mounts/{server.mount}", token=token)
    return mount.status == OK


async def shown_token(server: Server, token: str) -> dict[str, JSON]:
    """What a person may see of a token."""
    answer = await server.ask("GET", "auth/token/lookup-self", token=token)
    if answer.status != OK:
        return {"token_type": "not known: the token may not look itself up"}
    found = member(answer.json(), "data")
    policies = found.get("policies")
    names = policies if isinstance(policies, list) else []
    ends = found.get("expire_time") is not None
    return {
        "token_type": word(found, "type"),
        "token_policies": [word({"name": name}, "name") for name in names[:32]],
        "token_left": transit_lease.span(number(found, "ttl")) if ends else "without end",
        "token_renewable": found.get("renewable") is True,
    }
