"""What comes from outside in the name of Tang: advertisements, leaves, answers to a recovery."""

from __future__ import annotations

import json
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

from kluis.anchors.tang.keys import (
    MAX_ADVERTISEMENT_BYTES,
    MAX_KEYS,
    Key,
    read_advertisement,
    to_base64url,
)
from kluis.anchors.tang.protocol import MAX_ANSWER_BYTES, Recovery, read_leaf, seal
from kluis.errors import Damaged, DocumentError, KluisError, Misconfigured, Refused
from kluis.keyring.strict import JSON
from kluis.secret import Secret

CONTEXT = b"kluis/1|00000000-0000-4000-8000-000000000000|1|/|tang"


@cache
def _signing() -> JWK:
    return JWK.generate(kty="EC", crv="P-521")


@cache
def _exchange() -> JWK:
    return JWK.generate(kty="EC", crv="P-521")


def _public(key: JWK, algorithm: str, operation: str) -> dict[str, JSON]:
    members: dict[str, JSON] = json.loads(key.export_public())
    return {**members, "alg": algorithm, "key_ops": [operation]}


def _advertised(*keys: JSON, by: tuple[JWK, ...] = ()) -> bytes:
    token = JWS(json.dumps({"keys": list(keys)}))
    for key in by or (_signing(),):
        token.add_signature(key, protected=json.dumps({"alg": "ES512"}))
    return str(token.serialize()).encode()


VERIFY = _public(_signing(), "ES512", "verify")
DERIVE = _public(_exchange(), "ECMR", "deriveKey")


def test_an_advertisement_is_read() -> None:
    found = read_advertisement(_advertised(VERIFY, DERIVE, {"kty": "oct"}, "not a key"))
    assert [key.thumbprint for key in found.signing] == [_signing().thumbprint()]
    assert [key.thumbprint for key in found.exchange] == [_exchange().thumbprint()]
    assert found.vouched_by(_signing().thumbprint())
    assert not found.vouched_by(_exchange().thumbprint())


def test_an_advertisement_of_another_hand_vouches_for_who_else_signed() -> None:
    old = JWK.generate(kty="EC", crv="P-521")
    found = read_advertisement(_advertised(VERIFY, DERIVE, by=(_signing(), old)))
    assert found.vouched_by(old.thumbprint())
    assert not found.advertises(old.thumbprint())


def test_a_signature_of_another_kind_beside_the_right_one_does_no_harm() -> None:
    token = JWS(json.dumps({"keys": [VERIFY, DERIVE]}))
    token.add_signature(_signing(), protected=json.dumps({"alg": "ES512"}))
    rsa = JWK.generate(kty="RSA", size=2048)
    token.add_signature(rsa, protected=json.dumps({"alg": "RS256"}))
    found = read_advertisement(str(token.serialize()).encode())
    assert found.vouched_by(_signing().thumbprint())
    assert not found.vouched_by(rsa.thumbprint())


@pytest.mark.parametrize(
    "content",
    [
        _advertised(DERIVE),
        _advertised({**VERIFY, "alg": "RS256"}),
        _advertised({**VERIFY, "alg": "none"}),
        _advertised({**VERIFY, "alg": "HS256"}),
        _advertised({**VERIFY, "alg": "ES256"}),
        _advertised({**VERIFY, "kty": "oct"}),
        _advertised({**VERIFY, "x": VERIFY["y"]}),
        _advertised({**VERIFY, "x": str(VERIFY["x"]) + "="}),
        _advertised(VERIFY, {**DERIVE, "y": DERIVE["x"]}),
        _advertised(VERIFY, {**DERIVE, "crv": "secp256k1"}),
        _advertised(*([VERIFY] * (MAX_KEYS + 1))),
        _advertised(VERIFY, {"padding": "A" * MAX_ADVERTISEMENT_BYTES}),
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        json.dumps({"payload": "e30", "signatures": [{}] * 40}).encode(),
        json.dumps({"payload": "e30", "signatures": []}).encode(),
        json.dumps({"payload": "\u00e9", "signature": "", "protected": ""}).encode(),
    ],
)
def test_what_is_no_advertisement_is_misconfigured(content: bytes) -> None:
    with pytest.raises(Misconfigured):
        read_advertisement(content)


def _mutated(data: st.DataObject, valid: bytes) -> bytes:
    """Bytes that are nearly those: some replaced, removed, or repeated."""
    content = bytearray(valid)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content)))
        end = min(len(content), at + data.draw(st.integers(0, 8)))
        content[at:end] = data.draw(st.binary(max_size=8) | st.sampled_from([b"{}", b"[]", b'"']))
    return bytes(content)


@given(data=st.data())
def test_no_bytes_break_the_reader_of_advertisements(data: st.DataObject) -> None:
    inside = st.builds(
        lambda keys: _advertised(*keys), st.lists(st.just(VERIFY) | _json(), max_size=3)
    )
    content = data.draw(st.binary(max_size=300) | inside | st.just(b""))
    for tried in (content, _mutated(data, _valid())):
        try:
            found = read_advertisement(tried)
            found.vouched_by("A" * 43)
        except KluisError as error:
            assert isinstance(error, Misconfigured | Refused)  # noqa: PT017 - any of the two


def _json() -> st.SearchStrategy[JSON]:
    names = st.sampled_from(["alg", "key_ops", "kty", "crv", "x", "y", "keys"])
    values = st.sampled_from(["EC", "P-521", "ECMR", "ES512", "verify", "deriveKey", "AA", 1, None])
    return st.recursive(
        values,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5),
    )


@cache
def _valid() -> bytes:
    return _advertised(VERIFY, DERIVE)


@cache
def _token() -> bytes:
    point = read_advertisement(_valid()).exchange[0].point
    return seal(Secret.random(), CONTEXT, Key(point, "ECMR"))


@given(data=st.data())
def test_no_bytes_break_the_reader_of_leaves(data: st.DataObject) -> None:
    header = json.dumps(data.draw(_json())).encode()
    odd = b".".join([to_base64url(header).encode(), *_token().split(b".")[1:]])
    for tried in (data.draw(st.binary(max_size=200)), odd, _mutated(data, _token())):
        try:
            leaf = read_leaf(tried)
        except (Damaged, DocumentError):
            continue
        assert tried == _token() or leaf != read_leaf(_token())


@given(data=st.data())
def test_no_answer_breaks_a_recovery(data: st.DataObject) -> None:
    recovery = Recovery(read_leaf(_token()))
    odd = json.dumps(data.draw(_json())).encode()
    valid = json.dumps(_public(_signing(), "ECMR", "deriveKey")).encode()
    for tried in (data.draw(st.binary(max_size=200)), odd, _mutated(data, valid), valid):
        with pytest.raises(KluisError) as caught:
            recovery.secret(tried)
        assert isinstance(caught.value, Misconfigured | Refused | Damaged)


def test_points_that_no_server_gives_are_refused() -> None:
    recovery = Recovery(read_leaf(_token()))
    asked = json.loads(recovery.question)
    zero = to_base64url(bytes(66))
    small = json.loads(JWK.generate(kty="EC", crv="P-256").export_public())
    for changed in (
        asked,  # the question itself, as from a server whose key is 1
        {**asked, "x": asked["y"]},
        {**asked, "x": zero, "y": zero},
        {**asked, "x": to_base64url(b"\xff" * 66)},
        {**asked, "crv": "P-256"},
        small,
        {**asked, "kty": "OKP"},
    ):
        with pytest.raises(Refused):
            recovery.secret(json.dumps(changed).encode())
    with pytest.raises(Misconfigured):
        recovery.secret(b" " * MAX_ANSWER_BYTES + recovery.question)


def test_a_jwe_of_another_form_is_damaged() -> None:
    protected, _, nonce, ciphertext, tag = _token().decode().split(".")
    for parts in (
        (protected, "AAAA", nonce, ciphertext, tag),
        (protected, "", nonce, ciphertext, ""),
        (protected, "", nonce + "AAAA", ciphertext, tag),
        (protected, "", nonce, ciphertext),
        (protected, "", nonce, ciphertext, tag, ""),
    ):
        with pytest.raises(Damaged):
            read_leaf(".".join(parts).encode())
