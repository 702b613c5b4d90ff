"""A token: where it is, whether it is there, and a session with it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pkcs11
from pkcs11.constants import TokenFlag

from kluis.anchors.pkcs11 import faults
from kluis.anchors.pkcs11.module import Library, library_at
from kluis.anchors.pkcs11.pin import login, read_pin, refuse_risk
from kluis.anchors.sources import Source
from kluis.errors import Misconfigured, Unreachable

T = TypeVar("T")

Work = Callable[[pkcs11.Session], T]


@dataclass(frozen=True, slots=True)
class TokenPlace:
    """The module of a token, and which of its tokens: by label, or by the slot's number."""

    module: Path
    label: str | None
    slot: int | None
    pin: Source

    def __str__(self) -> str:
        return f"slot {self.slot}" if self.label is None else f"token {self.label!r}"

    def by_hand(self) -> str:
        """A command that logs in, for a person."""
        which = ("--slot", str(self.slot)) if self.label is None else ("--token-label", self.label)
        return shlex.join(
            ["pkcs11-tool", "--module", str(self.module), *which, "--login", "--list-objects"]
        )

    def look(self, wait_s: float, view: Callable[[Library, pkcs11.Token], T]) -> T:
        """What ``view`` gives of the token, which is there. No login. Raises AnchorError."""
        library = library_at(self.module)
        with library.held(wait_s), _no_foreign(str(self)):
            return view(library, self._present(library))

    def use(self, wait_s: float, work: Work[T], *, writing: bool = False) -> T:
        """What ``work`` gives in a session of the user. Raises AnchorError.

        Where the library lost the token it is started anew, and ``work`` is done once more.
        """
        pin = read_pin(self.pin)
        library = library_at(self.module)
        with library.held(wait_s), _no_foreign(str(self)):
            try:
                return self._once(library, pin, work, writing)
            except pkcs11.PKCS11Error as error:
                if type(error) not in faults.STALE or not library.restart():
                    raise
            return self._once(library, pin, work, writing)

    def _once(self, library: Library, pin: str, work: Work[T], writing: bool) -> T:
        token = self._present(library)
        refuse_risk(token, pin, self.pin, self.by_hand())
        try:
            # shows, before the PIN is spent, that the library has not lost the token
            token.open(rw=writing).close()
            try:
                session = login(token, pin, self.pin, writing=writing)
            except Unreachable:
                library.suspect()  # not again at once: whether the PIN was counted is not known
                raise
            result = work(session)
            with suppress(pkcs11.PKCS11Error):
                session.close()
            return result
        finally:
            library.close_sessions(token.slot.slot_id)  # also those that python-pkcs11 lost

    def _present(self, library: Library) -> pkcs11.Token:
        if library.is_suspect:
            library.restart()
        try:
            return self._find(library)
        except (pkcs11.PKCS11Error, Unreachable) as error:
            stale = isinstance(error, Unreachable) or type(error) in faults.STALE
            if not stale or not library.restart():
                raise
        return self._find(library)

    def _find(self, library: Library) -> pkcs11.Token:
        tokens = list(_tokens(library.slots()))
        if self.label is None:
            found = [token for token in tokens if token.slot.slot_id == self.slot]
        else:
            found = [token for token in tokens if token.label == self.label]
        if not found:
            raise self._away(tokens)
        if len(found) > 1:
            numbers = ", ".join(str(token.slot.slot_id) for token in found)
            raise Misconfigured(
                f"{len(found)} tokens are labelled {self.label!r}, in the slots {numbers}",
                "which of them holds the key can't be told",
                "name the slot in place of the token, or label one of them anew",
            )
        return found[0]

    def _away(self, tokens: list[pkcs11.Token]) -> Unreachable:
        ready = [token for token in tokens if TokenFlag.TOKEN_INITIALIZED & token.flags][:8]
        others = ", ".join(f"{token.label!r} in slot {token.slot.slot_id}" for token in ready)
        return Unreachable(
            f"{self} is not there",
            f"it was taken out, or is named otherwise; {self.module.name} shows {others or 'none'}",
            "put it back; kluis finds it again by itself",
        )


def _tokens(slots: list[pkcs11.Slot]) -> Iterator[pkcs11.Token]:
    for slot in slots:
        with suppress(pkcs11.PKCS11Error):  # one that is broken does not hide the others
            yield slot.get_token()


@contextmanager
def _no_foreign(what: str) -> Iterator[None]:
    try:
        yield
    except pkcs11.PKCS11Error as error:
        raise faults.told(error, what) from None
