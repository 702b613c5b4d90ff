"""What every anchor keeps to. A new kind joins by one line in KINDS."""

from __future__ import annotations

import asyncio
import base64
import itertools
import traceback
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from kluis.anchors.awskms.anchor import AwsKmsAnchor
from kluis.anchors.base import Anchor
from kluis.anchors.passphrase import PassphraseAnchor
from kluis.anchors.pkcs11.anchor import Pkcs11Anchor
from kluis.anchors.sources import CredentialSource, EnvironmentSource, FileSource
from kluis.anchors.static import StaticAnchor
from kluis.anchors.tang.anchor import TangAnchor
from kluis.anchors.tpm2.anchor import Tpm2Anchor
from kluis.anchors.transit.anchor import TransitAnchor
from kluis.errors import AnchorError, Damaged, Misconfigured, Missing, Refused, Unreachable
from kluis.keyring.crypto import Argon2Cost
from kluis.keyring.strict import JSON
from kluis.secret import Secret
from tests.anchors.conftest import Counterparts
from tests.support.documented_anchor import documented_anchor, forget_key
from tests.support.failing_anchor import FailingAnchor, Hanging, IsMissing
from tests.support.moto import REGION, SECRET_ACCESS_KEY, moto, use_credentials
from tests.support.softhsm import NSS_PIN, SoftHsm, make_aes, make_rsa, nss_token
from tests.support.softhsm import Token as Hsm
from tests.support.swtpm import shared_swtpm
from tests.support.tang import shared_tang
from tests.support.transit import delete_key_of, transit_server

CONTEXT = b"kluis/1|00000000-0000-4000-8000-000000000000|1|/|kind"
CLASSES = (Unreachable, Refused, Missing, Damaged, Misconfigured)
CHEAP = Argon2Cost(memory_kib=64, iterations=1, lanes=1)
KEY = bytes(range(1, 33))
PASSPHRASE = "correct horse battery staple"
HSM_PIN = "a long PIN 271828"
SECRET_ID = "secret-id-of-the-contract-161803"


@dataclass(frozen=True)
class Ground:
    """Where an anchor of a test lives."""

    folder: Path
    environment: pytest.MonkeyPatch
    counterparts: Counterparts

    def private(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        path.chmod(0o600)
        return path


Make = Callable[[Ground], Anchor]
Lose = Callable[[Ground, Anchor], None]


@dataclass(frozen=True)
class Kind:
    """A kind of anchor: how to make one, how it loses what it opens with, and its secret."""

    name: str
    make: Make
    lose: Lose
    secret: bytes = KEY
    lost: type[AnchorError] = Missing
    """What it says after the loss."""


def _static_by_file(ground: Ground) -> Anchor:
    return StaticAnchor("disk", FileSource(ground.private("anchor.key", KEY)))


def _static_by_environment(ground: Ground) -> Anchor:
    ground.environment.setenv("KLUIS_TEST_KEY", KEY.hex())
    return StaticAnchor("disk", EnvironmentSource("KLUIS_TEST_KEY"))


def _static_by_credential(ground: Ground) -> Anchor:
    ground.private("key", base64.b64encode(KEY) + b"\n")
    ground.environment.setenv("CREDENTIALS_DIRECTORY", str(ground.folder))
    return StaticAnchor("disk", CredentialSource("key"))


def _passphrase_typed(ground: Ground) -> Anchor:
    anchor = PassphraseAnchor("vault-room", cost=CHEAP)
    anchor.enter(PASSPHRASE)
    return anchor


def _passphrase_by_file(ground: Ground) -> Anchor:
    path = ground.private("passphrase", PASSPHRASE.encode() + b"\n")
    return PassphraseAnchor("vault-room", FileSource(path), CHEAP)


def _aes_in_softhsm(ground: Ground) -> Anchor:
    hsm = SoftHsm(ground.folder / "hsm", ground.environment).token("house", HSM_PIN)
    with hsm.user() as session:
        make_aes(session, ground.folder.name, b"1")
    return _in_hsm(ground, hsm, "AES-GCM")


def _rsa_in_softhsm(ground: Ground) -> Anchor:
    hsm = SoftHsm(ground.folder / "hsm", ground.environment).token("house", HSM_PIN)
    with hsm.user() as session:
        make_rsa(session, ground.folder.name, b"1")
    return _in_hsm(ground, hsm, "RSA-OAEP-SHA1")


def _rsa_in_nss(ground: Ground) -> Anchor:
    hsm = ground.counterparts.of(nss_token)
    with hsm.user() as session:
        make_rsa(session, ground.folder.name, ground.folder.name.encode())
    return _in_hsm(ground, hsm, "RSA-OAEP")


def _in_hsm(ground: Ground, hsm: Hsm, mechanism: str) -> Anchor:
    return Pkcs11Anchor(
        "hsm",
        module=hsm.module,
        token=hsm.label,
        slot=None,
        key=ground.folder.name,
        pin=FileSource(ground.private("pin", hsm.pin.encode())),
        mechanism=mechanism,
    )


def _lose_key_in_softhsm(ground: Ground, anchor: Anchor) -> None:
    module = ground.folder / "hsm" / "tool.so"
    Hsm(module, "house", 0, HSM_PIN, module).lose(ground.folder.name)


def _lose_key_in_nss(ground: Ground, anchor: Anchor) -> None:
    ground.counterparts.of(nss_token).lose(ground.folder.name)


def _tang(ground: Ground) -> Anchor:
    tang = ground.counterparts.of(shared_tang)
    tang.fresh()
    return TangAnchor("nas", url=tang.url, thumbprint=tang.thumbprint())


def _lose_exchange_key(ground: Ground, anchor: Anchor) -> None:
    ground.counterparts.of(shared_tang).delete_exchange_keys()


def _tpm(ground: Ground) -> Anchor:
    tpm = ground.counterparts.of(shared_swtpm)
    tpm.start()
    return Tpm2Anchor("house-tpm", device=tpm.device)


def _tpm_with_pin_and_pcrs(ground: Ground) -> Anchor:
    tpm = ground.counterparts.of(shared_swtpm)
    tpm.start()
    pin = FileSource(ground.private("pin", HSM_PIN.encode()))
    return Tpm2Anchor("house-tpm", device=tpm.device, pcrs=(4, 7), pin=pin)


def _stop_tpm(ground: Ground, anchor: Anchor) -> None:
    ground.counterparts.of(shared_swtpm).stop()


def _transit(ground: Ground) -> Anchor:
    room = ground.counterparts.of(transit_server).room()
    return room.anchor(room.by_this_secret_id(SECRET_ID))


def _lose_key_in_transit(ground: Ground, anchor: Anchor) -> None:
    assert isinstance(anchor, TransitAnchor)
    delete_key_of(ground.counterparts.of(transit_server), anchor)


def _lose_file(name: str) -> Lose:
    return lambda ground, anchor: (ground.folder / name).unlink()


def _forget(ground: Ground, anchor: Anchor) -> None:
    assert isinstance(anchor, PassphraseAnchor)
    anchor.forget()


def _command_missing(ground: Ground, anchor: Anchor) -> None:
    assert isinstance(anchor, FailingAnchor)
    anchor.now = IsMissing()


def _unset(ground: Ground, anchor: Anchor) -> None:
    ground.environment.delenv("KLUIS_TEST_KEY")


def _awskms(ground: Ground) -> Anchor:
    use_credentials(ground.environment, ground.folder)
    aws = ground.counterparts.of(moto)
    return AwsKmsAnchor("cloud", key=aws.create_mortal_key(), region=REGION, endpoint=aws.endpoint)


def _lose_key_in_kms(ground: Ground, anchor: Anchor) -> None:
    assert isinstance(anchor, AwsKmsAnchor)
    ground.counterparts.of(moto).delete_key(anchor._key)


KINDS = (
    Kind("static-file", _static_by_file, _lose_file("anchor.key")),
    Kind("static-environment", _static_by_environment, _unset),
    Kind("static-credential", _static_by_credential, _lose_file("key")),
    Kind("passphrase-typed", _passphrase_typed, _forget, PASSPHRASE.encode()),
    Kind("passphrase-file", _passphrase_by_file, _lose_file("passphrase"), PASSPHRASE.encode()),
    Kind("pkcs11-aes", _aes_in_softhsm, _lose_key_in_softhsm, HSM_PIN.encode()),
    Kind("pkcs11-rsa-sha1", _rsa_in_softhsm, _lose_key_in_softhsm, HSM_PIN.encode()),
    Kind("pkcs11-rsa", _rsa_in_nss, _lose_key_in_nss, NSS_PIN.encode()),
    Kind("awskms", _awskms, _lose_key_in_kms, SECRET_ACCESS_KEY.encode()),
    Kind("tpm2", _tpm, _stop_tpm, lost=Unreachable),
    Kind("tpm2-pin-pcrs", _tpm_with_pin_and_pcrs, _lose_file("pin"), HSM_PIN.encode()),
    Kind("tang", _tang, _lose_exchange_key),
    Kind("transit", _transit, _lose_key_in_transit, SECRET_ID.encode()),
    Kind("failing", lambda ground: FailingAnchor(), _command_missing),
    Kind("skeleton", documented_anchor, lambda _, anchor: forget_key(anchor)),
)


CALLS: Mapping[str, Callable[[Anchor], Coroutine[None, None, object]]] = {
    "_seal": lambda anchor: anchor.seal(Secret.random(), CONTEXT),
    "_open": lambda anchor: anchor.open({}, CONTEXT),
    "_probe": lambda anchor: anchor.probe(),
    "_knock": lambda anchor: anchor.knock(),
    "_outdated": lambda anchor: anchor.outdated({}),
    "_show": lambda anchor: anchor.show(),
    "_create_key": lambda anchor: anchor.create_key(),
}


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counterparts: Counterparts) -> Ground:
    return Ground(tmp_path, monkeypatch, counterparts)


@pytest.fixture
def anchor(kind: Kind, ground: Ground) -> Anchor:
    made = kind.make(ground)
    made.deadline_s = 60.0  # a slow machine is not what fails here
    return made


def seal(anchor: Anchor, secret: Secret, context: bytes = CONTEXT) -> Mapping[str, JSON]:
    return asyncio.run(anchor.seal(secret, context))


def open_(anchor: Anchor, sealed: Mapping[str, JSON], context: bytes = CONTEXT) -> Secret:
    return asyncio.run(anchor.open(sealed, context))


def refusal(anchor: Anchor, sealed: Mapping[str, JSON], context: bytes = CONTEXT) -> AnchorError:
    with pytest.raises(AnchorError) as caught:
        open_(anchor, sealed, context)
    assert isinstance(caught.value, CLASSES)
    assert caught.value.seen
    assert caught.value.means
    assert caught.value.next_step
    assert "\n" not in caught.value.seen + caught.value.means + caught.value.next_step
    return caught.value


def tampered(value: JSON) -> JSON:
    """A value of the same shape that says something else."""
    if isinstance(value, str):
        data = bytearray(base64.b64decode(value))
        data[-1] ^= 1
        return base64.b64encode(data).decode()
    assert isinstance(value, int)
    return value + 1


def test_opens_what_it_sealed(anchor: Anchor) -> None:
    secret = Secret.random()
    assert open_(anchor, seal(anchor, secret)) == secret


def test_no_two_seals_are_alike(anchor: Anchor) -> None:
    secret = Secret.random()
    assert seal(anchor, secret) != seal(anchor, secret)


def test_a_leaf_that_was_moved_elsewhere_does_not_open(anchor: Anchor) -> None:
    sealed = seal(anchor, Secret.random())
    for context in (CONTEXT + b"2", CONTEXT.replace(b"|1|", b"|2|"), b""):
        assert isinstance(refusal(anchor, sealed, context), Damaged | Refused)


def test_every_field_that_was_tampered_with_is_noticed(anchor: Anchor) -> None:
    sealed = seal(anchor, Secret.random())
    for name, value in sealed.items():
        error = refusal(anchor, {**sealed, name: tampered(value)})
        assert isinstance(error, Damaged | Refused), name


ODD: tuple[JSON, ...] = (None, True, -1, 2**53 - 1, "", "AAAA", "no base64!", "A" * 60_000, [], {})


def test_every_field_of_another_type_or_size_is_damage(anchor: Anchor) -> None:
    sealed = seal(anchor, Secret.random())
    for name, value in itertools.product(sealed, ODD):
        error = refusal(anchor, {**sealed, name: value})
        assert isinstance(error, Damaged), (name, value)


def test_a_field_that_is_missing_or_foreign_is_damage(anchor: Anchor) -> None:
    sealed = seal(anchor, Secret.random())
    for name in sealed:
        rest = {other: value for other, value in sealed.items() if other != name}
        assert isinstance(refusal(anchor, rest), Damaged), name
    assert isinstance(refusal(anchor, {**sealed, "also": 1}), Damaged)
    assert isinstance(refusal(anchor, {}), Damaged)


def test_probe_says_whether_it_could_open(kind: Kind, ground: Ground, anchor: Anchor) -> None:
    asyncio.run(anchor.probe())
    sealed = seal(anchor, Secret.random())
    kind.lose(ground, anchor)
    with pytest.raises(kind.lost):
        asyncio.run(anchor.probe())
    assert isinstance(refusal(anchor, sealed), kind.lost)
    with pytest.raises(kind.lost):
        seal(anchor, Secret.random())


def test_every_call_that_hangs_ends_by_its_deadline(
    anchor: Anchor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*args: object) -> None:
        await asyncio.Event().wait()

    anchor.deadline_s = 0.02
    for name, call in CALLS.items():
        monkeypatch.setattr(anchor, name, hang)
        with pytest.raises(Unreachable, match=r"no answer within 0\.02 s"):
            asyncio.run(call(anchor))


def test_a_foreign_exception_does_not_cross_nor_its_text(
    anchor: Anchor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def burst(*args: object) -> None:
        raise KeyError("the secret is hunter2")

    for name, call in CALLS.items():
        monkeypatch.setattr(anchor, name, burst)
        with pytest.raises(Misconfigured, match="unexpected KeyError") as caught:
            asyncio.run(call(anchor))
        assert "hunter2" not in shown(caught.value)


def test_no_error_and_no_repr_shows_a_secret(kind: Kind, ground: Ground, anchor: Anchor) -> None:
    secret = Secret.random()
    sealed = seal(anchor, secret)
    errors = [refusal(anchor, {**sealed, name: tampered(sealed[name])}) for name in sealed]
    errors += [refusal(anchor, {**sealed, name: "A" * 60_000}) for name in sealed]
    errors += [refusal(anchor, sealed, b"another")]
    kind.lose(ground, anchor)
    errors += [refusal(anchor, sealed)]
    text = "\n".join([*map(shown, errors), repr(anchor), str(anchor), repr(dict(sealed))])
    for hidden in (secret.reveal(), kind.secret):
        for form in (hidden.hex(), base64.b64encode(hidden).decode(), repr(hidden)[2:-1]):
            assert form not in text


def shown(error: AnchorError) -> str:
    """Whatever of an error could get before somebody's eyes."""
    return "\n".join(
        [
            *(error.seen, error.means, error.next_step, str(error), repr(error)),
            *traceback.format_exception(error),
        ]
    )


def test_one_anchor_serves_many_at_once(anchor: Anchor) -> None:
    async def all_at_once() -> None:
        secrets = [Secret.random() for _ in range(12)]
        sealed = await asyncio.gather(*(anchor.seal(secret, CONTEXT) for secret in secrets))
        opened = await asyncio.gather(*(anchor.open(leaf, CONTEXT) for leaf in sealed))
        assert opened == secrets

    asyncio.run(all_at_once())


def test_cancelling_whoever_asks_cancels_the_call() -> None:
    async def cancelled() -> None:
        anchor = FailingAnchor(now=Hanging())
        asking = asyncio.create_task(anchor.probe())
        await anchor.asked.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.sleep(0)
        assert anchor.cancelled == 1

    asyncio.run(cancelled())
