"""Who may not, gets one and the same answer; the audit log knows the reason."""

from __future__ import annotations

import http.client
import ipaddress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from kluis.engine.clock import now
from kluis.facade.clients import Caller, Directory, Grant, Peer
from kluis.facade.replies import Refusal
from kluis.facade.tls import TlsFiles
from kluis.keyring import tokens
from kluis.keyring.document import Client, Token
from kluis.keyring.plan import WantedClient
from kluis.service.run import private_client
from tests.facade.contexts import trusting
from tests.support.facade import DENIED, Keyring, Reply, RunningFacade, serving
from tests.support.tls import Authority

HOUR = timedelta(hours=1)


def stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def token_that_ends(moment: datetime) -> tuple[str, Token]:
    return tokens.generate(now(), stamp(moment))


def denied(facade: RunningFacade, reply: Reply, reason: str) -> dict[str, Any]:
    """It was denied like every other, and the log has the reason."""
    assert reply.status == 403
    assert reply.body == DENIED
    record = facade.audited()[-1]
    assert record["verdict"] == "denied"
    assert record["what"] == reason
    assert record["source"] == "127.0.0.1"
    return record


def test_without_a_token(tmp_path: Path) -> None:
    with serving(tmp_path) as facade:
        denied(facade, facade.decrypt(facade.real_wrap()[1], ""), "no token")


@pytest.mark.parametrize(
    "token", ["x", "kluis_", "kluis_" + "A" * 43, "kluis_" + "A" * 5000, "root", "\xff" * 49]
)
def test_an_unknown_token(tmp_path: Path, token: str) -> None:
    with serving(tmp_path) as facade:
        for answer in (
            facade.decrypt(facade.real_wrap()[1], token),
            facade.put("auth/token/renew-self", {}, token),
            facade.get("homelab/keys/bletchley", token),
        ):
            denied(facade, answer, "the token is unknown or was revoked")


def test_an_expired_token(tmp_path: Path) -> None:
    with serving(tmp_path) as facade:
        text, token = token_that_ends(datetime.now(UTC) - timedelta(seconds=1))
        facade.set_tokens("bletchley", token)
        answer = facade.decrypt(facade.real_wrap()[1], text)
        denied(facade, answer, "bletchley: the token expired")
        denied(
            facade, facade.put("auth/token/renew-self", {}, text), "bletchley: the token expired"
        )


def test_a_token_that_expires_later_is_valid_and_says_when(tmp_path: Path) -> None:
    with serving(tmp_path) as facade:
        end = datetime.now(UTC) + HOUR
        text, token = token_that_ends(end)
        facade.set_tokens("bletchley", token)
        lease_s = facade.put("auth/token/renew-self", {}, text).body["auth"]["lease_duration"]
        assert 3500 <= lease_s <= 3600
        found = facade.get("auth/token/lookup-self", text).data
        assert found["expire_time"] == stamp(end)
        assert text not in str(found)


def test_a_revoked_token_is_denied_at_once_and_on_a_living_connection(tmp_path: Path) -> None:
    with serving(tmp_path) as facade:
        text = facade.token("bletchley")
        connection = http.client.HTTPConnection("127.0.0.1", facade.port, timeout=30)
        try:
            for status in (200, 403):
                connection.request(
                    "PUT", "/v1/auth/token/renew-self", b"{}", {"X-Vault-Token": text}
                )
                answer = connection.getresponse()
                answer.read()
                assert answer.status == status
                facade.set_tokens("bletchley")
        finally:
            connection.close()
        answered = facade.decrypt(facade.real_wrap()[1], text)
        denied(facade, answered, "the token is unknown or was revoked")


def test_two_tokens_of_a_client_overlap(tmp_path: Path) -> None:
    with serving(tmp_path) as facade:
        plaintext, ciphertext = facade.real_wrap()
        old, old_token = token_that_ends(datetime.now(UTC) + HOUR)
        new, new_token = tokens.generate(now())
        facade.set_tokens("bletchley", old_token, new_token)
        assert facade.decrypt(ciphertext, old).plaintext == plaintext
        assert facade.decrypt(ciphertext, new).plaintext == plaintext
        facade.set_tokens("bletchley", new_token)
        assert facade.decrypt(ciphertext, old).status == 403
        assert facade.decrypt(ciphertext, new).plaintext == plaintext


def test_a_token_for_another_key(tmp_path: Path) -> None:
    with serving(tmp_path, Keyring("homelab", ["bletchley", "enigma"])) as facade:
        _, ciphertext = facade.real_wrap()
        answer = facade.decrypt(ciphertext, facade.token("enigma"))
        record = denied(facade, answer, "enigma may not use this key")
        assert record["client"] == "enigma"
        assert record["key"] == "bletchley"
        for path in ("homelab/encrypt/bletchley", "homelab/rewrap/bletchley"):
            assert facade.put(path, {}, facade.token("enigma")).status == 403
        assert facade.get("homelab/keys/bletchley", facade.token("enigma")).status == 403
        assert facade.put("homelab/decrypt/none", {}, facade.token("enigma")).status == 403


def test_a_token_for_a_key_of_that_name_in_another_keyring(tmp_path: Path) -> None:
    homelab = Keyring("homelab", ["seal"], {"one": WantedClient(("seal",))})
    office = Keyring("office", ["seal"], {"two": WantedClient(("seal",))})
    with serving(tmp_path, homelab, office) as facade:
        sealed = facade.encrypted(b"secret", "seal", "homelab")
        body = {"ciphertext": sealed}
        assert facade.put("homelab/decrypt/seal", body, facade.token("two")).status == 403
        assert facade.put("homelab/decrypt/seal", body, facade.token("one")).status == 200
        # By the mount "transit" each means its own key, and the other's ciphertext is none of it.
        assert facade.put("transit/decrypt/seal", body, facade.token("one")).status == 200
        assert facade.put("transit/decrypt/seal", body, facade.token("two")).status == 400


def test_a_keyring_that_does_not_exist_is_no_secret_only_to_clients(tmp_path: Path) -> None:
    with serving(tmp_path) as facade:
        assert facade.put("cellar/decrypt/bletchley", {}, "").body == DENIED
        assert facade.put("cellar/decrypt/bletchley", {}, facade.token("bletchley")).status == 404


@pytest.mark.parametrize(
    ("networks", "status"),
    [
        (("127.0.0.0/8",), 200),
        (("10.0.0.0/24", "127.0.0.1/32"), 200),
        (("10.0.0.0/24",), 403),
        (("::1/128",), 403),
    ],
)
def test_a_client_is_bound_to_its_networks(
    tmp_path: Path, networks: tuple[str, ...], status: int
) -> None:
    client = WantedClient(("bletchley",), networks=networks)
    with serving(tmp_path, Keyring(clients={"bletchley": client})) as facade:
        answer = facade.decrypt(facade.real_wrap()[1], facade.token("bletchley"))
        assert answer.status == status
        if status == 403:
            denied(facade, answer, "bletchley: the network does not fit")


@pytest.mark.parametrize("network", ["127.0.0.0/8", "10.0.0.0/24"])
def test_an_ipv4_address_counts_as_such_where_it_comes_mapped_into_ipv6(
    tmp_path: Path, network: str
) -> None:
    client = WantedClient(("bletchley",), networks=(network,))
    with serving(tmp_path, Keyring(clients={"bletchley": client}), host="::") as facade:
        facade.host = "127.0.0.1"
        answer = facade.decrypt(facade.real_wrap()[1], facade.token("bletchley"))
        assert answer.status == (200 if network.startswith("127.") else 403)
        assert facade.audited()[-1]["source"] == "127.0.0.1"
        assert "means" in str(facade.get("sys/health").body["keyrings"])  # loopback is loopback


def test_an_ipv6_network(tmp_path: Path) -> None:
    client = WantedClient(("bletchley",), networks=("::1/128",))
    with serving(tmp_path, Keyring(clients={"bletchley": client}), host="::1") as facade:
        answer = facade.decrypt(facade.real_wrap()[1], facade.token("bletchley"))
        assert answer.status == 200


def test_what_a_stranger_says_of_himself_in_headers_is_not_believed(tmp_path: Path) -> None:
    client = WantedClient(("bletchley",), networks=("10.0.0.0/24",))
    lies = {
        "X-Forwarded-For": "10.0.0.7",
        "X-Real-IP": "10.0.0.7",
        "Forwarded": "for=10.0.0.7",
        "X-Client-Cert-San": "bletchley.example",
    }
    with serving(tmp_path, Keyring(clients={"bletchley": client})) as facade:
        token = facade.token("bletchley")
        answer = facade.decrypt(facade.real_wrap()[1], token, headers=lies)
        denied(facade, answer, "bletchley: the network does not fit")


def test_a_certificate_is_demanded_of_a_client_that_is_bound_to_one(tmp_path: Path) -> None:
    ca = Authority(tmp_path / "ca")
    stranger = Authority(tmp_path / "other", "another CA")
    server = ca.issue("facade", "localhost", "127.0.0.1")
    tls = TlsFiles(server.certificate, server.key, ca.certificate)
    client = WantedClient(("bletchley",), certificate_san="bletchley.example")
    with serving(tmp_path, Keyring(clients={"bletchley": client}), tls=tls) as facade:
        plaintext, ciphertext = facade.real_wrap()
        token = facade.token("bletchley")
        right = trusting(ca, ca.issue("bletchley", "bletchley.example"))
        answer = facade.decrypt(ciphertext, token, tls=right)
        assert answer.plaintext == plaintext

        reason = "bletchley: the certificate does not fit"
        wrong = trusting(ca, ca.issue("enigma", "enigma.example"))
        denied(facade, facade.decrypt(ciphertext, token, tls=wrong), reason)
        denied(facade, facade.decrypt(ciphertext, token, tls=trusting(ca)), reason)
        # The name as a common name only, or as another kind of name, is not that name.
        common = trusting(ca, ca.issue("bletchley.example"))
        denied(facade, facade.decrypt(ciphertext, token, tls=common), reason)
        uri = x509.UniformResourceIdentifier("bletchley.example")
        address = trusting(ca, ca.issue("uri", others=[uri]))
        denied(facade, facade.decrypt(ciphertext, token, tls=address), reason)
        mail = trusting(ca, ca.issue("mail", others=[x509.RFC822Name("bletchley.example")]))
        denied(facade, facade.decrypt(ciphertext, token, tls=mail), reason)

        # A certificate is not a token, and one of an unknown CA does not even get a connection.
        assert facade.decrypt(ciphertext, "", tls=right).body == DENIED
        forged = trusting(ca, stranger.issue("forged", "bletchley.example"))
        with pytest.raises(OSError):  # noqa: PT011 - a TLS alert, or the connection is reset
            facade.decrypt(ciphertext, token, tls=forged)


def test_a_uri_in_a_certificate(tmp_path: Path) -> None:
    ca = Authority(tmp_path / "ca")
    server = ca.issue("facade", "localhost")
    tls = TlsFiles(server.certificate, server.key, ca.certificate)
    spiffe = "spiffe://home.example/bletchley"
    client = WantedClient(("bletchley",), certificate_san=spiffe)
    with serving(tmp_path, Keyring(clients={"bletchley": client}), tls=tls) as facade:
        shown = ca.issue("bletchley", others=[x509.UniformResourceIdentifier(spiffe)])
        answer = facade.decrypt(
            facade.real_wrap()[1], facade.token("bletchley"), tls=trusting(ca, shown)
        )
        assert answer.status == 200


def test_every_condition_of_a_client_has_to_fit(tmp_path: Path) -> None:
    ca = Authority(tmp_path / "ca")
    server = ca.issue("facade", "localhost")
    tls = TlsFiles(server.certificate, server.key, ca.certificate)
    client = WantedClient(("bletchley",), "bletchley.example", ("10.0.0.0/24",))
    with serving(tmp_path, Keyring(clients={"bletchley": client}), tls=tls) as facade:
        shown = trusting(ca, ca.issue("bletchley", "bletchley.example"))
        answer = facade.decrypt(facade.real_wrap()[1], facade.token("bletchley"), tls=shown)
        denied(facade, answer, "bletchley: the network does not fit")


def test_the_directory_follows_the_document(tmp_path: Path) -> None:
    with serving(tmp_path) as facade:
        text, token = tokens.generate(now())
        assert facade.put("auth/token/renew-self", {}, text).status == 403
        clients = {**facade.document().clients, "colossus": Client((token,), ("bletchley",))}
        facade.rewrite(clients=clients)
        assert facade.decrypt(facade.real_wrap()[1], text).status == 200
        clients["colossus"] = replace(clients["colossus"], networks=("10.0.0.0/8",))
        facade.rewrite(clients=clients)
        assert facade.decrypt(facade.real_wrap()[1], text).status == 403
        del clients["colossus"]
        facade.rewrite(clients=clients)
        denied(
            facade,
            facade.put("auth/token/renew-self", {}, text),
            "the token is unknown or was revoked",
        )


def test_a_token_that_is_revoked_while_a_body_comes_releases_nothing(tmp_path: Path) -> None:
    with serving(tmp_path) as facade, facade.connect() as raw:
        _, ciphertext = facade.real_wrap()
        body = b'{"ciphertext":"%s"}' % ciphertext.encode()
        records = len(facade.audited())
        raw.sendall(
            b"PUT /v1/homelab/decrypt/bletchley HTTP/1.1\r\nHost: x\r\nX-Vault-Token: %s\r\n"
            b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n"
            % (facade.token("bletchley").encode(), len(body))
        )
        assert raw.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"  # it was let in
        facade.set_tokens("bletchley")
        raw.sendall(body)
        assert raw.recv(1000).startswith(b"HTTP/1.1 403 ")
        assert [r["verdict"] for r in facade.audited()[records:]] == ["denied"]


def test_a_private_caller_is_no_client_and_survives_every_change(tmp_path: Path) -> None:
    text, private = private_client("homelab", "bletchley")
    with serving(tmp_path, private=private) as facade:
        plaintext, ciphertext = facade.real_wrap()
        for _ in range(3):
            assert facade.decrypt(ciphertext, text).plaintext == plaintext
            facade.rewrite(clients={})
        facade.lock()
        facade.open()
        assert facade.decrypt(ciphertext, text).plaintext == plaintext
        assert text not in (facade.folder / "state" / "homelab.json").read_text()


class FakeGuard:
    """As much of a guard as a directory looks at."""

    def __init__(self, facade: RunningFacade, keyring: str, *, is_open: bool) -> None:
        self.document = facade.document(keyring)
        self.is_open = is_open


def test_an_unproven_document_can_not_rename_another_keyrings_client(tmp_path: Path) -> None:
    """A document that was changed on the disk names a token of a keyring that is open."""
    attic = Keyring("attic", ["seal"], {"mallory": WantedClient(("seal",))})
    with serving(tmp_path, attic, Keyring()) as facade:
        unproven, proven = (
            FakeGuard(facade, "attic", is_open=False),
            FakeGuard(facade, "homelab", is_open=True),
        )
        mallory = unproven.document.clients["mallory"]
        stolen = replace(mallory, tokens=proven.document.clients["bletchley"].tokens)
        unproven.document = replace(unproven.document, clients={"mallory": stolen})
        directory = Directory({"attic": unproven, "homelab": proven}, {})  # type: ignore[dict-item]
        found = directory.authenticate(facade.token("bletchley").encode(), Peer("127.0.0.1"), 0.0)
        assert found.name == "bletchley"
        assert set(found.grants) == {"homelab"}


def test_a_caller_has_only_the_grants_that_hold_for_it() -> None:
    text, token = tokens.generate(now())
    grants = {
        "homelab": Grant(frozenset({"a"}), None, (ipaddress.ip_network("10.0.0.0/8"),), None),
        "office": Grant(frozenset({"b"}), None, (), None),
    }
    directory = Directory({}, {token.sha256: Caller("both", grants)})
    inside = directory.authenticate(text.encode(), Peer("10.1.2.3"), 0.0)
    outside = directory.authenticate(text.encode(), Peer("192.0.2.1"), 0.0)
    assert set(inside.grants) == {"homelab", "office"}
    assert set(outside.grants) == {"office"}
    with pytest.raises(Refusal):
        directory.authenticate(text.encode()[:-1], Peer("10.1.2.3"), 0.0)


@pytest.mark.parametrize(
    ("address", "block"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_a_stranger_with_a_whole_network_is_one_stranger(address: str, block: str) -> None:
    assert Peer(address).block() == block


def test_the_network_of_a_nameless_peer_never_fits() -> None:
    grant = Grant(frozenset({"a"}), None, (ipaddress.ip_network("0.0.0.0/0"),), None)
    assert grant.refuses(Peer(""), 0.0)
    assert not grant.refuses(Peer("::ffff:10.0.0.1"), 0.0)
