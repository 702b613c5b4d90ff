"""Where the nodes of a server are now: by a name with several addresses, or by pods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Dns:
    """Every address of a name is one node, reached by https at ``port``."""

    host: str
    port: int

    async def addresses(self) -> Sequence[str]:
        """See Discovery."""
        raise NotImplementedError


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
        """See Discovery."""
        raise NotImplementedError
