"""The transit anchor against a real OpenBao: what it does, and what it says when it can't."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping

import pytest

from kluis.anchors.transit.anchor import TransitAnchor
from kluis.anchors.transit.auth import Token
from kluis.errors import (
    Changed,
    Damaged,
    Misconfigured,
    Missing,
    Refused,
    Unreachable,
)
from kluis.keyring.strict import JSON
from kluis.secret import Secret
from tests.anchors.conftest import Counterparts
from tests.support.transit import KmsServer, Relay, Room, transit_server

CONTEXT = b"kluis/1|00000000-0000-4000-8000-000000000000|1|/|transit"

Sealed = Mapping[str, JSON]


@pytest.fixture
def server(counterparts: Counterparts) -> KmsServer:
    return counterparts.of(transit_server)


@pytest.fixture
def room(server: KmsServer, caplog: pytest.LogCaptureFixture) -> Iterator[Room]:
    caplog.set_level(logging.DEBUG)
    made = server.room()
    yield made
    assert made.leaked(caplog.text) == []


def sealed_by(anchor: TransitAnchor, secret: Secret | None = None) -> Sealed:
    return asyncio.run(anchor.seal(secret or Secret.random(), CONTEXT))


def open_(anchor: TransitAnchor, sealed: Sealed) -> Secret:
    return asyncio.run(anchor.open(sealed, CONTEXT))


# -- what it does


def test_it_opens_what_it_sealed_and_only_in_its_place(room: Room) -> None:
    anchor, secret = room.anchor(room.by_token()), Secret.random()
    sealed = sealed_by(anchor, secret)
    assert open_(anchor, sealed) == secret
    error = room.error(anchor.open(sealed, b"elsewhere"))
    assert type(error) is Damaged
    assert error.seen == f"version 1 of transit/keys/{room.key} does not open this leaf"


def test_an_open_is_one_request_once_the_token_is_known(room: Room) -> None:
    with Relay(room.server.bao.address) as relay:
        anchor = room.anchor(room.by_token(), address=relay.address)
        sealed = sealed_by(anchor)
        relay.asked.clear()
        open_(anchor, sealed)
        assert relay.asked == [f"transit/decrypt/{room.key}"]


def test_a_rotated_key_still_opens_and_makes_the_leaf_outdated(room: Room) -> None:
    anchor, secret = room.anchor(room.by_token()), Secret.random()
    old = sealed_by(anchor, secret)
    assert asyncio.run(anchor.outdated(old)) == ""
    room.rotate()
    assert open_(anchor, old) == secret
    assert asyncio.run(anchor.outdated(old)) == (
        f"the key transit/{room.key} was rotated: this leaf has version 1 of it, and the latest"
        " is 2"
    )
    new = sealed_by(anchor, secret)
    assert new["version"] == 2
    assert asyncio.run(anchor.outdated(new)) == ""


@pytest.mark.parametrize("kind", ["aes128-gcm96", "chacha20-poly1305", "xchacha20-poly1305"])
def test_every_aead_key_will_do(server: KmsServer, kind: str) -> None:
    room = server.room(key=False)
    room.make_key(type=kind)
    anchor, secret = room.anchor(room.by_token()), Secret.random()
    assert open_(anchor, sealed_by(anchor, secret)) == secret


def test_a_namespace_has_its_own_mounts_and_keys(room: Room) -> None:
    server, space = room.server, room.key
    server.must("POST", f"sys/namespaces/{space}")
    server.must("POST", f"{space}/sys/mounts/deep/transit", {"type": "transit"})
    server.must("POST", f"{space}/deep/transit/keys/{room.key}")
    room.allow(
        also=f'path "{space}/deep/transit/*" {{ capabilities = ["update", "read"] }}'
        f'\npath "{space}/auth/token/lookup-self" {{ capabilities = ["read"] }}'
    )
    anchor = room.anchor(room.by_token(), namespace=space, mount="deep/transit")
    secret = Secret.random()
    assert open_(anchor, sealed_by(anchor, secret)) == secret
    asyncio.run(anchor.knock())
    asyncio.run(anchor.probe())


def test_show_says_what_a_person_wants_to_know_and_not_the_token(room: Room) -> None:
    anchor = room.anchor(room.by_token())
    room.rotate()
    facts = asyncio.run(anchor.show())
    assert facts["state"] == "active"
    assert (facts["key"], facts["key_type"]) == (f"transit/{room.key}", "aes256-gcm96")
    assert (facts["latest_version"], facts["min_decryption_version"]) == (2, 1)
    assert facts["token_policies"] == ["default", room.key]
    assert facts["token_renewable"] is True
    assert facts["token_left"] in ("59 minutes", "60 minutes")
    facts = asyncio.run(room.anchor(Token(room.source(room.server.root, "root"))).show())
    assert facts["token_left"] == "without end"
    bare = room.by_token(period="1h", no_default_policy=True, policies=[room.key])
    assert "may not look itself up" in str(asyncio.run(room.anchor(bare).show())["token_type"])
    assert not [secret for secret in room.secrets() if secret in repr(facts)]


# -- making the key


def test_create_key_makes_one_that_seals(server: KmsServer) -> None:
    room = server.room(key=False)
    room.allow(also=f'path "transit/keys/{room.key}" {{ capabilities = ["update", "read"] }}')
    anchor, secret = room.anchor(room.by_token()), Secret.random()
    said = asyncio.run(anchor.create_key())
    assert said == f"made the key transit/keys/{room.key} (aes256-gcm96) of {host(server)}"
    assert open_(anchor, sealed_by(anchor, secret)) == secret
    error = room.error(anchor.create_key())
    assert type(error) is Refused
    assert error.seen == f"transit/keys/{room.key} of {host(server)} is there already"


def test_create_key_without_permission_names_what_is_missing(server: KmsServer) -> None:
    room = server.room(key=False)
    error = room.error(room.anchor(room.by_token()).create_key())
    assert type(error) is Refused
    assert error.seen == f"{host(server)} denies update on transit/keys/{room.key}"


def test_create_key_makes_none_that_it_may_not_look_for(server: KmsServer) -> None:
    room = server.room(key=False)
    room.allow("keys", also=f'path "transit/keys/{room.key}" {{ capabilities = ["update"] }}')
    error = room.error(room.anchor(room.by_token()).create_key())
    assert type(error) is Refused
    assert error.seen == f"{host(server)} denies read on transit/keys/{room.key}"


def host(server: KmsServer) -> str:
    return server.bao.address.removeprefix("http://")


# -- the key is not as it was


def test_a_deleted_key_is_missing_and_never_made_anew_on_the_way(room: Room) -> None:
    room.allow(also='path "transit/*" { capabilities = ["create", "update", "read"] }')
    anchor = room.anchor(room.by_token())
    sealed = sealed_by(anchor)
    room.delete_key()
    for call in (anchor.open(sealed, CONTEXT), anchor.seal(Secret.random(), CONTEXT)):
        error = room.error(call)
        assert type(error) is Missing
        assert error.seen == f"there is no key {room.key} in transit/ of {host(room.server)}"
    assert type(room.error(anchor.probe())) is Missing
    assert type(room.error(anchor.outdated(sealed))) is Missing
    found = room.server.bao.request("GET", f"transit/keys/{room.key}", None, room.server.root)
    assert found.status == 404


def test_a_key_that_was_deleted_and_made_again_opens_nothing_old(room: Room) -> None:
    anchor = room.anchor(room.by_token())
    first = sealed_by(anchor)
    room.rotate()
    second = sealed_by(anchor)
    room.delete_key()
    room.make_key()
    error = room.error(anchor.open(first, CONTEXT))
    assert type(error) is Damaged
    assert error.seen == f"version 1 of transit/keys/{room.key} does not open this leaf"
    error = room.error(anchor.open(second, CONTEXT))
    assert type(error) is Damaged
    assert error.seen == f"the leaf has version 2 of transit/keys/{room.key}, and the latest is 1"


def test_a_version_below_the_minimum_is_changed_for_good(room: Room) -> None:
    anchor, secret = room.anchor(room.by_token()), Secret.random()
    sealed = sealed_by(anchor, secret)
    room.rotate()
    room.configure(min_decryption_version=2)
    error = room.error(anchor.open(sealed, CONTEXT))
    assert type(error) is Changed
    assert error.seen == f"the leaf has version 1 of transit/keys/{room.key}, and the least is 2"
    room.configure(min_decryption_version=1)
    assert open_(anchor, sealed) == secret


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"type": "rsa-2048"}, "a key of type rsa-2048"),
        ({"type": "ed25519"}, "a key of type ed25519"),
        ({"derived": True}, "a derived key"),
    ],
)
def test_a_key_that_binds_nothing_is_refused(
    server: KmsServer, options: Mapping[str, object], words: str
) -> None:
    room = server.room(key=False)
    room.make_key(**options)
    anchor = room.anchor(room.by_token())
    for call in (anchor.seal(Secret.random(), CONTEXT), anchor.open(A_LEAF, CONTEXT)):
        error = room.error(call)
        assert type(error) is Misconfigured
        assert error.seen == f"transit/keys/{room.key} of {host(server)} is {words}"


A_LEAF: Sealed = {"ciphertext": "A" * 80, "version": 1}


def test_a_soft_deleted_key_is_missing_until_it_is_brought_back(room: Room) -> None:
    anchor, secret = room.anchor(room.by_token()), Secret.random()
    sealed = sealed_by(anchor, secret)
    room.server.must("DELETE", f"transit/keys/{room.key}/soft-delete")
    for call in (anchor.open(sealed, CONTEXT), anchor.probe()):
        error = room.error(call)
        assert type(error) is Missing
        assert error.next_step.endswith(f"bao write -f transit/keys/{room.key}/soft-delete-restore")
    room.server.must("POST", f"transit/keys/{room.key}/soft-delete-restore")
    assert open_(anchor, sealed) == secret


# -- what the token may do


def test_a_policy_that_denies_is_named_with_path_and_capability(room: Room) -> None:
    anchor = room.anchor(room.by_token())
    sealed = sealed_by(anchor)
    for operation, asked in (
        ("encrypt", [lambda: anchor.seal(Secret.random(), CONTEXT)]),
        ("decrypt", [lambda: anchor.open(sealed, CONTEXT), anchor.probe]),
    ):
        room.allow(operation)
        path = f"transit/{operation}/{room.key}"
        for call in asked:
            error = room.error(call())
            assert type(error) is Refused
            assert error.seen == f"{host(room.server)} denies update on {path}"
            assert error.next_step.endswith(f'path "{path}" {{ capabilities = ["update"] }}')
    room.allow()
    asyncio.run(anchor.probe())


def test_a_key_that_may_not_be_read_still_serves_and_errors_say_what_is_not_known(
    room: Room,
) -> None:
    room.allow("keys")
    anchor, secret = room.anchor(room.by_token()), Secret.random()
    sealed = sealed_by(anchor, secret)
    assert open_(anchor, sealed) == secret
    asyncio.run(anchor.probe())
    room.rotate()
    assert asyncio.run(anchor.outdated(sealed)) == ""
    assert "may not read" in str(asyncio.run(anchor.show())["key_type"])
    error = room.error(anchor.open(sealed, b"elsewhere"))
    assert type(error) is Refused
    assert error.seen.endswith("and kluis may not ask why")
    assert error.next_step.endswith(f'path "transit/keys/{room.key}" {{ capabilities = ["read"] }}')


def test_a_probe_that_can_learn_nothing_says_so(room: Room) -> None:
    room.allow("keys")
    anchor = room.anchor(room.by_token(period="1h", no_default_policy=True, policies=[room.key]))
    secret = Secret.random()
    assert open_(anchor, sealed_by(anchor, secret)) == secret
    error = room.error(anchor.probe())
    assert type(error) is Refused
    assert error.seen == f"{host(room.server)} denies read on transit/keys/{room.key}"


# -- where it is


def test_a_mount_that_is_not_there_is_not_a_missing_key(room: Room) -> None:
    room.allow(also='path "nowhere/*" { capabilities = ["update", "read"] }')
    anchor = room.anchor(room.by_token(), mount="nowhere")
    for call in (anchor.probe(), anchor.open(A_LEAF, CONTEXT)):
        error = room.error(call)
        assert type(error) is Misconfigured
        assert error.seen == f"{host(room.server)} has no Transit engine at nowhere/"


def test_another_engine_is_recognised_before_it_would_store_the_secret(room: Room) -> None:
    """KV version 1 answers 204 to an encrypt, and keeps the plaintext."""
    mount = f"kv-{room.key}"
    room.server.must("POST", f"sys/mounts/{mount}", {"type": "kv"})
    rights = ("create", "update", "read", "delete", "list")
    for capabilities in (rights, ("create", "update")):
        quoted = ", ".join(f'"{right}"' for right in capabilities)
        room.allow(also=f'path "{mount}/*" {{ capabilities = [{quoted}] }}')
        anchor = room.anchor(room.by_token(), mount=mount)
        for call in (anchor.seal(Secret.random(), CONTEXT), anchor.create_key()):
            assert type(room.error(call)) in (Misconfigured, Refused)
    root = room.server.root
    assert room.server.bao.request("LIST", mount, None, root).status == 404, "it stored something"


def test_a_namespace_that_is_not_there_is_named(room: Room) -> None:
    anchor = room.anchor(room.by_token(), namespace="nowhere")
    for call in (anchor.probe(), anchor.open(A_LEAF, CONTEXT)):
        error = room.error(call)
        assert type(error) is Misconfigured
        assert error.seen == f"{host(room.server)} has no namespace nowhere"


def test_rate_limits_say_when_to_come_back(room: Room) -> None:
    anchor = room.anchor(room.by_token())
    sealed = sealed_by(anchor)
    quota = {"path": f"transit/decrypt/{room.key}", "rate": 1, "interval": "60s"}
    room.server.must("POST", f"sys/quotas/rate-limit/{room.key}", quota)
    try:
        open_(anchor, sealed)
        error = room.error(anchor.open(sealed, CONTEXT))
    finally:
        room.server.must("DELETE", f"sys/quotas/rate-limit/{room.key}")
    assert isinstance(error, Unreachable)
    assert error.retry_s == 1.0
    assert error.seen == f"{host(room.server)} answers to too many requests already"
    open_(anchor, sealed)


# -- over TLS


def test_tls_refusals_say_whose_certificate_it_was(room: Room) -> None:
    auth, files = room.by_token(), room.server.tls_files
    stranger = room.server.tls(client=files.stranger, strict=True)
    ours = room.server.tls()
    for settings, words in (
        ({**ours, "ca": None}, "is not accepted"),
        ({**ours, "ca": files.stranger.certificate.with_name("ca.crt")}, "is not accepted"),
        (room.server.tls(strict=True), "does not accept the certificate that kluis shows"),
        (stranger, "does not accept the certificate that kluis shows"),
        ({**ours, "address": room.server.bao.address.replace("http", "https")}, "no TLS conn"),
    ):
        for call in (room.anchor(auth, **settings).knock(), room.anchor(auth, **settings).probe()):
            error = room.error(call)
            assert type(error) is Refused
            assert words in error.seen
    asyncio.run(room.anchor(auth, **ours).probe())


def test_plain_http_to_a_tls_port_is_no_server_of_ours(room: Room) -> None:
    address = room.server.tls()["address"].replace("https", "http")
    error = room.error(room.anchor(room.by_token(), address=address).knock())
    assert type(error) is Misconfigured
    assert error.seen.endswith("answers 400 to sys/health, and not as OpenBao or Vault do")
