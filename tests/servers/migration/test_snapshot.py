"""A snapshot is one only when it is whole."""

from __future__ import annotations

import asyncio
import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kluis.errors import ServerAnswered, ServerError, UsageError, WriteFailed
from kluis.servers.migration import snapshot
from kluis.servers.tls import ServerTls
from tests.support.bao import Bao


def archive(members: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def whole(state: bytes = b"state") -> dict[str, bytes]:
    parts = {"meta.json": b"{}", "state.bin": state}
    sums = "".join(f"{hashlib.sha256(c).hexdigest()}  {n}\n" for n, c in parts.items())
    return {**parts, "SHA256SUMS": sums.encode()}


def proven(tmp_path: Path, data: bytes) -> bool:
    file = tmp_path / "a.snap"
    file.write_bytes(data)
    try:
        snapshot.prove(file)
    except ServerError:
        return False
    return True


@pytest.mark.parametrize(
    ("data", "is_whole"),
    [
        (archive(whole()), True),
        (archive(whole(b"s" * 300_000)), True),
        (b"", False),
        (b"\x1f\x8b\x08", False),
        (b"not gzip", False),
        (archive({}), False),
        (archive({"state.bin": b"state"}), False),
        (archive({**whole(), "state.bin": b"other"}), False),
        (archive({"SHA256SUMS": whole()["SHA256SUMS"]}), False),
        (archive(whole())[:-40], False),
        (archive({**whole(), **{f"more{n}": b"" for n in range(40)}}), False),
    ],
    ids=range(11),  # an archive has its time in it, and every worker must name it alike
)
def test_what_is_not_whole_is_no_snapshot(data: bytes, is_whole: bool, tmp_path: Path) -> None:
    assert proven(tmp_path, data) is is_whole


@given(st.binary(max_size=200), st.integers(0, 400))
def test_any_damage_is_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int
) -> None:
    data = archive(whole())
    damaged = data[:at] + junk + data[at + len(junk) :]
    proven(tmp_path_factory.getbasetemp(), damaged)


def test_a_snapshot_of_a_real_server_is_whole_private_and_overwrites_nothing(
    tmp_path: Path,
) -> None:
    file = tmp_path / "a.snap"
    with Bao(tmp_path / "bao") as bao:
        made = bao.init()
        bao.unseal(made.shares[0])
        bao.wait_active()

        def take(token: str, to: Path = file) -> int:
            return asyncio.run(snapshot.take(bao.address, ServerTls(), token, to))

        with pytest.raises(ServerAnswered):
            take("nobody's")
        assert take(made.root_token) == file.stat().st_size > 0
        assert file.stat().st_mode & 0o777 == 0o600
        with pytest.raises(UsageError, match="there already"):
            take(made.root_token)
        with pytest.raises(WriteFailed):
            take(made.root_token, tmp_path / "nowhere" / "a.snap")
    assert {path.name for path in tmp_path.iterdir()} == {"bao", "a.snap"}


@pytest.mark.parametrize("address", ["http://10.0.0.1:8200", "http://127.0.0.1:1"])
def test_nothing_is_left_where_none_was_given(address: str, tmp_path: Path) -> None:
    with pytest.raises((UsageError, ServerError)):
        asyncio.run(snapshot.take(address, ServerTls(), "token", tmp_path / "a.snap"))
    assert list(tmp_path.iterdir()) == []
