"""A process that writes is killed at every step, and at any time: the document is whole.

A kill shows what a process leaves; that what it leaves is also on the disk, in this order, the
test of the syncs in test_directory.py shows.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from kluis.errors import NotFound
from kluis.store.directory import KEPT, DirectoryStore
from tests.store import children
from tests.store.documents import document

KILLED = -signal.SIGKILL
SERVER = children.context()


def run(target: Callable[..., None], *args: object) -> int:
    """The exit code of a child."""
    child = SERVER.Process(target=target, args=args)
    child.start()
    child.join(children.DEADLINE_S)
    assert child.exitcode is not None, "the child hangs"
    return child.exitcode


@pytest.mark.timeout(600)
@pytest.mark.parametrize("revision", [1, 2, KEPT + 5], ids=["first", "second", "history is full"])
def test_killed_at_every_line_of_a_save_the_document_is_the_old_or_the_new(
    tmp_path: Path, revision: int
) -> None:
    kills, found = 0, set()
    for line in range(1000):
        store = DirectoryStore(tmp_path / str(line))
        for number in range(1, revision):
            store.save(document(number), after=number - 1)
        code = run(children.save_and_die, store.folder, revision, line)
        there = _revision(store)
        assert there in {revision - 1, revision}
        store.save(document(there + 1), after=there)
        assert store.load("homelab") == document(there + 1)
        assert len(store.history("homelab")) <= KEPT
        if code == 0:
            break
        assert code == KILLED
        kills += 1
        found.add(there)
    assert kills > 50
    assert found == {revision - 1, revision}, "no kill came before the rename, or none after"


def _revision(store: DirectoryStore) -> int:
    try:
        loaded = store.load("homelab")
    except NotFound:
        return 0
    assert loaded == document(loaded.revision)
    return loaded.revision


@pytest.mark.timeout(300)
def test_killed_at_every_line_of_a_load_the_mark_is_the_old_or_the_new(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "state")
    store.save(document(1), after=0)
    store.save(document(2), after=1)
    mark = (tmp_path / "state" / "homelab.seen").read_bytes()
    kills = 0
    for line in range(1000):
        (tmp_path / "state" / "homelab.seen").unlink(missing_ok=True)
        code = run(children.load_and_die, store.folder, line)
        assert store.load("homelab") == document(2)
        store.remember(document(2))
        assert (tmp_path / "state" / "homelab.seen").read_bytes() == mark
        if code == 0:
            break
        assert code == KILLED
        kills += 1
    assert kills > 20


@pytest.mark.timeout(300)
def test_killed_at_any_time_the_document_is_whole(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    tmp_path.chmod(0o700)
    store.save(document(1, body_bytes=40_000), after=0)
    last = 1
    for _ in range(80):
        started = SERVER.Event()
        child = SERVER.Process(target=children.write_for_ever, args=(tmp_path, started))
        child.start()
        assert started.wait(children.DEADLINE_S)
        time.sleep(random.uniform(0.0, 0.02))  # the moment of the kill
        kill(child)
        loaded = store.load("homelab")
        assert loaded == document(loaded.revision, body_bytes=40_000)
        assert loaded.revision >= last
        last = loaded.revision
    assert last > 10, "the children were killed before they wrote"


def kill(child: BaseProcess) -> None:
    child.kill()
    child.join(children.DEADLINE_S)
    assert child.exitcode == KILLED


def test_two_writers_lose_no_update(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    store = DirectoryStore(tmp_path)
    store.save(document(1), after=0)
    times, marks = 40, (1, 2, 3)
    writers = [
        SERVER.Process(target=children.count_up, args=(tmp_path, mark, times)) for mark in marks
    ]
    for writer in writers:
        writer.start()
    reads = 0
    while any(writer.is_alive() for writer in writers):
        store.load("homelab")  # a reader sees whole documents, and no false rollback
        reads += 1
    for writer in writers:
        writer.join(children.DEADLINE_S)
        assert writer.exitcode == 0
    final = store.load("homelab")
    assert final.revision == 1 + times * len(marks)
    written = final.body.ciphertext[len(document(1).body.ciphertext) :]
    assert [written.count(mark) for mark in marks] == [times] * len(marks)
    assert reads
