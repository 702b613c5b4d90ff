"""How long a token lives, by what the server said of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from math import inf, isnan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kluis.anchors.transit.lease import (
    DAY_S,
    Lease,
    met,
    not_renewable,
    notice,
    renewed,
    span,
)
from kluis.anchors.transit.lease import (
    given as given_by,
)

HOUR = 3600
NOW = 1_000_000.0
CREATED = datetime(2026, 11, 1, tzinfo=UTC)


def said(ttl: int, age: int = 0, **more: object) -> Mapping[str, object]:
    """What ``lookup-self`` says of a token so many seconds after its creation."""
    expires = CREATED + timedelta(seconds=age + ttl)
    return {
        "ttl": ttl,
        "creation_time": int(CREATED.timestamp()),
        "creation_ttl": ttl,
        "expire_time": expires.strftime("%Y-%m-%dT%H:%M:%S.123456789Z"),
        "explicit_max_ttl": 0,
        "renewable": True,
        "num_uses": 0,
        **more,
    }


def auth(lease: int, renewable: bool = True) -> Mapping[str, object]:
    return {"auth": {"lease_duration": lease, "renewable": renewable, "client_token": "s.x"}}


def test_a_root_token_never_ends() -> None:
    lease = met("t", {"ttl": 0, "expire_time": None}, NOW)
    assert (lease.renew_s, lease.over_s, lease.end_s) == (inf, inf, inf)
    assert notice(lease, NOW, kept_fresh=False) is None


def test_renewal_is_due_when_less_than_half_is_left() -> None:
    assert met("t", said(HOUR), NOW).renew_s == NOW + HOUR / 2
    assert met("t", said(HOUR // 4, creation_ttl=HOUR), NOW).renew_s < NOW
    lease = renewed(met("t", said(HOUR), NOW), auth(HOUR), NOW + 2000)
    assert (lease.renew_s, lease.over_s) == (NOW + 2000 + HOUR / 2, NOW + 2000 + HOUR)
    assert not lease.spent


def test_a_renewal_that_brings_less_is_the_end() -> None:
    lease = renewed(met("t", said(HOUR), NOW), auth(HOUR // 2), NOW)
    assert lease.spent
    assert (lease.renew_s, lease.end_s) == (inf, NOW + HOUR / 2)
    assert not_renewable(met("t", said(HOUR), NOW)).end_s == NOW + HOUR


def test_an_explicit_end_counts_from_creation_by_the_servers_clock() -> None:
    lease = met("t", said(HOUR, age=10 * HOUR, explicit_max_ttl=30 * HOUR), NOW)
    assert lease.end_s == pytest.approx(NOW + 20 * HOUR, abs=2)


def test_an_end_is_announced_14_days_or_a_quarter_of_its_life_before() -> None:
    for life_days, left_days, announced in (
        (30, 15, False),
        (30, 13, True),
        (400, 101, False),
        (400, 99, True),
        (1, 1, True),
    ):
        life_s, left_s = life_days * DAY_S, left_days * DAY_S
        lease = Lease("t", NOW, over_s=NOW + left_s, end_s=NOW + left_s, life_s=life_s)
        assert (notice(lease, NOW, kept_fresh=False) is not None) is announced, life_days
    day = Lease("t", NOW, over_s=NOW + DAY_S, end_s=NOW + DAY_S, life_s=DAY_S)
    assert notice(day, NOW, kept_fresh=True) is None
    assert notice(day, NOW + 0.8 * DAY_S, kept_fresh=True) is not None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 seconds"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (2 * 3600 - 1, "119 minutes"),
        (2 * 3600, "2 hours"),
        (13.9 * DAY_S, "13 days"),
    ],
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert span(seconds) == words


ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
MEMBERS = st.dictionaries(st.sampled_from([*sorted(said(1)), "period"]), ANYTHING)


@given(MEMBERS, st.dictionaries(st.sampled_from(["lease_duration", "renewable"]), ANYTHING))
def test_whatever_a_server_says_of_a_token_there_is_a_time_for_it(
    looked: Mapping[str, object], granted: Mapping[str, object]
) -> None:
    lease = met("t", looked, NOW)
    for one in (lease, renewed(lease, {"auth": granted}, NOW), not_renewable(lease)):
        assert not any(map(isnan, (one.renew_s, one.over_s, one.end_s, one.life_s)))
        assert one.over_s >= NOW
        notice(one, NOW, kept_fresh=False)


@given(st.dictionaries(st.sampled_from(["client_token", "lease_duration"]), ANYTHING))
def test_a_login_gives_a_token_that_fits_a_header_or_none(granted: Mapping[str, object]) -> None:
    lease = given_by({"auth": granted}, NOW)
    assert lease is None or lease.token.isascii()
    assert lease is None or lease.token.isprintable()


def test_no_repr_shows_the_token() -> None:
    assert "s.hidden" not in repr(met("s.hidden", said(HOUR), NOW))
