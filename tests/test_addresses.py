"""Addresses that people write in different ways and that lead to the same place."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kluis.addresses import canonical_host, endpoint, is_wildcard


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://bao.example", "https://bao.example:443/"),
        ("http://bao.example", "http://bao.example:80"),
        ("https://BAO.Example.:8200", "https://bao.example:8200/v1/"),
        ("https://bao.example:8200", "http://bao.example:8200"),
        ("http://localhost:8200", "http://127.0.0.1:8200/"),
        ("http://localhost:8200", "http://[::1]:8200"),
        ("http://127.0.0.1:8200", "http://127.3.2.1:8200"),
        ("http://127.0.0.1:8200", "http://[::ffff:127.0.0.1]:8200"),
        ("https://[2001:db8:0:0::1]:8200", "https://[2001:DB8::1]:8200"),
        ("https://proxy/bao", "https://proxy/bao//v1/"),
    ],
)
def test_the_same_place_written_in_two_ways_is_the_same(one: str, other: str) -> None:
    assert endpoint(one) == endpoint(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://bao.example", "http://bao.example"),
        ("https://bao.example:8200", "https://bao.example:8300"),
        ("https://bao.example", "https://bao2.example"),
        ("https://proxy/bao", "https://proxy/bao2"),
        ("https://proxy/av1", "https://proxy/a"),
        ("http://0.0.0.0:8200", "http://127.0.0.1:8200"),
    ],
)
def test_different_places_are_different(one: str, other: str) -> None:
    assert endpoint(one) != endpoint(other)


@pytest.mark.parametrize(
    "url", ["", "bao", "https://", "https://:8200", "https://a:99999", "https://[::1", "ftp://a"]
)
def test_what_leads_nowhere_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="it"):
        endpoint(url)


@given(st.text(max_size=40))
def test_any_text_is_an_endpoint_or_a_value_error(text: str) -> None:
    for url in (text, f"https://{text}"):
        with contextlib.suppress(ValueError):
            assert endpoint(url).host


def test_a_wildcard_is_every_address_of_a_machine() -> None:
    assert all(map(is_wildcard, ("0.0.0.0", "::", "0:0::0")))
    assert not any(map(is_wildcard, ("127.0.0.1", "bao.example", "10.0.0.0")))
    assert canonical_host("10.0.0.1") == "10.0.0.1"
