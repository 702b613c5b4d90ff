"""PINs: a token locks after a few wrong tries, and no try is spent that need not be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from kluis.anchors.pkcs11.anchor import Pkcs11Anchor
from kluis.anchors.sources import FileSource
from kluis.errors import AnchorError, Misconfigured, Missing, Refused, Unreachable
from kluis.keyring.strict import JSON
from kluis.secret import Secret
from tests.support.faulty_pkcs11 import COUNT_LOW, FINAL_TRY, LOCKED, Faulty
from tests.support.softhsm import SoftHsm, Token, make_aes

KEY = "kluis"
WRONG = "a wrong PIN 161803"


class House:
    """A token behind a module that counts the logins, and the anchor's PIN in a file."""

    def __init__(self, folder: Path, environment: pytest.MonkeyPatch) -> None:
        self.token: Token = SoftHsm(folder / "hsm", environment).token("house")
        with self.token.user() as session:
            make_aes(session, KEY, b"1")
        self.faulty = Faulty(folder / "faulty", self.token.module)
        self.pin = FileSource(folder / "pin")
        self.write(self.token.pin)

    def write(self, pin: str | bytes) -> None:
        self.pin.path.write_bytes(pin if isinstance(pin, bytes) else pin.encode())
        self.pin.path.chmod(0o600)

    def anchor(self) -> Pkcs11Anchor:
        return Pkcs11Anchor(
            "hsm", module=self.faulty.module, token="house", slot=None, key=KEY, pin=self.pin
        )

    def logins(self) -> int:
        return self.faulty.calls("C_Login")


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    return House(tmp_path, monkeypatch)


def probe(anchor: Pkcs11Anchor) -> None:
    asyncio.run(anchor.probe())


def refusal(anchor: Pkcs11Anchor) -> Refused:
    with pytest.raises(Refused) as caught:
        probe(anchor)
    return caught.value


def test_a_wrong_pin_is_tried_once_whoever_asks_and_how_often(house: House) -> None:
    house.write(WRONG)
    assert "refuses the PIN" in refusal(house.anchor()).seen
    sealed: dict[str, JSON] = {"mechanism": 1, "key": "A" * 43 + "=", "box": "A" * 80}
    calls: list[Callable[[Pkcs11Anchor], object]] = [
        lambda anchor: asyncio.run(anchor.probe()),
        lambda anchor: asyncio.run(anchor.seal(Secret.random(), b"")),
        lambda anchor: asyncio.run(anchor.open(sealed, b"")),
        lambda anchor: asyncio.run(anchor.outdated(sealed)),
        lambda anchor: asyncio.run(anchor.create_key()),
    ]
    for call in calls * 2:
        with pytest.raises(Refused, match=r"refused the PIN from .* before"):
            call(house.anchor())  # another object: what is known is the process's
    asyncio.run(house.anchor().show())
    assert house.logins() == 1


def test_many_at_once_try_a_wrong_pin_once(house: House) -> None:
    house.write(WRONG)

    async def all_at_once() -> list[BaseException | None]:
        anchor = house.anchor()
        return await asyncio.gather(*(anchor.probe() for _ in range(12)), return_exceptions=True)

    assert all(isinstance(error, Refused) for error in asyncio.run(all_at_once()))
    assert house.logins() == 1


def test_another_pin_from_the_source_is_tried(house: House) -> None:
    house.write(WRONG)
    refusal(house.anchor())
    house.write(house.token.pin)
    probe(house.anchor())
    house.write(WRONG)
    refusal(house.anchor())  # still known, though another was right since
    assert house.logins() == 2


def test_after_a_wrong_pin_in_another_program_no_pin_is_tried_that_was_never_right(
    house: House,
) -> None:
    house.token.mistype()
    error = refusal(house.anchor())
    assert "was given a wrong PIN" in error.seen
    assert "pkcs11-tool --module" in error.next_step
    assert "--token-label house --login" in error.next_step
    assert house.logins() == 0
    with house.token.user():
        pass  # the login by hand
    probe(house.anchor())
    assert house.logins() == 1


def test_a_pin_that_was_right_here_is_tried_after_anothers_mistake(house: House) -> None:
    probe(house.anchor())
    house.token.mistype()
    probe(house.anchor())
    assert house.logins() == 2


def test_the_last_try_is_never_risked(house: House) -> None:
    probe(house.anchor())  # even of a PIN that was right
    house.faulty.flags(COUNT_LOW | FINAL_TRY)
    assert "locks at the next wrong PIN" in refusal(house.anchor()).seen
    assert house.logins() == 1
    house.faulty.heal("flags")
    probe(house.anchor())


def test_wrong_pins_one_after_the_other_stop_before_the_last_try(house: House) -> None:
    for number, flags in enumerate((0, COUNT_LOW, COUNT_LOW | FINAL_TRY, COUNT_LOW | FINAL_TRY)):
        house.faulty.flags(flags)
        house.write(f"{WRONG} {number}")
        refusal(house.anchor())
    assert house.logins() == 2


def test_a_locked_pin_is_not_tried(house: House) -> None:
    house.faulty.flags(LOCKED)
    assert "is locked" in refusal(house.anchor()).seen
    assert house.logins() == 0
    assert asyncio.run(house.anchor().show())["state"] == ["the PIN is locked"]


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("PIN_LOCKED", Refused, "is locked"),
        ("PIN_EXPIRED", Refused, "has expired"),
        ("PIN_LEN_RANGE", Refused, "refuses the PIN"),
        ("PIN_NOT_INITIALIZED", Misconfigured, "has no PIN yet"),
        ("DEVICE_ERROR", Unreachable, "the login to token 'house' failed: DeviceError"),
    ],
)
def test_what_a_login_answers_is_told_apart(
    code: str, kind: type[AnchorError], words: str, house: House
) -> None:
    house.faulty.play("C_Login", code)
    with pytest.raises(kind, match=words):
        probe(house.anchor())
    assert house.logins() == 1  # also where a new start of the module might mend it


def test_a_login_whose_outcome_is_not_known_is_made_again_with_a_module_started_anew(
    house: House,
) -> None:
    house.faulty.play("C_Login", "GENERAL_ERROR", once=True)
    with pytest.raises(Unreachable):
        probe(house.anchor())
    assert house.faulty.calls("C_Finalize") == 0
    probe(house.anchor())
    assert house.faulty.calls("C_Finalize") == 1


def test_a_knock_is_no_login_and_reads_no_pin(house: House) -> None:
    house.pin.path.unlink()
    asyncio.run(house.anchor().knock())
    assert house.logins() == 0


def test_a_pin_file_that_is_missing_or_open_to_others_costs_no_try(house: House) -> None:
    house.pin.path.chmod(0o644)
    assert "others can read" in refusal(house.anchor()).seen
    house.pin.path.unlink()
    with pytest.raises(Missing, match="pin is not there"):
        probe(house.anchor())
    assert house.logins() == 0


@pytest.mark.parametrize("raw", [b"", b"\n", b"\xff\xfe", b"12\x0034", b"1" * 256], ids=repr)
def test_what_is_no_pin_costs_no_try(raw: bytes, house: House) -> None:
    house.write(raw)
    with pytest.raises(Misconfigured, match="are not a PIN") as caught:
        probe(house.anchor())
    assert "1111" not in str(caught.value)
    assert house.logins() == 0


def test_a_newline_at_the_end_is_no_part_of_it(house: House) -> None:
    house.write(f"{house.token.pin}\n")
    probe(house.anchor())


def test_no_login_is_left_behind_by_a_refused_pin(house: House) -> None:
    house.write(WRONG)
    refusal(house.anchor())
    opened, closed = (house.faulty.calls(f"C_{name}Session") for name in ("Open", "Close"))
    assert opened == closed + 1  # python-pkcs11 loses the session of a login that failed
    assert house.faulty.calls("C_CloseAllSessions") == 1


def test_a_wrong_pin_is_shown_nowhere(house: House) -> None:
    house.write(WRONG)
    for _ in range(2):
        error = refusal(house.anchor())
        assert WRONG not in f"{error.seen} {error.means} {error.next_step} {error!r}"
        assert error.__cause__ is None
    assert WRONG not in str(asyncio.run(house.anchor().show()))
