"""A process that writes is killed at every step, and at any time: the document is whole.

A kill shows what a process leaves; that what it leaves is also on the disk, in this order, the
test of the syncs in test_directory.py shows.
"""

from __future__ import annotations

import itertools
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from kluis.store.directory import KEPT, DirectoryStore
from tests.store import children
from tests.store.documents import document

SERVER = children.context()
KILLS = 50


def run(target: Callable[..., None], *args: object) -> int:
    """The exit code of a child."""
    child = SERVER.Process(target=target, args=args)
    child.start()
    child.join(children.DEADLINE_S)
    assert child.exitcode is not None, "the child hangs"
    return child.exitcode


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory: to sync hundreds of documents to a disk shows nothing more."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.mark.parametrize("revision", [1, 2, KEPT + 5], ids=["first", "second", "history is full"])
def test_killed_at_every_line_of_a_save_the_document_is_the_old_or_the_new(
    memory: Path, revision: int
) -> None:
    assert run(children.save_killed_at_every_line, memory, revision) == 0


def test_killed_at_every_line_of_a_load_the_mark_is_the_old_or_the_new(memory: Path) -> None:
    assert run(children.load_killed_at_every_line, memory / "state") == 0


@pytest.mark.timeout(300)
def test_killed_at_any_time_the_document_is_whole(memory: Path) -> None:
    store = DirectoryStore(memory)
    store.save(document(1, body_bytes=40_000), after=0)
    last = 1
    for kills in itertools.count():
        if kills >= KILLS and last > 10:  # on a slow machine few of them have written
            break
        started = SERVER.Event()
        child = SERVER.Process(target=children.write_for_ever, args=(memory, started))
        child.start()
        assert started.wait(children.DEADLINE_S)
        time.sleep(random.uniform(0.0, 0.02))  # the moment of the kill
        kill(child)
        loaded = store.load("homelab")
        assert loaded == document(loaded.revision, body_bytes=40_000)
        assert loaded.revision >= last
        last = loaded.revision


def kill(child: BaseProcess) -> None:
    child.kill()
    child.join(children.DEADLINE_S)
    assert child.exitcode == children.KILLED


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
