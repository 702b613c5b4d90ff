"""The policies that a new server gets, as text. Names are checked before they are part of one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from kluis.errors import UsageError

TRANSIT_PERIOD: Final = "720h"
"""How long a seal's token lives without being renewed: longer than a server is usually away."""

ADMIN_TTL: Final = "24h"

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_TAKEN: Final = frozenset({"root", "default"})

_ALL: Final = ("create", "read", "update", "delete", "list", "sudo")
_ADMINISTERED: Final = (
    *("auth", "auth/*", "identity/*", "sys/auth", "sys/auth/*"),
    *("sys/mounts", "sys/mounts/*", "sys/remount", "sys/remount/*"),
    *("sys/policy", "sys/policy/*", "sys/policies/*", "sys/namespaces", "sys/namespaces/*"),
    *("sys/audit", "sys/audit/*", "sys/audit-hash/*", "sys/config/*", "sys/quotas/*"),
    *("sys/leases/*", "sys/plugins/*", "sys/storage/raft/*", "sys/tools/*", "sys/internal/*"),
    *("sys/key-status", "sys/rotate", "sys/rotate/*", "sys/generate-root-token/*"),
    *("sys/capabilities", "sys/capabilities-self", "sys/capabilities-accessor"),
    *("sys/seal", "sys/step-down", "sys/host-info", "sys/ha-status", "sys/metrics"),
)


def checked_name(name: str) -> str:
    """The name itself, if it can be that of a policy or a key. Raises UsageError."""
    if name in _TAKEN or _NAME.fullmatch(name) is None:
        raise UsageError(
            f"{name[:64]!r} can't be the name of a policy or a key",
            "a name has small letters, digits, dots and hyphens; root and default are taken",
            "take another name",
        )
    return name


def administrator() -> str:
    """Administers a server: methods, engines, policies, keys. Not what lies in the engines.

    Who writes policies can grant himself the rest; that is then on record.
    """
    return "\n".join(_rule(path, _ALL) for path in _ADMINISTERED)


def transit_role(key: str) -> str:
    """What a stock server with ``seal "transit"`` needs of one key, and nothing else."""
    return "\n".join(
        [
            _rule(f"transit/encrypt/{key}", ("update",)),
            _rule(f"transit/decrypt/{key}", ("update",)),
            _rule("auth/token/renew-self", ("update",)),
            _rule("auth/token/lookup-self", ("read",)),
        ]
    )


def transit_policy_name(key: str) -> str:
    """The name of a Transit role's policy."""
    return f"seal-{key}"


def _rule(path: str, capabilities: Sequence[str]) -> str:
    listed = ", ".join(f'"{one}"' for one in capabilities)
    return f'path "{path}" {{ capabilities = [{listed}] }}\n'
