"""The passphrase anchor: what a person types, and what a guess costs."""

from __future__ import annotations

import asyncio
import resource
import unicodedata
from pathlib import Path

import pytest

from kluis.anchors.passphrase import (
    DEFAULT_COST,
    MAX_CHARS,
    MIN_CHARS,
    PassphraseAnchor,
    normalised,
)
from kluis.anchors.sources import FileSource
from kluis.errors import Damaged, Misconfigured, Missing, Refused
from kluis.keyring import crypto
from kluis.keyring.crypto import Argon2Cost
from kluis.secret import Secret

CHEAP = Argon2Cost(memory_kib=64, iterations=1, lanes=1)
CONTEXT = b"context"
PASSPHRASE = "grünes Pferd, Batterie"


def typed(passphrase: str, cost: Argon2Cost = CHEAP) -> PassphraseAnchor:
    anchor = PassphraseAnchor("vault-room", cost=cost)
    anchor.enter(passphrase)
    return anchor


def test_the_default_cost_is_rfc_9106s_second_option() -> None:
    assert Argon2Cost(memory_kib=65_536, iterations=3, lanes=4) == DEFAULT_COST
    secret = Secret.random()
    anchor = typed(PASSPHRASE, DEFAULT_COST)
    sealed = asyncio.run(anchor.seal(secret, CONTEXT))
    assert (sealed["memory_kib"], sealed["iterations"], sealed["lanes"]) == (65_536, 3, 4)
    assert asyncio.run(anchor.open(sealed, CONTEXT)) == secret


def test_every_keyboard_gives_the_same_passphrase() -> None:
    composed = unicodedata.normalize("NFC", PASSPHRASE)
    decomposed = unicodedata.normalize("NFD", PASSPHRASE)
    assert composed != decomposed
    secret = Secret.random()
    sealed = asyncio.run(typed(composed).seal(secret, CONTEXT))
    assert asyncio.run(typed(decomposed).open(sealed, CONTEXT)) == secret
    assert normalised("ﬁle of twelve") == normalised("file of twelve")


def test_a_wrong_passphrase_is_refused() -> None:
    sealed = asyncio.run(typed(PASSPHRASE).seal(Secret.random(), CONTEXT))
    with pytest.raises(Refused, match="does not open this leaf"):
        asyncio.run(typed(PASSPHRASE + ".").open(sealed, CONTEXT))


@pytest.mark.parametrize(
    "passphrase",
    ["", "short", "a" * (MIN_CHARS - 1), "a" * (MAX_CHARS + 1), "e\u0301" * (MIN_CHARS - 1)],
    ids=["empty", "short", "one too short", "one too long", "short once composed"],
)
def test_what_could_be_guessed_or_is_absurd_is_refused(passphrase: str) -> None:
    with pytest.raises(Misconfigured, match="characters"):
        typed(passphrase)


def test_bytes_of_a_terminal_that_are_no_text_are_refused_and_not_shown() -> None:
    with pytest.raises(Misconfigured, match="not text") as caught:
        typed("hunter2 hunter2 \udce9")
    assert caught.value.__suppress_context__
    assert "hunter" not in caught.value.seen


def test_a_passphrase_by_file_may_end_with_one_newline(tmp_path: Path) -> None:
    path = tmp_path / "passphrase"
    path.write_bytes(PASSPHRASE.encode() + b"\n")
    path.chmod(0o600)
    anchor = PassphraseAnchor("vault-room", FileSource(path), CHEAP)
    assert not anchor.needs_person
    secret = Secret.random()
    sealed = asyncio.run(anchor.seal(secret, CONTEXT))
    assert asyncio.run(typed(PASSPHRASE).open(sealed, CONTEXT)) == secret
    path.write_bytes(PASSPHRASE.encode() + b"\n\n")
    with pytest.raises(Refused):
        asyncio.run(anchor.open(sealed, CONTEXT))


def test_a_file_that_is_not_text_is_misconfigured(tmp_path: Path) -> None:
    path = tmp_path / "passphrase"
    path.write_bytes(b"\xff" * 20)
    path.chmod(0o600)
    with pytest.raises(Misconfigured, match="not text"):
        asyncio.run(PassphraseAnchor("vault-room", FileSource(path)).probe())


def test_without_a_person_it_is_missing_and_says_what_to_type() -> None:
    anchor = PassphraseAnchor("vault-room", cost=CHEAP)
    assert anchor.needs_person
    with pytest.raises(Missing) as caught:
        asyncio.run(anchor.probe())
    assert "--passphrase vault-room" in caught.value.next_step


def test_what_was_typed_is_dropped() -> None:
    anchor = typed(PASSPHRASE)
    asyncio.run(anchor.probe())
    anchor.forget()
    with pytest.raises(Missing):
        asyncio.run(anchor.probe())


def test_a_passphrase_for_one_call_leaves_the_anchor_as_it_is() -> None:
    anchor = PassphraseAnchor("vault-room", cost=CHEAP)
    asyncio.run(anchor.knowing(PASSPHRASE).probe())
    with pytest.raises(Missing):
        asyncio.run(anchor.probe())


ABSURD = [
    {"memory_kib": 2**31},
    {"memory_kib": 2 * 1024 * 1024, "iterations": 5},
    {"memory_kib": 2 * 1024 * 1024 + 1},
    {"iterations": 65},
    {"iterations": 0},
    {"lanes": 0},
    {"lanes": 17},
    {"memory_kib": 7},
    {"memory_kib": 31, "lanes": 4},
    {"memory_kib": -1},
]


@pytest.mark.parametrize("cost", ABSURD, ids=repr)
def test_an_absurd_cost_is_refused_before_any_memory_is_taken(
    cost: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    anchor = typed(PASSPHRASE)
    sealed = asyncio.run(anchor.seal(Secret.random(), CONTEXT))

    def never(*args: object) -> bytes:
        raise AssertionError("memory was taken")

    monkeypatch.setattr(crypto, "argon2id", never)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Damaged):
        asyncio.run(anchor.open({**sealed, **cost}, CONTEXT))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kib < 64 * 1024


def test_a_lowered_cost_opens_nothing() -> None:
    anchor = typed(PASSPHRASE, Argon2Cost(memory_kib=128, iterations=2, lanes=1))
    sealed = asyncio.run(anchor.seal(Secret.random(), CONTEXT))
    for cheaper in ({"memory_kib": 64}, {"iterations": 1}):
        with pytest.raises(Refused):
            asyncio.run(anchor.open({**sealed, **cheaper}, CONTEXT))


def test_a_cost_that_argon2_does_not_take_is_misconfigured() -> None:
    with pytest.raises(Misconfigured):
        asyncio.run(
            typed(PASSPHRASE, Argon2Cost(memory_kib=1, iterations=1, lanes=4)).seal(
                Secret.random(), CONTEXT
            )
        )
