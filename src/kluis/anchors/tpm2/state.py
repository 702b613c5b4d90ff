"""What a TPM says of itself: who made it, whether it is locked (TPM 2.0 Library, part 2, 6.13)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kluis.errors import Refused, Unreachable

FIXED: Final = 0x100
VARIABLE: Final = 0x200
GROUP: Final = 0x100
"""Properties come in two groups of at most this many."""

_MANUFACTURER: Final = FIXED + 5
_VENDOR: Final = range(FIXED + 6, FIXED + 10)
_FIRMWARE: Final = range(FIXED + 11, FIXED + 13)
_PERMANENT: Final = VARIABLE + 0
_LOCKOUT_COUNTER: Final = VARIABLE + 14
_MAX_AUTH_FAIL: Final = VARIABLE + 15
_LOCKOUT_INTERVAL: Final = VARIABLE + 16

_OWNER_AUTH_SET: Final = 1 << 0
_LOCKOUT_AUTH_SET: Final = 1 << 2
_IN_LOCKOUT: Final = 1 << 9

_ASK_AGAIN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class State:
    """The properties of a TPM by their number; what it does not tell counts as 0."""

    properties: Mapping[int, int]

    @property
    def manufacturer(self) -> str:
        """Its maker, by the id that the TCG gave: ``INTC``, ``IFX``."""
        return self._text(_MANUFACTURER).strip()

    @property
    def vendor(self) -> str:
        """What the maker calls it."""
        return "".join(map(self._text, _VENDOR)).strip()

    @property
    def firmware(self) -> str:
        """The version of its firmware, in four parts."""
        parts = (part for p in _FIRMWARE for part in (self._of(p) >> 16, self._of(p) & 0xFFFF))
        return ".".join(map(str, parts))

    @property
    def wrong_tries(self) -> int:
        """How many wrong tries it counts now."""
        return self._of(_LOCKOUT_COUNTER)

    @property
    def most_tries(self) -> int:
        """With how many wrong tries it locks."""
        return self._of(_MAX_AUTH_FAIL)

    @property
    def forgives_after_s(self) -> int:
        """After how long it counts one wrong try less."""
        return self._of(_LOCKOUT_INTERVAL)

    @property
    def is_locked(self) -> bool:
        """Whether it refuses all PINs for now."""
        return bool(self._of(_PERMANENT) & _IN_LOCKOUT)

    @property
    def has_owner_password(self) -> bool:
        """Whether the owner hierarchy has a password."""
        return bool(self._of(_PERMANENT) & _OWNER_AUTH_SET)

    @property
    def has_lockout_password(self) -> bool:
        """Whether unlocking needs a password."""
        return bool(self._of(_PERMANENT) & _LOCKOUT_AUTH_SET)

    def refuse_lockout(self) -> None:
        """Raises Unreachable while it is locked."""
        if self.is_locked:
            raise self.lockout()

    def refuse_last_try(self) -> None:
        """Raises Refused when one more wrong PIN would lock it, for all its users."""
        if 0 < self.most_tries - 1 <= self.wrong_tries and not self.is_locked:
            raise Refused(
                f"the TPM locks at the next wrong PIN: it counts {self.wrong_tries} wrong tries",
                "somebody, or kluis before its restart, entered wrong PINs; the last is not taken",
                f"see that the PIN is right; it forgives one try each {self.forgives_after_s} s, or"
                " tpm2_dictionarylockout --clear-lockout",
            )

    def lockout(self) -> Unreachable:
        """The error of a TPM that is locked. Unreachable, for time alone heals it."""
        password = " -p LOCKOUT_PASSWORD" if self.has_lockout_password else ""
        return Unreachable(
            f"the TPM is locked: {self.wrong_tries} wrong tries, where {self.most_tries} lock it",
            f"it forgives one try each {self.forgives_after_s} s, and takes no PIN until then",
            f"wait, or clear it: tpm2_dictionarylockout --clear-lockout{password}",
            # a try in between costs nothing, and somebody may have cleared it
            retry_s=min(float(self.forgives_after_s), _ASK_AGAIN_S),
        )

    def _of(self, number: int) -> int:
        return self.properties.get(number, 0)

    def _text(self, number: int) -> str:
        raw = struct.pack(">I", self._of(number)).rstrip(b"\0").decode("ascii", "replace")
        return "".join(c if c.isascii() and c.isprintable() else "?" for c in raw)
