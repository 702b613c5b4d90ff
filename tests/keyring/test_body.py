"""The body: its tag proves the whole document, and its contents are read strictly."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kluis.errors import DocumentError, NotAuthentic, TooLarge
from kluis.keyring import body, crypto, document
from kluis.keyring.body import Contents
from kluis.keyring.document import Body
from kluis.keyring.keys import Key, Version
from kluis.keyring.strict import Fields, canonical, to_base64
from kluis.secret import Secret
from tests.keyring.strategies import NOW, make

MADE = make("disk or 2 of (nas, cloud, vault) or family", {"family": (2, 3)})


def test_the_contents_come_back_with_the_root_secret_and_not_with_another() -> None:
    assert body.open_(MADE.document, MADE.root) == MADE.contents
    with pytest.raises(NotAuthentic):
        body.open_(MADE.document, Secret.random())


def test_the_body_holds_the_machine_leaves_and_not_the_peoples() -> None:
    opened = body.open_(MADE.document, MADE.root)
    assert set(opened.leaves) == {MADE.path(name) for name in ("disk", "nas", "cloud", "vault")}


def test_each_sealing_takes_a_new_salt_and_nonce() -> None:
    sealed = [body.seal(MADE.document, MADE.root, MADE.contents).body for _ in range(3)]
    assert len({one.salt for one in sealed}) == 3
    assert len({one.nonce for one in sealed}) == 3
    assert len({one.ciphertext for one in sealed}) == 3


@given(st.data())
def test_any_flipped_bit_of_the_document_is_refused(data: st.DataObject) -> None:
    good = document.to_bytes(MADE.document)
    position = data.draw(st.integers(0, len(good) * 8 - 1))
    broken = bytearray(good)
    broken[position // 8] ^= 1 << position % 8
    with pytest.raises(DocumentError):
        body.open_(document.from_bytes(bytes(broken)), MADE.root)


@given(st.integers(0, len(MADE.document.body.ciphertext) * 8 - 1))
def test_any_flipped_bit_of_the_ciphertext_is_not_authentic(position: int) -> None:
    broken = bytearray(MADE.document.body.ciphertext)
    broken[position // 8] ^= 1 << position % 8
    forged = replace(MADE.document, body=replace(MADE.document.body, ciphertext=bytes(broken)))
    with pytest.raises(NotAuthentic):
        body.open_(forged, MADE.root)


def sealed_as(plaintext: bytes) -> document.Document:
    """What a writer who knows the root secret, and errs, could write."""
    salt, nonce = bytes(32), bytes(12)
    draft = replace(MADE.document, body=Body(salt, nonce, b""))
    cipher = crypto.Aead(crypto.hkdf(MADE.root.reveal(), salt, "kluis keyring/1 body"))
    sealed = cipher.seal(plaintext, document.associated_data(draft), nonce)
    return replace(draft, body=Body(salt, nonce, sealed[12:]))


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda t: t.encode("utf-8", "replace")))
def test_random_plaintext_raises_nothing_but_document_errors(plaintext: bytes) -> None:
    with pytest.raises(DocumentError):
        body.open_(sealed_as(plaintext), MADE.root)


GOOD = canonical(body._to_json(MADE.contents))


@given(st.integers(0, len(GOOD) - 1), st.binary(max_size=4), st.integers(0, 4))
def test_changed_plaintext_raises_nothing_but_document_errors(
    position: int, new: bytes, cut: int
) -> None:
    changed = GOOD[:position] + new + GOOD[position + cut :]
    try:
        contents = body.open_(sealed_as(changed), MADE.root)
    except DocumentError:
        return
    assert canonical(body._to_json(contents)) == changed


@pytest.mark.parametrize("path", ["/" + "9" * 5000, "//", "/0/", "/-1", "0", "/0\n", "/100"])
def test_a_leaf_path_in_another_spelling_is_refused(path: str) -> None:
    with pytest.raises(DocumentError):
        body._from_json(Fields({"keys": {}, "leaves": {path: to_base64(bytes(32))}}, "body"))


def test_a_body_that_could_not_be_read_back_is_not_sealed() -> None:
    versions = {n: Version(bytes(32 * 1024), NOW) for n in range(1, 65)}
    large = Contents({"seal": Key("opaque", versions)}, MADE.contents.leaves)
    with pytest.raises(TooLarge):
        body.seal(MADE.document, MADE.root, large)


def test_the_largest_body_reads_back() -> None:
    versions = {n: Version(bytes(32 * 1024), NOW) for n in range(1, 48)}
    large = Contents({"seal": Key("opaque", versions)}, MADE.contents.leaves)
    spare = document.MAX_BODY_BYTES - len(canonical(body._to_json(large)))
    rest = len('"48":{"created":"2025-01-02T03:04:05Z","material":""},')
    material = (spare - rest) // 4 * 3
    largest = Key("opaque", {**versions, 48: Version(bytes(min(material, 32 * 1024)), NOW)})
    contents = Contents({"seal": largest}, MADE.contents.leaves)
    sealed = body.seal(replace(MADE.document, clients={}), MADE.root, contents)
    again = document.from_bytes(document.to_bytes(sealed))
    assert body.open_(again, MADE.root) == contents
