"""PCRs: which of them, in which bank, and the values that a leaf was sealed to.

In a document they are {"bank": TPM_ALG_ID, "pcrs": bit n stands for PCR n, "digests": their values,
the lowest first, in base64}. References: TPM 2.0 Library, part 2 (10.6.2) and part 3
(TPM2_PolicyPCR).
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from kluis.errors import Damaged
from kluis.keyring import crypto
from kluis.keyring.strict import JSON, Fields, to_base64

BANKS: Final[Mapping[str, int]] = {
    "sha1": 0x0004,
    "sha256": 0x000B,
    "sha384": 0x000C,
    "sha512": 0x000D,
}
"""TPM_ALG_ID of a PCR bank."""

_MOST_PCRS: Final = 24
_DIGEST_BYTES: Final = {"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64}
_BANK_NAMES: Final = {number: name for name, number in BANKS.items()}
_CC_POLICY_PCR: Final = 0x017F

# TCG PC Client Platform Firmware Profile, 3.3.4; the UAPI group's registry of Linux PCRs
_MEANINGS: Final = {
    0: "firmware",
    1: "firmware settings",
    2: "firmware of add-in cards",
    3: "settings of add-in cards",
    4: "boot loader",
    5: "partition table, boot loader settings",
    7: "Secure Boot",
    8: "boot loader commands",
    9: "kernel, initrd",
    11: "unified kernel image",
    12: "kernel command line",
    14: "shim's keys",
}


@dataclass(frozen=True, slots=True)
class Pcrs:
    """PCRs of one bank and their values; the numbers ascend."""

    bank: str
    numbers: tuple[int, ...]
    digests: tuple[bytes, ...]

    def differing(self, now: Pcrs) -> tuple[int, ...]:
        """The numbers of those that have another value now."""
        values = dict(zip(now.numbers, now.digests, strict=True))
        pairs = zip(self.numbers, self.digests, strict=True)
        return tuple(number for number, digest in pairs if values.get(number) != digest)

    def policy(self) -> bytes:
        """The digest of a policy that asks for these values (TPM2_PolicyPCR)."""
        values = crypto.sha256(b"".join(self.digests))
        picked = selection(self.bank, self.numbers)
        return crypto.sha256(bytes(32) + struct.pack(">I", _CC_POLICY_PCR) + picked + values)

    def for_document(self) -> dict[str, JSON]:
        """Their members of ``sealed``."""
        return {
            "bank": BANKS[self.bank],
            "pcrs": sum(1 << number for number in self.numbers),
            "digests": to_base64(b"".join(self.digests)),
        }


def read_pcrs(fields: Fields) -> Pcrs:
    """The PCRs among the members of ``sealed``. Raises Damaged or DocumentError."""
    number = fields.integer("bank", 0, 0xFFFF)
    bits = fields.integer("pcrs", 1, (1 << _MOST_PCRS) - 1)
    digests = fields.base64("digests", limit_bytes=_MOST_PCRS * max(_DIGEST_BYTES.values()))
    if (bank := _BANK_NAMES.get(number)) is None:
        raise _damaged(f"there is no PCR bank {number}")
    numbers = tuple(number for number in range(_MOST_PCRS) if bits >> number & 1)
    size = _DIGEST_BYTES[bank]
    if len(digests) != len(numbers) * size:
        raise _damaged(f"{len(numbers)} PCRs of bank {bank} do not have {len(digests)} bytes")
    parts = tuple(digests[at : at + size] for at in range(0, len(digests), size))
    return Pcrs(bank, numbers, parts)


def selection(bank: str, numbers: Collection[int]) -> bytes:
    """A TPML_PCR_SELECTION of PCRs of one bank."""
    bits = sum(1 << number for number in numbers)
    return struct.pack(">IHB", 1, BANKS[bank], 3) + bits.to_bytes(3, "little")


def read_selection(marshalled: bytes) -> dict[str, tuple[int, ...]]:
    """The PCRs in a TPML_PCR_SELECTION, by their bank; banks without any are left out.

    Raises struct.error for what is none.
    """
    (count,) = struct.unpack_from(">I", marshalled)
    at, found = 4, {}
    for _ in range(count):
        number, size = struct.unpack_from(">HB", marshalled, at)
        bits = int.from_bytes(marshalled[at + 3 : at + 3 + size], "little")
        at += 3 + size
        if bits:
            name = _BANK_NAMES.get(number, f"0x{number:04x}")
            found[name] = tuple(n for n in range(8 * size) if bits >> n & 1)
    return found


def named(numbers: Collection[int]) -> str:
    """PCRs in words, with what firmware and boot loaders measure into them."""
    meanings = (
        f"{number} ({_MEANINGS[number]})" if number in _MEANINGS else str(number)
        for number in sorted(numbers)
    )
    return "PCR " + ", ".join(meanings)


def _damaged(seen: str) -> Damaged:
    return Damaged(
        seen,
        "the leaf was damaged, or written by another version",
        "once the keyring is open by another way, kluis heal seals it anew",
    )
