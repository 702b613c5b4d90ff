"""Where the nodes of a server are now: by a name with several addresses, or by pods."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Final

from kluis.anchors import names
from kluis.errors import AnchorError, ServerUnreachable
from kluis.kubernetes import access
from kluis.kubernetes.client import Kubernetes
from kluis.kubernetes.objects import PODS, Object, leaving, text

TIMEOUT_S: Final = 5.0
"""For a name server; one that answers at all does within this time."""


@dataclass(frozen=True, slots=True)
class Dns:
    """Every address of a name is one node, reached by https at ``port``."""

    host: str
    port: int
    timeout_s: float = TIMEOUT_S

    async def addresses(self) -> Sequence[str]:
        """See Discovery."""
        try:
            async with asyncio.timeout(self.timeout_s):
                found = await names.addresses(self.host, self.port)
        except TimeoutError:
            raise self._unknown(f"no answer came within {self.timeout_s:g} s") from None
        except (OSError, ValueError, AnchorError):  # ValueError: no name can be so
            raise self._unknown("there is no such name, or the name server fails") from None
        return _urls("https", {address for _, address in found}, self.port)

    def _unknown(self, means: str) -> ServerUnreachable:
        return ServerUnreachable(
            f"the addresses of {self.host} can't be found out",
            means,
            "check the name, and the name resolution of this machine",
        )


@dataclass(frozen=True, slots=True)
class Pods:
    """Every running pod of a selector is one node, reached by its own address."""

    kubeconfig: Path | None
    context: str | None
    namespace: str
    selector: str
    port: int
    scheme: str

    async def addresses(self) -> Sequence[str]:
        """See Discovery. A pod counts whether it is ready or not: a sealed one never is."""
        way = await asyncio.to_thread(access.find, self.kubeconfig, self.context)
        async with Kubernetes(way) as api:
            pods, _ = await api.list(PODS.path(self.namespace), label_selector=self.selector)
        return _urls(self.scheme, {text(p, "status", "podIP") for p in pods if _runs(p)}, self.port)


def _runs(pod: Object) -> bool:
    return text(pod, "status", "phase") == "Running" and not leaving(pod)


def _urls(scheme: str, found: Iterable[str], port: int) -> Sequence[str]:
    """Addresses of nodes, in order. What is no address that can be reached from here is not one."""
    hosts = set()
    for address in found:
        try:
            parsed = ip_address(address)
        except ValueError:
            continue
        if not isinstance(parsed, IPv6Address):
            hosts.add(str(parsed))
        elif parsed.scope_id is None:
            hosts.add(f"[{parsed}]")
    return tuple(f"{scheme}://{host}:{port}" for host in sorted(hosts))
