"""The transit anchor when its server is away, in another state, or answers what it should not.

What a real OpenBao can be made to show, it shows here; the rest comes from a relay before it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kluis.anchors import http
from kluis.anchors.http import Answer
from kluis.anchors.sources import EnvironmentSource
from kluis.anchors.transit.anchor import TransitAnchor
from kluis.anchors.transit.auth import AppRole, Auth, Token
from kluis.anchors.transit.leaf import Leaf
from kluis.errors import (
    AnchorError,
    Damaged,
    KluisError,
    Misconfigured,
    Unreachable,
)
from kluis.keyring.strict import JSON
from kluis.secret import Secret
from tests.anchors.conftest import Counterparts
from tests.support.bao import Bao, static_seal, wait_until
from tests.support.transit import (
    Behaviour,
    Cuts,
    Hangs,
    Relay,
    Room,
    Says,
    Slow,
    alone,
    transit_server,
)

CONTEXT = b"kluis/1|00000000-0000-4000-8000-000000000000|1|/|transit"
A_LEAF: Mapping[str, JSON] = {"ciphertext": "A" * 80, "version": 1}
PAGE = b"<html><body>Welcome</body></html>"
HTML = {"Content-Type": "text/html"}
FOREVER_S = 60.0


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


def seal(anchor: TransitAnchor, secret: Secret | None = None) -> Mapping[str, JSON]:
    return asyncio.run(anchor.seal(secret or Secret.random(), CONTEXT))


# -- real states of a real server


def test_a_server_of_its_own_through_all_its_states(tmp_path: Path) -> None:
    """Not there, not initialised, sealed, well, sealed, killed, back."""
    bao = Bao(tmp_path / "bao")  # Shamir: it stays sealed until a share is entered
    room, host = alone(bao, tmp_path, "k"), f"127.0.0.1:{bao.port}"
    token = Token(room.source("s.not-yet-a-token", "token"))
    anchor = room.anchor(token)

    def says(words: str) -> None:
        for call in (anchor.knock(), anchor.probe(), anchor.open(A_LEAF, CONTEXT)):
            error = room.error(call)
            assert type(error) is Unreachable
            assert error.seen == f"{host} {words}"

    says("can't be reached: Connection refused")
    with bao:
        says("is not initialised")
        made = bao.init()
        says("is sealed")
        assert asyncio.run(anchor.show())["state"] == "sealed"
        bao.unseal(made.shares[0])
        bao.wait_active()
        bao.make_transit_key(made.root_token, "k")
        room.source(made.root_token, "token")
        secret = Secret.random()
        sealed = seal(anchor, secret)
        assert asyncio.run(anchor.open(sealed, CONTEXT)) == secret
        bao.must("PUT", "sys/seal", {}, made.root_token)
        bao.wait_sealed()
        says("is sealed")
        bao.kill9()
        says("can't be reached: Connection refused")
        bao.start()
        bao.wait_sealed()
        bao.unseal(made.shares[0])
        wait_until(lambda: knocks(anchor), "a knock is good")
        assert asyncio.run(anchor.open(sealed, CONTEXT)) == secret, "as soon as a knock is good"


def test_a_standby_serves_and_goes_on_when_its_active_server_dies(tmp_path: Path) -> None:
    """OpenBao's standbys answer what only reads; so an open is worth asking them for."""
    key = tmp_path / "seal.key"
    key.write_bytes(bytes(32))
    active = Bao(tmp_path / "a", static_seal(key))
    standby = Bao(tmp_path / "b", static_seal(key), environment={"BAO_RAFT_NODE_ID": "n2"})
    with active:
        root = active.init().root_token
        active.make_transit_key(root, "k")
        with standby:
            standby.must("POST", "sys/storage/raft/join", {"leader_api_addr": active.address})
            wait_until(lambda: standby.health() == 429, "the second is a standby")
            room = alone(standby, tmp_path, "k")
            anchor, secret = room.anchor(Token(room.source(root, "token"))), Secret.random()
            wait_until(lambda: knocks(anchor), "the standby knows its leader")
            sealed = seal(anchor, secret)
            assert asyncio.run(anchor.show())["state"] == "standby"
            active.kill9()
            assert asyncio.run(anchor.open(sealed, CONTEXT)) == secret


def knocks(anchor: TransitAnchor) -> bool:
    try:
        asyncio.run(anchor.knock())
    except Unreachable:
        return False
    return True


# -- states that only a relay can show


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (472, "is a disaster recovery secondary"),
        (474, "is a standby without its active server"),
        (501, "is not initialised"),
        (503, "is sealed"),
        (530, "is removed from its cluster"),
    ],
)
def test_every_state_has_its_word(room: Room, relay: Relay, status: int, words: str) -> None:
    health = {"initialized": status != 501, "sealed": status in (501, 503), "version": "1.19.0"}
    relay.now["sys/health"] = Says(status, json.dumps(health).encode())
    relay.now["transit/"] = Says(503)
    anchor = room.anchor(room.by_token(), address=relay.address)
    for call in (anchor.knock(), anchor.probe(), anchor.open(A_LEAF, CONTEXT)):
        error = room.error(call)
        assert type(error) is Unreachable
        assert error.seen == f"{relay.host} {words}"


STANDBY = json.dumps({"initialized": True, "sealed": False, "standby": True}).encode()


def test_a_standby_that_hands_nothing_on_is_no_misconfiguration(room: Room, relay: Relay) -> None:
    relay.now["sys/health"] = Says(429, STANDBY)
    relay.now["sys/leader"] = Says(200, b'{"is_self":false,"leader_address":"https://other:8200"}')
    relay.now["transit/"] = Says(307, b"", {"Location": "https://other:8200/v1/transit"})
    anchor = room.anchor(room.by_token(), address=relay.address)
    asyncio.run(anchor.knock())
    error = room.error(anchor.open(A_LEAF, CONTEXT))
    assert type(error) is Unreachable
    assert error.seen == f"{relay.host} is a standby that hands nothing on"


@pytest.mark.parametrize("leader", [b'{"leader_address":""}', b'{"errors":[]}'])
def test_a_standby_that_knows_no_leader_is_not_there_yet(
    room: Room, relay: Relay, leader: bytes
) -> None:
    relay.now |= {"sys/health": Says(429, STANDBY), "sys/leader": Says(200, leader)}
    error = room.error(room.anchor(room.by_token(), address=relay.address).knock())
    assert type(error) is Unreachable
    assert error.seen == f"{relay.host} is standby"


def test_a_redirect_of_something_else_is_not_followed(room: Room, relay: Relay) -> None:
    relay.now["transit/"] = Says(301, b"", {"Location": "https://evil.example/"})
    error = room.error(room.anchor(room.by_token(), address=relay.address).open(A_LEAF, CONTEXT))
    assert type(error) is Misconfigured
    assert error.seen == f"{relay.host} answers with a redirect"


# -- the table of faults: what a server does, of which class that is, and how it reads

FAULTS: Mapping[str, tuple[Behaviour, type[AnchorError], str]] = {
    "hangs": (Hangs(), Unreachable, "gives no answer to a decrypt"),
    "cuts the connection": (Cuts(), Unreachable, "can't be reached: cut off"),
    "is at its limit": (
        Says(429, headers={"Retry-After": "7"}),
        Unreachable,
        "answers to too many requests already",
    ),
    "fails": (Says(500), Unreachable, "is active and answers 500"),
    "has a stale replica": (Says(412), Unreachable, "is active and answers 412"),
    "is a proxy without a server": (
        Says(502, PAGE, HTML),
        Unreachable,
        "is active and answers 502",
    ),
    "is another service": (Says(200, PAGE, HTML), Misconfigured, "answers 200 to"),
    "is a proxy that wants a login": (Says(403, PAGE, HTML), Misconfigured, "answers 403 to"),
    "knows nothing": (Says(404, PAGE, HTML), Misconfigured, "answers 404 to"),
    "takes no such method": (Says(405), Misconfigured, "answers 405 to"),
    "answers too much": (Says(200, b" " * (1 << 21)), Misconfigured, "with more than 1048576"),
    "answers nothing": (Says(204, b""), Misconfigured, "answers 204 to"),
    "answers an empty plaintext": (Says(200, b'{"data":{"plaintext":""}}'), Damaged, "to 0 bytes"),
    "answers another plaintext": (
        Says(200, b'{"data":{"plaintext":"YWJj"}}'),
        Damaged,
        "the leaf opens, to 3 bytes",
    ),
    "answers no base64": (Says(200, b'{"data":{"plaintext":"?"}}'), Misconfigured, "answers 200"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_table_of_faults(room: Room, relay: Relay, fault: str) -> None:
    does, kind, words = FAULTS[fault]
    anchor = room.anchor(room.by_token(), address=relay.address)
    secret = Secret.random()
    sealed = seal(anchor, secret)
    relay.now["transit/decrypt/"] = does
    if fault == "hangs":
        anchor.deadline_s = 4.0  # half of it is for asking why
    error = room.error(anchor.open(sealed, CONTEXT))
    assert type(error) is kind
    assert words in error.seen
    if isinstance(does, Says) and does.status == 429 and isinstance(error, Unreachable):
        assert error.retry_s == 7.0
    relay.now.clear()
    assert asyncio.run(anchor.open(sealed, CONTEXT)) == secret


def test_a_proxy_without_a_server_behind_it_is_not_taken_for_one(room: Room, relay: Relay) -> None:
    for status, kind in ((503, Unreachable), (502, Unreachable), (200, Misconfigured)):
        relay.now[""] = Says(status, PAGE, HTML)
        anchor = room.anchor(room.by_token(), address=relay.address)
        for call in (anchor.knock(), anchor.probe(), anchor.open(A_LEAF, CONTEXT)):
            assert type(room.error(call)) is kind


def test_create_key_says_what_came_between(room: Room, relay: Relay) -> None:
    room.delete_key()
    room.allow(also=f'path "transit/keys/{room.key}" {{ capabilities = ["update", "read"] }}')
    anchor = room.anchor(room.by_token(), address=relay.address)
    mount = Says(200, b'{"data":{"type":"transit"}}')
    for does, kind in ((Says(500), Unreachable), (Says(405), Misconfigured)):
        relay.script += [Slow(0), Says(404), mount, does]
        assert type(room.error(anchor.create_key())) is kind
        anchor = room.anchor(room.by_token(), address=relay.address)


def test_slow_is_not_hung_and_flapping_opens_each_time_it_is_there(
    room: Room, relay: Relay
) -> None:
    anchor, secret = room.anchor(room.by_token(), address=relay.address), Secret.random()
    sealed = seal(anchor, secret)
    relay.now["transit/"] = Slow(0.2)
    assert asyncio.run(anchor.open(sealed, CONTEXT)) == secret
    relay.now.clear()
    for does in (Cuts(), Says(500), Says(429)):
        relay.script.append(does)
        assert type(room.error(anchor.open(sealed, CONTEXT))) is Unreachable
        assert asyncio.run(anchor.open(sealed, CONTEXT)) == secret


def test_all_that_hangs_ends_by_the_deadline(room: Room, relay: Relay) -> None:
    anchor = room.anchor(room.by_token(), address=relay.address, deadline_s=0.3)
    relay.now[""] = Hangs()
    for call in (anchor.knock(), anchor.probe(), anchor.open(A_LEAF, CONTEXT), anchor.show()):
        error = room.error(call)
        assert type(error) is Unreachable
        assert error.seen == "no answer within 0.3 s"


def test_a_name_that_nobody_knows_is_told_from_a_server_that_is_down(room: Room) -> None:
    auth = room.by_token()
    error = room.error(room.anchor(auth, address="https://kms.invalid:8200").knock())
    assert type(error) is Unreachable
    assert error.seen == "the name kms.invalid is not known"


# -- bytes from outside


@given(st.binary(max_size=300))
def test_no_sealed_bytes_do_anything_but_refuse(data: bytes) -> None:
    try:
        value: Any = json.loads(data)
        Leaf.read(value if isinstance(value, dict) else {})
    except (KluisError, ValueError):
        pass


NUMBERS = st.integers() | st.floats() | st.booleans() | st.none()
TEXTS = st.text(max_size=20) | st.sampled_from(
    ["vault:v1:" + "A" * 80, "A" * 44, "2026-11-22T04:04:24.0Z", "transit", "kv", "s.token"]
)
NAMES = st.sampled_from(
    [
        *("data", "errors", "auth", "plaintext", "ciphertext", "type", "latest_version"),
        *("min_decryption_version", "client_token", "lease_duration", "ttl", "expire_time"),
        *("creation_ttl", "creation_time", "explicit_max_ttl", "period", "renewable", "num_uses"),
        *("initialized", "sealed", "standby", "leader_address", "keyrings", "state", "policies"),
        *("derived", "soft_deleted", "transit", "capabilities", "is_self", "version"),
    ]
)
VALUES = st.recursive(
    NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=8),
    max_leaves=20,
)
HEALTHY = {"initialized": True, "sealed": False}
BODIES = st.dictionaries(NAMES, VALUES, max_size=8).flatmap(
    lambda found: st.sampled_from([found, {**HEALTHY, **found}, {"data": found}, {"auth": found}])
)
CONTENTS = BODIES.map(lambda body: json.dumps(body).encode()) | st.binary(max_size=64)
STATUSES = st.sampled_from(
    [200, 200, 200, 204, 301, 307, 400, 403, 404, 405, 412, 429, 472, 473, 500, 501, 502, 503]
)
ANSWERS = st.builds(Answer, STATUSES, CONTENTS, st.sampled_from([0.0, 5.0]))


@settings(
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(st.lists(ANSWERS, min_size=1, max_size=6), st.booleans())
def test_whatever_a_server_answers_gives_only_an_anchors_errors(
    monkeypatch: pytest.MonkeyPatch, answers: list[Answer], logs_in: bool
) -> None:
    monkeypatch.setenv("KLUIS_TEST_CREDENTIAL", "s.hidden-credential")
    source = EnvironmentSource("KLUIS_TEST_CREDENTIAL")
    auth: Auth = AppRole("role", source) if logs_in else Token(source)
    asked = 0

    async def answered(*args: object, **more: object) -> Answer:
        nonlocal asked
        asked += 1
        assert asked < 100, "it asks without an end"
        return answers[asked % len(answers)]

    monkeypatch.setattr(http, "call", answered)
    anchor = TransitAnchor(
        "kms",
        address="https://kms.example:8200",
        key="k",
        mount="transit",
        namespace="team",
        ca=None,
        certificate=None,
        certificate_key=None,
        auth=auth,
    )
    said = asyncio.run(all_calls(anchor))
    for error in said:
        words = error.seen + error.means + error.next_step
        assert "unexpected" not in error.seen
        assert words.isprintable()
        assert "hidden-credential" not in words
    assert "hidden-credential" not in repr(anchor.notice)


async def all_calls(anchor: TransitAnchor) -> list[AnchorError]:
    """The errors of one call of each kind; nothing else may come out."""
    errors = []
    for call in (
        anchor.seal(Secret(bytes(32)), CONTEXT),
        anchor.open(A_LEAF, CONTEXT),
        anchor.probe(),
        anchor.knock(),
        anchor.outdated(A_LEAF),
        anchor.show(),
        anchor.create_key(),
    ):
        try:
            await call
        except AnchorError as error:
            errors.append(error)
    return errors
