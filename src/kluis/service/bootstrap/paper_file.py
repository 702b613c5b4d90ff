"""A file for what is shown once, where there is nobody to show it to: paper shares and tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from kluis.anchors.base import Anchor
from kluis.errors import UsageError
from kluis.keyring.document import Document
from kluis.keyring.plan import Wanted
from kluis.keyring.tree import PeopleLeaf
from kluis.store.files import replace, write_failed
from kluis.store.memory import on_memory


def write(
    path: Path, document: Document, paper: Mapping[str, Sequence[str]], tokens: Mapping[str, str]
) -> None:
    """Write a file of mode 0600. One that is there already is kept, under another name.

    Raises WriteFailed.
    """
    try:
        if path.exists():
            path.rename(_free_name(path))
    except OSError as error:
        raise write_failed(path, error) from None
    replace(path, text(document, paper, tokens).encode())


def refuse_disk(path: Path) -> None:
    """Raises UsageError for a file whose content would reach a disk."""
    if not on_memory(path.parent):
        raise UsageError(
            f"{path.parent} is not in memory (tmpfs)",
            "a secret that was once on a disk may stay there after it is removed",
            "name a file on a tmpfs, such as /dev/shm or an emptyDir of medium Memory",
        )


def refuse_unseen(wanted: Wanted, anchors: Mapping[str, Anchor], path: Path | None) -> None:
    """Raises UsageError for a keyring that can't be made with nobody there.

    A passphrase would be typed for it, or something is shown once and has no file.
    """
    for name in wanted.leaves:
        if (anchor := anchors.get(name)) is not None and anchor.needs_person:
            raise UsageError(
                f"the passphrase of {name} is typed by a person",
                "a bootstrap has nobody to ask",
                f"make the keyring with kluis apply, or take {name} out of the rule",
            )
    people = sorted(name for name, leaf in wanted.leaves.items() if isinstance(leaf, PeopleLeaf))
    once = [f"the paper of {name}" for name in people]
    once += [f"the token of {name}" for name in sorted(wanted.clients)]
    if once and path is None:
        raise UsageError(
            f"{once[0]} is shown once, and a container's log is no place for it",
            "whoever reads the log could use it, and it may be kept for years",
            "name a file on a tmpfs with --paper-to, and fetch it there; or make the keyring with"
            " kluis apply",
        )


def text(document: Document, paper: Mapping[str, Sequence[str]], tokens: Mapping[str, str]) -> str:
    """What the file says: of which keyring it is, then all that is shown once."""
    lines = [f"keyring {document.name}, made {document.written}, id {document.id}"]
    for people, shares in sorted(paper.items()):
        lines += ["", f"Paper shares of {people}. One person, one share; then remove this file."]
        lines += [f"  {number}. {share}" for number, share in enumerate(shares, 1)]
    for client, token in sorted(tokens.items()):
        lines += ["", f"Token of {client}: {token}"]
    return "\n".join(lines) + "\n"


def _free_name(path: Path) -> Path:
    number = 1
    while (other := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    return other
