"""Whether a keyring that does not open may be made anew from the key that was given once.

A TPM that was replaced or cleared never opens its leaf again. The old document is then of use to
people with paper only; the key itself is still in the Secret, if nobody rotated it meanwhile.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from kluis.engine.guard import Guard
from kluis.errors import ChangeRefused
from kluis.keyring import tree, trust
from kluis.keyring.document import KeyEntry, to_bytes
from kluis.secret import Secret
from kluis.service.bootstrap.given_key import Check
from kluis.store.files import make_folder, replace, sync_folder, write_failed

KEPT: Final = "kept"
_GIVEN: Final = KeyEntry("static-seal", 1, 1)


def another_key(path: str) -> ChangeRefused:
    """The refusal of a key that is not the one in the keyring."""
    return ChangeRefused(
        f"the key that was given is not {path}",
        "the server was sealed with the one in the keyring, or the Secret is another server's",
        "put the right Secret there, or none: the keyring needs it no more; nothing was changed",
    )


def refuse_another(check: Check | None, given: Secret | None, path: str) -> None:
    """Raises ChangeRefused when the record says that another key was given before."""
    if given is not None and check is not None and not check.fits(given):
        raise another_key(path)


def refuse_loss(guard: Guard, key: str, check: Check | None) -> None:
    """Raises ChangeRefused when a new keyring would lack something that the old one holds."""
    states = {name: status.state for name, status in guard.anchor_statuses().items()}
    rule = tree.to_policy(guard.document.tree)
    answered = {name for name, state in states.items() if state == "ok"}
    away = {name for name, state in states.items() if state == "unreachable"}
    if trust.opens_with(rule, answered):
        raise ChangeRefused(
            f"the anchors of {guard.name} answer, and its document does not verify",
            "somebody changed it, or the disk did; another one may be good",
            "restore one from its folder history, then start with --accept-rollback",
        )
    if trust.opens_with(rule, answered | away):
        raise ChangeRefused(
            f"{guard.name} may still open: {', '.join(sorted(away))} can't be reached",
            "what may open by itself is not made anew",
            "wait until it is back; kluis status says what is seen of it",
        )
    lost = sorted(set(guard.document.keys) - {key}) or sorted(guard.document.clients)
    if lost or guard.document.keys.get(key) != _GIVEN:
        raise ChangeRefused(
            f"{guard.name} holds more than the key that was given:"
            f" {lost[0] if lost else f'{key} was rotated'}",
            "a keyring made anew would not have it, and a server may need it",
            f"open it with paper: kluis unlock {guard.name}; then its leaves are sealed anew",
        )
    if check is None:
        raise ChangeRefused(
            f"there is no record that {guard.name}/{key} was given by a Secret",
            "it may have been made here, and then the Secret holds another one",
            f"open it with paper: kluis unlock {guard.name}; then its leaves are sealed anew",
        )


def keep_aside(folder: Path, guard: Guard) -> Path:
    """A copy of the document that stays, and no mark of it. Raises WriteFailed.

    The mark would refuse the new document if a crash came right after that was written: its id is
    another. Without one the old document is taken as it is, too.
    """
    document, kept = guard.document, folder / KEPT
    path = kept / f"{document.name}.{document.id}.{document.revision}.json"
    mark = folder / f"{document.name}.seen"
    try:
        make_folder(kept)
        replace(path, to_bytes(document))
        mark.unlink(missing_ok=True)
        sync_folder(folder)
    except OSError as error:
        raise write_failed(path, error) from None
    return path
