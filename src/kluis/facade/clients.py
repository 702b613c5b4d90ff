"""Who asks: a client is its token, and if so set also its certificate and its network.

Tokens are looked up by their SHA-256; a token has 256 random bits, so the time of a look-up
tells nothing of use. While a keyring is locked its directory is not proven yet: it then decides
only who may wait. What is released is decided by the directory of the open keyring.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from kluis.engine.guard import Guard
from kluis.facade.replies import Refusal
from kluis.keyring.document import Client, Document
from kluis.keyring.tokens import TOKEN_CHARS, digest

PRIVATE_CLIENT: Final = "kluis-run"
"""The server that ``kluis run`` starts, which no configuration names."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a connection."""

    address: str
    certificate_names: frozenset[str] = frozenset()

    def block(self) -> str:
        """What one stranger has to himself: an IPv4 address, or the /64 of an IPv6 address."""
        if ":" not in self.address:
            return self.address
        return str(ipaddress.ip_network((self.address.partition("%")[0], 64), strict=False))


@dataclass(frozen=True, slots=True)
class Grant:
    """What one keyring grants a client, and on which conditions."""

    keys: frozenset[str]
    certificate_san: str | None
    networks: tuple[Network, ...]
    expires: str | None

    def refuses(self, peer: Peer, now_s: float) -> str:
        """Why this peer may not use the grant; empty when it may. ``now_s`` is Unix time."""
        if self.expires is not None and datetime.fromisoformat(self.expires).timestamp() <= now_s:
            return "the token expired"
        if self.certificate_san is not None and self.certificate_san not in peer.certificate_names:
            return "the certificate does not fit"
        if self.networks and not _within(peer.address, self.networks):
            return "the network does not fit"
        return ""


@dataclass(frozen=True, slots=True)
class Caller:
    """A client that proved its token, with its grants by keyring."""

    name: str
    grants: Mapping[str, Grant]

    def expires(self) -> str | None:
        """When the token expires (RFC 3339, UTC), if ever."""
        return min((g.expires for g in self.grants.values() if g.expires), default=None)


class Directory:
    """The clients of all guarded keyrings. Follows the documents as they change."""

    def __init__(self, guards: Mapping[str, Guard], private: Mapping[str, Caller]) -> None:
        """``private`` are callers of this process alone, by the digest of their token."""
        self._guards = guards
        self._private = private
        self._stamp: list[tuple[Document, bool]] = []
        self._callers: dict[str, Caller] = dict(private)

    def authenticate(self, token: bytes, peer: Peer, now_s: float) -> Caller:
        """The caller with the grants that hold for this peer. Raises Refusal."""
        caller = self._lookup(token)
        reasons = [grant.refuses(peer, now_s) for grant in caller.grants.values()]
        if not any(reasons):
            return caller
        granted = zip(caller.grants.items(), reasons, strict=True)
        held = {name: grant for (name, grant), reason in granted if not reason}
        if not held:
            raise denied(f"{caller.name}: {reasons[0]}")
        return replace(caller, grants=held)

    def _lookup(self, token: bytes) -> Caller:
        self._refresh()
        caller = self._callers.get(digest(token)) if len(token) == TOKEN_CHARS else None
        if caller is None:
            raise denied("no token" if not token else "the token is unknown or was revoked")
        return caller

    def _refresh(self) -> None:
        stamp = [(guard.document, guard.is_open) for guard in self._guards.values()]
        if stamp == self._stamp:  # one look for each that is the very same object
            return
        self._stamp = stamp
        self._callers = dict(self._private)
        # Proven ones first: no unproven document may give a client of theirs another name.
        for document, _ in sorted(self._stamp, key=lambda known: not known[1]):
            for name, client in document.clients.items():
                self._admit(document.name, name, client)

    def _admit(self, keyring: str, name: str, client: Client) -> None:
        for token in client.tokens:
            grant = Grant(
                frozenset(client.keys),
                client.certificate_san,
                tuple(ipaddress.ip_network(network) for network in client.networks),
                token.expires,
            )
            known = self._callers.get(token.sha256)
            if known is not None and known.name != name:
                continue  # one token for two names: the first word stands
            grants = dict(known.grants) if known else {}
            self._callers[token.sha256] = Caller(name, {**grants, keyring: grant})


def denied(reason: str) -> Refusal:
    """The one answer to everybody who may not; the audit log knows the reason."""
    return Refusal(403, ("permission denied",), reason)


def _within(address: str, networks: Sequence[Network]) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return any((mapped or found) in network for network in networks)
