"""The Transit endpoints: what they answer, and what they say no to."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kluis.keyring.crypto import NONCE_BYTES, TAG_BYTES
from kluis.keyring.keys import Key, read_ciphertext
from kluis.keyring.plan import WantedClient
from tests.support.facade import Keyring, Reply, RunningFacade, serving

DECRYPT = "homelab/decrypt/bletchley"
ENCRYPT = "homelab/encrypt/bletchley"
REWRAP = "homelab/rewrap/bletchley"


@pytest.fixture(scope="module")
def facade(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFacade]:
    with serving(tmp_path_factory.mktemp("transit")) as running:
        yield running


def token(facade: RunningFacade) -> str:
    return facade.token("bletchley")


def bad_request(reply: Reply) -> str:
    """A refusal in Vault's shape; its first words."""
    assert reply.status == 400, reply.raw
    assert set(reply.body) == {"errors"}
    assert reply.headers["content-type"] == "application/json"
    return str(reply.body["errors"][0])


def test_an_answer_has_vaults_shape(facade: RunningFacade) -> None:
    found = facade.encrypt(b"secret", token(facade)).body
    assert set(found) == {
        "request_id",
        "lease_id",
        "renewable",
        "lease_duration",
        "data",
        "wrap_info",
        "warnings",
        "auth",
    }
    assert set(found["data"]) == {"ciphertext", "key_version"}
    again = facade.encrypt(b"secret", token(facade)).body
    assert again["request_id"] != found["request_id"]
    assert again["data"]["ciphertext"] != found["data"]["ciphertext"]


def test_a_renewal_has_the_members_that_a_seal_reads(facade: RunningFacade) -> None:
    auth = facade.put("auth/token/renew-self", {"increment": 0}, token(facade)).body["auth"]
    assert auth["client_token"] == token(facade)
    assert auth["lease_duration"] == 768 * 3600
    assert auth["renewable"] is True


def test_post_does_what_put_does_and_nothing_else_does(facade: RunningFacade) -> None:
    body = {"plaintext": "YQ=="}
    assert facade.request("POST", f"/v1/{ENCRYPT}", body, token(facade)).status == 200
    for method in ("GET", "DELETE", "PATCH", "HEAD", "OPTIONS"):
        for path in (ENCRYPT, "auth/token/renew-self"):
            assert facade.request(method, f"/v1/{path}", None, token(facade)).status == 405
    assert facade.put("homelab/keys/bletchley", {}, token(facade)).status == 405
    assert facade.put("sys/health", {}, token(facade)).status == 405


def test_a_bearer_token_is_a_token(facade: RunningFacade) -> None:
    bearer = {"Authorization": f"Bearer {token(facade)}"}
    assert facade.get("auth/token/lookup-self", headers=bearer).status == 200


def test_a_namespace_is_not_there(facade: RunningFacade) -> None:
    def asked(namespace: str) -> int:
        headers = {"X-Vault-Namespace": namespace}
        return facade.get("auth/token/lookup-self", token(facade), headers=headers).status

    assert [asked(namespace) for namespace in ("", "root", "root/", "team")] == [200, 200, 200, 404]


def test_what_is_encrypted_is_decrypted_with_its_associated_data_only(
    facade: RunningFacade,
) -> None:
    aad = {"associated_data": base64.b64encode(b"here").decode()}
    sealed = facade.put(ENCRYPT, {"plaintext": "c2VjcmV0", **aad}, token(facade)).data["ciphertext"]
    body = {"ciphertext": sealed}
    assert facade.put(DECRYPT, body | aad, token(facade)).plaintext == b"secret"
    bad_request(facade.put(DECRYPT, body, token(facade)))
    bad_request(facade.put(DECRYPT, body | {"associated_data": "dGhlcmU="}, token(facade)))


def test_a_key_is_rotated_rewrapped_and_its_old_version_retired(tmp_path: Path) -> None:
    with serving(tmp_path) as facade:
        sealed = facade.encrypt(b"secret", token(facade)).data["ciphertext"]
        facade.rotate()
        newer = facade.put(REWRAP, {"ciphertext": sealed}, token(facade)).data
        assert newer["key_version"] == 2
        assert newer["ciphertext"].startswith("vault:v2:")
        for one in (sealed, newer["ciphertext"]):
            assert facade.decrypt(one, token(facade)).plaintext == b"secret"
        known = facade.get("homelab/keys/bletchley", token(facade)).data
        assert known["type"] == "aes256-gcm96"
        assert set(known["keys"]) == {"1", "2"}
        assert known["latest_version"] == 2

        key = facade.guards["homelab"].key("bletchley", "transit")
        facade.rewrite(keys={"bletchley": Key(key.kind, key.versions, minimum=2)})
        assert "version 1 of the key is refused" in bad_request(
            facade.decrypt(sealed, token(facade))
        )
        assert facade.decrypt(newer["ciphertext"], token(facade)).plaintext == b"secret"
        assert set(facade.get("homelab/keys/bletchley", token(facade)).data["keys"]) == {"2"}
        assert facade.audited()[-3]["what"] == "VersionRefused"


def test_a_ciphertext_of_another_key_opens_nothing(tmp_path: Path) -> None:
    clients = {"both": WantedClient(("one", "two"))}
    with serving(tmp_path, Keyring("homelab", ["one", "two"], clients)) as facade:
        sealed = facade.encrypted(b"secret", "one")
        for path, status in (("homelab/decrypt/one", 200), ("homelab/decrypt/two", 400)):
            answer = facade.put(path, {"ciphertext": sealed}, facade.token("both"))
            assert answer.status == status


def test_every_changed_byte_of_a_ciphertext_is_found(facade: RunningFacade) -> None:
    sealed = read_ciphertext(facade.encrypted(b"secret"))[1]
    assert len(sealed) == NONCE_BYTES + 6 + TAG_BYTES
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        text = "vault:v1:" + base64.b64encode(bytes(changed)).decode()
        assert facade.decrypt(text, token(facade)).status == 400


@pytest.mark.parametrize(
    "ciphertext",
    [
        "vault:v0:AAAA",
        "vault:v2:AAAA",
        "vault:v01:AAAA",
        "vault:v-1:AAAA",
        "vault:v99999:AAAA",
        "vault:v999999999999999999999:AAAA",
        "vault:v\u0661:AAAA",
        "vault:v1:",
        "vault:v1:A",
        "vault:v1:AAAA",
        "vault:v1:AA AA",
        "vault:v1:\u0000",
        "vault:v1:AAAA:AAAA",
        "vault:1:AAAA",
        "kluis:v1:AAAA",
        "::",
        "A" * 60_000,
        "vault:v1:" + "A" * 60_000,
    ],
)
def test_what_is_no_ciphertext_of_this_key(facade: RunningFacade, ciphertext: str) -> None:
    for path in (DECRYPT, REWRAP):
        words = bad_request(facade.put(path, {"ciphertext": ciphertext}, token(facade)))
        assert ciphertext not in words or len(ciphertext) < 3


BODIES: list[bytes] = [
    b"{",
    b"[]",
    b"null",
    b"1",
    b'"text"',
    b"NaN",
    b"\xff\xfe{\x00}\x00",
    b"\xef\xbb\xbf{}",
    b"{}{}",
    b"{} x",
    b"{'plaintext':'YQ=='}",
    b'{"plaintext":"YQ==",}',
    b"[" * 60_000,
    b'{"a":' * 10_000,
    b'{"ciphertext":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    b'{"x":' + b"9" * 20_000 + b"}",
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body[:20])
def test_a_body_that_is_no_object(facade: RunningFacade, body: bytes) -> None:
    for path in (DECRYPT, ENCRYPT, REWRAP):
        bad_request(facade.put(path, body, token(facade)))


@pytest.mark.parametrize("value", [None, "", 1, True, 1.5, [], ["YQ=="], {}, {"a": 1}])
def test_a_member_of_another_type(facade: RunningFacade, value: Any) -> None:
    bad_request(facade.put(ENCRYPT, {"plaintext": value}, token(facade)))
    bad_request(facade.put(DECRYPT, {"ciphertext": value}, token(facade)))
    if value not in (None, ""):
        body = {"plaintext": "YQ==", "associated_data": value}
        bad_request(facade.put(ENCRYPT, body, token(facade)))


@pytest.mark.parametrize("value", ["Y", "YQ", "YQ==\n", " YQ==", "YQ=~", "\ud800", "ä", "-_=="])
def test_a_plaintext_in_other_than_base64(facade: RunningFacade, value: str) -> None:
    assert "base64" in bad_request(facade.put(ENCRYPT, {"plaintext": value}, token(facade)))


@pytest.mark.parametrize("name", ["batch_input", "context", "nonce", "key_version"])
def test_what_is_not_supported_is_said_and_not_passed_over(
    facade: RunningFacade, name: str
) -> None:
    for path in (ENCRYPT, DECRYPT, REWRAP):
        body = {"plaintext": "YQ==", "ciphertext": "x", name: "c29tZQ=="}
        assert f"{name} is not supported" in bad_request(facade.put(path, body, token(facade)))


def test_unknown_members_are_passed_over_as_by_vault(facade: RunningFacade) -> None:
    body = {"plaintext": "YQ==", "type": "aes256-gcm96", "convergent_encryption": ""}
    assert facade.put(ENCRYPT, body, token(facade)).status == 200


def test_of_a_member_that_stands_twice_the_last_one_counts(facade: RunningFacade) -> None:
    one, two = (facade.encrypted(text) for text in (b"one", b"two"))
    body = f'{{"ciphertext":{json.dumps(one)},"ciphertext":{json.dumps(two)}}}'.encode()
    assert facade.put(DECRYPT, body, token(facade)).plaintext == b"two"


@pytest.mark.parametrize(
    "path",
    [
        "homelab/sign/bletchley",
        "homelab/export/encryption-key/bletchley",
        "homelab/keys",
        "homelab/keys/bletchley/rotate",
        "homelab/random",
        "homelab/datakey/plaintext/bletchley",
        "sys/init",
        "sys/unseal",
        "sys/seal",
        "sys/raw/core",
        "auth/token/create",
        "auth/token/lookup",
        "",
        "secret/data/x",
    ],
)
def test_the_rest_of_the_api_is_not_there(facade: RunningFacade, path: str) -> None:
    for method in ("GET", "PUT", "POST", "DELETE", "LIST"):
        if method == "LIST":
            continue
        answer = facade.request(method, f"/v1/{path}", None, token(facade))
        assert answer.status == 404
        assert answer.body == {"errors": ["no handler for this route"]}


def test_a_fault_that_nobody_foresaw_is_a_500_without_its_words(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(tmp_path) as facade:
        _, ciphertext = facade.real_wrap()

        def spoil() -> None:
            class Spoilt(dict[str, object]):
                def get(self, *_: object) -> object:
                    raise RuntimeError("words that quote a secret")

            facade.guards["homelab"]._transit = Spoilt()  # type: ignore[assignment]

        facade.call(spoil)
        answer = facade.decrypt(ciphertext, token(facade))
        assert answer.status == 500
        assert answer.body == {"errors": ["internal error"]}
    said = capfd.readouterr().err
    assert '"error": "RuntimeError"' in said
    assert "Traceback" not in said
    assert "quote a secret" not in said
