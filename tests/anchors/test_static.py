"""The static anchor: what is taken for a key, and from where."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kluis.anchors.sources import (
    MAX_SOURCE_BYTES,
    CredentialSource,
    EnvironmentSource,
    FileSource,
)
from kluis.anchors.static import StaticAnchor, read_key
from kluis.errors import Misconfigured, Missing, Refused

KEY = bytes(range(100, 132))
HEX = KEY.hex().encode()
BASE64 = base64.b64encode(KEY)


def private(path: Path, content: bytes, mode: int = 0o600) -> FileSource:
    path.write_bytes(content)
    path.chmod(mode)
    return FileSource(path)


@pytest.mark.parametrize(
    "content",
    [KEY, HEX, HEX.upper(), HEX + b"\n", BASE64, BASE64 + b"\n"],
    ids=["raw", "hex", "HEX", "hex and newline", "base64", "base64 and newline"],
)
def test_a_key_is_raw_or_hex_or_base64(tmp_path: Path, content: bytes) -> None:
    assert read_key(private(tmp_path / "key", content)) == KEY


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        KEY[:-1],
        KEY + b"\n",
        KEY + b"\n\n",
        HEX + b"\n\n",
        HEX + b"\r\n",
        b" " + HEX,
        HEX[:-1] + b"g",
        HEX[:-2],
        HEX * 2,
        b" " * 64,
        b"ab " * 21 + b" ",
        BASE64[:-1],
        BASE64[:-1] + b"!",
        base64.b64encode(KEY + b"x"),
        base64.b64encode(KEY[:-1] + b""),
        base64.urlsafe_b64encode(b"\xff" * 32),
        b"\xe9" * 64,
    ],
    ids=lambda content: repr(content)[:24],
)
def test_whatever_else_is_no_key_and_is_not_shown(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(Misconfigured) as caught:
        read_key(private(tmp_path / "key", content))
    assert str(len(content)) in caught.value.seen
    assert KEY.hex()[:8] not in caught.value.seen + caught.value.means


def test_a_file_of_blanks_is_not_an_empty_key(tmp_path: Path) -> None:
    anchor = StaticAnchor("disk", private(tmp_path / "key", b" " * 64))
    with pytest.raises(Misconfigured):
        asyncio.run(anchor.probe())


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o610, 0o660, 0o601])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(Refused, match=f"mode {mode:04o}"):
        read_key(private(tmp_path / "key", KEY, mode))


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_key_of_its_owner_alone_is_taken(tmp_path: Path, mode: int) -> None:
    assert read_key(private(tmp_path / "key", KEY, mode)) == KEY


def test_a_link_is_followed_and_what_it_names_must_be_private(tmp_path: Path) -> None:
    private(tmp_path / "key", KEY)
    (tmp_path / "link").symlink_to(tmp_path / "key")
    assert read_key(FileSource(tmp_path / "link")) == KEY
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(Refused):
        read_key(FileSource(tmp_path / "link"))


def _folder(path: Path) -> None:
    path.mkdir(mode=0o700)


def _pipe(path: Path) -> None:
    os.mkfifo(path, 0o600)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [_folder, _pipe, _device])
def test_what_is_not_a_file_is_refused_at_once(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "key")
    with pytest.raises(Misconfigured, match="not a regular file"):
        read_key(FileSource(tmp_path / "key"))


def test_asking_a_folder_for_a_key_again_and_again_uses_up_no_descriptors(tmp_path: Path) -> None:
    before = _descriptors()
    for _ in range(50):
        with pytest.raises(Misconfigured):
            read_key(FileSource(tmp_path))
    assert _descriptors() == before


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_missing_file_and_a_dangling_link_are_missing(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "key")
    for name in ("key", "link", "folder/key"):
        with pytest.raises(Missing):
            read_key(FileSource(tmp_path / name))


def test_a_file_that_can_not_be_opened_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(Refused, match="can't be read"):
        read_key(FileSource(tmp_path / "loop"))


def test_a_disk_that_fails_while_reading_is_refused() -> None:
    # a process's own memory at address 0: a real file whose reading really fails
    with pytest.raises(Refused, match="Input/output error"):
        FileSource(Path("/proc/self/mem")).read()


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    source = private(tmp_path / "key", b"")
    os.truncate(source.path, 2**40)
    with pytest.raises(Misconfigured, match=f"more than {MAX_SOURCE_BYTES} bytes"):
        read_key(source)


def test_a_key_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    source = EnvironmentSource("KLUIS_TEST_KEY")
    monkeypatch.delenv("KLUIS_TEST_KEY", raising=False)
    with pytest.raises(Missing, match="KLUIS_TEST_KEY is not set"):
        read_key(source)
    monkeypatch.setenv("KLUIS_TEST_KEY", HEX.decode())
    assert read_key(source) == KEY
    monkeypatch.setenv("KLUIS_TEST_KEY", "A" * (MAX_SOURCE_BYTES + 1))
    with pytest.raises(Misconfigured):
        read_key(source)


def test_a_key_by_systemd_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = CredentialSource("anchor")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(Missing):
        read_key(source)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(Missing):
        read_key(source)
    (tmp_path / "anchor").write_bytes(KEY)
    (tmp_path / "anchor").chmod(0o440)  # as systemd makes it: an ACL says who may read it
    assert read_key(source) == KEY
    (tmp_path / "anchor").unlink()
    (tmp_path / "anchor").mkdir()
    with pytest.raises(Refused):
        read_key(source)


def test_an_empty_credentials_folder_is_not_the_present_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private(tmp_path / "anchor", KEY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "")
    with pytest.raises(Missing):
        read_key(CredentialSource("anchor"))


def test_sources_say_where_they_are(tmp_path: Path) -> None:
    assert str(FileSource(tmp_path / "key")) == str(tmp_path / "key")
    assert str(EnvironmentSource("NAME")) == "$NAME"
    assert str(CredentialSource("NAME")) == "systemd credential NAME"


def test_a_key_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "anchor.key"
    path.write_bytes(bytes(range(32)))
    path.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(path, 65_534, -1)
    else:  # who can't give a file away plays the other user
        monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(Refused, match="another user"):
        FileSource(path).read()
