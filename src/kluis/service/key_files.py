"""The files through which a sidecar hands a static key to a server, and their end.

    <folder>/seal.key             the key, as --to names it
    <folder>/seal.previous.key    the version before it, while there is one
    <folder>/seal.hcl             the stanza that names them with their ids; no secret
    <folder>/ready                there while the keyring is open; for probes

A file comes into its place whole. The stanza comes last and goes first: a server that starts in
between finds no seal rather than a key under another one's id.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kluis.errors import UsageError, WriteFailed
from kluis.service.static_seal import SealKey, stanza
from kluis.store.files import prepare, put, write_failed
from kluis.store.memory import on_memory

_NOBODY: Final = -1  # chown(2): leave it as it is
_LARGEST_BYTES: Final = 8192  # of a leftover: a stanza with the longest path


@dataclass(frozen=True, slots=True)
class Owner:
    """Who may read the files: a user, or a group, by their numbers; -1: this process's own."""

    user: int = _NOBODY
    group: int = _NOBODY

    @property
    def mode(self) -> int:
        """0600, and 0640 where a group is named."""
        return 0o600 if self.group == _NOBODY else 0o640


def owner(text: str) -> Owner:
    """``UID``, ``UID:GID`` or ``:GID``. Raises UsageError."""
    match = re.fullmatch(r"([0-9]{1,9})?(?::([0-9]{1,9}))?", text)
    if match is None or not text.strip(":"):
        raise UsageError(
            f"{text[:32]!r} names no owner",
            "a container knows users and groups by their numbers",
            "write --owner UID, UID:GID or :GID",
        )
    return Owner(*(_NOBODY if number is None else int(number) for number in match.groups()))


class KeyFiles:
    """The files of one server. ``place`` and ``withdraw`` may be called again and again."""

    def __init__(self, path: Path, of: Owner = Owner(), *, allow_disk: bool = False) -> None:
        """Raises UsageError for a path that is not in memory, or not in an existing folder."""
        self.key = path.absolute()
        self.previous = self.key.with_name(f"{path.stem}.previous{path.suffix}")
        self.stanza = self.key.with_suffix(".hcl")
        self.ready = self.key.with_name("ready")
        self._owner = of
        if len({self.key, self.previous, self.stanza, self.ready}) < 4:
            raise UsageError(
                f"{path} is the name of a file that lies beside the key",
                "the stanza and the sign of readiness have these names",
                "name the key's file like /run/kluis/seal.key",
            )
        if not on_memory(self.key.parent) and not allow_disk:
            raise UsageError(
                f"{self.key.parent} is not in memory (tmpfs)",
                "a key that was once on a disk may stay there after it is removed",
                "name a file on a tmpfs; or add --allow-disk, if that disk may hold it",
            )

    def place(self, keys: tuple[SealKey, ...]) -> None:
        """Write the keys, newest first, and the stanza. Raises WriteFailed; then none is there."""
        files = (self.key, self.previous)[: len(keys)]
        self.withdraw()
        try:
            for file, key in zip(files, keys, strict=True):
                self._write(file, key.as_text())
            self._write(self.stanza, stanza(keys, files).encode())
        except WriteFailed:
            with contextlib.suppress(WriteFailed):
                self.withdraw()
            raise

    def withdraw(self) -> None:
        """Remove the keys and the stanza. Raises WriteFailed."""
        self._remove(self.stanza, self.key, self.previous)

    def set_ready(self, ready: bool) -> None:
        """Make or remove the sign of readiness. Raises WriteFailed."""
        if not ready:
            self._remove(self.ready)
        elif not self.ready.exists():
            put(prepare(self.ready, b""), self.ready)

    def remove_leftovers(self) -> None:
        """Remove what a crash left. Raises UsageError for a file that can't be one of these."""
        names = (self.stanza, self.key, self.previous, self.ready)
        leftovers = [path for name in names for path in (name, name.with_name(name.name + ".new"))]
        for path in leftovers:
            _refuse_foreign(path)
        self._remove(*leftovers)

    def _write(self, path: Path, data: bytes) -> None:
        new = prepare(path, data)
        try:
            os.chown(new, self._owner.user, self._owner.group)
            new.chmod(self._owner.mode)
        except OSError as error:
            self._remove(new)
            raise UsageError(
                f"{path} can't be given to its owner: {error.strerror}",
                "another user needs CAP_CHOWN, and a group that kluis be in it",
                "let the server read it by a group of both: --owner :GID",
            ) from None
        put(new, path)

    @staticmethod
    def _remove(*paths: Path) -> None:
        for path in paths:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise write_failed(path, error) from None


def _refuse_foreign(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise write_failed(path, error) from None
    if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST_BYTES:
        raise UsageError(
            f"{path} is there, and is no file that a sidecar left",
            "it would be removed",
            "name another file with --to",
        )
