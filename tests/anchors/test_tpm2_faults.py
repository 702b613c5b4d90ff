"""What goes wrong with a TPM, and the class and the words it gives.

A real TPM in software shows what it can be made to show; the bus to it shows the rest.
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tpm2_pytss import TPM2_CC, TPM2_RC

from kluis.anchors.tpm2 import codes as tpm2_codes
from kluis.anchors.tpm2.anchor import Tpm2Anchor
from kluis.anchors.tpm2.leaf import read_leaf
from kluis.anchors.tpm2.state import State
from kluis.errors import (
    AnchorError,
    Changed,
    Damaged,
    Misconfigured,
    Missing,
    Refused,
    Unreachable,
)
from tests.anchors.test_tpm2 import (
    NOTHING,
    PIN,
    anchor_at,
    failed_probe,
    one_line_each,
    opens,
    refusal,
    seal,
    until,
    write,
)
from tests.support.swtpm import Bus, Swtpm


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[Swtpm]:
    with Swtpm(tmp_path) as tpm:
        yield tpm


@pytest.fixture
def bus(tpm: Swtpm) -> Iterator[Bus]:
    with Bus(tpm) as bus:
        yield bus


@pytest.fixture
def pin(tmp_path: Path) -> Path:
    path = tmp_path / "pin"
    write(path, PIN)
    return path


# -- the table of faults: what happens, and the class and the words it gives


@dataclass(frozen=True)
class Fault:
    name: str
    happens: Callable[[Bus], None]
    error: type[AnchorError]
    words: str
    heals: bool = False
    """Whether sealing anew heals it at once."""


def refusing(command: TPM2_CC, rc: TPM2_RC) -> Callable[[Bus], None]:
    return lambda bus: bus.refuse(command, rc, times=1000)


def slow(bus: Bus) -> None:
    bus.delay_s = 1.0


PRIMARY: Final = TPM2_CC.CreatePrimary
FAULTS: Final = (
    Fault("down", lambda bus: bus.tpm.stop(), Unreachable, "no TPM answers at swtpm:host="),
    Fault("hang", lambda bus: bus.tpm.freeze(), Unreachable, "no answer within 0.8 s"),
    Fault("slow", slow, Unreachable, "no answer within 0.8 s"),
    Fault("gone", lambda bus: bus.tpm.clear(), Changed, "another storage key", heals=True),
    Fault("changed", lambda bus: bus.tpm.extend(7), Changed, "PCR 7 (Secure Boot)", heals=True),
    Fault(
        "owner password",
        lambda bus: bus.tpm.set_owner_password("of another"),
        Refused,
        "the owner hierarchy of the TPM has a password",
    ),
    Fault(
        "owner hierarchy off",
        lambda bus: bus.tpm.switch_owner_off(),
        Refused,
        "the owner hierarchy of the TPM is switched off",
    ),
    Fault("littered", lambda bus: bus.tpm.litter(), Unreachable, "no room for another"),
    Fault("retry", refusing(PRIMARY, TPM2_RC.RETRY), Unreachable, "the TPM is busy (0x922)"),
    Fault("yielded", refusing(PRIMARY, TPM2_RC.YIELDED), Unreachable, "the TPM is busy (0x908)"),
    Fault("testing", refusing(PRIMARY, TPM2_RC.TESTING), Unreachable, "the TPM is busy (0x90a)"),
    Fault("worn", refusing(TPM2_CC.Unseal, TPM2_RC.NV_RATE), Unreachable, "is busy (0x920)"),
    Fault(
        "sessions",
        refusing(TPM2_CC.StartAuthSession, TPM2_RC.SESSION_HANDLES),
        Unreachable,
        "no room for another object or session (0x905)",
    ),
    Fault("not started", refusing(PRIMARY, TPM2_RC.INITIALIZE), Unreachable, "was not started"),
    Fault("broken", refusing(PRIMARY, TPM2_RC.FAILURE), Refused, "failure mode"),
    Fault("policy", refusing(TPM2_CC.Unseal, TPM2_RC.POLICY_FAIL), Unreachable, "a PCR changed"),
    Fault("foreign", refusing(PRIMARY, TPM2_RC.CURVE), Misconfigured, "the TPM answered 0xa6"),
)


@pytest.fixture
def _soon_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy TPM is asked again for a moment only."""
    monkeypatch.setattr("kluis.anchors.tpm2.chip._BUSY_S", 0.1)


@pytest.mark.usefixtures("_soon_told")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_every_fault_has_its_class_and_words(bus: Bus, fault: Fault) -> None:
    anchor = anchor_at(bus, pcrs=(7,))
    sealed = seal(anchor)
    anchor.deadline_s = 0.8 if fault.words.endswith("0.8 s") else 10.0
    fault.happens(bus)
    error = refusal(anchor, sealed)
    assert type(error) is fault.error, error.seen
    assert fault.words in error.seen
    if fault.heals:
        assert opens(anchor, seal(anchor))
    bus.tpm.thaw_if_running()


def test_an_anchor_that_flaps_opens_whenever_it_is_there(tpm: Swtpm, pin: Path) -> None:
    anchor = anchor_at(tpm, pin, pcrs=(7,))
    sealed = seal(anchor)
    tpm.lock_after(31, 600)  # each power cut counts as a wrong try
    for _ in range(5):
        tpm.stop()
        assert isinstance(refusal(anchor, sealed), Unreachable)
        with pytest.raises(Unreachable):
            asyncio.run(anchor.knock())
        tpm.start()
        asyncio.run(anchor.knock())
        assert opens(anchor, sealed)


def test_a_tpm_that_was_busy_for_a_moment_opens(
    bus: Bus, pin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kluis.anchors.tpm2.chip._BUSY_S", 30.0)  # a moment on a slow machine
    anchor = anchor_at(bus, pin, deadline_s=60.0)
    sealed = seal(anchor)
    for command in (PRIMARY, TPM2_CC.Load, TPM2_CC.Unseal):
        bus.refuse(command, TPM2_RC.RETRY, times=8)  # the library gives up after five
        assert opens(anchor, sealed)
    assert bus.tpm.wrong_tries() == 0
    assert bus.tpm.handles() == NOTHING


@pytest.mark.usefixtures("_soon_told")
def test_a_tpm_without_room_names_the_resource_manager(tpm: Swtpm) -> None:
    tpm.litter()
    assert "device:/dev/tpmrm0" in failed_probe(anchor_at(tpm)).next_step


def test_a_damaged_leaf_is_damage_and_not_another_tpm(tpm: Swtpm) -> None:
    anchor = anchor_at(tpm)
    sealed = seal(anchor)
    leaf = read_leaf(sealed)
    for private in (leaf.private[:-1] + bytes([leaf.private[-1] ^ 1]), b"\0\0", b"\0\x04abcd"):
        error = refusal(anchor, replace(leaf, private=private).for_document())
        assert type(error) is Damaged


def test_a_leaf_of_another_tpm_says_so(tpm: Swtpm, tmp_path: Path) -> None:
    sealed = seal(anchor_at(tpm))
    with Swtpm(tmp_path / "other") as other:
        error = refusal(anchor_at(other), sealed)
    assert type(error) is Changed
    assert "another storage key" in error.seen


# -- a TPM that hangs


def test_a_tpm_that_hangs_holds_up_nobody_beyond_their_own_deadline(
    tpm: Swtpm, tmp_path: Path
) -> None:
    slow, quick = anchor_at(tpm, deadline_s=60.0), anchor_at(tpm, deadline_s=0.3)
    sealed = seal(slow)
    with Swtpm(tmp_path / "other") as other:
        elsewhere = anchor_at(other)
        sealed_elsewhere = seal(elsewhere)
        tpm.freeze()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(opens, slow, sealed)
            assert isinstance(refusal(quick, sealed), Unreachable)
            assert isinstance(refusal(quick, sealed), Unreachable)
            assert opens(elsewhere, sealed_elsewhere)
            assert not waiting.done()
            tpm.thaw()
            assert waiting.result()


def test_what_waited_for_a_hanging_tpm_says_so_and_does_nothing_late(
    bus: Bus, pin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchor = anchor_at(bus, pin)
    sealed = seal(anchor)
    anchor.deadline_s = 0.5
    bus.tpm.freeze()
    assert refusal(anchor, sealed).seen == "no answer within 0.5 s"
    monkeypatch.setattr("kluis.anchors.tpm2.chip._QUEUE_SHARE", 0.02)  # much time to say it in
    anchor.deadline_s = 10.0
    for _ in range(2):
        assert "did not end within 0." in refusal(anchor, sealed).seen
    bus.heard.clear()
    bus.tpm.thaw()
    until(lambda: not anchor._chip._lock.locked())
    assert bus.commands().count(PRIMARY) == 1


# -- the way to a TPM


@pytest.mark.parametrize(
    ("device", "error", "words"),
    [
        ("device:/dev/tpm-of-nobody", Missing, "there is no TPM at /dev/tpm-of-nobody"),
        ("device:/dev/null/tpm", Missing, "there is no TPM at"),
        ("device:/dev/null", Unreachable, "no TPM answers at device:/dev/null"),
        ("device:/dev/zero", Misconfigured, "is no TPM 2.0"),
        ("device:/dev", Misconfigured, "/dev is no device"),
        ("device:", Misconfigured, "is no device"),
        ("device", Misconfigured, "is no device"),
        ("swtpm:port=x", Misconfigured, 'device = "swtpm:port=x" can\'t be read'),
        ("swtpm:host=127.0.0.1,port=1", Unreachable, "no TPM answers at"),
        ("mssim:host=127.0.0.1,port=1", Unreachable, "no TPM answers at"),
        ("swtpm:host=a.name.invalid,port=1", Unreachable, "no TPM answers at"),
        ("pigeon:port=1", Misconfigured, "names no way to a TPM"),
        ("cmd:touch it-ran", Misconfigured, "names no way to a TPM"),
        ("device:/dev/null\0", Misconfigured, "names no way to a TPM"),
        ("", Misconfigured, "names no way to a TPM"),
    ],
    ids=ascii,
)
def test_a_way_that_leads_nowhere_says_why(
    device: str,
    error: type[AnchorError],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    failed = failed_probe(Tpm2Anchor("tpm", device=device))
    assert type(failed) is error
    assert words in failed.seen
    assert not list(tmp_path.iterdir())


def test_a_file_in_place_of_the_device_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"precious")
    assert type(failed_probe(Tpm2Anchor("tpm", device=f"device:{path}"))) is Misconfigured
    assert path.read_bytes() == b"precious"


def test_a_device_of_another_group_names_the_group() -> None:
    with as_nobody():
        error = failed_probe(Tpm2Anchor("tpm", device="device:/dev/console"))
    assert type(error) is Refused
    assert "usermod -aG tss" in error.next_step


@contextmanager
def as_nobody() -> Iterator[None]:
    """As a user that may open nothing; who is no root is that already."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if before == 0:
            os.seteuid(before)


@pytest.mark.usefixtures("_soon_told")
def test_a_device_that_another_program_holds_names_the_resource_manager(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def held(*args: object) -> int:  # only /dev/tpm0 itself does that
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr("kluis.anchors.tpm2.chip.os.open", held)
    error = failed_probe(Tpm2Anchor("tpm", device="device:/dev/null"))
    assert type(error) is Unreachable
    assert error.seen == "another program holds /dev/null"
    assert "device:/dev/tpmrm0" in error.next_step


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        bytes(10),
        struct.pack(">HII", 0x8001, 10, 0),
        struct.pack(">HII", 0x8001, 10, 0xFFFFFFFF),
        struct.pack(">HII", 0x8002, 300, 0) + bytes(range(145)) * 2,
        struct.pack(">HII", 0x8001, 300, 0) + b"\xff" * 290,
        struct.pack(">HII", 0x8001, 60_000, 0) + bytes(59_990),
    ],
)
def test_what_answers_and_is_no_tpm_is_named_so(bus: Bus, answer: bytes) -> None:
    anchor = anchor_at(bus, pcrs=(7,))
    bus.falsify = lambda command, real: answer
    error = failed_probe(anchor)
    assert type(error) is Misconfigured
    assert error.seen == f"what answers at {bus.device} is no TPM 2.0"


@pytest.mark.parametrize("kept_bytes", [0, 4, 10, 20])
def test_an_answer_that_is_cut_short_is_a_tpm_that_went_away(bus: Bus, kept_bytes: int) -> None:
    anchor = anchor_at(bus)
    sealed = seal(anchor)
    bus.falsify = lambda command, answer: answer[:kept_bytes]
    assert type(refusal(anchor, sealed)) is Unreachable
    with pytest.raises(Unreachable):
        asyncio.run(anchor.knock())


def test_a_library_that_is_not_installed_is_named() -> None:
    error = tpm2_codes.explained(0xA0015, "tabrmd:bus_name=x")
    assert type(error) is Misconfigured
    assert error.next_step == "apt install libtss2-tcti-tabrmd0"


# -- bytes from outside

RC = st.integers(0, 0xFFFFFFFF) | st.integers(0, 0xFFF) | st.integers(0xA0000, 0xA0020)


@given(RC)
def test_every_response_code_has_an_error_of_one_line_each(rc: int) -> None:
    one_line_each(tpm2_codes.explained(rc, "device:/dev/tpmrm0"))
    tpm2_codes.is_momentary(rc)
    tpm2_codes.no_storage_key(rc)


@given(st.integers(0, 200))
def test_every_errno_of_a_node_has_an_error_of_one_line_each(number: int) -> None:
    one_line_each(tpm2_codes.node_error("/dev/tpmrm0", number))


@given(st.dictionaries(st.integers(0x100, 0x220), st.integers(0, 0xFFFFFFFF)))
def test_whatever_a_tpm_says_of_itself_is_one_plain_line(properties: dict[int, int]) -> None:
    state = State(properties)
    for text in (state.manufacturer, state.vendor, state.firmware):
        assert not text or text.isprintable()
    one_line_each(state.lockout())
