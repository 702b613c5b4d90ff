"""One process at a time works on a state folder."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from kluis.errors import AlreadyRunning, WriteFailed
from kluis.store.process_lock import ProcessLock
from tests.store import children
from tests.store.test_crashes import SERVER, kill


def test_a_second_process_is_refused_until_the_first_is_gone_even_by_kill_9(tmp_path: Path) -> None:
    path, held = tmp_path / "state" / "serve.lock", SERVER.Event()
    child = SERVER.Process(target=children.hold, args=(path, held))
    child.start()
    assert held.wait(children.DEADLINE_S)
    with pytest.raises(AlreadyRunning, match=f"process {child.pid}\\b"):
        ProcessLock(path)
    kill(child)
    ProcessLock(path).release()


def test_the_lock_can_be_let_go_and_taken_again(tmp_path: Path) -> None:
    path = tmp_path / "serve.lock"
    first = ProcessLock(path)
    with pytest.raises(AlreadyRunning, match=f"process {os.getpid()}\\b"):
        ProcessLock(path)
    first.release()
    first.release()  # again does nothing, above all not to another's descriptor
    second = ProcessLock(path)
    assert path.read_text() == str(os.getpid())
    second.release()


def test_who_holds_it_is_unknown_when_the_disk_had_no_room_to_say(tmp_path: Path) -> None:
    path = tmp_path / "serve.lock"
    held = ProcessLock(path)
    path.write_bytes(b"")
    with pytest.raises(AlreadyRunning, match="process unknown"):
        ProcessLock(path)
    held.release()


def test_refusals_use_up_no_descriptors(tmp_path: Path) -> None:
    held = ProcessLock(tmp_path / "serve.lock")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        with pytest.raises(AlreadyRunning):
            ProcessLock(tmp_path / "serve.lock")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    held.release()


def test_a_lock_where_none_can_be_is_an_error_a_person_can_act_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WriteFailed):
        ProcessLock(tmp_path / "file" / "serve.lock")
    with pytest.raises(WriteFailed):
        ProcessLock(tmp_path)

    def no_locks(*args: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(WriteFailed, match="No locks available"):
        ProcessLock(tmp_path / "serve.lock")
