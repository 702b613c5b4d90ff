"""Keys: versions, rotation, minimum versions, and Transit's own ciphertexts."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kluis.errors import BadCiphertext, KeyringKeyError, TagMismatch, VersionRefused
from kluis.keyring import crypto, keys
from kluis.keyring.keys import Key, TransitKey, Version
from tests.keyring.strategies import NOW

KEY = keys.rotate(keys.rotate(keys.generate("transit", NOW), NOW), NOW)


@given(st.binary(max_size=200), st.none() | st.binary(max_size=20))
def test_what_is_encrypted_decrypts_with_the_same_associated_data_only(
    plaintext: bytes, aad: bytes | None
) -> None:
    key = TransitKey(KEY)
    ciphertext = key.encrypt(plaintext, aad)
    assert ciphertext.startswith("vault:v3:")
    assert key.decrypt(ciphertext, aad) == (plaintext, 3)
    with pytest.raises(BadCiphertext):
        key.decrypt(ciphertext, b"other associated data!!")


def test_old_versions_decrypt_down_to_the_minimum() -> None:
    old = {n: TransitKey(Key("transit", dict(list(KEY.versions.items())[:n]))) for n in (1, 2, 3)}
    ciphertexts = {n: key.encrypt(b"a") for n, key in old.items()}
    key = TransitKey(Key("transit", KEY.versions, minimum=2))
    assert key.decrypt(ciphertexts[2]) == (b"a", 2)
    assert key.decrypt(ciphertexts[3]) == (b"a", 3)
    with pytest.raises(VersionRefused):
        key.decrypt(ciphertexts[1])
    with pytest.raises(VersionRefused):
        old[2].decrypt(ciphertexts[3])


def test_a_minimum_is_raised_and_lowered_and_the_material_stays() -> None:
    raised = keys.with_minimum(KEY, 3)
    assert (raised.minimum, raised.versions) == (3, KEY.versions)
    assert keys.with_minimum(raised, 1) == KEY


@pytest.mark.parametrize("minimum", [-1, 0, 4])
def test_a_minimum_is_a_version_that_is_there(minimum: int) -> None:
    with pytest.raises(VersionRefused):
        keys.with_minimum(KEY, minimum)


def part(*numbers: int, minimum: int = 1) -> Key:
    return Key("transit", {n: KEY.versions[n] for n in numbers}, minimum)


def test_a_key_gains_the_versions_that_only_the_other_has() -> None:
    assert keys.joined(part(1, 2), part(2, 3)) == KEY
    assert keys.joined(part(2, 3, minimum=3), part(1, 2)) == part(1, 2, 3, minimum=3)
    assert keys.joined(KEY, part(2)) == KEY


def test_keys_that_share_no_version_or_differ_in_one_are_different() -> None:
    other = keys.generate("transit", NOW)
    assert keys.joined(part(1), part(2, 3)) is None
    assert keys.joined(KEY, other) is None
    assert keys.joined(KEY, Key("transit", {**KEY.versions, 1: other.versions[1]})) is None
    assert keys.joined(KEY, Key("kms", KEY.versions)) is None


def test_each_encryption_takes_a_new_nonce() -> None:
    key = TransitKey(KEY)
    nonces = {keys.read_ciphertext(key.encrypt(b"a"))[1][:12] for _ in range(1000)}
    assert len(nonces) == 1000


@given(st.text(max_size=80) | st.text(max_size=60).map("vault:v1:".__add__))
def test_random_text_is_refused_and_nothing_else(text: str) -> None:
    with pytest.raises(KeyringKeyError):
        TransitKey(KEY).decrypt(text)


@given(st.binary(max_size=80), st.integers(1, 3))
def test_random_bytes_are_no_ciphertext(data: bytes, version: int) -> None:
    with pytest.raises(BadCiphertext):
        TransitKey(KEY).decrypt(f"vault:v{version}:{base64.b64encode(data).decode()}")


@given(st.integers(0, 28 * 8 + 7))
def test_any_flipped_bit_of_a_ciphertext_is_noticed(bit: int) -> None:
    key = TransitKey(KEY)
    _, sealed = keys.read_ciphertext(key.encrypt(b"a"))
    broken = bytearray(sealed)
    broken[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadCiphertext):
        key.decrypt(f"vault:v3:{base64.b64encode(broken).decode()}")


def test_ten_megabytes_of_nothing_are_refused() -> None:
    for text in ["x" * 10_000_000, "vault:v1:" + "A" * 10_000_000, ":" * 10_000_000]:
        with pytest.raises(BadCiphertext):
            TransitKey(KEY).decrypt(text)


@pytest.mark.parametrize("kind", keys.GENERATED_KINDS)
def test_rotation_adds_a_version_and_keeps_the_old_ones(kind: str) -> None:
    key = keys.generate(kind, NOW)
    rotated = keys.rotate(key, NOW)
    assert (key.latest, rotated.latest) == (1, 2)
    assert rotated.versions[1] == key.versions[1]
    assert rotated.versions[2].material != key.versions[1].material
    assert {len(version.material) for version in rotated.versions.values()} == {32}


def test_what_was_imported_is_neither_made_nor_rotated() -> None:
    key = Key("opaque", {1: Version(b"from elsewhere", NOW)})
    assert keys.rotate(key, NOW) is key
    with pytest.raises(ValueError, match="imported"):
        keys.generate("opaque", NOW)


def test_a_key_has_at_most_1024_versions() -> None:
    full = Key("transit", dict.fromkeys(range(1, 1025), Version(bytes(32), NOW)))
    with pytest.raises(VersionRefused):
        keys.rotate(full, NOW)


def test_the_cipher_refuses_keys_of_another_length() -> None:
    with pytest.raises(ValueError, match="32"):
        crypto.Aead(bytes(16))


@pytest.mark.parametrize("length", [0, 7, 11, 12, 27])
def test_what_is_too_short_for_nonce_and_tag_is_a_tag_mismatch(length: int) -> None:
    with pytest.raises(TagMismatch):
        crypto.Aead(bytes(32)).open(bytes(length), None)


def test_the_primitives_give_the_values_of_their_standards() -> None:
    # RFC 5869, test case 3, the first 32 bytes
    expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
    assert crypto.hkdf(b"\x0b" * 22, b"", "").hex() == expected
    # FIPS 180-4, "abc"
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert crypto.sha256(b"abc").hex() == expected
    # McGrew and Viega, test case 13: the tag of nothing under the zero key
    sealed = crypto.Aead(bytes(32)).seal(b"", b"", bytes(12))
    assert sealed[12:].hex() == "530f8afbc74536b9a963b4f1c4cb738b"
    # the reference implementation's own test: version 0x13, 2 passes, 64 MiB, 1 lane
    cost = crypto.Argon2Cost(memory_kib=65536, iterations=2, lanes=1)
    expected = "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7"
    assert crypto.argon2id(b"password", b"somesalt", cost).hex() == expected
    assert crypto.same(b"a", b"a")
    assert not crypto.same(b"a", b"b")
