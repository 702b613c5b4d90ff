"""Network addresses as people write them."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit


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
