"""The token in what a server gives, and names that become part of a policy."""

from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kluis.errors import ServerError, UsageError, WrongServer
from kluis.keyring.custody import Shares
from kluis.servers.ceremony import policies, roots

PRINTABLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=64)
PADS = st.text(st.characters(min_codepoint=0x30, max_codepoint=0x7A), min_size=64, max_size=64)


@given(PRINTABLE, PADS)
def test_a_token_comes_out_as_it_went_in(token: str, pad: str) -> None:
    otp = pad[: len(token)]
    masked = bytes(a ^ b for a, b in zip(token.encode(), otp.encode(), strict=True))
    encoded = base64.b64encode(masked).decode().rstrip("=")  # as servers have it: without padding
    assert roots.decode(encoded, otp) == token


@given(st.text(max_size=80), st.text(max_size=80))
def test_whatever_a_server_says_is_a_token_or_an_error(encoded: str, otp: str) -> None:
    with contextlib.suppress(ServerError):
        token = roots.decode(encoded, otp)
        assert token.isascii()
        assert token.isprintable()


@pytest.mark.parametrize("required", [-1, 0, 1, 3])
def test_no_share_is_shown_to_a_server_that_wants_others(required: int) -> None:
    with pytest.raises(WrongServer):
        roots.refuse_other_threshold(required, Shares(2, (b"a", b"b", b"c")))


@pytest.mark.parametrize(
    "name", ["", "root", "default", "Web", "a/b", 'a" {', "a\nb", "-a", "a-", "*", "+", "x" * 65]
)
def test_a_name_that_would_say_more_than_a_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        policies.checked_name(name)


def test_a_transit_role_names_its_paths_exactly() -> None:
    assert policies.checked_name("web.1") == "web.1"
    text = policies.transit_role("web")
    assert "*" not in text
    assert text.count("path ") == 4
    assert "sudo" not in text
