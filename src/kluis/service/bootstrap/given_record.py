"""The record of the keys that were given, as a file beside the document of their keyring."""

from __future__ import annotations

from pathlib import Path

from kluis.errors import DocumentError, StoreError
from kluis.secret import Secret
from kluis.service.bootstrap.given_key import MAX_RECORD_BYTES, Check, from_bytes, to_bytes
from kluis.store.files import make_folder, refuse_wide, replace, unreadable, write_failed


class GivenRecord:
    """``<folder>/<keyring>.bootstrap``. One that is lost or damaged costs only a comparison."""

    def __init__(self, folder: Path, keyring: str) -> None:
        self._path = folder / f"{keyring}.bootstrap"

    def check(self, key: str) -> Check | None:
        """What is remembered of a key. Raises Unsafe."""
        return self._read().get(key)

    def readable(self, key: str) -> Check | None:
        """The same, and None for a record that can't be read: it keeps nobody from starting."""
        try:
            return self.check(key)
        except StoreError:
            return None

    def remember(self, key: str, given: Secret) -> None:
        """Note which key was given, if that is not on record. Raises StoreError."""
        checks = self._read()
        known = checks.get(key)
        if known is None or not known.fits(given):
            self._write({**checks, key: Check.of(given)})

    def _read(self) -> dict[str, Check]:
        try:
            with self._path.open("rb") as file:
                refuse_wide(self._path)
                data = file.read(MAX_RECORD_BYTES + 1)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise unreadable(self._path, error) from None
        try:
            return from_bytes(data)
        except DocumentError:
            return {}

    def _write(self, checks: dict[str, Check]) -> None:
        try:
            make_folder(self._path.parent)
        except OSError as error:
            raise write_failed(self._path, error) from None
        replace(self._path, to_bytes(checks))
