"""The contract of a store. It holds documents; what they say is none of its business."""

from __future__ import annotations

from typing import Protocol

from kluis.keyring.backups import Backups
from kluis.keyring.document import Document
from kluis.keyring.holds import Holds
from kluis.keyring.migrations import Migrations


class Store(Protocol):
    """A place for documents, by the name of their keyring."""

    def load(self, name: str, *, accept_rollback: bool = False) -> Document:
        """The document as it was last written.

        Raises NotFound, RolledBack (unless accepted), Unsafe, or DocumentError.
        """
        ...

    def remember(self, document: Document) -> None:
        """Note a document as the newest seen here.

        Only for one that its body's tag has proven: else whoever can write here could forge a
        high revision and lock the real one out.
        """
        ...

    def save(self, document: Document, *, after: int) -> None:
        """Write a document, if ``after`` is the revision that rests here (0: none does).

        A crash at any point leaves the old or the new document, whole. Raises Conflict, Unsafe
        or WriteFailed; then the old one is untouched.
        """
        ...

    def load_backups(self, name: str) -> Backups:
        """The backups that are known to a keyring; none when nobody noted one.

        Raises Unsafe or DocumentError.
        """
        ...

    def save_backups(self, name: str, backups: Backups) -> None:
        """Write the known backups; a crash leaves the old or the new record, whole.

        Raises Unsafe or WriteFailed.
        """
        ...

    def load_holds(self, name: str) -> Holds:
        """The servers that are held; none when nobody held one. Quick when nothing changed.

        Raises Unsafe or DocumentError.
        """
        ...

    def save_holds(self, name: str, holds: Holds) -> None:
        """Write the held servers; a crash leaves the old or the new record, whole.

        Raises Unsafe or WriteFailed.
        """
        ...

    def load_migrations(self, name: str) -> Migrations:
        """The servers on their way to another seal; none when there are none on record.

        Raises Unsafe or DocumentError.
        """
        ...

    def save_migrations(self, name: str, migrations: Migrations) -> None:
        """Write the migrations; a crash leaves the old or the new record, whole.

        Raises Unsafe or WriteFailed.
        """
        ...
