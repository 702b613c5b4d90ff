"""What processes do that tests kill, starve or take rights from.

Each is started from a fork server, which has one thread and has loaded this module. A child of
it may fork again, which costs about a millisecond, so that hundreds can be killed.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.context import ForkServerContext
from multiprocessing.synchronize import Event
from pathlib import Path
from types import FrameType
from typing import NoReturn

import pytest

from kluis.errors import Conflict, NotFound, Unsafe, WriteFailed
from kluis.keyring.document import to_bytes
from kluis.store import directory, files
from kluis.store.directory import KEPT, DirectoryStore
from kluis.store.process_lock import ProcessLock
from tests.store.documents import document, marked

NOBODY = 65534
DEADLINE_S = 100.0
KILLED = -signal.SIGKILL
PAGE_BYTES = 4096
TRACED = frozenset({directory.__file__, files.__file__})


def context() -> ForkServerContext:
    """The fork server that all children come from."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([__name__])
    return server


class Killer:
    """Kills this process when the store has run its n-th line; SIGKILL, as the kernel would."""

    def __init__(self, line: int) -> None:
        self.left = line

    def __call__(self, frame: FrameType, event: str, arg: object) -> Killer | None:
        if frame.f_code.co_filename not in TRACED:
            return None
        if event == "line":
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1
        return self


def killed_at(line: int, call: Callable[[], object]) -> bool:
    """Whether a fork of this process was killed before the n-th line of the store's code."""
    if (pid := os.fork()) == 0:
        _call_and_die(line, call)
    _, status = os.waitpid(pid, 0)
    assert status in (0, signal.SIGKILL), "the fork failed"
    return status != 0


def _call_and_die(line: int, call: Callable[[], object]) -> NoReturn:
    code = 1
    try:
        sys.settrace(Killer(line))
        call()
        sys.settrace(None)
        code = 0
    except BaseException:  # noqa: BLE001 - this process is not the test's
        traceback.print_exc()
    finally:
        os._exit(code)


def save_killed_at_every_line(folder: Path, revision: int) -> None:
    """Whatever line a save is killed at: the document is the old or the new one, whole."""
    before, new = DirectoryStore(folder / "before"), document(revision)
    for number in range(1, revision):
        before.save(document(number), after=number - 1)
    found = set()
    for line in range(1000):
        store = DirectoryStore(folder / str(line))
        if before.folder.exists():
            shutil.copytree(before.folder, store.folder)
        killed = killed_at(line, lambda: store.save(new, after=revision - 1))  # noqa: B023 - at once
        there = _revision(store)
        assert there in {revision - 1, revision}
        store.save(document(there + 1), after=there)
        assert store.load("homelab") == document(there + 1)
        assert len(store.history("homelab")) <= KEPT
        shutil.rmtree(store.folder)
        if not killed:
            break
        found.add(there)
    assert line > 50
    assert found == {revision - 1, revision}, "no kill came before the rename, or none after"


def _revision(store: DirectoryStore) -> int:
    try:
        loaded = store.load("homelab")
    except NotFound:
        return 0
    assert loaded == document(loaded.revision)
    return loaded.revision


def load_killed_at_every_line(folder: Path) -> None:
    """Whatever line a load is killed at: the mark is the old or the new one, whole."""
    store, seen = DirectoryStore(folder), folder / "homelab.seen"
    store.save(document(1), after=0)
    store.save(document(2), after=1)
    mark = seen.read_bytes()
    for line in range(1000):
        seen.unlink(missing_ok=True)
        killed = killed_at(line, lambda: store.remember(store.load("homelab")))
        assert store.load("homelab") == document(2)
        store.remember(document(2))
        assert seen.read_bytes() == mark
        if not killed:
            break
    assert line > 20


def write_for_ever(folder: Path, started: Event) -> None:
    """Write revision after revision until killed."""
    store = DirectoryStore(folder)
    revision = store.load("homelab").revision
    started.set()
    while True:
        store.save(document(revision + 1, body_bytes=40_000), after=revision)
        revision += 1


def count_up(folder: Path, mark: int, times: int) -> None:
    """Add a byte to the document, as often as asked, against others who do the same."""
    store = DirectoryStore(folder)
    while times:
        seen = store.load("homelab")
        with suppress(Conflict):
            store.save(marked(seen, mark), after=seen.revision)
            times -= 1


def hold(path: Path, held: Event) -> None:
    """Hold a process lock until killed."""
    lock = ProcessLock(path)
    held.set()
    signal.pause()
    lock.release()


def without_rights(folder: Path) -> None:
    """Use a folder that can be read but not written, as a user to whom that means something."""
    os.chdir(folder)  # the way here is closed to others
    (folder / "home.json").chmod(0o000)
    to_bytes(document(1))  # loads what it needs, while this may still read Python's own files
    _give_to_nobody(folder)
    store = DirectoryStore(Path())
    before = _contents()
    assert store.load("homelab") == document(1)
    with pytest.raises(WriteFailed):
        store.save(document(2), after=1)
    with pytest.raises(WriteFailed):
        ProcessLock(Path("serve.lock"))
    with pytest.raises(WriteFailed):
        DirectoryStore(Path("sub/state")).save(document(1), after=0)
    with pytest.raises(Unsafe, match="can't be read"):
        store.load("home")
    with pytest.raises(NotFound):
        store.load("other")
    assert _contents() == before


def _give_to_nobody(folder: Path) -> None:
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    for path in (folder, folder / "history"):
        path.chmod(0o500)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def _contents() -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in Path().rglob("*")}


def behind_a_closed_door(folder: Path) -> None:
    """Read a state folder to which the way is closed."""
    inner = folder / "closed" / "state"
    DirectoryStore(inner).save(document(1), after=0)
    os.chdir(folder)
    _give_to_nobody_closed(folder)
    store = DirectoryStore(Path("closed/state"))
    with pytest.raises(Unsafe):
        store.load("homelab")
    with pytest.raises(WriteFailed):
        store.save(document(2), after=1)


def _give_to_nobody_closed(folder: Path) -> None:
    (folder / "closed").chmod(0o000)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def on_a_small_disk(folder: Path) -> None:
    """Write to a disk that is full but for n pages, for every n: a whole document each time."""
    store = DirectoryStore(folder / "state")
    store.save(document(1, body_bytes=20_000), after=0)
    revision, outcomes = 1, []
    for pages in range(32):
        _fill(folder, leave_bytes=pages * PAGE_BYTES)
        new = document(revision + 1, body_bytes=20_000)
        try:
            store.save(new, after=revision)
        except WriteFailed:
            outcomes.append(False)
        else:
            outcomes.append(True)
            revision += 1
        assert store.load("homelab") == document(revision, body_bytes=20_000)
        assert not list((folder / "state").rglob("*.new"))
    assert outcomes[0] is False
    assert outcomes[-1] is True
    _fill(folder, leave_bytes=0)
    (folder / "state" / "homelab.seen").write_bytes(b"")  # its mark can't be written anew
    assert store.load("homelab").revision == revision
    ProcessLock(folder / "state" / "serve.lock").release()


def _fill(folder: Path, leave_bytes: int) -> None:
    filler = folder / "filler"
    filler.unlink(missing_ok=True)
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(PAGE_BYTES))
    if leave_bytes:
        os.truncate(filler, max(0, filler.stat().st_size - leave_bytes))


def with_small_files(folder: Path) -> None:
    """Write while the system refuses files above n bytes, for many n."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = DirectoryStore(folder)
    store.save(document(1), after=0)
    revision, whole = 1, len((folder / "homelab.json").read_bytes())
    for limit in range(0, whole + 64, 16):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        with suppress(WriteFailed):
            store.save(document(revision + 1), after=revision)
            revision += 1
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        assert store.load("homelab") == document(revision)
        assert not list(folder.rglob("*.new"))
    assert 1 < revision < whole // 16


if __name__ == "__main__":
    on_a_small_disk(Path(sys.argv[1]))
