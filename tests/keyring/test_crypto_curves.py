"""Points of the NIST curves: which are taken, blinding, and keys computed from signatures."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from hypothesis import given, settings
from hypothesis import strategies as st

from kluis.keyring import crypto
from kluis.keyring.crypto import Blinding, Point, concat_kdf, ecdsa_signers

CURVES = {
    "P-256": (ec.SECP256R1(), hashes.SHA256(), 32),
    "P-384": (ec.SECP384R1(), hashes.SHA384(), 48),
    "P-521": (ec.SECP521R1(), hashes.SHA512(), 66),
}
each_curve = pytest.mark.parametrize("curve", sorted(CURVES))


def new_key(curve: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(CURVES[curve][0])


def point_of(key: ec.EllipticCurvePrivateKey, curve: str) -> Point:
    numbers = key.public_key().public_numbers()
    size = CURVES[curve][2]
    return Point(curve, numbers.x.to_bytes(size), numbers.y.to_bytes(size))


def multiplied(key: ec.EllipticCurvePrivateKey, point: Point) -> Point:
    """s·X, with either sign, as a Tang server answers it."""
    curve, _, size = CURVES[point.curve]
    numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(point.x), int.from_bytes(point.y), curve)
    x = key.exchange(ec.ECDH(), numbers.public_key())
    found = ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\x03" + x)
    return Point(point.curve, x, found.public_numbers().y.to_bytes(size))


def signed(key: ec.EllipticCurvePrivateKey, curve: str, message: bytes) -> bytes:
    _, digest, size = CURVES[curve]
    r, s = utils.decode_dss_signature(key.sign(message, ec.ECDSA(digest)))
    return r.to_bytes(size) + s.to_bytes(size)


@each_curve
def test_the_constants_are_those_of_the_library(curve: str) -> None:
    known = crypto._CURVES[curve]
    assert known.order == CURVES[curve][0].group_order
    assert known.coordinate_bytes == CURVES[curve][2]
    # a point whose x is the prime itself would be 0 to a reader that reduces it
    assert known.prime.bit_length() == known.curve.key_size


@each_curve
def test_a_point_that_is_not_on_the_curve_is_refused(curve: str) -> None:
    point = point_of(new_key(curve), curve)
    other = bytearray(point.y)
    other[-1] ^= 1
    with pytest.raises(ValueError, match="Invalid EC key"):
        Point(curve, point.x, bytes(other))


@each_curve
def test_the_trivial_point_is_refused(curve: str) -> None:
    zero = bytes(CURVES[curve][2])
    with pytest.raises(ValueError, match="Invalid EC key"):
        Point(curve, zero, zero)


@each_curve
def test_a_coordinate_outside_the_field_is_refused(curve: str) -> None:
    point = point_of(new_key(curve), curve)
    beyond = b"\xff" * len(point.x)
    with pytest.raises(ValueError, match="Invalid EC key"):
        Point(curve, beyond, point.y)
    for x in (point.x[1:], b"\0" + point.x, b""):
        with pytest.raises(ValueError, match="a coordinate of"):
            Point(curve, x, point.y)


def test_another_curve_is_refused() -> None:
    with pytest.raises(ValueError, match="another curve"):
        Point("secp256k1", bytes(32), bytes(32))


@each_curve
def test_what_was_hidden_comes_back_multiplied(curve: str) -> None:
    server, mine = new_key(curve), new_key(curve)
    blinding = Blinding(curve)
    hidden = blinding.hide(point_of(mine, curve))
    expected = mine.exchange(ec.ECDH(), server.public_key())
    assert blinding.lift(multiplied(server, hidden)) == expected


@each_curve
def test_a_point_is_hidden_differently_each_time(curve: str) -> None:
    point = point_of(new_key(curve), curve)
    shown = {Blinding(curve).hide(point).x for _ in range(20)} | {point.x}
    assert len(shown) == 21


def test_another_blinding_does_not_lift_the_answer() -> None:
    server, mine = new_key("P-521"), new_key("P-521")
    answer = multiplied(server, Blinding("P-521").hide(point_of(mine, "P-521")))
    assert Blinding("P-521").lift(answer) != mine.exchange(ec.ECDH(), server.public_key())


def test_a_point_of_another_curve_is_not_blinded() -> None:
    point = point_of(new_key("P-256"), "P-256")
    with pytest.raises(ValueError, match="shared key"):
        Blinding("P-521").hide(point)
    with pytest.raises(ValueError, match="shared key"):
        Blinding("P-521").lift(point)


def test_the_example_of_rfc_7518_appendix_c() -> None:
    shared = bytes.fromhex("9e56d91d817135d372834283bf84269cfb316ea3da806a48f6daa7798cfe90c4")
    key = concat_kdf(shared, "A128GCM", b"Alice", b"Bob", 16)
    assert key == base64.urlsafe_b64decode("VqqN6vgjbSBcIijNcacQGg==")
    assert len(concat_kdf(shared, "A256GCM", b"Alice")) == crypto.KEY_BYTES


@each_curve
@settings(max_examples=20, deadline=None)
@given(message=st.binary(max_size=200))
def test_the_signer_is_found_by_its_signature(curve: str, message: bytes) -> None:
    key = new_key(curve)
    signers = ecdsa_signers(curve, message, signed(key, curve, message))
    assert len(signers) == 2
    assert point_of(key, curve) in signers


@each_curve
def test_both_of_the_possible_signers_verify_and_no_other_message_gives_them(curve: str) -> None:
    message, digest = b"an advertisement", CURVES[curve][1]
    key = new_key(curve)
    signature = signed(key, curve, message)
    size = CURVES[curve][2]
    r, s = int.from_bytes(signature[:size]), int.from_bytes(signature[size:])
    for signer in ecdsa_signers(curve, message, signature):
        crypto._public(signer).verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(digest))
    assert point_of(key, curve) not in ecdsa_signers(curve, b"another", signature)


@each_curve
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_no_key_signed_has_no_signer_or_a_foreign_one(curve: str, data: st.DataObject) -> None:
    size = CURVES[curve][2]
    signature = data.draw(st.binary(max_size=2 * size + 2))
    for signer in ecdsa_signers(curve, b"message", signature):
        assert isinstance(signer, Point)


@each_curve
def test_a_signature_of_zeros_has_no_signer(curve: str) -> None:
    size = CURVES[curve][2]
    one = b"\0" * (size - 1) + b"\1"
    for signature in (bytes(2 * size), one + bytes(size), bytes(size) + one, b""):
        assert ecdsa_signers(curve, b"message", signature) == ()
