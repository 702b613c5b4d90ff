"""The TPM anchor against a real TPM in software; a bus shows what no TPM does by itself."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tpm2_pytss import TPM2_CC, TPM2_RC

from kluis.anchors.base import COSTLY, LOCAL
from kluis.anchors.sources import FileSource
from kluis.anchors.tpm2.anchor import Tpm2Anchor
from kluis.anchors.tpm2.leaf import Guard, Leaf, read_leaf
from kluis.anchors.tpm2.pcrs import BANKS, Pcrs, read_selection, selection
from kluis.anchors.tpm2.pin import Refusals, auth_value
from kluis.errors import (
    AnchorError,
    Changed,
    Damaged,
    DocumentError,
    Misconfigured,
    Missing,
    Refused,
    Unreachable,
)
from kluis.keyring.strict import JSON, to_base64
from kluis.secret import Secret
from tests.support.swtpm import Bus, Swtpm

CONTEXT: Final = b"kluis/1|00000000-0000-4000-8000-000000000000|1|/|tpm2"
NOTHING: Final[dict[str, tuple[int, ...]]] = {"objects": (), "sessions": (), "saved": ()}
PIN: Final = b"2718281828"
SECRET: Final = Secret.random()

Sealed = dict[str, JSON]


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
    write(path, PIN + b"\n")
    return path


def write(path: Path, pin: bytes) -> None:
    path.write_bytes(pin)
    path.chmod(0o600)


def anchor_at(where: Swtpm | Bus, pin: Path | None = None, **options: Any) -> Tpm2Anchor:
    source = None if pin is None else FileSource(pin)
    return Tpm2Anchor("tpm", device=where.device, pin=source, **options)


def seal(anchor: Tpm2Anchor) -> Sealed:
    return dict(asyncio.run(anchor.seal(SECRET, CONTEXT)))


def opens(anchor: Tpm2Anchor, sealed: Sealed) -> bool:
    return asyncio.run(anchor.open(sealed, CONTEXT)) == SECRET


def refusal(anchor: Tpm2Anchor, sealed: Sealed, context: bytes = CONTEXT) -> AnchorError:
    with pytest.raises(AnchorError) as caught:
        asyncio.run(anchor.open(sealed, context))
    return one_line_each(caught.value)


def failed_probe(anchor: Tpm2Anchor) -> AnchorError:
    with pytest.raises(AnchorError) as caught:
        asyncio.run(anchor.probe())
    return one_line_each(caught.value)


def one_line_each(error: AnchorError) -> AnchorError:
    for words in (error.seen, error.means, error.next_step):
        assert words
        assert "\n" not in words
    return error


def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


GUARDS: Final = pytest.mark.parametrize(
    ("guarded", "pcrs", "bank"),
    [
        (False, (), "sha256"),
        (True, (), "sha256"),
        (False, (7,), "sha256"),
        (True, (4, 7), "sha1"),
        (True, tuple(range(24)), "sha512"),
    ],
    ids=["open", "pin", "pcr", "pin-and-pcrs", "pin-and-all-pcrs"],
)


# -- a TPM that does what it should


@GUARDS
def test_a_reset_in_between_changes_nothing(
    tpm: Swtpm, pin: Path, guarded: bool, pcrs: tuple[int, ...], bank: str
) -> None:
    anchor = anchor_at(tpm, pin if guarded else None, pcrs=pcrs, bank=bank)
    sealed = seal(anchor)
    for between in (tpm.reboot, tpm.cut_power):
        between()
        asyncio.run(anchor.probe())
        assert opens(anchor, sealed)


@GUARDS
def test_nothing_stays_loaded_without_a_resource_manager(
    tpm: Swtpm, pin: Path, guarded: bool, pcrs: tuple[int, ...], bank: str
) -> None:
    anchor = anchor_at(tpm, pin if guarded else None, pcrs=pcrs, bank=bank)
    sealed = seal(anchor)
    for _ in range(4):  # a TPM has room for three objects
        assert opens(anchor, sealed)
        asyncio.run(anchor.probe())
        asyncio.run(anchor.show())
        assert tpm.handles() == NOTHING


@pytest.mark.parametrize(
    "command",
    [
        TPM2_CC.CreatePrimary,
        TPM2_CC.Create,
        TPM2_CC.PCR_Read,
        TPM2_CC.Load,
        TPM2_CC.StartAuthSession,
        TPM2_CC.PolicyPCR,
        TPM2_CC.PolicyAuthValue,
        TPM2_CC.Unseal,
    ],
    ids=str,
)
def test_nothing_stays_loaded_when_a_command_fails(bus: Bus, pin: Path, command: TPM2_CC) -> None:
    anchor = anchor_at(bus, pin, pcrs=(7,))
    sealed = seal(anchor)
    bus.refuse(command, TPM2_RC.FAILURE, times=100)
    for call in (anchor.seal(SECRET, CONTEXT), anchor.open(sealed, CONTEXT)):
        with suppress(Refused):
            asyncio.run(call)
    assert command in bus.commands()
    assert bus.tpm.handles() == NOTHING
    bus.heal()
    assert opens(anchor, sealed)


def test_nothing_stays_loaded_after_openings_that_fail(tpm: Swtpm, pin: Path) -> None:
    anchor = anchor_at(tpm, pin, pcrs=(16,))
    sealed = seal(anchor)
    private = str(sealed["private"])
    damaged = {**sealed, "private": private[:8] + "AAAA" + private[12:]}
    for _ in range(6):
        assert isinstance(refusal(anchor, damaged), Damaged)
        assert isinstance(refusal(anchor, sealed, b"elsewhere"), Damaged)
    write(pin, b"wrong")
    assert isinstance(refusal(anchor, sealed), Refused)
    tpm.extend(16)
    for _ in range(6):
        assert isinstance(refusal(anchor, sealed), Changed)
    assert tpm.handles() == NOTHING


def test_the_same_storage_key_each_time_and_none_is_kept(tpm: Swtpm) -> None:
    anchor = anchor_at(tpm)
    keys = {str(seal(anchor)["primary"]) for _ in range(2)}
    tpm.cut_power()
    keys.add(str(seal(anchor)["primary"]))
    assert len(keys) == 1


def test_a_pin_guarded_anchor_is_asked_at_a_costly_pace(tpm: Swtpm, pin: Path) -> None:
    assert anchor_at(tpm, pin).pace == COSTLY
    assert anchor_at(tpm).pace == LOCAL


def test_the_library_prints_nothing_whatever_the_environment_says(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from kluis.anchors.tpm2.anchor import Tpm2Anchor\n"
        "from kluis.errors import AnchorError\n"
        "for device in sys.argv[1:]:\n"
        "    try: asyncio.run(Tpm2Anchor('tpm', device=device).probe())\n"
        "    except AnchorError as error: print(type(error).__name__)\n"
    )
    ways = ["swtpm:host=127.0.0.1,port=1", "swtpm:port=x", "device:/dev/null"]
    done = subprocess.run(
        [sys.executable, "-c", program, *ways],
        env={**os.environ, "TSS2_LOG": "all+trace"},
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split() == [b"Unreachable", b"Misconfigured", b"Unreachable"]
    assert done.stderr == b""


def test_show_says_what_a_person_wants_to_know(tpm: Swtpm, pin: Path) -> None:
    tpm.extend(7)
    tpm.lock_after(31, 600)
    shown = asyncio.run(anchor_at(tpm, pin, pcrs=(7,)).show())
    assert shown["manufacturer"] == "IBM"
    assert shown["model"] == "SW   TPM"
    assert shown["owner_password"] is False
    assert shown["banks"] == ["sha1", "sha256", "sha384", "sha512"]
    assert (shown["locks_at"], shown["forgives_one_after_s"]) == (31, 600)
    assert (shown["wrong_tries"], shown["locked"]) == (0, False)
    pcrs = shown["pcrs"]
    assert isinstance(pcrs, dict)
    assert list(pcrs) == ["PCR 7 (Secure Boot)"]
    tpm.set_owner_password("of another")
    shown = asyncio.run(anchor_at(tpm).show())
    assert shown["owner_password"] is True
    assert shown["storage_key"] == "the owner hierarchy of the TPM has a password"


# -- PCRs


def test_the_pcrs_that_changed_are_named(tpm: Swtpm) -> None:
    anchor = anchor_at(tpm, pcrs=(4, 7, 11))
    sealed = seal(anchor)
    tpm.extend(11)
    tpm.extend(4)
    tpm.extend(5)
    error = refusal(anchor, sealed)
    assert type(error) is Changed
    assert error.seen.startswith("PCR 4 (boot loader), 11 (unified kernel image) changed")
    tpm.reboot()
    assert opens(anchor, sealed)


def test_a_changed_pcr_costs_no_pin_try(tpm: Swtpm, pin: Path) -> None:
    anchor = anchor_at(tpm, pin, pcrs=(7,))
    sealed = seal(anchor)
    write(pin, b"wrong")
    tpm.extend(7)
    assert type(refusal(anchor, sealed)) is Changed
    assert tpm.wrong_tries() == 0
    tpm.reboot()
    assert type(refusal(anchor, sealed)) is Refused
    assert tpm.wrong_tries() == 1


def test_a_document_that_claims_other_pcrs_than_the_tpm_enforces_is_damaged(tpm: Swtpm) -> None:
    anchor = anchor_at(tpm, pcrs=(7,))
    leaf = read_leaf(seal(anchor))
    tpm.extend(7)
    now = read_leaf(seal(anchor)).guard
    for guard in (now, Guard(pin=False, pcrs=None), Guard(pin=True, pcrs=leaf.guard.pcrs)):
        forged = Leaf(guard, leaf.public, leaf.private, leaf.primary).for_document()
        assert type(refusal(anchor, forged)) in (Damaged, Changed)
        public = guard.template()[:-2] + leaf.public[-34:]
        public = (len(public) - 2).to_bytes(2, "big") + public[2:]
        forged = Leaf(guard, public, leaf.private, leaf.primary).for_document()
        assert type(refusal(anchor_at(tpm, pcrs=(7,)), forged)) in (Damaged, Misconfigured)


def test_a_bank_that_is_not_allocated_is_named_beside_those_that_are(tpm: Swtpm) -> None:
    anchor = anchor_at(tpm, pcrs=(7,), bank="sha1")
    sealed = seal(anchor)
    tpm.only_bank("sha256")
    errors = failed_probe(anchor), refusal(anchor, sealed)
    assert [type(error) for error in errors] == [Misconfigured, Changed]
    for error in errors:
        assert "PCR 7 (Secure Boot) in bank sha1" in error.seen
        assert error.means == "these banks are allocated: sha256"


def test_a_bank_the_tpm_does_not_know_is_misconfigured(bus: Bus) -> None:
    bus.refuse(TPM2_CC.PCR_Read, TPM2_RC.HASH | TPM2_RC.P | TPM2_RC.RC1)
    assert "in bank sha512" in failed_probe(anchor_at(bus, pcrs=(7,), bank="sha512")).seen


@pytest.mark.parametrize(
    ("then", "now", "words"),
    [
        ({}, {}, ""),
        ({"pcrs": (7,)}, {"pcrs": (7,)}, ""),
        ({}, {"bank": "sha1"}, ""),
        ({}, {"pcrs": (7,)}, "sealed without PCR 7 (Secure Boot), the settings ask for it"),
        ({"pcrs": (7, 11)}, {"pcrs": (11,)}, "sealed under PCR 7 (Secure Boot), which the"),
        ({"pcrs": (7,)}, {"pcrs": (7,), "bank": "sha1"}, "the settings name sha1"),
        ({}, {"pin": True}, "sealed without a PIN, the settings ask for it"),
        ({"pin": True}, {}, "sealed under a PIN, which the settings do not name"),
    ],
)
def test_a_leaf_that_the_settings_outgrew_is_outdated(
    tpm: Swtpm, pin: Path, then: dict[str, Any], now: dict[str, Any], words: str
) -> None:
    then, now = ({**said, "pin": pin if said.get("pin") else None} for said in (then, now))
    sealed = seal(anchor_at(tpm, **then))
    assert words in (said := asyncio.run(anchor_at(tpm, **now).outdated(sealed)))
    assert bool(said) == bool(words)


# -- the PIN


def test_a_wrong_pin_is_tried_once_however_often_it_is_asked(tpm: Swtpm, pin: Path) -> None:
    sealed = seal(anchor_at(tpm, pin))
    write(pin, b"wrong")

    async def all_at_once() -> None:
        anchors = [anchor_at(tpm, pin) for _ in range(12)]
        answers = await asyncio.gather(
            *(anchor.open(sealed, CONTEXT) for anchor in anchors), return_exceptions=True
        )
        assert [type(answer) for answer in answers] == [Refused] * 12

    asyncio.run(all_at_once())
    error = refusal(anchor_at(tpm, pin), sealed)
    assert "was refused before" in error.means
    assert tpm.wrong_tries() == 1


def test_another_pin_is_tried_and_the_right_one_opens(tpm: Swtpm, pin: Path) -> None:
    tpm.lock_after(31, 600)
    anchor = anchor_at(tpm, pin)
    sealed = seal(anchor)
    for count, wrong in enumerate((b"wrong", b"2718281828 ", b"wrong"), 1):
        write(pin, wrong)
        error = refusal(anchor, sealed)
        assert type(error) is Refused
        assert str(pin) in error.seen
        assert tpm.wrong_tries() == min(count, 2)
    write(pin, PIN)
    assert opens(anchor, sealed)
    write(pin, b"wrong")  # for a leaf that was sealed under it, it is the right one
    assert opens(anchor, seal(anchor))


def test_a_wrong_pin_says_how_many_tries_are_counted(tpm: Swtpm, pin: Path) -> None:
    tpm.lock_after(31, 600)
    sealed = seal(anchor_at(tpm, pin))
    write(pin, b"wrong")
    error = refusal(anchor_at(tpm, pin), sealed)
    assert error.means == "wrong tries counted by the TPM: 1; at 31 it locks"
    assert "kluis apply --replace tpm" in error.next_step


def test_no_pin_is_tried_while_the_tpm_does_not_say_how_many_tries_are_left(
    bus: Bus, pin: Path
) -> None:
    anchor = anchor_at(bus, pin)
    sealed = seal(anchor)
    write(pin, b"wrong")
    bus.refuse(TPM2_CC.GetCapability, TPM2_RC.FAILURE, times=100)
    assert isinstance(refusal(anchor, sealed), Refused)
    assert bus.tpm.wrong_tries() == 0


def test_the_last_try_is_never_taken_though_the_pin_is_another_each_time(
    tpm: Swtpm, pin: Path
) -> None:
    tpm.lock_after(3, 600)
    anchors = [anchor_at(tpm, pin) for _ in range(4)]
    leaves = [seal(anchor) for anchor in anchors]
    for number, (anchor, sealed) in enumerate(zip(anchors, leaves, strict=True)):
        write(pin, b"wrong %d" % number)
        assert isinstance(refusal(anchor, sealed), Refused)
    assert tpm.wrong_tries() == 2
    write(pin, PIN)
    assert "locks at the next wrong PIN" in refusal(anchors[0], leaves[0]).seen
    tpm.lock_after_keeping_count(9, 600)
    assert opens(anchors[0], leaves[0])


def test_a_lockout_heals_by_time_and_is_no_wrong_pin(tpm: Swtpm, pin: Path) -> None:
    tpm.lock_after(9, 1000)
    anchor, plain = anchor_at(tpm, pin), anchor_at(tpm)
    sealed, unguarded = seal(anchor), seal(plain)
    for wrong in (b"wrong", b"wrong too"):
        write(pin, wrong)
        assert type(refusal(anchor, sealed)) is Refused
    write(pin, PIN)
    tpm.lock_after_keeping_count(2, 600)
    for error in (failed_probe(anchor), refusal(anchor, sealed)):
        assert isinstance(error, Unreachable)
        assert error.seen == "the TPM is locked: 2 wrong tries, where 2 lock it"
        assert error.means == "it forgives one try each 600 s, and takes no PIN until then"
        assert "tpm2_dictionarylockout --clear-lockout" in error.next_step
        assert error.retry_s == 60
    assert opens(plain, unguarded)
    asyncio.run(plain.probe())
    assert asyncio.run(anchor.show())["locked"] is True
    tpm.lock_after_keeping_count(2, 1)
    until(lambda: opens_now(anchor, sealed))


def opens_now(anchor: Tpm2Anchor, sealed: Sealed) -> bool:
    try:
        return opens(anchor, sealed)
    except (Unreachable, Refused):  # locked, and then with one try left
        return False


def test_a_power_cut_after_a_pin_counts_as_a_wrong_try_and_a_shutdown_does_not(
    tpm: Swtpm, pin: Path
) -> None:
    anchor = anchor_at(tpm, pin)
    sealed = seal(anchor)
    for count, between in enumerate((tpm.reboot, tpm.cut_power)):
        assert opens(anchor, sealed)
        between()
        assert opens(anchor, sealed)
        assert tpm.wrong_tries() == count


def test_a_pin_that_is_not_there_is_said_before_the_tpm_is_asked(bus: Bus, pin: Path) -> None:
    anchor = anchor_at(bus, pin)
    sealed = seal(anchor)
    bus.heard.clear()
    write(pin, b"\n")
    assert type(refusal(anchor, sealed)) is type(failed_probe(anchor)) is Misconfigured
    pin.unlink()
    assert type(refusal(anchor, sealed)) is type(failed_probe(anchor)) is Missing
    assert type(refusal(anchor_at(bus), sealed)) is Misconfigured
    assert bus.heard == []


def test_refusals_are_bounded_and_tell_leaves_and_pins_apart() -> None:
    refusals = Refusals()
    refusals.add(b"leaf", b"pin")
    assert (b"leaf", b"pin") in refusals
    assert (b"leaf", b"other") not in refusals
    assert (b"other", b"pin") not in refusals
    for number in range(5000):
        refusals.add(b"leaf", b"%d" % number)
    assert len(refusals._known) == 4096
    assert b"pin" not in b"".join(refusals._known)


# -- the bus


@GUARDS
def test_neither_the_secret_nor_the_pin_crosses_the_bus_in_the_clear(
    bus: Bus, pin: Path, guarded: bool, pcrs: tuple[int, ...], bank: str
) -> None:
    anchor = anchor_at(bus, pin if guarded else None, pcrs=pcrs, bank=bank)
    assert opens(anchor, seal(anchor))
    assert TPM2_CC.Unseal in bus.commands()
    heard = b"".join(bus.heard)
    for hidden in (SECRET.reveal(), PIN, auth_value(FileSource(pin))):
        for part in (hidden[:8], hidden[-8:]):
            assert part not in heard


def test_a_falsified_answer_is_noticed(bus: Bus) -> None:
    anchor = anchor_at(bus)
    sealed = seal(anchor)

    def flip(command: int, answer: bytes) -> bytes:
        if command != TPM2_CC.Unseal:
            return answer
        return answer[:20] + bytes([answer[20] ^ 1]) + answer[21:]

    bus.falsify = flip
    error = refusal(anchor, sealed)
    assert type(error) is Refused
    assert "does not prove that it comes from the TPM" in error.seen
    assert bus.tpm.handles() == NOTHING


def test_a_storage_key_put_in_place_of_the_tpms_own_is_shown_nothing(
    bus: Bus, pin: Path, tmp_path: Path
) -> None:
    anchor = anchor_at(bus, pin)
    sealed = seal(anchor)
    bus.heard.clear()
    with Swtpm(tmp_path / "of-the-eavesdropper") as other:
        bus.tpm, genuine = other, bus.tpm
        assert type(refusal(anchor, sealed)) is Changed
        bus.tpm = genuine
    assert set(bus.commands()) <= {
        TPM2_CC.CreatePrimary,
        TPM2_CC.FlushContext,
        TPM2_CC.GetCapability,
    }
    assert opens(anchor, sealed)


# -- bytes from outside

LEAF = Leaf(
    Guard(True, Pcrs("sha1", (4, 7), (b"a" * 20, b"b" * 20))),
    b"",
    b"\0\x04abcd",
    bytes(34),
)
MEMBERS = {**replace(LEAF, public=LEAF.guard._public(bytes(32))).for_document()}
ODD = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(max_size=80)
    | st.binary(max_size=700).map(to_base64)
    | st.lists(st.integers(), max_size=3)
)


@given(
    st.dictionaries(st.sampled_from([*MEMBERS, "also"]), ODD), st.sets(st.sampled_from([*MEMBERS]))
)
def test_whatever_lies_in_a_document_is_a_leaf_or_damage(odd: Sealed, gone: set[str]) -> None:
    sealed: Sealed = {k: v for k, v in MEMBERS.items() if k not in gone} | odd
    try:
        leaf = read_leaf(sealed)
    except (Damaged, DocumentError):
        return
    assert leaf.for_document() == sealed


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("bank", 0xFFFF),
        ("bank", BANKS["sha256"]),
        ("pcrs", 1 << 4),
        ("pcrs", 1 << 24),
        ("pcrs", 0),
        ("pcrs", 1 << 4 | 1 << 8),
        ("digests", ""),
        ("digests", to_base64(b"a" * 20 + b"c" * 20)),
        ("private", to_base64(b"\0\5abcd")),
        ("private", to_base64(b"\2\0" + bytes(512))),
        ("primary", to_base64(bytes(32))),
        ("public", to_base64(LEAF.guard.template())),
    ],
)
def test_a_member_that_does_not_fit_the_others_is_damage(member: str, value: JSON) -> None:
    read_leaf(MEMBERS)
    with pytest.raises((Damaged, DocumentError)):
        read_leaf({**MEMBERS, member: value})


@given(st.sampled_from([*BANKS]), st.sets(st.integers(0, 23), min_size=1))
def test_a_selection_reads_as_it_was_written(bank: str, numbers: set[int]) -> None:
    assert read_selection(selection(bank, numbers)) == {bank: tuple(sorted(numbers))}
