"""The ``pkcs11`` anchor against SoftHSM 2: keys, mechanisms, tokens that come and go."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path

import pkcs11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pkcs11.constants import Attribute, MechanismFlag, ObjectClass
from pkcs11.mechanisms import KeyType

from kluis.anchors.base import COSTLY
from kluis.anchors.pkcs11.anchor import Leaf, Pkcs11Anchor
from kluis.anchors.pkcs11.ciphers import CIPHERS
from kluis.anchors.pkcs11.keys import KeyName
from kluis.anchors.sources import FileSource
from kluis.errors import (
    AnchorError,
    Changed,
    Damaged,
    KluisError,
    Misconfigured,
    Missing,
    Refused,
    Unreachable,
)
from kluis.keyring.strict import JSON
from kluis.secret import Secret
from tests.anchors.conftest import Counterparts
from tests.support.faulty_pkcs11 import Faulty
from tests.support.softhsm import BOTH_WAYS, SoftHsm, Token, make_aes, make_rsa, nss_token

CONTEXT = b"kluis/1|00000000-0000-4000-8000-000000000000|1|/|pkcs11"
KEY = "kluis"


@pytest.fixture
def hsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    return SoftHsm(tmp_path / "hsm", monkeypatch)


@pytest.fixture
def token(hsm: SoftHsm) -> Token:
    return hsm.token("house")


@pytest.fixture
def pin(tmp_path: Path, token: Token) -> FileSource:
    path = tmp_path / "pin"
    path.write_text(f"{token.pin}\n")
    path.chmod(0o600)
    return FileSource(path)


@pytest.fixture
def anchor(token: Token, pin: FileSource) -> Pkcs11Anchor:
    with token.user() as session:
        make_aes(session, KEY, b"1")
    return of(token, pin)


def of(
    token: Token,
    pin: FileSource,
    key: str = KEY,
    mechanism: str = "AES-GCM",
    *,
    slot: int | None = None,
    module: Path | None = None,
) -> Pkcs11Anchor:
    return Pkcs11Anchor(
        "hsm",
        module=token.module if module is None else module,
        token=token.label if slot is None else None,
        slot=slot,
        key=key,
        pin=pin,
        mechanism=mechanism,
        deadline_s=60.0,  # a pair of 3072 bits may take its time
    )


def seal(anchor: Pkcs11Anchor, secret: Secret) -> Mapping[str, JSON]:
    return asyncio.run(anchor.seal(secret, CONTEXT))


def open_(anchor: Pkcs11Anchor, sealed: Mapping[str, JSON]) -> Secret:
    return asyncio.run(anchor.open(sealed, CONTEXT))


def probe(anchor: Pkcs11Anchor) -> None:
    asyncio.run(anchor.probe())


def outdated(anchor: Pkcs11Anchor, sealed: Mapping[str, JSON]) -> str:
    return asyncio.run(anchor.outdated(sealed))


# --- the token


def test_it_is_asked_seldom() -> None:
    assert Pkcs11Anchor.pace is COSTLY


def test_a_token_that_was_taken_out_is_found_when_it_comes_back(
    hsm: SoftHsm, anchor: Pkcs11Anchor
) -> None:
    secret = Secret.random()
    sealed = seal(anchor, secret)
    for _ in range(3):
        hsm.remove("house")
        for call in (anchor.knock, anchor.probe, lambda: anchor.open(sealed, CONTEXT)):
            with pytest.raises(Unreachable, match="'house' is not there"):
                asyncio.run(_until_no_fault(call))
        hsm.insert("house")
        assert asyncio.run(_until_there(lambda: anchor.open(sealed, CONTEXT))) == secret


Call = Callable[[], Coroutine[None, None, object]]


async def _until_no_fault(call: Call) -> object:
    """The first outcome that is not the fault of a token just pulled out of a running library."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await call()
            except Unreachable as error:
                if "is not there" in error.seen:
                    raise
            await asyncio.sleep(0.02)


async def _until_there(call: Call) -> object:
    async with asyncio.timeout(30):
        while True:
            try:
                return await call()
            except Unreachable:
                await asyncio.sleep(0.02)


def test_what_else_is_there_is_named(hsm: SoftHsm, token: Token, pin: FileSource) -> None:
    hsm.token("cellar")
    with pytest.raises(Unreachable) as caught:
        probe(of(Token(token.module, "attic", 0, token.pin, token.tool), pin))
    assert "'cellar' in slot" in caught.value.means
    assert "'house' in slot" in caught.value.means
    assert "''" not in caught.value.means  # a slot of SoftHSM's that holds no token yet


def test_a_broken_token_does_not_hide_the_others(
    hsm: SoftHsm, token: Token, anchor: Pkcs11Anchor
) -> None:
    hsm.token("cellar")
    probe(anchor)
    hsm.remove("cellar")
    probe(anchor)


def test_a_token_by_its_slot(token: Token, anchor: Pkcs11Anchor, pin: FileSource) -> None:
    secret = Secret.random()
    sealed = seal(anchor, secret)
    assert open_(of(token, pin, slot=token.slot), sealed) == secret
    with pytest.raises(Unreachable, match="slot 77 is not there"):
        probe(of(token, pin, slot=77))


def test_two_tokens_of_one_label_are_not_guessed_between(
    hsm: SoftHsm, token: Token, pin: FileSource
) -> None:
    other = hsm.token("house")
    with pytest.raises(Misconfigured) as caught:
        probe(of(token, pin))
    assert str(token.slot) in caught.value.seen
    assert str(other.slot) in caught.value.seen
    with pytest.raises(Missing):
        probe(of(token, pin, slot=other.slot))


def test_no_login_and_no_session_is_left_behind(
    token: Token, anchor: Pkcs11Anchor, pin: FileSource
) -> None:
    sealed = seal(anchor, Secret.random())
    open_(anchor, sealed)
    with pytest.raises(Missing):
        probe(of(token, pin, "another"))
    with pytest.raises(Damaged):
        asyncio.run(anchor.open(sealed, b"another context"))
    library = pkcs11.lib(str(token.module))  # the anchor's own
    with library.get_token(token_label="house").open() as session:
        assert list(session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY})) == []


# --- the module


@pytest.mark.parametrize("content", [None, b"", b"not a library", b"\x7fELF but no more"])
def test_what_is_no_module_is_told(
    content: bytes | None, tmp_path: Path, token: Token, pin: FileSource
) -> None:
    module = tmp_path / "module.so"
    if content is not None:
        module.write_bytes(content)
    with pytest.raises(Misconfigured, match=r"module\.so can't be"):
        probe(of(token, pin, module=module))


def test_another_library_is_no_module(token: Token, pin: FileSource) -> None:
    libc = next(Path("/lib").glob("*/libc.so.6"))
    with pytest.raises(Misconfigured, match="as a PKCS#11 module"):
        probe(of(token, pin, module=libc))


def test_a_module_that_lacks_what_it_needs_is_told(
    tmp_path: Path, token: Token, pin: FileSource
) -> None:
    lacking = Faulty(tmp_path / "lacking", tmp_path / "absent.so")
    with pytest.raises(Misconfigured, match="as a PKCS#11 module"):
        probe(of(token, pin, module=lacking.module))


def test_a_link_to_the_module_shares_its_library(
    tmp_path: Path, token: Token, anchor: Pkcs11Anchor, pin: FileSource
) -> None:
    link = tmp_path / "link.so"
    link.symlink_to(token.module)
    probe(anchor)
    probe(of(token, pin, module=link))  # loaded as another, it would be initialised twice


# --- the key


def test_a_missing_key_is_made_and_works(token: Token, pin: FileSource) -> None:
    anchor = of(token, pin)
    with pytest.raises(Missing) as caught:
        probe(anchor)
    assert caught.value.next_step == "make it: kluis anchor create-key hsm"
    said = asyncio.run(anchor.create_key())
    assert "AES-256 key 'kluis'" in said
    assert "can't leave it" in said
    secret = Secret.random()
    assert open_(anchor, seal(anchor, secret)) == secret
    assert anchor.notice is None


def test_a_made_key_can_do_nothing_but_what_it_is_for(token: Token, pin: FileSource) -> None:
    asyncio.run(of(token, pin).create_key())
    asyncio.run(of(token, pin, "pair", "RSA-OAEP-SHA1").create_key())
    allowed = {
        (ObjectClass.SECRET_KEY, KEY): {"ENCRYPT", "DECRYPT"},
        (ObjectClass.PRIVATE_KEY, "pair"): {"DECRYPT"},
        (ObjectClass.PUBLIC_KEY, "pair"): {"ENCRYPT"},
    }
    uses = ("ENCRYPT", "DECRYPT", "SIGN", "VERIFY", "WRAP", "UNWRAP", "DERIVE")
    with token.user() as session:
        for (class_, label), wanted in allowed.items():
            (made,) = session.get_objects({Attribute.CLASS: class_, Attribute.LABEL: label})
            assert {use for use in uses if _flag(made, use)} == wanted
            if class_ is not ObjectClass.PUBLIC_KEY:
                assert _flag(made, "SENSITIVE")
                assert _flag(made, "PRIVATE")
                assert not _flag(made, "EXTRACTABLE")
        assert made[Attribute.MODULUS_BITS] == 3072


def _flag(key: pkcs11.Object, name: str) -> bool:
    try:
        return bool(key[Attribute[name]])
    except pkcs11.AttributeTypeInvalid:  # none that this class of key has
        return False


@pytest.mark.parametrize("made", ["aes", "rsa", "public"])
def test_no_key_is_ever_replaced(made: str, token: Token, pin: FileSource) -> None:
    with token.user() as session:
        if made == "aes":
            make_aes(session, KEY, b"1")
        else:
            make_rsa(session, KEY, b"1")
        if made == "public":
            session.get_key(label=KEY, object_class=ObjectClass.PRIVATE_KEY).destroy()
    with pytest.raises(Refused, match="has a key 'kluis' already"):
        asyncio.run(of(token, pin).create_key())
    with pytest.raises(Refused, match="has a key id:31 already"):
        asyncio.run(of(token, pin, "id:31").create_key())


def test_a_key_by_its_id(token: Token, pin: FileSource) -> None:
    anchor = of(token, pin, "id:00Ff")
    asyncio.run(anchor.create_key())
    secret = Secret.random()
    sealed = seal(anchor, secret)
    assert open_(of(token, pin, "id:00ff"), sealed) == secret
    assert open_(of(token, pin, "kluis hsm"), sealed) == secret  # the label it got


@pytest.mark.parametrize("text", ["id:", "id:0", "id:xy", "id:0 1", "id:" + "00" * 129])
def test_what_is_no_id_is_told(text: str, token: Token, pin: FileSource) -> None:
    with pytest.raises(Misconfigured, match="is not an id"):
        probe(of(token, pin, text))


def test_two_keys_of_one_label_are_not_guessed_between(
    token: Token, anchor: Pkcs11Anchor, pin: FileSource
) -> None:
    secret = Secret.random()
    sealed = seal(anchor, secret)
    with token.user() as session:
        make_aes(session, KEY, b"2")
    for call in (probe, lambda anchor: seal(anchor, secret)):
        with pytest.raises(Misconfigured) as caught:
            call(anchor)
        assert "id:31" in caught.value.seen
        assert "id:32" in caught.value.seen
    assert open_(anchor, sealed) == secret  # the leaf knows which
    assert open_(of(token, pin, "id:31"), sealed) == secret


def test_a_key_of_another_type_is_told(token: Token, pin: FileSource) -> None:
    with token.user() as session:
        make_rsa(session, "pair", b"1")
        make_aes(session, "aes", b"2")
        session.generate_key(KeyType.DES3, label="des", id=b"3", store=True, capabilities=BOTH_WAYS)
    for key, mechanism in (("pair", "AES-GCM"), ("aes", "RSA-OAEP"), ("des", "AES-GCM")):
        with pytest.raises(Misconfigured, match="is of the type"):
            probe(of(token, pin, key, mechanism))


@pytest.mark.parametrize("use", ["ENCRYPT", "DECRYPT"])
def test_a_key_that_may_not_be_used_so_is_told(use: str, token: Token, pin: FileSource) -> None:
    with token.user() as session:
        session.generate_key(
            KeyType.AES, 256, label=KEY, id=b"1", store=True, capabilities=MechanismFlag[use]
        )
    other = {"ENCRYPT": "decrypt", "DECRYPT": "encrypt"}[use]
    with pytest.raises(Misconfigured, match=f"may not {other}"):
        probe(of(token, pin))


def test_a_key_that_may_leave_the_token_is_noticed(token: Token, pin: FileSource) -> None:
    with token.user() as session:
        make_aes(session, KEY, b"1", extractable=True)
    anchor = of(token, pin)
    probe(anchor)
    assert anchor.notice is not None
    assert "may leave token 'house'" in anchor.notice.seen


def test_a_small_rsa_key_is_refused(token: Token, pin: FileSource) -> None:
    with token.user() as session:
        session.generate_keypair(
            KeyType.RSA, 1024, label=KEY, id=b"1", store=True, capabilities=BOTH_WAYS
        )
    anchor = of(token, pin, mechanism="RSA-OAEP-SHA1")
    with pytest.raises(Misconfigured, match="1024 bits"):
        probe(anchor)
    with pytest.raises(Misconfigured, match="1024 bits"):
        seal(anchor, Secret.random())


# --- what others put into the token


def test_a_key_that_needs_no_pin_is_not_sealed_to(token: Token, pin: FileSource) -> None:
    with token.anybody() as session:
        session.create_object(
            {
                Attribute.CLASS: ObjectClass.SECRET_KEY,
                Attribute.KEY_TYPE: KeyType.AES,
                Attribute.TOKEN: True,
                Attribute.PRIVATE: False,
                Attribute.LABEL: KEY,
                Attribute.ID: b"9",
                Attribute.ENCRYPT: True,
                Attribute.DECRYPT: True,
                Attribute.VALUE: bytes(32),
            }
        )
    for call in (probe, lambda anchor: seal(anchor, Secret.random())):
        with pytest.raises(Misconfigured, match="without the PIN"):
            call(of(token, pin))
    with token.user() as session:
        make_aes(session, KEY, b"1")
    probe(of(token, pin))  # the planted one does not stand in the way of a real one


def test_a_forged_public_key_is_not_sealed_to(token: Token, pin: FileSource) -> None:
    with token.user() as session:
        make_rsa(session, KEY, b"1")
        real = session.get_key(label=KEY, object_class=ObjectClass.PUBLIC_KEY)
        modulus = real[Attribute.MODULUS]
        real.destroy()
        make_rsa(session, "foreign", b"2")
        foreign = session.get_key(label="foreign", object_class=ObjectClass.PUBLIC_KEY)
        forged = [(foreign[Attribute.MODULUS], b"\1\0\1"), (modulus, b"\3"), (modulus, b"\1")]
    with token.anybody() as session:
        for number, exponent in forged:
            session.create_object(
                {
                    Attribute.CLASS: ObjectClass.PUBLIC_KEY,
                    Attribute.KEY_TYPE: KeyType.RSA,
                    Attribute.TOKEN: True,
                    Attribute.PRIVATE: False,
                    Attribute.LABEL: KEY,
                    Attribute.ID: b"1",
                    Attribute.ENCRYPT: True,
                    Attribute.MODULUS: number,
                    Attribute.PUBLIC_EXPONENT: exponent,
                }
            )
    anchor, secret = of(token, pin, mechanism="RSA-OAEP-SHA1"), Secret.random()
    assert open_(anchor, seal(anchor, secret)) == secret


# --- the leaf


def test_a_key_that_was_replaced_is_changed_and_the_leaf_heals(
    token: Token, anchor: Pkcs11Anchor
) -> None:
    sealed = seal(anchor, Secret.random())
    token.lose(KEY)
    with token.user() as session:
        make_aes(session, KEY, b"2")
    with pytest.raises(Changed, match="another key than 'kluis'"):
        open_(anchor, sealed)
    secret = Secret.random()
    assert open_(anchor, seal(anchor, secret)) == secret


def test_a_key_that_was_replaced_under_its_id_is_damage(token: Token, anchor: Pkcs11Anchor) -> None:
    sealed = seal(anchor, Secret.random())
    token.lose(KEY)
    with token.user() as session:
        make_aes(session, KEY, b"1")
    with pytest.raises(Damaged, match="does not open this leaf"):
        open_(anchor, sealed)


def test_a_pair_that_was_replaced_is_changed_whatever_its_id(token: Token, pin: FileSource) -> None:
    anchor = of(token, pin, mechanism="RSA-OAEP-SHA1")
    with token.user() as session:
        make_rsa(session, KEY, b"1")
    sealed = seal(anchor, Secret.random())
    token.lose(KEY)
    with token.user() as session:
        make_rsa(session, KEY, b"1")
    with pytest.raises(Changed):
        open_(anchor, sealed)


def test_a_key_without_an_id_is_known_by_its_label(token: Token, pin: FileSource) -> None:
    with token.user() as session:
        make_aes(session, KEY, b"")
        make_aes(session, "newer", b"")
    secret = Secret.random()
    sealed = seal(of(token, pin), secret)
    newer = of(token, pin, "newer")
    assert open_(newer, sealed) == secret
    assert "another key than 'newer' (id:none)" in outdated(newer, sealed)
    token.lose(KEY)
    with pytest.raises(Changed):
        open_(newer, sealed)


def test_a_leaf_opens_after_the_settings_named_another_key(
    token: Token, anchor: Pkcs11Anchor, pin: FileSource
) -> None:
    secret = Secret.random()
    sealed = seal(anchor, secret)
    assert outdated(anchor, sealed) == ""
    with token.user() as session:
        make_aes(session, "newer", b"2")
        make_rsa(session, "pair", b"3")
    newer = of(token, pin, "newer")
    assert open_(newer, sealed) == secret
    assert "another key than 'newer'" in outdated(newer, sealed)
    assert outdated(newer, seal(newer, secret)) == ""
    pair = of(token, pin, "pair", "RSA-OAEP-SHA1")
    assert open_(pair, sealed) == secret
    assert outdated(pair, sealed) == "it was sealed by AES-GCM; the settings ask for RSA-OAEP-SHA1"
    assert outdated(pair, seal(pair, secret)) == ""


def test_damage_is_found_before_the_token_is_asked(token: Token, pin: FileSource) -> None:
    absent = of(Token(token.module, "absent", 0, "", token.tool), pin)
    with pytest.raises(Damaged):
        open_(absent, {"mechanism": 1, "key": "AA==", "box": "AA=="})


def test_a_tag_that_does_not_fit_is_told_from_a_fault_by_trial(anchor: Pkcs11Anchor) -> None:
    # SoftHSM 2.6 says CKR_GENERAL_ERROR to both
    sealed = dict(seal(anchor, Secret.random()))
    box = bytearray(base64.b64decode(str(sealed["box"])))
    for position in range(len(box)):
        broken = box.copy()
        broken[position] ^= 0x80
        with pytest.raises(Damaged):
            open_(anchor, {**sealed, "box": base64.b64encode(broken).decode()})


JSONS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.binary().map(lambda raw: base64.b64encode(raw).decode())
)
LEAVES = st.dictionaries(st.sampled_from(["mechanism", "key", "box", "also"]), JSONS) | (
    st.fixed_dictionaries(
        {
            "mechanism": st.integers(-1, 5),
            "key": st.binary(min_size=31, max_size=33).map(lambda b: base64.b64encode(b).decode()),
            "box": st.binary(max_size=1100).map(lambda b: base64.b64encode(b).decode()),
        }
    )
)


@given(LEAVES)
def test_fuzz_a_leaf_is_read_or_refused(sealed: dict[str, JSON]) -> None:
    try:
        leaf = Leaf.parse(sealed)
    except KluisError:
        return
    assert leaf.cipher in CIPHERS
    assert leaf.cipher.least_box_bytes <= len(leaf.box) <= leaf.cipher.most_box_bytes


@given(st.text() | st.text().map(lambda text: f"id:{text}"))
def test_fuzz_a_keys_name_is_read_or_refused(text: str) -> None:
    try:
        name = KeyName.parse(text, "hsm")
    except AnchorError:
        return
    assert (name.label is None) != (name.id is None)


# --- mechanisms


def test_a_mechanism_that_is_switched_off_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: Token, pin: FileSource
) -> None:
    without = SoftHsm(tmp_path / "without", monkeypatch, "CKM_AES_KEY_GEN").token("house")
    with without.user() as session:
        make_aes(session, KEY, b"1")
    with pytest.raises(Misconfigured, match="has no AES_GCM"):
        probe(of(without, pin))


def test_oaep_with_sha1_is_not_given_to_who_asked_for_sha256(token: Token, pin: FileSource) -> None:
    anchor = of(token, pin, mechanism="RSA-OAEP")
    with token.user() as session:
        make_rsa(session, KEY, b"1")
    sealed = seal(anchor, Secret.random())
    for call in (probe, lambda anchor: open_(anchor, sealed)):
        with pytest.raises(Misconfigured, match="'house' has no RSA-OAEP") as caught:
            call(anchor)
        assert caught.value.means == "it has OAEP, but not with this hash"
        assert "RSA-OAEP-SHA1" in caught.value.next_step
    probe(of(token, pin, mechanism="RSA-OAEP-SHA1"))


def test_oaep_with_sha256_works_where_the_token_has_it(
    tmp_path: Path, token: Token, pin: FileSource, counterparts: Counterparts
) -> None:
    nss = counterparts.of(nss_token)
    pin.path.write_text(nss.pin)
    key = tmp_path.name
    anchor, weaker = of(nss, pin, key, "RSA-OAEP"), of(nss, pin, key, "RSA-OAEP-SHA1")
    with pytest.raises(Missing):
        probe(anchor)
    assert "RSA-3072 key" in asyncio.run(anchor.create_key())
    secret = Secret.random()
    sealed = seal(anchor, secret)
    assert open_(anchor, sealed) == secret
    assert open_(weaker, sealed) == secret  # the leaf says how it was sealed
    with pytest.raises(Damaged):
        open_(anchor, {**sealed, "mechanism": 3})
    assert (
        outdated(weaker, sealed) == "it was sealed by RSA-OAEP; the settings ask for RSA-OAEP-SHA1"
    )


# --- for a person


def test_show_says_what_it_is(token: Token, anchor: Pkcs11Anchor) -> None:
    shown = asyncio.run(anchor.show())
    assert shown["token"] == "house"
    assert shown["slot"] == token.slot
    assert shown["manufacturer"] == "SoftHSM project"
    assert shown["state"] == ["ready"]
    assert shown["mechanisms"] == ["AES-GCM", "RSA-PKCS-OAEP"]
    assert shown["key"] == {
        "label": KEY,
        "id": "31",
        "type": "AES-256",
        "made": "in the token",
        "sensitive": True,
        "extractable": False,
    }


def test_show_tells_of_the_token_also_where_the_key_can_not_be_seen(
    token: Token, anchor: Pkcs11Anchor, pin: FileSource
) -> None:
    assert "has no key 'other'" in str(asyncio.run(of(token, pin, "other").show())["key"])
    pin.path.write_text("4321")
    with pytest.raises(Refused):
        probe(anchor)
    shown = asyncio.run(anchor.show())
    assert shown["state"] == ["a wrong PIN was entered since the last login"]
    assert str(shown["key"]).startswith("not seen: token 'house' refused the PIN")
