"""A test login, before anybody is woken: a server that is unsealed may still let nobody in.

It logs in as the operator does: with a token of a service account, made for the purpose, at the
``kubernetes`` or the ``jwt`` auth method. What the login gave is revoked at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Final

from kluis.errors import KluisError, ServerError, WakeFailed, WrongServer
from kluis.kubernetes.objects import JSON, Resource, text
from kluis.servers.client import ServerClient
from kluis.wake.base import Recovered
from kluis.wake.cluster import Cluster

ACCOUNTS: Final = Resource("", "v1", "serviceaccounts")
TOKEN_S: Final = 600  # the shortest that Kubernetes makes
FIRST_PAUSE_S: Final = 0.5
LAST_PAUSE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Login:
    """A role at ``auth/<mount>/login``, and the service account that may take it.

    ``audience`` is for whom its token is made; None: for the Kubernetes API, as is usual.
    """

    role: str
    namespace: str
    account: str
    mount: str = "kubernetes"
    audience: str | None = None

    async def wait(self, cluster: Cluster, recovery: Recovered, timeout_s: float) -> str:
        """Try until it succeeds; what was done, in words. Raises KluisError."""
        failure: KluisError | None = None
        pause_s = FIRST_PAUSE_S
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        await self._once(cluster, recovery)
                    except WrongServer:
                        raise  # and it got nothing
                    except ServerError as error:
                        failure = error
                    else:
                        return f"the role {self.role} can log in at {recovery.address}"
                    await asyncio.sleep(pause_s)
                    pause_s = min(LAST_PAUSE_S, pause_s * 2)
        except TimeoutError:
            raise self._refused(recovery, failure or cluster.trouble, timeout_s) from None

    async def _once(self, cluster: Cluster, recovery: Recovered) -> None:
        token = await self._token(cluster)
        body = {"role": self.role, "jwt": token}
        async with ServerClient(recovery.address, tls=recovery.server.tls) as server:
            answer = await server.call("POST", f"auth/{self.mount}/login", body)
            given = answer.body.get("auth")
            client_token = given.get("client_token") if isinstance(given, dict) else None
            if isinstance(client_token, str) and client_token:
                with contextlib.suppress(ServerError):  # it ends by itself, too
                    await server.call("POST", "auth/token/revoke-self", token=client_token)

    async def _token(self, cluster: Cluster) -> str:
        spec: dict[str, JSON] = {"expirationSeconds": TOKEN_S}
        if self.audience is not None:
            spec["audiences"] = [self.audience]
        answer = await cluster.create(
            ACCOUNTS.path(self.namespace, self.account, "token"),
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec},
        )
        return text(answer, "status", "token")

    def _refused(
        self, recovery: Recovered, failure: KluisError | None, timeout_s: float
    ) -> WakeFailed:
        said = f": {failure.seen}; {failure.means}" if failure is not None else ""
        return WakeFailed(
            f"the role {self.role} could not log in at {recovery.address} within {timeout_s:g} s",
            f"so the operator could not either, and nothing was woken{said}",
            f"check the role and its bounds: bao read auth/{self.mount}/role/{self.role}",
        )
