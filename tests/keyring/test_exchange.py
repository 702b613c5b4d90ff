"""Exports and backups of Transit keys: what is read, what is refused, and what is written."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kluis.errors import DocumentError, KluisError, TooLarge, UsageError
from kluis.keyring import exchange
from kluis.keyring.exchange import MAX_EXPORT_BYTES, Foreign
from kluis.keyring.keys import Key, Version
from kluis.keyring.strict import JSON
from tests.keyring.strategies import NOW
from tests.keyring.test_fuzz import JUNK, PIECES

NOW_S = 1_735_787_045
MATERIAL = {n: bytes([n]) * 32 for n in range(1, 6)}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def export(first: int = 1, latest: int = 3, **changes: JSON) -> dict[str, Any]:
    """As ``transit/export/encryption-key`` answers."""
    keys: dict[str, JSON] = {str(n): b64(MATERIAL[n]) for n in range(first, latest + 1)}
    return {"keys": keys, "name": "seal", "type": "aes256-gcm96", **changes}


def entry(number: int, **changes: JSON) -> dict[str, Any]:
    return {
        "key": b64(MATERIAL[number]),
        "hmac_key": b64(b"h" * 32),
        "time": "2026-11-22T02:56:57.658397862Z",
        "creation_time": 1_795_316_217 + number,
        "external_key_ref": "",
        **changes,
    }


NEVER: dict[str, Any] = {
    "key": None,
    "hmac_key": None,
    "time": "0001-01-01T00:00:00Z",
    "creation_time": 0,
}


def policy(minimum: int = 3, latest: int = 4, **changes: JSON) -> dict[str, Any]:
    return {
        "name": "seal",
        "type": 0,
        "keys": {str(n): entry(n) for n in range(max(1, minimum), latest + 1)},
        "derived": False,
        "kdf": 0,
        "convergent_encryption": False,
        "min_decryption_version": minimum,
        "latest_version": latest,
        "archive_min_version": 0,
        "backup_info": {"time": "2026-11-22T02:56:57Z", "version": latest},
        **changes,
    }


def backup(held: dict[str, Any] | None = None, *archived: JSON, **changes: JSON) -> dict[str, Any]:
    """As a backup says, before it is put into base64; the archive has all versions."""
    places = archived or (NEVER, *(entry(n) for n in range(1, 5)))
    return {"policy": held or policy(), "archived_keys": {"keys": list(places)}, **changes}


def packed(value: object) -> bytes:
    return base64.b64encode(json.dumps(value).encode())


def read(value: object) -> Foreign:
    return exchange.read(json.dumps(value).encode())


def test_an_export_gives_the_versions_under_their_numbers() -> None:
    found = read(export(1, 3))
    assert found == Foreign("seal", {n: MATERIAL[n] for n in (1, 2, 3)}, {}, 1)
    assert "\\x01" not in repr(found)


def test_an_export_of_a_key_whose_old_versions_were_retired_begins_later() -> None:
    found = read(export(3, 4))
    assert (sorted(found.versions), found.minimum) == ([3, 4], 3)


def test_the_whole_answer_of_the_server_is_read_too() -> None:
    answer = {"request_id": "…", "lease_duration": 0, "data": export(), "warnings": None}
    assert read(answer) == read(export())


@pytest.mark.parametrize(
    "written",
    [
        lambda whole: json.dumps(whole).encode(),
        packed,
        lambda whole: b"\n" + base64.encodebytes(json.dumps(whole).encode()),  # in lines
        lambda whole: json.dumps({"data": {"backup": packed(whole).decode()}}).encode(),
    ],
    ids=["bare", "base64", "base64 in lines", "answer"],
)
def test_a_backup_brings_retired_versions_and_the_minimum(
    written: Callable[[object], bytes],
) -> None:
    found = exchange.read(written(backup()))
    assert found.versions == {n: MATERIAL[n] for n in (1, 2, 3, 4)}
    assert (found.minimum, found.name) == (3, "seal")
    assert found.created_s[4] == 1_795_316_221


def test_a_trimmed_archive_begins_with_its_first_version() -> None:
    held = policy(4, 5, archive_min_version=3)
    found = read(backup(held, entry(3), entry(4), entry(5)))
    assert (sorted(found.versions), found.minimum) == ([3, 4, 5], 4)


def test_a_backup_without_an_archive_has_what_the_policy_has() -> None:
    for archive in ({}, {"archived_keys": None}):
        held = {k: v for k, v in policy(0, 2).items() if k != "archive_min_version"}
        found = read({"policy": held, **archive})
        assert (sorted(found.versions), found.minimum) == ([1, 2], 1)


def test_a_minimum_below_what_is_left_is_the_first_that_is_left() -> None:
    held = policy(1, 4, keys={"3": entry(3), "4": entry(4)}, archive_min_version=3)
    assert read(backup(held, entry(3), entry(4))).minimum == 3


def test_a_version_without_a_time_has_none() -> None:
    held = policy(1, 1, keys={"1": entry(1, creation_time=0)})
    assert read(backup(held, NEVER)).created_s == {}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (export(type="rsa-4096"), "not of type aes256-gcm96"),
        (export(type="aes128-gcm96"), "not of type aes256-gcm96"),
        (export(type="chacha20-poly1305"), "not of type aes256-gcm96"),
        (backup(policy(type=3)), "not of type aes256-gcm96"),
        (backup(policy(derived=True)), "derives another key"),
        (backup(policy(convergent_encryption=True)), "derives another key"),
        (export(keys={"1": b64(MATERIAL[1]), "3": b64(MATERIAL[3])}), "lacks some"),
        (export(keys={}), "lacks some"),
        (export(keys={"1025": b64(MATERIAL[1])}), "is at version 1025"),
        (backup(policy(3, 5, latest_version=5, keys={"3": entry(3)})), "lacks some"),
        (backup(policy(3, 3)), "lacks some"),  # the archive has a version 4
        (backup(policy(), entry(1)), "lacks some"),  # in the place of version 0
        (backup(policy(latest_version=2000)), "is at version 2000"),
    ],
)
def test_a_key_that_serves_no_seal_or_is_not_whole_is_refused_in_words(
    value: object, words: str
) -> None:
    with pytest.raises(UsageError) as error:
        read(value)
    assert words in error.value.seen
    assert error.value.means
    assert error.value.next_step


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"Key     Value\n---     -----\nkeys    map[1:abc]\n",
        b"\xff\xfe",
        packed([]),
        json.dumps({"data": None}).encode(),
        json.dumps({"errors": ["permission denied"]}).encode(),
        json.dumps({"data": {"backup": "{}"}}).encode(),
        json.dumps({"data": {"backup": ""}}).encode(),
        json.dumps(export(name="a\x1b[2J")).encode(),
        json.dumps(export(keys={"1": b64(b"short")})).encode(),
        json.dumps(export(keys={"1": "-----BEGIN RSA PRIVATE KEY-----"})).encode(),
        json.dumps(export(keys={"0": b64(MATERIAL[1])})).encode(),
        json.dumps(export(keys=[b64(MATERIAL[1])])).encode(),
        json.dumps(backup(policy(5, 4))).encode(),
        json.dumps(backup(policy(), NEVER, entry(1, key=b64(MATERIAL[2])), entry(2), [])).encode(),
        json.dumps(backup(policy(), NEVER, entry(1), entry(2), entry(2))).encode(),
        json.dumps(backup(archived_keys=[])).encode(),
        json.dumps(backup(policy(keys={"4": {"external_key_ref": "hsm"}}))).encode(),
        json.dumps(backup(policy(archive_min_version=-1))).encode(),
    ],
)
def test_what_is_no_export_is_refused_and_the_way_to_one_named(data: bytes) -> None:
    with pytest.raises(DocumentError) as error:
        exchange.read(data)
    assert error.value.seen.startswith("this is no export of a Transit key: ")
    assert "bao read -format=json" in error.value.next_step


def test_more_than_a_mebibyte_is_not_even_looked_at() -> None:
    with pytest.raises(TooLarge):
        exchange.read(b" " * (MAX_EXPORT_BYTES + 1))


def test_the_largest_key_fits_into_an_export() -> None:
    key = Key("transit", {n: Version(bytes([n % 256]) * 32, NOW) for n in range(1, 1025)})
    written = exchange.backup("seal", key, dict.fromkeys(key.versions, NOW_S))
    assert len(exchange.read(written.encode()).versions) == 1024


@given(st.integers(1, 40), st.integers(0, 8), st.data())
def test_what_is_written_is_read_back(first: int, more: int, data: st.DataObject) -> None:
    versions = {
        number: Version(data.draw(st.binary(min_size=32, max_size=32)), NOW)
        for number in range(first, first + more + 1)
    }
    key = Key("transit", versions, data.draw(st.integers(first, first + more)))
    found = exchange.read(
        exchange.backup("seal", key, dict.fromkeys(versions, NOW_S)).encode("ascii")
    )
    assert found.versions == {n: version.material for n, version in versions.items()}
    assert (found.name, found.minimum) == ("seal", key.minimum)
    assert found.created_s == dict.fromkeys(versions, NOW_S)


def test_a_written_backup_allows_no_export_and_holds_no_retired_version_in_the_policy() -> None:
    key = Key("transit", {n: Version(MATERIAL[n], NOW) for n in (2, 3, 4)}, minimum=3)
    written = json.loads(
        base64.b64decode(exchange.backup("seal", key, dict.fromkeys((2, 3, 4), NOW_S)))
    )
    assert sorted(written["policy"]["keys"]) == ["3", "4"]
    assert [place["key"] for place in written["archived_keys"]["keys"]] == [
        b64(MATERIAL[n]) for n in (2, 3, 4)
    ]
    assert written["policy"]["exportable"] is False
    assert written["policy"]["allow_plaintext_backup"] is False


def only_kluis_errors(data: bytes) -> None:
    try:
        found = exchange.read(data)
    except KluisError as error:
        for line in (error.seen, error.means, error.next_step):
            assert line
            assert line.isprintable(), line
            assert len(line) < 600
    else:
        assert min(found.versions) <= found.minimum <= max(found.versions)
        assert {len(material) for material in found.versions.values()} == {32}


SEEDS = [json.dumps(value).encode() for value in (export(), {"data": export()}, backup())]


@given(st.sampled_from([*SEEDS, packed(backup())]), st.data())
@settings(max_examples=400)
def test_a_changed_export_gives_nothing_but_errors_of_ours(
    seed: bytes, data: st.DataObject
) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(seed)))
        cut = data.draw(st.integers(0, 8))
        piece = data.draw(st.sampled_from(PIECES) | st.binary(max_size=6))
        seed = seed[:at] + piece + seed[at + cut :]
    only_kluis_errors(seed)


@given(st.sampled_from(SEEDS), st.data())
@settings(max_examples=400)
def test_an_export_with_another_member_gives_nothing_but_errors_of_ours(
    seed: bytes, data: st.DataObject
) -> None:
    whole = json.loads(seed)
    place = whole
    while True:
        steps = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not steps:
            break
        step = data.draw(st.sampled_from(steps))
        if isinstance(place[step], dict | list) and place[step] and data.draw(st.booleans()):
            place = place[step]
            continue
        place[step] = data.draw(JUNK)
        break
    text = json.dumps(whole)
    only_kluis_errors(text.encode("utf-8", "surrogatepass"))


@given(st.binary(max_size=400))
def test_random_bytes_are_no_export(data: bytes) -> None:
    only_kluis_errors(data)
    only_kluis_errors(base64.b64encode(data))
