"""Configurations for tests of what follows from them: rules, transit anchors, who serves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from kluis.service.explain.supplies import Home
from kluis.settings.root import Configuration

STORE: Final = {"kind": "directory", "path": "state"}


def people(threshold: int, shares: int, **more: str) -> dict[str, object]:
    """People with paper."""
    return {"kind": "people", "threshold": threshold, "shares": shares, **more}


def static(**more: str) -> dict[str, object]:
    """A key in a file."""
    return {"kind": "static", "file": "key", **more}


def transit(address: str, mount: str = "transit", **more: str) -> dict[str, object]:
    """A key of a Transit engine."""
    auth = {"kind": "token", "file": "token"}
    return {"kind": "transit", "address": address, "key": "k", "mount": mount, "auth": auth, **more}


def settings(
    rules: Mapping[str, str],
    anchors: Mapping[str, object],
    clients: Mapping[str, tuple[Sequence[str], object]] | None = None,
    facade: Mapping[str, object] | None = None,
    keys: Mapping[str, object] | None = None,
    servers: Mapping[str, object] | None = None,
) -> Configuration:
    """A configuration; ``clients`` are keyrings and address, by name."""
    text: dict[str, Any] = {
        "anchors": anchors,
        "keyrings": {
            name: {"store": STORE, "opens": rule, "keys": keys or {"seal": {"kind": "transit"}}}
            for name, rule in rules.items()
        },
        "clients": {
            name: {"keys": [f"{keyring}/seal" for keyring in keyrings], "address": address}
            for name, (keyrings, address) in (clients or {}).items()
        },
        "servers": servers or {},
    }
    if facade is not None:
        text["facade"] = {"tls": "off", **facade}
    return Configuration.model_validate(text)


def home(name: str = "", **parts: Any) -> Home:
    """An installation."""
    return Home(name, settings(**parts))
