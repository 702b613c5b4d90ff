"""A full disk, a read-only folder: one clear error, and the old document untouched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kluis.store.directory import DirectoryStore
from tests.store import children
from tests.store.documents import document
from tests.store.test_crashes import run

ROOT = Path(__file__).parents[2]
MOUNT = 'mount -t tmpfs -o size=1m,mode=700 none "$1" && exec "$2" -m tests.store.children "$1"'
PROBE = 'mount -t tmpfs -o size=64k none "$1"'


def namespace(script: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a mount namespace of its own, as its root."""
    return subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", *args],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_on_a_full_disk_the_old_document_stays(tmp_path: Path) -> None:
    """On a real one, a small tmpfs; where nothing may be mounted, by a limit on file sizes."""
    if namespace(PROBE, str(tmp_path)).returncode == 0:
        filled = namespace(MOUNT, str(tmp_path), sys.executable)
        assert filled.returncode == 0, filled.stdout + filled.stderr
    else:
        assert run(children.with_small_files, tmp_path / "state") == 0


def test_when_files_may_not_grow_the_old_document_stays(tmp_path: Path) -> None:
    assert run(children.with_small_files, tmp_path / "state") == 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = DirectoryStore(tmp_path / "state")
    store.save(document(1), after=0)
    store.save(document(1, name="home"), after=0)
    return store.folder


def test_a_read_only_folder_can_be_read_and_says_what_is_wrong_when_written(folder: Path) -> None:
    assert run(children.without_rights, folder) == 0


def test_a_read_only_folder_without_a_mark_can_be_read(folder: Path) -> None:
    (folder / "homelab.seen").unlink()
    (folder / "write.lock").unlink()
    assert run(children.without_rights, folder) == 0


def test_a_folder_to_which_the_way_is_closed_is_an_error_a_person_can_act_on(
    tmp_path: Path,
) -> None:
    assert run(children.behind_a_closed_door, tmp_path) == 0
