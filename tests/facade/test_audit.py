"""The audit log: its chain, what tampering shows, crashes, rotation, and what it never holds."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from pathlib import Path

import pytest

from kluis.errors import AuditError
from kluis.facade.audit import GENESIS, MAX_LINE_BYTES, AuditLog, Chain, Head, members
from tests.support.facade import RunningFacade, serving


def written(path: Path, count: int) -> AuditLog:
    """A log with so many records."""
    log = AuditLog(path)
    for number in range(log.head.seq, log.head.seq + count):
        log.record(members(client="bletchley", what=f"number {number}"))
    return log


def checked(*paths: Path, expected: str = "") -> Chain:
    chain = Chain(expected)
    for path in paths:
        chain.check(path)
    return chain


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def test_a_chain_that_nobody_touched_holds(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = written(path, 100)
    log.close()
    chain = checked(path, expected=hashlib.sha256(lines(path)[41]).hexdigest())
    assert chain.head == log.head == Head(100, hashlib.sha256(lines(path)[-1]).hexdigest())
    assert chain.first == 1
    assert chain.met
    assert json.loads(lines(path)[0])["prev"] == GENESIS


def test_the_file_and_its_folder_are_private(tmp_path: Path) -> None:
    path = tmp_path / "log" / "audit.jsonl"
    AuditLog(path).close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("number", [1, 50, 99])
def test_a_changed_line_shows(tmp_path: Path, number: int) -> None:
    path = tmp_path / "audit.jsonl"
    written(path, 100).close()
    changed = lines(path)
    changed[number - 1] = changed[number - 1].replace(b"bletchley", b"bletchlez")
    path.write_bytes(b"".join(changed))
    with pytest.raises(AuditError) as error:
        checked(path)
    assert f"line {number + 1}:" in error.value.seen
    assert "was changed" in error.value.seen


def test_a_changed_last_line_shows_to_who_noted_the_head(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = written(path, 3)
    log.close()
    path.write_bytes(path.read_bytes().replace(b"number 2", b"number 9"))
    assert not checked(path, expected=log.head.digest).met


@pytest.mark.parametrize("number", [2, 50, 99])
def test_a_removed_line_shows(tmp_path: Path, number: int) -> None:
    path = tmp_path / "audit.jsonl"
    written(path, 100).close()
    left = lines(path)
    del left[number - 1]
    path.write_bytes(b"".join(left))
    with pytest.raises(AuditError) as error:
        checked(path)
    assert f"record {number} should be here" in error.value.seen


def test_lines_in_another_order_show(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written(path, 10).close()
    swapped = lines(path)
    swapped[3], swapped[4] = swapped[4], swapped[3]
    path.write_bytes(b"".join(swapped))
    with pytest.raises(AuditError) as error:
        checked(path)
    assert "line 4" in error.value.seen


def test_an_added_line_shows(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = written(path, 10)
    log.close()
    forged = lines(path)
    forged.insert(5, forged[4])
    path.write_bytes(b"".join(forged))
    with pytest.raises(AuditError):
        checked(path)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"{}\n",
        b"[]\n",
        b"null\n",
        b"not json\n",
        b'{"seq":1}\n',
        b'{"seq":"1","prev":"' + GENESIS.encode() + b'"}\n',
        b'{"seq":true,"prev":"' + GENESIS.encode() + b'"}\n',
        b'{"seq":Infinity,"prev":"' + GENESIS.encode() + b'"}\n',
        b'{"seq":NaN,"prev":"' + GENESIS.encode() + b'"}\n',
        b'{"seq":1.0,"prev":"' + GENESIS.encode() + b'"}\n',
        b'{"seq":1,"prev":null}\n',
        b'{"seq":' + b"9" * 10_000 + b',"prev":""}\n',
        b"[" * 10_000 + b"\n",
        b"\xff\xfe\x00\n",
        b'{"seq":1,"prev":"' + GENESIS.encode() + b'"}',  # cut off before its end
        b'{"seq":1,"prev":"' + GENESIS.encode() + b'","x":"' + b"x" * MAX_LINE_BYTES + b'"}\n',
    ],
)
def test_what_is_not_a_record_is_said_to_be_none(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(line)
    if line:
        with pytest.raises(AuditError) as error:
            checked(path)
        assert "line 1:" in error.value.seen
    else:
        assert checked(path).head == Head()


def test_a_file_that_can_not_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AuditError) as error:
        checked(tmp_path / "none.jsonl")
    assert "No such file" in error.value.seen


@pytest.mark.parametrize("kept", [1, 7, 30, -2, -1])
def test_a_record_torn_by_a_crash_is_cut_off_and_the_chain_goes_on(
    tmp_path: Path, kept: int
) -> None:
    path = tmp_path / "audit.jsonl"
    log = written(path, 5)
    log.close()
    whole = path.read_bytes()
    torn = lines(path)[-1].replace(b'"seq":5', b'"seq":6')[:kept]
    path.write_bytes(whole + torn)
    again = AuditLog(path)
    again.record(members(what="after the crash"))
    again.close()
    records = [json.loads(line) for line in lines(path)]
    assert path.read_bytes().startswith(whole)
    assert [record["seq"] for record in records] == [1, 2, 3, 4, 5, 6, 7]
    assert records[5]["event"] == "recovered"
    assert records[5]["torn_bytes"] == str(len(torn))
    checked(path)


def test_a_first_record_torn_by_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b'{"seq":1,"ti')
    AuditLog(path).close()
    assert checked(path).head.seq == 1


@pytest.mark.parametrize(
    "content",
    [
        bytes(range(32)),  # a key file, named as the audit log by mistake
        b"word word word",
        b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        b'{"kluis":"keyring/1"}',
        b'{"kluis":"keyring/1"}\n',
        b"\n",
        b"x" * (5 * MAX_LINE_BYTES),
        b'{"seq":1,' + b"x" * (2 * MAX_LINE_BYTES),
        b'{"seq":0,"prev":""}\n',
        b'{"seq":1}\n{"seq":2,',
    ],
)
def test_a_file_that_is_no_audit_log_is_refused_and_left_as_it_is(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "anchor.key"
    path.write_bytes(content)
    with pytest.raises(AuditError):
        AuditLog(path)
    assert path.read_bytes() == content


def test_a_log_is_continued_by_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for _ in range(3):
        written(path, 4).close()
    assert checked(path).head.seq == 12


def test_a_rotated_log_goes_on_in_a_new_file_and_the_chain_with_it(tmp_path: Path) -> None:
    path, first, second = (tmp_path / name for name in ("audit.jsonl", "audit.1", "audit.2"))
    log = written(path, 3)
    for rotated in (first, second):
        path.rename(rotated)
        log.reopen_if_rotated()
        log.record(members(what="after a rotation"))
    log.close()
    assert checked(first, second, path).head == log.head
    assert checked(path).first == 5
    with pytest.raises(AuditError):  # the middle one is missing
        checked(first, path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_log_that_was_not_rotated_stays_the_same_file(tmp_path: Path) -> None:
    log = written(tmp_path / "audit.jsonl", 1)
    before = log._descriptor
    log.reopen_if_rotated()
    assert log._descriptor == before
    log.close()


def test_a_removed_log_begins_a_new_file_with_the_old_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = written(path, 3)
    path.unlink()
    log.reopen_if_rotated()
    log.record(members(what="after the removal"))
    log.close()
    assert checked(path).first == 4


def test_while_the_file_can_not_be_opened_nothing_is_written_anywhere(tmp_path: Path) -> None:
    """The number of the closed file may soon be that of a client's connection."""
    folder = tmp_path / "log"
    path = folder / "audit.jsonl"
    log = written(path, 3)
    shutil.rmtree(folder)
    folder.write_text("a file where the folder was")
    with pytest.raises(AuditError):
        log.reopen_if_rotated()
    other = tmp_path / "another file"
    with other.open("wb", buffering=0):  # takes the lowest number that is free
        with pytest.raises(AuditError):
            log.record(members(what="lost"))
        with pytest.raises(AuditError):
            log.reopen_if_rotated()
    assert other.read_bytes() == b""
    folder.unlink()
    log.reopen_if_rotated()
    log.record(members(what="written again"))
    log.close()
    assert checked(path).head.seq == 4


def test_a_record_that_can_not_be_written_is_an_error_and_counts_not() -> None:
    log = AuditLog(Path("/dev/full"))
    for _ in range(3):
        with pytest.raises(AuditError) as error:
            log.record(members(what="no room"))
        assert "No space left" in error.value.seen
    assert log.head == Head()
    log.close()


@pytest.mark.parametrize("path", ["/proc/audit.jsonl", "/dev/null/audit.jsonl"])
def test_a_place_where_no_file_can_be_is_an_error_at_the_start(path: str) -> None:
    with pytest.raises(AuditError):
        AuditLog(Path(path))


def test_every_name_is_one_line_of_ascii(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    hostile = 'x\n{"seq":9}\r\n"\\\x00\x1b[2J\u2028\U0001f512\ud800'
    log.record(members(client=hostile, empty=""))
    log.close()
    (line,) = lines(path)
    record = json.loads(line)
    assert line.isascii()
    assert record["client"] == hostile
    assert "empty" not in record
    checked(path)


LONG = "k" * 2000
HOSTILE_NAMES = [
    LONG,
    "%0a%7b%22seq%22:1%7d",
    "%00%01%1b[2J",
    "%e2%80%a8%f0%9f%94%92",
    'a"b\\c',
    "..",
    "%2e%2e%2f",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_no_name_in_a_url_breaks_a_line(tmp_path: Path, name: str) -> None:
    with serving(tmp_path) as facade:
        token = facade.token("bletchley")
        request = "PUT /v1/{}/decrypt/{} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n{}\r\n"
        for keyring, key in ((name[:20], name), (name, "bletchley"), ("homelab", name)):
            for header in ("", f"X-Vault-Token: {token}\r\n"):
                text = request.format(keyring, key, header + "Connection: close\r\n")
                assert facade.exchange(text.encode()).startswith(b"HTTP/1.1 4")
        assert facade.decrypt(facade.real_wrap()[1], token).status == 200
        assert len(facade.audited()) >= 4
        assert max(len(line) for line in lines(facade.audit_file)) < 1024
        checked(facade.audit_file)


def test_no_secret_is_in_the_log_whatever_is_asked(tmp_path: Path) -> None:
    with serving(tmp_path) as facade:
        token = facade.token("bletchley")
        plaintext, ciphertext = facade.real_wrap()
        wrapped = facade.encrypt(plaintext, token).data["ciphertext"]
        asks = [
            facade.decrypt(ciphertext, token),
            facade.put("homelab/rewrap/bletchley", {"ciphertext": ciphertext}, token),
            facade.put("auth/token/renew-self", {}, token),
            facade.get("auth/token/lookup-self", token),
            facade.get("homelab/keys/bletchley", token),
            facade.decrypt(ciphertext[:-4] + "AAA=", token),
            facade.decrypt(ciphertext, token[:-1] + "?"),
            facade.put("homelab/decrypt/bletchley", b"{" + plaintext, token),
            facade.put("homelab/encrypt/bletchley", {"plaintext": [plaintext.decode()]}, token),
        ]
        facade.lock()
        asks.append(facade.encrypt(plaintext, token))
        asks.append(facade.encrypt(b"a", token))
        log = facade.audit_file.read_text()
        assert len(facade.audited()) == 1 + len(asks)
        root = json.loads(plaintext)[0]
        secrets = [
            token,
            token[6:],
            hashlib.sha256(token.encode()).hexdigest(),
            plaintext.decode(),
            base64.b64encode(plaintext).decode(),
            root,
            base64.b64decode(root).hex(),
            ciphertext.split(":")[2],
            wrapped.split(":")[2],
        ]
        for secret in secrets:
            assert secret not in log
        assert "ciphertext does not verify" not in log


def test_a_record_says_who_from_where_what_and_the_verdict(tmp_path: Path) -> None:
    with serving(tmp_path) as facade:
        facade.rotate()
        _, ciphertext = facade.real_wrap()
        facade.decrypt(ciphertext, facade.token("bletchley"))
        record = facade.audited()[-1]
        assert record.pop("time").endswith("Z")
        assert record.pop("prev") == GENESIS
        assert record == {
            "seq": 1,
            "client": "bletchley",
            "source": "127.0.0.1",
            "operation": "decrypt",
            "keyring": "homelab",
            "key": "bletchley",
            "version": "2",
            "what": "unseal",
            "verdict": "released",
        }


def test_a_running_facade_follows_a_rotation(tmp_path: Path) -> None:
    with serving(tmp_path) as facade:
        asked(facade, 5)
        rotated = tmp_path / "audit.1"
        facade.audit_file.rename(rotated)
        facade.wait(facade.audit_file.exists, "a new file is there")
        asked(facade, 5)
        assert checked(rotated, facade.audit_file).head.seq == 10
        assert checked(facade.audit_file).first == 6


def asked(facade: RunningFacade, count: int) -> None:
    for _ in range(count):
        assert facade.encrypt(b"x", facade.token("bletchley")).status == 200


def test_nothing_is_released_while_the_log_can_not_be_written(tmp_path: Path) -> None:
    """The log is on a device that is always full; then it is another file, and all goes on."""
    with serving(tmp_path) as facade:
        plaintext, ciphertext = facade.real_wrap()
        token = facade.token("bletchley")
        asked(facade, 1)
        rotated = tmp_path / "audit.1"

        def fill() -> None:
            facade.audit_file.rename(rotated)
            facade.audit_file.symlink_to("/dev/full")
            facade.facade.audit.reopen_if_rotated()

        facade.call(fill)
        answers = [
            facade.decrypt(ciphertext, token),
            facade.encrypt(b"x", token),
            facade.put("homelab/rewrap/bletchley", {"ciphertext": ciphertext}, token),
            facade.put("auth/token/renew-self", {}, token),
            facade.get("homelab/keys/bletchley", token),
            facade.decrypt(ciphertext, "unknown"),
            facade.decrypt("nonsense", token),
        ]
        for answer in answers:
            assert answer.status == 500
            assert set(answer.body) == {"errors"}
            assert answer.body["errors"][0] == "the audit log can't be written"
            assert str(tmp_path) not in answer.raw.decode()
        assert facade.get("sys/health").status == 200
        facade.audit_file.unlink()
        facade.wait(facade.audit_file.exists, "a new file is there")
        assert facade.decrypt(ciphertext, token).plaintext == plaintext
        assert checked(rotated, facade.audit_file).head.seq == 2
