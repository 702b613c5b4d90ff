"""The ``transit`` anchor: a key of the Transit engine of OpenBao, of Vault, or of another kluis.

The context is the associated data of what is encrypted. The server sees the secret: whoever runs
it has this anchor's part. What is sealed, see transit_leaf.py; why it may fail, transit_errors.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

from kluis.anchors.base import NETWORK, Anchor
from kluis.anchors.http import Answer
from kluis.anchors.tls import tls_context
from kluis.anchors.transit.api import OK, Server, member
from kluis.anchors.transit.auth import Auth, Token
from kluis.anchors.transit.errors import (
    Use,
    exists,
    forbidden,
    missing,
    other_engine,
    why_no_key,
    why_not,
)
from kluis.anchors.transit.key import NEW_TYPE, NOT_READABLE, KeyFacts, NoFacts, mount_type, unfit
from kluis.anchors.transit.leaf import Leaf, plaintext, secret
from kluis.anchors.transit.lease import Lease
from kluis.anchors.transit.token import Tokens, shown_token
from kluis.errors import Unreachable
from kluis.keyring.strict import JSON, to_base64
from kluis.secret import Secret

_SPARE_S: Final = 2.0
_ENOUGH: Final = frozenset({"update", "root"})


class TransitAnchor(Anchor):
    """Seals with a key that a server keeps, and does not give away."""

    kind = "transit"
    pace = NETWORK

    def __init__(  # noqa: PLR0913 - one for each setting
        self,
        name: str,
        *,
        address: str,
        key: str,
        mount: str,
        namespace: str | None,
        ca: Path | None,
        certificate: Path | None,
        certificate_key: Path | None,
        auth: Auth,
        deadline_s: float = 10.0,
    ) -> None:
        super().__init__(name, deadline_s)
        self._address, self._namespace = address, namespace
        self._mount, self._key = mount, key
        self._files = ca, certificate, certificate_key
        self._tokens = Tokens(auth, self._in_thread, renewal_s=min(_SPARE_S, deadline_s / 4))
        self._logs_in = not isinstance(auth, Token)

    async def _seal(self, secret: Secret, context: bytes) -> Mapping[str, JSON]:
        server = await self._server()
        # First: a missing key would be made on the spot, another engine would store the secret.
        await self._fit_key(server)
        body = {"plaintext": to_base64(secret.reveal()), "associated_data": to_base64(context)}
        answer = await self._use(server, "encrypt", body)
        leaf = Leaf.answered(answer.json())
        if leaf is None:
            raise server.strange(answer, f"{self._mount}/encrypt/{self._key}")
        return leaf.sealed()

    async def _open(self, sealed: Mapping[str, JSON], context: bytes) -> Secret:
        leaf = Leaf.read(sealed)
        server = await self._server()
        body = {"ciphertext": leaf.text(), "associated_data": to_base64(context)}
        try:
            # Some time is spared to ask why: a kluis that is locked holds this question.
            async with asyncio.timeout(max(self.deadline_s - _SPARE_S, self.deadline_s / 2)):
                answer = await self._use(server, "decrypt", body, leaf.version)
        except TimeoutError:
            await server.refuse_unready()
            raise Unreachable(
                f"{server.host} gives no answer to a decrypt",
                "it calls itself well, and yet something behind it hangs",
                "look into its log",
            ) from None
        found = plaintext(answer.json())
        if found is None:
            raise server.strange(answer, f"{self._mount}/decrypt/{self._key}")
        return secret(found)

    async def _knock(self) -> None:
        await (await self._server()).refuse_unready()

    async def _probe(self) -> None:
        server = await self._server()
        await server.refuse_unready()
        use, facts = await self._fit_key(server)
        path = use.path("decrypt")
        allowed = await self._may(server, path)
        if allowed is False:
            raise await forbidden(use, path, "update")
        if allowed is None and facts is None:
            raise await forbidden(use, use.path("keys"), "read")

    async def _outdated(self, sealed: Mapping[str, JSON]) -> str:
        leaf = Leaf.read(sealed)
        _, facts = await self._fit_key(await self._server())
        if facts is None or facts.latest <= leaf.version:
            return ""
        return (
            f"the key {self._mount}/{self._key} was rotated: this leaf has version"
            f" {leaf.version} of it, and the latest is {facts.latest}"
        )

    async def _show(self) -> Mapping[str, JSON]:
        server = await self._server()
        health = await server.health()
        shown: dict[str, JSON] = {
            "address": self._address,
            "namespace": self._namespace or "root",
            "key": f"{self._mount}/{self._key}",
            "server_version": health.version,
            "state": health.state,
        }
        if not (health.active or health.standby):
            return shown
        use, facts = await self._fit_key(server)
        shown |= {"key_type": NOT_READABLE} if facts is None else facts.shown()
        return shown | await shown_token(server, use.token)

    async def _create_key(self) -> str:
        server = await self._server()
        use, facts = await self._known_key(server)
        if facts is not NoFacts.MISSING:
            raise (
                exists(use)
                if isinstance(facts, KeyFacts)
                else await forbidden(use, use.path("keys"), "read")
            )
        if (found := await mount_type(server, use.token)) != "transit":
            raise other_engine(use, found) if found else await missing(use)
        path = use.path("keys")
        answer, use = await self._ask(server, "POST", path, {"type": NEW_TYPE})
        if answer.status not in (OK, 204):
            raise await why_no_key(use, answer)
        return f"made the key {path} ({NEW_TYPE}) of {server.host}"

    # -- the server

    async def _server(self) -> Server:
        """The server as a call sees it; its files are read anew, as somebody may renew them."""
        tls = await self._in_thread(partial(tls_context, *self._files))
        return Server(self._address, self._namespace, self._mount, tls)

    async def _use(
        self, server: Server, operation: str, body: Mapping[str, object], version: int = 0
    ) -> Answer:
        """The answer to ``encrypt`` or ``decrypt``. Raises AnchorError when it is none."""
        path = f"{self._mount}/{operation}/{self._key}"
        answer, use = await self._ask(server, "POST", path, body, version)
        if answer.status != OK:
            raise await why_not(use, operation, answer)
        return answer

    async def _ask(
        self,
        server: Server,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        version: int = 0,
    ) -> tuple[Answer, Use]:
        """An answer, whatever its status: after a 403 another token is tried, if there is one."""
        lease = await self._lease(server)
        answer, fresh = await server.ask(method, path, token=lease.token, body=body), False
        if answer.status == 403:
            other = await self._tokens.other(server, lease, for_policies=True)
            if other is not None:
                lease, fresh = other, self._logs_in
                answer = await server.ask(method, path, token=lease.token, body=body)
        return answer, Use(server, self._key, lease.token, fresh, version)

    async def _lease(self, server: Server) -> Lease:
        lease = await self._tokens.current(server)
        self.notice = self._tokens.notice
        return lease

    # -- the key

    async def _fit_key(self, server: Server) -> tuple[Use, KeyFacts | None]:
        """What is known of the key: None when it may not be read. Raises why it will not do."""
        use, facts = await self._known_key(server)
        if facts is NoFacts.MISSING:
            raise await missing(use)
        if isinstance(facts, KeyFacts):
            if error := unfit(server, self._key, facts):
                raise error
            return use, facts
        found = await mount_type(server, use.token)
        if found not in ("", "transit"):
            raise other_engine(use, found)
        return use, None

    async def _known_key(self, server: Server) -> tuple[Use, KeyFacts | NoFacts]:
        lease = await self._lease(server)
        use = Use(server, self._key, lease.token, fresh=False)
        facts = await use.facts()
        if facts is NoFacts.HIDDEN:
            other = await self._tokens.other(server, lease, for_policies=False)
            if other is not None:
                use = Use(server, self._key, other.token, fresh=self._logs_in)
                facts = await use.facts()
        return use, facts

    # -- the token

    async def _may(self, server: Server, path: str) -> bool | None:
        """Whether the token may update a path; None when nobody says so."""
        lease = await self._lease(server)
        answer = await server.ask(
            "POST", "sys/capabilities-self", token=lease.token, body={"paths": [path]}
        )
        found = member(answer.json(), "data").get(path) if answer.status == OK else None
        return bool(_ENOUGH.intersection(map(str, found))) if isinstance(found, list) else None
