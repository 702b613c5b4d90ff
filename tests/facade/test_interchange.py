"""Ciphertexts are Transit's own: a stock server can be pointed at kluis and away again."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding

from kluis.engine.clock import now
from kluis.keyring.crypto import NONCE_BYTES, TAG_BYTES
from kluis.keyring.keys import Key, TransitKey, Version, read_ciphertext
from tests.support.bao import Bao, static_seal, transit_seal
from tests.support.facade import RunningFacade, serving


def kms(folder: Path) -> Bao:
    """A second stock server, which will be the KMS of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    key = folder / "seal.key"
    key.write_bytes(os.urandom(32))
    return Bao(folder / "bao", static_seal(key))


def exported(bao: Bao, token: str, key: str) -> Key:
    """A key of a Transit engine, with all its versions, as kluis keeps it."""
    data = bao.must("GET", f"transit/export/encryption-key/{key}", token=token)["data"]
    assert isinstance(data, dict)
    versions = {
        int(number): Version(base64.b64decode(material), now())
        for number, material in data["keys"].items()
    }
    return Key("transit", versions)


def made_exportable(bao: Bao, token: str, key: str) -> None:
    bao.must("POST", "sys/mounts/transit", {"type": "transit"}, token)
    bao.must("POST", f"transit/keys/{key}", {"exportable": True}, token)


def said(answer: Mapping[str, object], name: str) -> str:
    data = answer["data"]
    assert isinstance(data, dict)
    return str(data[name])


def test_what_a_real_transit_engine_encrypted_is_decrypted_here(tmp_path: Path) -> None:
    with kms(tmp_path) as bao:
        root = bao.init().root_token
        made_exportable(bao, root, "seal")
        plaintext = b"a root key, say"
        body = {"plaintext": base64.b64encode(plaintext).decode()}
        old = said(bao.must("PUT", "transit/encrypt/seal", body, root), "ciphertext")
        bao.must("PUT", "transit/keys/seal/rotate", {}, root)
        new = said(bao.must("PUT", "transit/encrypt/seal", body, root), "ciphertext")
        key = TransitKey(exported(bao, root, "seal"))
        assert key.decrypt(old) == (plaintext, 1)
        assert key.decrypt(new) == (plaintext, 2)

        aad = {"associated_data": base64.b64encode(b"for this only").decode()}
        bound = said(bao.must("PUT", "transit/encrypt/seal", body | aad, root), "ciphertext")
        assert key.decrypt(bound, b"for this only") == (plaintext, 2)


def test_what_is_encrypted_here_is_decrypted_by_a_real_transit_engine(tmp_path: Path) -> None:
    """The way back is open: a key of kluis is imported into a stock server."""
    material = os.urandom(32)
    ours = TransitKey(Key("transit", {1: Version(material, now())}))
    ciphertext = ours.encrypt(b"a root key, say")
    version, sealed = read_ciphertext(ciphertext)
    assert version == 1
    assert len(sealed) == NONCE_BYTES + len(b"a root key, say") + TAG_BYTES

    with kms(tmp_path) as bao:
        root = bao.init().root_token
        bao.must("POST", "sys/mounts/transit", {"type": "transit"}, root)
        imported(bao, root, "seal", material)
        found = bao.must("PUT", "transit/decrypt/seal", {"ciphertext": ciphertext}, root)
        assert base64.b64decode(said(found, "plaintext")) == b"a root key, say"


def imported(bao: Bao, token: str, key: str, material: bytes) -> None:
    """Import a key as the Transit engine wants it: wrapped by AES, and that key by its RSA key."""
    pem = said(bao.must("GET", "transit/wrapping_key", token=token), "public_key")
    public = serialization.load_pem_public_key(pem.encode())
    assert isinstance(public, rsa.RSAPublicKey)
    ephemeral = os.urandom(32)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    wrapped = public.encrypt(ephemeral, oaep) + aes_key_wrap_with_padding(ephemeral, material)
    body = {
        "ciphertext": base64.b64encode(wrapped).decode(),
        "type": "aes256-gcm96",
        "hash_function": "SHA256",
    }
    bao.must("POST", f"transit/keys/{key}/import", body, token)


def test_a_server_is_pointed_from_a_real_transit_engine_to_kluis_without_a_new_seal(
    tmp_path: Path,
) -> None:
    with kms(tmp_path / "kms") as old, serving(tmp_path / "kluis") as facade:
        kms_root = old.init().root_token
        made_exportable(old, kms_root, "bletchley")
        bao = Bao(tmp_path / "server", transit_seal(old.address, kms_root, "bletchley"))
        with bao:
            root = bao.init().root_token
            bao.kv_put(root, "motto", {"from": "another KMS"})
        facade.rewrite(keys={"bletchley": exported(old, kms_root, "bletchley")})
        old.kill9()

        bao.seal = seal_of(facade)
        bao.write_config()
        with bao:
            bao.wait_active()
            assert bao.kv_get(root, "motto") == {"from": "another KMS"}


def seal_of(facade: RunningFacade) -> str:
    return transit_seal(facade.address, facade.token("bletchley"), "bletchley", "homelab/")
