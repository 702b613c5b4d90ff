"""The table of faults: down, hang, slow, refuse, gone, damaged, flapping; and the way back."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from kluis.anchors.pkcs11.anchor import Pkcs11Anchor
from kluis.anchors.sources import FileSource
from kluis.errors import AnchorError, Damaged, Misconfigured, Missing, Refused, Unreachable
from kluis.secret import Secret
from tests.support.faulty_pkcs11 import Faulty
from tests.support.softhsm import SoftHsm, Token, make_aes

# python-pkcs11 finishes a search that did not begin, in a __del__ whose error nobody can catch
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

CONTEXT = b"context"
KEY = "kluis"


class House:
    """A token behind a module that plays faults."""

    def __init__(self, folder: Path, environment: pytest.MonkeyPatch) -> None:
        self.hsm = SoftHsm(folder / "hsm", environment)
        self.token: Token = self.hsm.token("house")
        with self.token.user() as session:
            make_aes(session, KEY, b"1")
        self.faulty = Faulty(folder / "faulty", self.token.module)
        self.other = Faulty(folder / "other", self.hsm.copy("third.so"))
        self.pin = FileSource(folder / "pin")
        self.pin.path.write_text(self.token.pin)
        self.pin.path.chmod(0o600)

    def anchor(self, deadline_s: float = 10.0, faulty: Faulty | None = None) -> Pkcs11Anchor:
        return Pkcs11Anchor(
            "hsm",
            module=(faulty or self.faulty).module,
            token="house",
            slot=None,
            key=KEY,
            pin=self.pin,
            deadline_s=deadline_s,
        )


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    return House(tmp_path, monkeypatch)


# function, what it answers, the class, the words, and whether the module is started anew for it
GONE = "token 'house' failed: "
FAULTS = (
    ("C_Initialize", "GENERAL_ERROR", Unreachable, "the start of faulty.so failed", False),
    ("C_Initialize", "DEVICE_ERROR", Unreachable, "the start of faulty.so failed", False),
    ("C_GetSlotList", "GENERAL_ERROR", Unreachable, GONE + "GeneralError", True),
    ("C_GetSlotList", "NOT_INITIALIZED", Unreachable, GONE + "an unnamed code", True),
    ("C_GetTokenInfo", "TOKEN_NOT_PRESENT", Unreachable, "token 'house' is not there", True),
    ("C_GetTokenInfo", "GENERAL_ERROR", Unreachable, "token 'house' is not there", True),
    ("C_OpenSession", "TOKEN_NOT_PRESENT", Unreachable, GONE + "TokenNotPresent", True),
    ("C_OpenSession", "DEVICE_REMOVED", Unreachable, GONE + "DeviceRemoved", True),
    ("C_OpenSession", "SESSION_COUNT", Unreachable, GONE + "SessionCount", False),
    ("C_Login", "DEVICE_REMOVED", Unreachable, "the login to token 'house' failed", False),
    ("C_Login", "ALREADY_LOGGED_IN", Unreachable, "the login to token 'house' failed", False),
    ("C_FindObjectsInit", "SESSION_HANDLE_INVALID", Unreachable, GONE, True),
    ("C_FindObjectsInit", "DEVICE_REMOVED", Unreachable, GONE, True),
    ("C_DecryptInit", "MECHANISM_INVALID", Misconfigured, GONE + "MechanismInvalid", False),
    ("C_DecryptInit", "USER_NOT_LOGGED_IN", Misconfigured, GONE + "UserNotLoggedIn", False),
    ("C_DecryptInit", "KEY_FUNCTION_NOT_PERMITTED", Unreachable, GONE + "an unnamed code", True),
    ("C_Decrypt", "DEVICE_ERROR", Unreachable, GONE + "DeviceError", True),
    ("C_Decrypt", "GENERAL_ERROR", Unreachable, GONE + "GeneralError", True),
    ("C_Decrypt", "FUNCTION_FAILED", Unreachable, GONE + "FunctionFailed", True),
    ("C_Decrypt", "DEVICE_REMOVED", Unreachable, GONE + "DeviceRemoved", True),
    ("C_Decrypt", "ENCRYPTED_DATA_INVALID", Damaged, "does not open this leaf", False),
)


@pytest.mark.parametrize(("function", "code", "kind", "words", "anew"), FAULTS)
def test_each_fault_has_its_class_and_words_and_the_way_back_needs_no_restart(
    function: str, code: str, kind: type[AnchorError], words: str, anew: bool, house: House
) -> None:
    secret = Secret.random()
    sealed = asyncio.run(house.anchor(faulty=house.other).seal(secret, CONTEXT))
    anchor = house.anchor()
    house.faulty.play(function, code)
    with pytest.raises(AnchorError, match=words) as caught:
        asyncio.run(anchor.open(sealed, CONTEXT))
    assert type(caught.value) is kind
    assert caught.value.means
    assert caught.value.next_step
    assert house.faulty.calls("C_Finalize") == anew
    house.faulty.heal(function)
    assert asyncio.run(until_good(lambda: anchor.open(sealed, CONTEXT))) == secret


async def until_good(call: Callable[[], Coroutine[None, None, object]]) -> object:
    async with asyncio.timeout(30):
        while True:
            try:
                return await call()
            except Unreachable:
                await asyncio.sleep(0.02)


ONCE = (
    ("C_GetSlotList", "NOT_INITIALIZED"),
    ("C_GetTokenInfo", "TOKEN_NOT_PRESENT"),
    ("C_OpenSession", "TOKEN_NOT_PRESENT"),
    ("C_FindObjectsInit", "SESSION_HANDLE_INVALID"),
    ("C_DecryptInit", "SESSION_HANDLE_INVALID"),
    ("C_Decrypt", "DEVICE_REMOVED"),
)


@pytest.mark.parametrize(("function", "code"), ONCE)
def test_a_token_that_was_put_in_again_is_opened_in_the_same_call(
    function: str, code: str, house: House
) -> None:
    anchor, secret = house.anchor(), Secret.random()
    sealed = asyncio.run(anchor.seal(secret, CONTEXT))
    house.faulty.play(function, code, once=True)
    assert asyncio.run(anchor.open(sealed, CONTEXT)) == secret
    assert house.faulty.calls("C_Finalize") == 1


def test_a_module_is_not_started_anew_more_than_once_a_second(house: House) -> None:
    anchor = house.anchor()
    asyncio.run(anchor.knock())
    house.faulty.play("C_GetTokenInfo", "TOKEN_NOT_PRESENT")
    began = time.monotonic()
    for _ in range(50):
        with pytest.raises(Unreachable):
            asyncio.run(anchor.knock())
    assert house.faulty.calls("C_Finalize") <= 1 + (time.monotonic() - began)


def test_a_fault_while_a_key_is_made_makes_no_second_one(house: House) -> None:
    house.token.lose(KEY)
    house.faulty.play("C_GenerateKey", "GENERAL_ERROR")
    with pytest.raises(Unreachable, match="making a key in token 'house' failed"):
        asyncio.run(house.anchor().create_key())
    assert house.faulty.calls("C_GenerateKey") == 1
    house.faulty.play("C_GenerateKey", "TOKEN_WRITE_PROTECTED")
    with pytest.raises(Refused, match="TokenWriteProtected"):
        asyncio.run(house.anchor().create_key())
    with pytest.raises(Missing):
        asyncio.run(house.anchor().probe())


def test_a_flapping_token_ends_in_an_answer_or_a_class_and_then_works(house: House) -> None:
    anchor, secret = house.anchor(), Secret.random()
    sealed = asyncio.run(anchor.seal(secret, CONTEXT))
    for turn in range(40):
        for function, code in ONCE[turn % 3 :: 3]:
            house.faulty.play(function, code, once=turn % 2 == 0)
        with contextlib.suppress(Unreachable):
            assert asyncio.run(anchor.open(sealed, CONTEXT)) == secret
        house.faulty.heal(*(function for function, _ in ONCE))
    assert asyncio.run(until_good(lambda: anchor.open(sealed, CONTEXT))) == secret


# --- a module that hangs


async def called(faulty: Faulty, function: str, times: int) -> None:
    async with asyncio.timeout(30):
        while faulty.calls(function) < times:  # noqa: ASYNC110 - another library's doing
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("function", ["C_GetSlotList", "C_Login", "C_Decrypt", "C_CloseSession"])
def test_a_module_that_hangs_holds_up_nobody_beyond_their_deadline(
    function: str, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kluis.anchors.pkcs11.anchor._WAIT", 0.02)  # much time to say for what
    secret = Secret.random()
    sealed = asyncio.run(house.anchor().seal(secret, CONTEXT))
    first, next_one, apart = house.anchor(0.5), house.anchor(), house.anchor(faulty=house.other)

    async def all_at_once() -> None:
        before = house.faulty.calls(function)
        house.faulty.play(function, "hang")
        with pytest.raises(Unreachable, match=r"no answer within 0\.5 s"):
            await first.open(sealed, CONTEXT)
        await called(house.faulty, function, before + 1)
        with pytest.raises(Unreachable, match=r"an earlier call of faulty\.so has not ended yet"):
            await next_one.open(sealed, CONTEXT)
        assert await apart.open(sealed, CONTEXT) == secret  # another module
        house.faulty.heal(function)
        assert await until_good(lambda: next_one.open(sealed, CONTEXT)) == secret

    asyncio.run(all_at_once())


def test_a_module_that_hangs_in_its_own_end_does_not_stop_the_process(house: House) -> None:
    anchor = house.anchor()
    asyncio.run(anchor.knock())
    anchor.deadline_s = 0.5
    house.faulty.play("C_GetTokenInfo", "TOKEN_NOT_PRESENT")
    house.faulty.play("C_Finalize", "hang")

    async def loop_goes_on() -> int:
        turns, knocking = 0, asyncio.create_task(anchor.knock())
        while not knocking.done():
            await asyncio.sleep(0.01)
            turns += 1
        with pytest.raises(Unreachable):
            await knocking
        return turns

    assert asyncio.run(loop_goes_on()) > 0  # with the interpreter's lock held it would not return
    house.faulty.heal("C_GetTokenInfo", "C_Finalize")
    anchor.deadline_s = 10.0
    asyncio.run(until_good(anchor.knock))


def test_calls_that_hang_for_long_take_no_more_threads_than_their_bound(house: House) -> None:
    anchor = house.anchor(0.05)
    house.faulty.play("C_GetSlotList", "hang")

    async def ask() -> None:
        for _ in range(3):
            outcomes = await asyncio.gather(
                *(anchor.probe() for _ in range(40)), return_exceptions=True
            )
            assert all(isinstance(outcome, Unreachable) for outcome in outcomes)
        house.faulty.heal("C_GetSlotList")
        anchor.deadline_s = 10.0
        await until_good(anchor.probe)

    asyncio.run(ask())


LEAVES = """
import asyncio, sys
from pathlib import Path
from kluis.anchors.pkcs11.anchor import Pkcs11Anchor
from kluis.anchors.sources import FileSource
from kluis.errors import Unreachable
module, pin = map(Path, sys.argv[1:])
anchor = Pkcs11Anchor(
    "hsm", module=module, token="house", slot=None, key="kluis", pin=FileSource(pin), deadline_s=0.3
)
try:
    asyncio.run(anchor.probe())
except Unreachable:
    print("unreachable")
"""


def test_a_process_ends_though_a_login_and_the_modules_end_hang(house: House) -> None:
    house.faulty.play("C_Login", "hang")
    house.faulty.play("C_Finalize", "hang")
    done = subprocess.run(
        [sys.executable, "-c", LEAVES, house.faulty.module, house.pin.path],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "unreachable\n"
    assert done.stderr == ""
