"""What clients still need, by the audit log: last unseals, rotated files, gaps, and damage."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kluis.errors import AuditError
from kluis.facade.audit import GENESIS, AuditLog, members
from kluis.facade.usage import Usage, Use
from tests.keyring.test_fuzz import JUNK

Said = Sequence[Mapping[str, Any]]


class Written:
    """A log whose records say what they are told to, one second after the other."""

    def __init__(self, path: Path, second: int = 0) -> None:
        self.path, self.second, self.seq, self.digest = path, second, 0, GENESIS

    def add(self, **said: object) -> None:
        self.seq += 1
        self.second += 1
        hours, left = divmod(self.second, 3600)
        at = f"2026-01-02T{hours:02}:{left // 60:02}:{left % 60:02}.000Z"
        about = {"client": "bletchley", "keyring": "homelab", "key": "unseal", **said}
        record = {"seq": self.seq, "time": at, "verdict": "released", **about, "prev": self.digest}
        line = json.dumps(record).encode() + b"\n"
        self.digest = hashlib.sha256(line).hexdigest()
        with self.path.open("ab") as file:
            file.write(line)

    def start(self, unseals: int, *, wraps: int = 0) -> None:
        """As a stock server starts: it renews its token, and unseals."""
        self.add(what="token", operation="renew-self", keyring="", key="")
        self.add(what="boot probe", version="9")
        self.add(what="unseal", version=str(unseals))
        if wraps:
            self.add(what="wrap", version=str(wraps))

    def rotated(self, name: str) -> Written:
        """The present file is moved away; the chain goes on."""
        self.path.rename(self.path.with_name(name))
        return self


@pytest.fixture
def log(tmp_path: Path) -> Written:
    return Written(tmp_path / "audit.jsonl")


def read(log: Written, expected: str = "") -> Usage:
    usage = Usage(log.path, expected)
    try:
        usage.read()
    finally:
        usage.close()
    return usage


def needs(usage: Usage) -> dict[str, int]:
    return {name: use.unsealed for name, use in usage.of("homelab", "unseal").items()}


def test_without_a_log_nothing_was_used(log: Written) -> None:
    usage = read(log)
    assert usage.of("homelab", "unseal") == {}
    assert usage.complete


def test_the_last_unseal_of_each_client_counts(log: Written) -> None:
    log.start(1)
    log.start(2)
    log.add(client="colossus", what="unseal", version="1")
    log.add(client="colossus", key="other", what="unseal", version="7")
    usage = read(log)
    assert needs(usage) == {"bletchley": 2, "colossus": 1}
    assert usage.of("homelab", "other")["colossus"].unsealed == 7
    assert usage.of("elsewhere", "unseal") == {}


def test_an_unseal_needs_the_lowest_of_its_versions(log: Written) -> None:
    """A server decrypts its root key, then its recovery key: each may be of another version."""
    log.start(2)
    log.add(what="unseal", version="1")
    log.add(what="wrap", version="3")
    log.add(what="unseal", version="2")
    found = read(log).of("homelab", "unseal")["bletchley"]
    assert (found.unsealed, found.wrapped) == (1, 3)
    log.start(3)
    assert needs(read(log)) == {"bletchley": 3}


def test_without_a_renewal_a_minute_tells_two_unseals_apart(log: Written) -> None:
    log.add(what="unseal", version="1")
    log.second += 58
    log.add(what="unseal", version="2")
    assert needs(read(log)) == {"bletchley": 1}
    log.second += 60
    log.add(what="unseal", version="2")
    assert needs(read(log)) == {"bletchley": 2}


def test_a_renewal_long_after_an_unseal_does_not_make_it_forgotten(log: Written) -> None:
    log.start(1)
    log.add(what="token", operation="renew-self", keyring="", key="")
    assert needs(read(log)) == {"bletchley": 1}


@pytest.mark.parametrize(
    "said",
    [
        {"what": "unseal", "version": "2", "verdict": "denied"},
        {"what": "held until open", "verdict": "waits"},
        {"what": "heartbeat", "version": "2"},
        {"what": "boot probe", "version": "2"},
        {"event": "key-rotate", "version": "2"},
    ],
)
def test_what_is_no_unseal_says_nothing_of_what_is_needed(
    said: dict[str, str], log: Written
) -> None:
    log.start(1)
    log.add(**said)
    assert needs(read(log)) == {"bletchley": 1}


def test_a_wrap_without_an_unseal_is_a_use(log: Written) -> None:
    log.add(what="wrap", version="1")
    assert read(log).of("homelab", "unseal") == {
        "bletchley": Use(wrapped=1, wrapped_at="2026-01-02T00:00:01.000Z")
    }


def test_rotated_files_are_read_by_their_time_and_not_their_name(log: Written) -> None:
    log.start(1)
    log.rotated("audit.jsonl.2").start(2)
    log.rotated("audit.jsonl.1").start(3)
    assert needs(read(log)) == {"bletchley": 3}
    log.rotated("audit.jsonl-20260102").start(4)
    packed = log.path.with_name("audit.jsonl.2")
    packed.with_suffix(".2.gz").write_bytes(gzip.compress(packed.read_bytes()))
    packed.unlink()
    usage = read(log)
    assert (needs(usage), usage.complete) == ({"bletchley": 4}, True)
    assert needs(read(log.rotated("audit.jsonl.0"))) == {"bletchley": 4}  # nothing since


def test_a_service_that_began_on_an_empty_file_began_a_new_chain(log: Written) -> None:
    log.start(1)
    log.rotated("audit.jsonl.1")
    again = Written(log.path, log.second)
    again.add(client="colossus", what="unseal", version="2")
    usage = read(again)
    assert (needs(usage), usage.complete) == ({"bletchley": 1, "colossus": 2}, True)


def test_what_was_before_missing_records_proves_nothing(log: Written) -> None:
    log.start(2)
    log.rotated("audit.jsonl.3").start(1)
    log.rotated("audit.jsonl.2").add(client="colossus", what="unseal", version="2")
    assert needs(read(log)) == {"bletchley": 1, "colossus": 2}
    log.path.with_name("audit.jsonl.2").unlink()
    usage = read(log)  # of one that was seen before the gap it is known that it used the key
    assert (needs(usage), usage.complete) == ({"bletchley": 0, "colossus": 2}, False)


def test_a_file_packed_in_a_way_that_is_not_read_is_a_gap(log: Written) -> None:
    log.start(2)
    log.rotated("audit.jsonl.1.xz").add(client="colossus", what="unseal", version="2")
    usage = read(log)
    assert (needs(usage), usage.complete) == ({"colossus": 2}, False)


def test_what_is_written_meanwhile_is_read_and_half_a_record_waits(log: Written) -> None:
    log.start(1)
    usage = Usage(log.path)
    usage.read()
    log.start(2)
    whole = log.path.read_bytes()
    log.path.write_bytes(whole[:-20])
    usage.catch_up()
    assert needs(usage) == {"bletchley": 1}
    with log.path.open("ab") as file:
        file.write(whole[-20:])
    usage.catch_up()
    assert needs(usage) == {"bletchley": 2}
    usage.close()
    usage.catch_up()


def test_a_log_whose_end_is_missing_is_noticed_by_the_service_that_wrote_it(
    log: Written,
) -> None:
    log.start(1)
    cut = log.path.read_bytes()
    log.start(2)
    assert needs(read(log, expected=log.digest)) == {"bletchley": 2}
    log.path.write_bytes(cut)
    with pytest.raises(AuditError, match="the last records"):
        read(log, expected=log.digest)
    log.path.unlink()
    with pytest.raises(AuditError, match="the last records"):
        read(log, expected=log.digest)


def test_the_expected_record_may_lie_in_an_older_chain(log: Written) -> None:
    log.start(1)
    expected = log.digest
    log.rotated("audit.jsonl.1")
    Written(log.path, log.second).start(2)
    assert needs(read(log, expected)) == {"bletchley": 2}


def test_a_changed_record_stops_everything(log: Written) -> None:
    log.start(1)
    log.start(2)
    changed = log.path.read_bytes().replace(b'"version": "1"', b'"version": "2"')
    log.path.write_bytes(changed)
    with pytest.raises(AuditError, match="was changed"):
        read(log)


@pytest.mark.parametrize(
    "said",
    [
        {"version": "0"},
        {"version": 1},
        {"version": ""},
        {"version": "123456"},
        {"time": "soon"},
        {"time": None},
    ],
)
def test_an_unseal_that_does_not_say_enough_is_not_passed_by(
    said: dict[str, object], log: Written
) -> None:
    log.add(**{"what": "unseal", "version": "1", **said})
    with pytest.raises(AuditError, match="which version"):
        read(log)


def test_a_file_beside_the_log_that_is_none_is_named(log: Written) -> None:
    log.start(1)
    log.path.with_name("audit.jsonl.orig").write_text("notes\n")
    with pytest.raises(AuditError, match=r"audit\.jsonl\.orig line 1"):
        read(log)


def test_what_is_empty_or_no_file_beside_the_log_is_passed_by(log: Written) -> None:
    log.start(1)
    log.path.with_name("audit.jsonl.1").touch()
    log.path.with_name("audit.jsonl.d").mkdir()
    assert needs(read(log)) == {"bletchley": 1}


@pytest.mark.parametrize("damage", ["cut", "no gzip", "directory"])
def test_a_file_that_can_not_be_read_is_named(damage: str, log: Written) -> None:
    log.start(1)
    packed = gzip.compress(log.path.read_bytes())
    if damage == "directory":
        log.path.unlink()
        log.path.mkdir()
    else:
        data = packed[:-12] if damage == "cut" else b"\x1f" + packed[2:]
        log.path.with_name("audit.jsonl.1.gz").write_bytes(data)
    with pytest.raises(AuditError, match="can't be read"):
        read(log)


def test_the_logs_own_records_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    writer = AuditLog(path)
    about = {"client": "bletchley", "keyring": "homelab", "key": "unseal", "version": "3"}
    writer.record(members(**about, what="unseal", verdict="released"))
    usage = Usage(path, writer.head.digest)
    usage.read()
    assert needs(usage) == {"bletchley": 3}
    writer.record(members(**about | {"version": "2"}, what="unseal", verdict="released"))
    usage.catch_up()
    assert needs(usage) == {"bletchley": 2}
    usage.close()
    writer.close()


@given(
    said=st.lists(
        st.dictionaries(
            st.sampled_from(
                ["client", "keyring", "key", "version", "what", "verdict", "time", "operation"]
            ),
            JUNK | st.sampled_from(["unseal", "token", "wrap", "1", "released"]),
        )
    )
)
@settings(max_examples=200, deadline=None)
def test_records_of_anything_give_nothing_but_audit_errors(
    said: Said, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("log")
    log = Written(folder / "audit.jsonl")
    try:
        for record in said:
            log.add(**record)
        read(log)
    except AuditError:
        pass
    finally:
        shutil.rmtree(folder)


@given(data=st.binary(max_size=300))
@settings(deadline=None)
def test_a_log_of_random_bytes_gives_nothing_but_audit_errors(
    data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("log")
    (folder / "audit.jsonl").write_bytes(data)
    try:
        read(Written(folder / "audit.jsonl"))
    except AuditError:
        pass
    finally:
        shutil.rmtree(folder)
