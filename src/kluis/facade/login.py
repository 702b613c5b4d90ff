"""What a seal asks of its token: renew it, and look it up.

A valid token is always answered. A stock server that was once renewed and then refused asks again
without a pause, which is why refusals are slowed down elsewhere (app.py).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from kluis.facade.clients import Caller
from kluis.facade.replies import Reply, auth_reply, data_reply

LEASE_S: Final = 768 * 3600
"""What a token that does not expire is said to last: Vault's own default of 768 hours."""


def renew(caller: Caller, token: str, now: datetime) -> Reply:
    """The answer to ``renew-self``."""
    return auth_reply(
        {
            "client_token": token,
            "accessor": "",
            "policies": ["kluis"],
            "token_policies": ["kluis"],
            "metadata": {"client": caller.name},
            "lease_duration": left_s(caller, now),
            "renewable": True,
            "entity_id": "",
            "token_type": "service",
            "orphan": True,
        }
    )


def look_up(caller: Caller, now: datetime) -> Reply:
    """The answer to ``lookup-self``. The token itself is not repeated."""
    return data_reply(
        {
            "display_name": caller.name,
            "policies": ["kluis"],
            "ttl": left_s(caller, now),
            "expire_time": caller.expires(),
            "renewable": True,
            "orphan": True,
            "type": "service",
        }
    )


def left_s(caller: Caller, now: datetime) -> int:
    """Seconds until the token expires; the default lease when it never does."""
    expires = caller.expires()
    if expires is None:
        return LEASE_S
    return max(1, int((datetime.fromisoformat(expires).astimezone(UTC) - now).total_seconds()))
