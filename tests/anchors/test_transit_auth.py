"""How a transit anchor proves who it is: real logins, real expiry, real revocation."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from kluis.anchors.sources import FileSource, Source
from kluis.anchors.transit.anchor import TransitAnchor
from kluis.anchors.transit.auth import AppRole, Auth, Certificate, Jwt, Token, read_text
from kluis.errors import AnchorError, Misconfigured, Missing, Refused, Unreachable
from kluis.keyring.strict import JSON
from kluis.secret import Secret
from tests.anchors.conftest import Counterparts
from tests.support.bao import wait_until
from tests.support.transit import Hangs, Relay, Room, Says, transit_server

CONTEXT = b"kluis/1|00000000-0000-4000-8000-000000000000|1|/|transit"
LOGIN = "auth/approle/login"
RENEW = "auth/token/renew-self"


@pytest.fixture
def room(counterparts: Counterparts, caplog: pytest.LogCaptureFixture) -> Iterator[Room]:
    caplog.set_level(logging.DEBUG)
    made = counterparts.of(transit_server).room()
    yield made
    assert made.leaked(caplog.text) == []


@pytest.fixture
def relay(room: Room) -> Iterator[Relay]:
    with Relay(room.server.bao.address) as running:
        yield running


def seal(anchor: TransitAnchor) -> Mapping[str, JSON]:
    return asyncio.run(anchor.seal(Secret(bytes(32)), CONTEXT))


def opens(anchor: TransitAnchor, sealed: Mapping[str, JSON]) -> bool:
    return asyncio.run(anchor.open(sealed, CONTEXT)) == Secret(bytes(32))


def later(anchor: TransitAnchor, seconds: float) -> None:
    """Let the anchor believe that it is so much later than now."""
    anchor._tokens._clock = anchor._tokens._restraint._clock = lambda: time.monotonic() + seconds


def token_of(anchor: TransitAnchor) -> str:
    lease = anchor._tokens._lease
    assert lease is not None
    return lease.token


def revoke(room: Room, token: str) -> None:
    room.server.must("POST", "auth/token/revoke", {"token": token})


LOGINS: Mapping[str, Callable[[Room], Auth]] = {
    "token": lambda room: room.by_token(),
    "approle": lambda room: room.by_approle(),
    "jwt": lambda room: room.by_jwt(),
    "kubernetes": lambda room: room.by_kubernetes(),
    "certificate": lambda room: room.by_certificate(),
    "certificate, any role": lambda room: replace(room.by_certificate(), role=None),
}


@pytest.mark.parametrize("login", LOGINS)
def test_every_login_opens(room: Room, login: str) -> None:
    tls = room.server.tls(client=room.client(), strict=True)
    settings = tls if login.startswith("certificate") else {}
    anchor = room.anchor(LOGINS[login](room), **settings)
    assert opens(anchor, seal(anchor))
    asyncio.run(anchor.probe())
    assert anchor.notice is None


# -- a token that somebody put there


def test_a_revoked_token_is_told_from_a_policy_and_a_new_one_is_taken_at_once(room: Room) -> None:
    anchor = room.anchor(room.by_token())
    sealed = seal(anchor)
    revoke(room, token_of(anchor))
    for call in (anchor.open(sealed, CONTEXT), anchor.seal(Secret.random(), CONTEXT)):
        error = room.error(call)
        assert type(error) is Refused
        assert error.seen.endswith(" refuses the token")
    assert type(room.error(anchor.probe())) is Refused
    room.source(room.token(), "token")
    assert opens(anchor, sealed)


def test_a_token_that_is_replaced_while_the_old_one_is_used_is_taken(room: Room) -> None:
    """As by a program that revokes the old one at the very moment."""
    anchor, old, new = room.anchor(room.by_token()), room.by_token(), room.token()
    sealed = seal(anchor)
    read = old.source.read

    class Replaced:
        reads = 0

        def read(self) -> bytes:
            self.reads += 1
            return read() if self.reads == 1 else new.encode()

    room.issued.append(new)
    anchor = room.anchor(Token(cast(Source, Replaced())))
    revoke(room, read().decode().strip())
    assert opens(anchor, sealed)


def test_a_look_up_in_a_server_that_fails_is_to_be_tried_again(room: Room, relay: Relay) -> None:
    anchor = room.anchor(room.by_token(), address=relay.address)
    relay.now["auth/token/lookup-self"] = Says(500)
    assert type(room.error(anchor.probe())) is Unreachable
    relay.now.clear()
    asyncio.run(anchor.probe())


def test_a_token_that_expired_is_refused(room: Room) -> None:
    sealed = seal(room.anchor(room.by_token()))
    anchor = room.anchor(room.by_token(ttl="1s", renewable=False))

    def expired() -> bool:
        try:
            return not opens(anchor, sealed)
        except Refused as error:
            return error.seen.endswith(" refuses the token")

    wait_until(expired, "the token expired", poll_s=0.1)
    room.source(room.token(), "token")
    assert opens(anchor, sealed)


def test_a_periodic_token_is_renewed_at_half_of_its_time_and_never_ends(
    room: Room, relay: Relay
) -> None:
    anchor = room.anchor(room.by_token(period="60s"), address=relay.address)
    sealed = seal(anchor)
    for renewals in range(1, 5):
        later(anchor, 32 * renewals)
        assert opens(anchor, sealed)
        assert opens(anchor, sealed)
        assert relay.count(RENEW) == renewals
    assert anchor.notice is not None
    assert anchor.notice.seen == "its token expires 60 seconds after a renewal"


def test_a_token_that_another_program_renews_lives_on(room: Room, relay: Relay) -> None:
    """It may not renew itself; so its new time is asked when the old one is over."""
    room.allow(also=f'path "{RENEW}" {{ capabilities = ["deny"] }}')
    anchor = room.anchor(room.by_token(period="10m"), address=relay.address)
    sealed = seal(anchor)
    later(anchor, 400)
    assert opens(anchor, sealed)
    assert anchor.notice is not None
    assert anchor.notice.seen.startswith("its token ends in")
    room.server.must("POST", "auth/token/renew", {"token": token_of(anchor)})
    later(anchor, 1000)
    assert opens(anchor, sealed)


def test_an_end_that_is_known_is_announced_long_before(room: Room) -> None:
    for options, words in (
        ({"ttl": "1h", "renewable": False}, "its token ends in 59 minutes"),
        ({"ttl": "1h", "type": "batch"}, "its token ends in 59 minutes"),
        ({"ttl": "1h", "explicit_max_ttl": "240h"}, "its token ends in 9 days"),
        ({"ttl": "1h"}, "its token has no period, so it will end although it is renewed"),
        ({"period": "1h", "num_uses": 50}, "its token is good for 49 more uses"),
    ):
        anchor = room.anchor(room.by_token(**options))
        asyncio.run(anchor.probe())
        assert anchor.notice is not None, options
        assert anchor.notice.seen == words
    for options in ({"ttl": "768h"}, {"ttl": "1h", "explicit_max_ttl": "8000h"}, {"period": "1h"}):
        anchor = room.anchor(room.by_token(**options))
        asyncio.run(anchor.probe())
        assert anchor.notice is None, options


def test_a_token_that_a_program_keeps_fresh_is_no_cause_for_words(room: Room) -> None:
    anchor = room.anchor(room.by_token(ttl="1h", renewable=False))
    sealed = seal(anchor)
    assert anchor.notice is not None
    for _ in range(2):
        room.source(room.token(ttl="1h", renewable=False), "token")
        assert opens(anchor, sealed)
        assert anchor.notice is None


@pytest.mark.parametrize("text", [b"", b"\n", b"two words", b"caf\xc3\xa9", b"a\nb", b"\x00"])
def test_what_is_no_credential_is_neither_sent_nor_shown(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_bytes(text)
    with pytest.raises(Misconfigured) as caught:
        read_text(FileSource(path))
    assert "two" not in caught.value.seen


# -- logins


def test_a_revoked_login_token_is_replaced_without_a_word(room: Room, relay: Relay) -> None:
    anchor = room.anchor(room.by_approle(), address=relay.address)
    sealed = seal(anchor)
    for _ in range(2):
        revoke(room, token_of(anchor))
        assert opens(anchor, sealed)
    assert relay.count(LOGIN) == 3
    assert anchor.notice is None


@pytest.mark.parametrize("kind", ["service", "batch"])
def test_short_tokens_are_renewed_or_replaced_while_they_are_good(
    room: Room, relay: Relay, kind: str
) -> None:
    auth = room.by_approle(token_ttl="60s", token_type=kind)
    anchor = room.anchor(auth, address=relay.address)
    sealed = seal(anchor)
    relay.asked.clear()
    for times in (1, 2):
        later(anchor, 32 * times)
        assert opens(anchor, sealed)
        assert relay.count(RENEW if kind == "service" else LOGIN) == times
    if kind == "service":  # whose longest life is over
        lives = {"token_ttl": "20s", "token_max_ttl": "20s"}
        room.server.must("POST", f"auth/approle/role/{room.key}", lives)
        later(anchor, 96)
        assert opens(anchor, sealed)
        assert (relay.count(RENEW), relay.count(LOGIN)) == (3, 1)
    assert relay.count("auth/token/lookup-self") == 0, "no token was ever refused"


def test_many_calls_at_once_log_in_once(room: Room, relay: Relay) -> None:
    anchor = room.anchor(room.by_approle(), address=relay.address)

    async def at_once() -> None:
        secrets = [Secret.random() for _ in range(12)]
        leaves = await asyncio.gather(*(anchor.seal(secret, CONTEXT) for secret in secrets))
        opened = await asyncio.gather(*(anchor.open(leaf, CONTEXT) for leaf in leaves))
        assert opened == secrets

    asyncio.run(at_once())
    assert relay.count(LOGIN) == 1
    revoke(room, token_of(anchor))
    asyncio.run(at_once())  # another event loop
    assert relay.count(LOGIN) == 2


def test_a_renewal_that_hangs_holds_up_nobody(room: Room, relay: Relay) -> None:
    anchor = room.anchor(room.by_approle(token_ttl="10m"), address=relay.address)
    sealed = seal(anchor)
    relay.now[RENEW] = Hangs()
    later(anchor, 400)
    assert opens(anchor, sealed)
    assert opens(anchor, sealed)
    assert relay.count(RENEW) == 1, "and it is not tried at every call"


def test_a_login_that_fails_while_the_token_is_good_is_only_announced(
    room: Room, relay: Relay
) -> None:
    auth = room.by_approle({"num_uses": 1}, token_ttl="10m", token_type="batch")
    anchor = room.anchor(auth, address=relay.address)
    sealed = seal(anchor)
    later(anchor, 400)
    for _ in range(2):
        assert opens(anchor, sealed)
        assert anchor.notice is not None
        assert "refuses the login at auth/approle/login (400); the present token ends in" in (
            anchor.notice.seen
        )
    room.source(room.secret_id(), "secret-id")
    later(anchor, 500)
    assert opens(anchor, sealed)
    assert anchor.notice is None


def test_a_login_that_hangs_holds_up_nobody_whose_token_is_good(room: Room, relay: Relay) -> None:
    auth = room.by_approle(token_ttl="10m", token_type="batch")
    anchor = room.anchor(auth, address=relay.address)
    sealed = seal(anchor)
    anchor._tokens._renewal_s = 0.2
    relay.now[LOGIN] = Hangs()
    later(anchor, 400)
    assert opens(anchor, sealed)
    assert anchor.notice is not None
    assert "does not answer to a login; the present token ends in" in anchor.notice.seen


def test_a_role_that_was_given_more_is_noticed_within_a_minute(room: Room, relay: Relay) -> None:
    anchor = room.anchor(room.by_approle(token_policies=["default"]), address=relay.address)
    for _ in range(2):
        error = room.error(anchor.open(A_LEAF, CONTEXT))
        assert type(error) is Refused
        assert "denies update on transit/decrypt/" in error.seen
    assert relay.count(LOGIN) == 1, "no login for every refusal"
    path = f"auth/approle/role/{room.key}"
    room.server.must("POST", path, {"token_policies": [room.key]})
    old = token_of(anchor)
    later(anchor, 61)
    assert opens(anchor, seal(anchor))
    root = room.server.root
    lookup = room.server.bao.request("POST", "auth/token/lookup", {"token": old}, root)
    assert lookup.status in (403, 404), "the old token was not left behind"


A_LEAF: Mapping[str, JSON] = {"ciphertext": "A" * 80, "version": 1}


def test_a_secret_id_that_is_used_up_is_refused_by_status(room: Room) -> None:
    anchor = room.anchor(room.by_approle({"num_uses": 1}))
    sealed = seal(anchor)
    revoke(room, token_of(anchor))
    error = room.error(anchor.open(sealed, CONTEXT))
    assert type(error) is Refused
    assert error.seen.endswith("refuses the login at auth/approle/login (400)")
    room.source(room.secret_id(), "secret-id")
    assert opens(anchor, sealed)


def test_wrong_secret_ids_do_not_lock_the_role(room: Room, relay: Relay) -> None:
    """A server locks a role after 5 wrong ones in 15 minutes: even a right one is refused then."""
    auth = room.by_approle()
    right = auth.source.read().decode().strip()
    room.source("00000000-0000-4000-8000-000000000000", "secret-id")
    anchor = room.anchor(auth, address=relay.address)
    for second in range(0, 900, 5):  # at the pace of a locked keyring
        later(anchor, second)
        error = room.error(anchor.open(A_LEAF, CONTEXT))
        assert type(error) is Refused
        assert error.seen.endswith("refuses the login at auth/approle/login (400)")
    assert "the same is sent again in" in error.next_step
    assert relay.count(LOGIN) - relay.gets.count(LOGIN) == 4
    room.source(right, "secret-id")
    assert opens(anchor, seal(anchor))


def test_a_jwt_that_the_server_does_not_take_is_refused(room: Room) -> None:
    server, subject = room.server, {"sub": room.key}
    auth = room.by_jwt()
    good = auth.source.read().decode().strip()
    for jwt, role in (
        (server.jwt(subject, lives_s=-900), room.key),
        (server.jwt({**subject, "aud": "somebody else"}), room.key),
        (good[:-8] + "AAAAAAAA", room.key),
        (good, "no-such-role"),
    ):
        room.source(jwt, "jwt")
        error = room.error(room.anchor(replace(auth, role=role)).probe())
        assert type(error) is Refused
        assert error.seen.endswith("refuses the login at auth/jwt/login (400)")
    room.source(good, "jwt")
    asyncio.run(room.anchor(auth).probe())


def test_kubernetes_projects_its_token_for_others_to_read_but_not_to_write(room: Room) -> None:
    auth = room.by_kubernetes()
    assert isinstance(auth.source, FileSource)
    assert auth.source.path.stat().st_mode & 0o777 == 0o644
    asyncio.run(room.anchor(auth).probe())
    auth.source.path.chmod(0o666)
    error = room.error(room.anchor(auth).probe())
    assert type(error) is Refused
    assert error.seen.startswith("others can write to")
    strict = replace(auth.source, shared=False)
    auth.source.path.chmod(0o644)
    assert type(room.error(room.anchor(replace(auth, source=strict)).probe())) is Refused


def test_a_kubernetes_that_is_away_is_a_refusal_that_ends_by_itself(room: Room) -> None:
    anchor = room.anchor(room.by_kubernetes())
    room.server.kubernetes.down = True
    try:
        error = room.error(anchor.probe())
        assert type(error) is Refused
        assert "the server can't ask who signed it" in error.means
    finally:
        room.server.kubernetes.down = False
    asyncio.run(anchor.probe())


def test_a_certificate_that_no_role_takes_is_refused(room: Room) -> None:
    auth, files = room.by_certificate(), room.server.tls_files
    for client in (files.stranger, files.authority.issue("another-name"), None):
        error = room.error(room.anchor(auth, **room.server.tls(client=client)).probe())
        assert type(error) is Refused
        assert error.seen.endswith("refuses the login at auth/cert/login (400)")


@pytest.mark.parametrize("kind", ["approle", "jwt", "cert"])
def test_a_login_that_is_not_mounted_is_a_misconfiguration(room: Room, kind: str) -> None:
    auths: Mapping[str, Auth] = {
        "approle": AppRole("role", room.source("a-secret-id", "secret-id"), "nowhere"),
        "jwt": Jwt("role", room.source("a.b.c", "jwt"), "nowhere"),
        "cert": Certificate("role", "nowhere"),
    }
    error = room.error(room.anchor(auths[kind]).probe())
    assert type(error) is Misconfigured
    assert error.seen.endswith("has no login at auth/nowhere/login")


def test_a_role_that_is_locked_is_not_taken_for_a_missing_login(room: Room) -> None:
    auth = room.by_approle()
    for _ in range(6):
        body = {"role_id": auth.role_id, "secret_id": "wrong"}
        room.server.bao.request("POST", LOGIN, body)
    error = room.error(room.anchor(auth).probe())
    assert type(error) is Refused
    assert error.seen.endswith("refuses the login at auth/approle/login (403)")


def test_a_credential_that_is_away_is_missing_only_when_it_is_needed(room: Room) -> None:
    auth = room.by_approle()
    assert isinstance(auth.source, FileSource)
    anchor = room.anchor(auth)
    sealed = seal(anchor)
    auth.source.path.unlink()
    assert opens(anchor, sealed)
    revoke(room, token_of(anchor))
    assert type(room.error(anchor.open(sealed, CONTEXT))) is Missing


@pytest.mark.parametrize("does", [Hangs(), Says(500), Says(503)])
def test_a_login_in_a_server_that_fails_is_to_be_tried_again(
    room: Room, relay: Relay, does: Hangs | Says
) -> None:
    anchor = room.anchor(room.by_approle(), address=relay.address, deadline_s=1.0)
    relay.now["auth/"] = does
    error: AnchorError = room.error(anchor.probe())
    assert type(error) is Unreachable
    relay.now.clear()
    anchor.deadline_s = 10.0
    asyncio.run(anchor.probe())
