"""How long a token lives, by what the server said of it; nothing here asks anything.

Times are seconds of the monotonic clock: ``renew_s`` when half of its time is over, ``over_s``
when it expires unless it is renewed, ``end_s`` when it expires whatever is done, where that is
known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from math import inf
from typing import Final

from kluis.anchors.base import Notice
from kluis.anchors.transit.api import member, number

DAY_S: Final = 86_400.0
NOTICE_S: Final = 14 * DAY_S
LONG_S: Final = 28 * DAY_S
"""A token of no less is first renewed with 14 days left, which shows whether renewal ends."""
SHORT_S: Final = 300.0
_IN_FULL: Final = 0.9  # of what it was at first: a renewal that brings less has come to its end
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,4096}")


@dataclass(frozen=True, slots=True)
class Lease:
    """A token and its times. ``whole_s`` is what renewal brings it back to."""

    token: str = field(repr=False)
    since_s: float
    whole_s: float = inf
    renew_s: float = inf
    over_s: float = inf
    end_s: float = inf
    life_s: float = inf
    renewable: bool = False
    periodic: bool = True
    uses: int = 0

    @property
    def spent(self) -> bool:
        """Whether renewal brings nothing any more."""
        return not self.renewable or self.end_s <= self.over_s


def met(token: str, said: Mapping[str, object], now_s: float) -> Lease:
    """A token by what ``lookup-self`` says of it."""
    uses = number(said, "num_uses")
    if said.get("expire_time") is None:
        return Lease(token, now_s, uses=uses)
    ttl_s, period_s = number(said, "ttl"), number(said, "period")
    created_s = number(said, "creation_ttl")
    whole_s = float(period_s or created_s or ttl_s)
    renewable = said.get("renewable") is True
    over_s = now_s + ttl_s
    end_s, life_s = inf, inf
    if not renewable or not created_s:  # kluis says nothing of creation: its tokens' ends are set
        end_s, life_s = over_s, float(created_s or ttl_s)
    elif most_s := number(said, "explicit_max_ttl"):
        end_s, life_s = now_s + most_s - _age_s(said), float(most_s)
    return Lease(
        token,
        now_s,
        whole_s=whole_s,
        renew_s=over_s - whole_s / 2 if renewable else inf,
        over_s=over_s,
        end_s=end_s,
        life_s=life_s,
        renewable=renewable,
        periodic=period_s > 0,
        uses=uses,
    )


def given(answer: Mapping[str, object], now_s: float) -> Lease | None:
    """The token that a login gave; None when there is none in the answer.

    Also one that can't be renewed is due at half of its time: for another login.
    """
    auth = member(answer, "auth")
    token, lease_s = auth.get("client_token"), float(number(auth, "lease_duration") or inf)
    if not isinstance(token, str) or _TOKEN.fullmatch(token) is None:
        return None
    return Lease(
        token,
        now_s,
        whole_s=lease_s,
        renew_s=now_s + lease_s / 2,
        over_s=now_s + lease_s,
        renewable=auth.get("renewable") is True,
    )


def renewed(lease: Lease, answer: Mapping[str, object], now_s: float) -> Lease:
    """The same token after a renewal; ``spent`` when it brought less than the whole."""
    auth = member(answer, "auth")
    lease_s = float(number(auth, "lease_duration"))
    over_s = now_s + lease_s
    in_full = lease_s >= _IN_FULL * lease.whole_s and auth.get("renewable") is True
    return replace(
        lease,
        renew_s=over_s - lease.whole_s / 2 if in_full else inf,
        over_s=over_s,
        end_s=lease.end_s if in_full else min(lease.end_s, over_s),
        life_s=lease.life_s if in_full else min(lease.life_s, now_s - lease.since_s + lease_s),
    )


def not_renewable(lease: Lease) -> Lease:
    """The same token, when it turned out that it can't be renewed."""
    return replace(
        lease,
        renew_s=inf,
        end_s=min(lease.end_s, lease.over_s),
        life_s=min(lease.life_s, lease.whole_s),
        renewable=False,
    )


def notice(lease: Lease, now_s: float, *, kept_fresh: bool) -> Notice | None:
    """What a person should know of a token that they put somewhere.

    ``kept_fresh``: another program puts new ones there, so only a late one is worth a word.
    """
    left_s = lease.end_s - now_s
    soon_s = lease.life_s / 4 if kept_fresh else max(NOTICE_S, lease.life_s / 4)
    if left_s <= soon_s and left_s < inf:
        return Notice(
            f"its token ends in {span(left_s)}",
            "it can't be renewed beyond that",
            "put a new one in its place; one with a period does not end (docs/ANCHORS.md)",
        )
    if lease.uses:
        return Notice(
            f"its token is good for {lease.uses} more uses",
            "every call takes one or more",
            "put one without a limit of uses in its place",
        )
    if kept_fresh or lease.over_s == inf:
        return None
    if not lease.periodic and lease.end_s == inf and lease.whole_s < LONG_S:
        return Notice(
            "its token has no period, so it will end although it is renewed",
            "a server renews such a token up to its longest lease, 32 days unless set otherwise",
            "put one with a period in its place: bao token create -orphan -period=…",
        )
    if lease.whole_s < SHORT_S:
        return Notice(
            f"its token expires {span(lease.whole_s)} after a renewal",
            "kluis renews about once a minute, and not at all while it is stopped",
            "put one with a longer period in its place",
        )
    return None


def span(seconds: float) -> str:
    """A time in words, rounded down, in the unit that fits."""
    for unit_s, name in ((DAY_S, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * unit_s:
            return f"{int(seconds // unit_s)} {name}"
    return f"{max(0, int(seconds))} seconds"


def _age_s(said: Mapping[str, object]) -> float:
    """How long ago the token was created, by the server's own clock."""
    ttl_s, expires = number(said, "ttl"), said.get("expire_time")
    try:
        now = datetime.fromisoformat(expires).timestamp() - ttl_s if isinstance(expires, str) else 0
    except (ValueError, OverflowError):
        now = 0.0
    return max(0.0, now - number(said, "creation_time"))
