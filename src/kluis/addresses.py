"""Network addresses as people write them."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NamedTuple
from urllib.parse import urlsplit

LOOPBACK: Final = "localhost"
_PORTS: Final = {"http": 80, "https": 443}


class Endpoint(NamedTuple):
    """Where something is reached; equal for all the ways in which people write the same."""

    host: str
    port: int
    path: str = ""


def split_address(listen: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[v6]:port``. Raises ValueError."""
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]\s]+)):([0-9]{1,5})", listen)
    if match is None or int(match[3]) > 65_535:
        raise ValueError(f"{listen!r} is not host:port, like 127.0.0.1:8300 or [::1]:8300")
    return match[1] or match[2], int(match[3])


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_of(url: str) -> str:
    """The host in a URL; empty when there is none."""
    return urlsplit(url).hostname or ""


def is_plain_loopback(url: str) -> bool:
    """Whether a URL is plain http that does not leave this machine."""
    return url.startswith("http://") and is_loopback(host_of(url))


def endpoint(url: str) -> Endpoint:
    """Where a URL leads: without what makes no difference. Names are not resolved.

    Every address of loopback is the same; so is a path with and without ``/v1`` and a slash at its
    end. Raises ValueError.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        raise ValueError("its host or its port can't be") from None
    host = canonical_host(parts.hostname or "")
    if not host:
        raise ValueError("it has no host")
    path = re.sub("/+", "/", parts.path).strip("/")
    return Endpoint(host, port, re.sub("(^|/)v1$", "", path))


def canonical_host(host: str) -> str:
    """A host in one form: names in small letters, addresses compressed, loopback by its name."""
    name = host.lower().rstrip(".")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name
    mapped = getattr(address, "ipv4_mapped", None) or address
    return LOOPBACK if mapped.is_loopback else str(mapped)


def is_wildcard(host: str) -> bool:
    """Whether listening there is listening on every address of the machine."""
    return canonical_host(host) in ("0.0.0.0", "::")  # noqa: S104 - it is only compared
