"""Where an anchor's own secret comes from: a file, the environment, a systemd credential."""

from __future__ import annotations

import io
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

from kluis.errors import Misconfigured, Missing, Refused

MAX_SOURCE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file that only its owner can read; ``shared``: others may read it, but not write it."""

    path: Path
    shared: bool = False

    def __str__(self) -> str:
        return str(self.path)

    def as_shared(self) -> FileSource:
        """The same file, as somebody else projects it for several to read: Kubernetes a JWT."""
        return replace(self, shared=True)

    def read(self) -> bytes:
        """The bytes of the file. Raises Missing, Refused or Misconfigured."""
        try:
            # O_NONBLOCK: a pipe in place of the file must not be waited for
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise Missing(
                f"{self.path} is not there",
                "the disk is not mounted, or the file was removed",
                "mount it or restore it; in place of a lost one put a new file and run kluis apply",
            ) from None
        except OSError as error:
            raise _unreadable(self, error) from None
        try:
            self._check_mode(os.fstat(descriptor))
            with open(descriptor, "rb", closefd=False) as file:
                return _read_bounded(self, file)
        finally:
            os.close(descriptor)

    def _check_mode(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise Misconfigured(
                f"{self.path} is not a regular file",
                "a key is read from a file",
                "name the key's file",
            )
        if status.st_uid not in (0, os.geteuid()):
            raise Refused(
                f"{self.path} belongs to another user (id {status.st_uid})",
                "who owns the file can put a key of their own there",
                f"chown it to the user kluis runs as, and chmod 600 {self.path}",
            )
        if self.shared and status.st_mode & 0o022:
            raise Refused(
                f"others can write to {self.path} (mode {stat.S_IMODE(status.st_mode):04o})",
                "who can write to it can put a credential of their own there",
                f"chmod go-w {self.path}",
            )
        if not self.shared and status.st_mode & 0o077:
            raise Refused(
                f"others can read {self.path} (mode {stat.S_IMODE(status.st_mode):04o})",
                "a key that others can read is not a secret",
                f"chmod 600 {self.path}",
            )


@dataclass(frozen=True, slots=True)
class EnvironmentSource:
    """A variable of the environment."""

    variable: str

    def __str__(self) -> str:
        return f"${self.variable}"

    def read(self) -> bytes:
        """The bytes of the variable. Raises Missing or Misconfigured."""
        value = os.environb.get(self.variable.encode())
        if value is None:
            raise Missing(
                f"${self.variable} is not set",
                "kluis was started without it",
                f"set {self.variable} where kluis is started",
            )
        return _read_bounded(self, io.BytesIO(value))


@dataclass(frozen=True, slots=True)
class CredentialSource:
    """A systemd credential: ``LoadCredential=`` or ``LoadCredentialEncrypted=`` of the unit."""

    credential: str

    def __str__(self) -> str:
        return f"systemd credential {self.credential}"

    def read(self) -> bytes:
        """The bytes of the credential. Raises Missing, Refused or Misconfigured."""
        folder = os.environ.get("CREDENTIALS_DIRECTORY")
        try:
            if folder:
                with (Path(folder) / self.credential).open("rb") as file:
                    return _read_bounded(self, file)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise _unreadable(self, error) from None
        raise Missing(
            f"there is no systemd credential {self.credential}",
            "the unit does not load it, or kluis does not run as that unit",
            f"add LoadCredentialEncrypted={self.credential}:… to the unit",
        )


Source = FileSource | EnvironmentSource | CredentialSource


def _read_bounded(source: Source, file: BinaryIO) -> bytes:
    try:
        data = file.read(MAX_SOURCE_BYTES + 1)
    except OSError as error:
        raise _unreadable(source, error) from None
    if len(data) > MAX_SOURCE_BYTES:
        raise Misconfigured(
            f"{source} has more than {MAX_SOURCE_BYTES} bytes",
            "no key and no passphrase is so long",
            "check that it names the right one",
        )
    return data


def _unreadable(source: Source, error: OSError) -> Refused:
    return Refused(
        f"{source} can't be read: {error.strerror}",
        "the user kluis runs as may not read it, or the disk fails",
        "give it to that user: chown, and chmod 600",
    )
