"""Nothing that holds a secret shows it when it is printed, logged or raised."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from kluis.errors import KluisError
from kluis.keyring import body, crypto, paper, tokens
from kluis.keyring.keys import TransitKey, Version
from kluis.keyring.quorum import Quorum
from kluis.keyring.strict import to_base64
from kluis.secret import Secret
from tests.keyring.strategies import NOW, make

MADE = make("disk or family", {"family": (2, 3)})


def shown(value: object) -> str:
    return f"{value!r} {value} {value!a} {value:}"


def test_no_repr_shows_a_secret() -> None:
    key = MADE.contents.keys["seal"]
    issued = paper.issue("family", MADE.root, 2, 3)
    share = paper.read(issued.mnemonics[0])
    tray = paper.PaperTray(issued.leaf)
    tray.add(share)
    machine = Quorum(MADE.document.tree)
    machine.answer(MADE.path("disk"), MADE.root)
    everything = [
        MADE.root, MADE.contents, MADE.secrets, key, key.versions, key.versions[1],
        TransitKey(key), issued, share, tray, machine, machine.answers,
        crypto.Aead(key.versions[1].material),
    ]  # fmt: skip
    text = " ".join(map(shown, everything))
    secrets = [MADE.root.reveal(), *(version.material for version in key.versions.values())]
    for secret in secrets:
        for form in (repr(secret), secret.hex(), to_base64(secret), repr(bytearray(secret))):
            assert form not in text
    for mnemonic in issued.mnemonics:
        assert mnemonic not in text
        assert " ".join(mnemonic.split()[4:8]) not in text


def test_contents_are_not_pickled_or_copied() -> None:
    for value in (MADE.contents, MADE.secrets, MADE.root):
        with pytest.raises(TypeError):
            pickle.dumps(value)
        with pytest.raises(TypeError):
            copy.deepcopy(value)
    with pytest.raises(TypeError):
        dataclasses.asdict(MADE.contents)


def test_the_errors_of_opening_show_no_secret() -> None:
    other = Secret.random()
    with pytest.raises(KluisError) as raised:
        body.open_(MADE.document, other)
    text = f"{raised.value!r} {vars(raised.value)} {raised.value.__cause__}"
    assert other.reveal().hex() not in text
    assert repr(other.reveal()) not in text


def test_frozen_things_stay_as_they_were_proven() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        MADE.document.epoch = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        Version(bytes(32), NOW).material = b""  # type: ignore[misc]
    text, token = tokens.generate(NOW)
    assert text not in repr(token)
