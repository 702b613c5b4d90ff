"""The commands of one connection to a TPM, and the order they come in.

What is secret crosses the bus encrypted; to unseal, the PIN does not cross it, only a proof of it.
The storage key's name is in the leaf: no other key can be put in its place when a leaf is opened.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

from tpm2_pytss import (
    ESAPI,
    ESYS_TR,
    TPM2_CAP,
    TPM2_SE,
    TPM2B_AUTH,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPM2B_SENSITIVE_DATA,
    TPML_PCR_SELECTION,
    TPMS_SENSITIVE_CREATE,
    TSS2_Exception,
)

from kluis.anchors.tpm2 import codes, state
from kluis.anchors.tpm2.leaf import Guard, Leaf
from kluis.anchors.tpm2.loaded import Loader
from kluis.anchors.tpm2.pcrs import Pcrs, named, read_selection, selection
from kluis.anchors.tpm2.pin import REFUSED
from kluis.anchors.tpm2.state import State
from kluis.errors import AnchorError, Changed, Misconfigured, Unreachable

_HEAL: Final = "once the keyring is open by another way, kluis heal seals it anew"


class WrongPin(Exception):
    """The TPM refused the auth value, now or before: ``counted`` says which."""

    def __init__(self, *, counted: bool) -> None:
        super().__init__()
        self.counted = counted


class Talk:
    """One connection. Its calls raise AnchorError, WrongPin, or TSS2_Exception for the rest."""

    def __init__(self, esapi: ESAPI) -> None:
        self._esapi = esapi
        self._loader = Loader(esapi)

    def knock(self) -> None:
        """Returns when the TPM answers."""
        self._properties(state.FIXED, 1)

    def state(self) -> State:
        """What the TPM says of itself."""
        fixed = self._properties(state.FIXED, state.GROUP)
        return State(fixed | self._properties(state.VARIABLE, state.GROUP))

    def _properties(self, first: int, most: int) -> dict[int, int]:
        _, found = self._esapi.get_capability(TPM2_CAP.TPM_PROPERTIES, first, most)
        return dict(struct.iter_unpack(">II", found.marshal()[8:]))

    def banks(self) -> dict[str, tuple[int, ...]]:
        """The PCRs of every bank that has some."""
        _, found = self._esapi.get_capability(TPM2_CAP.PCRS, 0, 1)
        return read_selection(found.marshal()[4:])

    def pcrs(self, bank: str, wanted: Collection[int]) -> Pcrs:
        """The values that PCRs have now. Raises Misconfigured when the bank lacks one."""
        values: dict[int, bytes] = {}
        while left := set(wanted) - set(values):
            read = self._some_pcrs(bank, left)  # the TPM gives at most eight at once
            if not read:
                raise self._no_such_pcrs(bank, left)
            values |= read
        numbers = tuple(sorted(values))
        return Pcrs(bank, numbers, tuple(values[number] for number in numbers))

    def _some_pcrs(self, bank: str, wanted: Collection[int]) -> dict[int, bytes]:
        try:
            _, read, digests = self._esapi.pcr_read(_selection(bank, wanted))
        except TSS2_Exception as error:
            if codes.code_of(error.rc) == codes.HASH:  # the TPM does not know the algorithm
                return {}
            raise
        numbers = read_selection(read.marshal()).get(bank, ())
        pairs = zip(numbers, map(bytes, digests), strict=True)
        return {number: digest for number, digest in pairs if number in wanted}

    def _no_such_pcrs(self, bank: str, wanted: Collection[int]) -> Misconfigured:
        return Misconfigured(
            f"this TPM has no {named(wanted)} in bank {bank}",
            f"these banks are allocated: {', '.join(self.banks()) or 'none'}",
            "set bank to one of them, or allocate it: tpm2_pcrallocate, then reboot",
        )

    def storage_key(self) -> bytes:
        """The name of the storage key. Raises Refused when it can't be made."""
        with self._loader.storage_key() as (_, name):
            return name

    def seal(self, data: bytes, guard: Guard, auth: bytes) -> Leaf:
        """Data, sealed so that it is unsealed only past the guard."""
        sensitive = TPMS_SENSITIVE_CREATE(
            userAuth=TPM2B_AUTH(auth), data=TPM2B_SENSITIVE_DATA(data)
        )
        template, _ = TPM2B_PUBLIC.unmarshal(guard.template())
        with (
            self._loader.storage_key() as (key, name),
            self._loader.session(key, TPM2_SE.HMAC) as session,
        ):
            private, public, *_ = self._esapi.create(
                key, TPM2B_SENSITIVE_CREATE(sensitive), template, session1=session
            )
        return Leaf(guard, public.marshal(), private.marshal(), name)

    def unseal(self, leaf: Leaf, auth: bytes) -> bytes:
        """The data of a leaf. Raises Changed, Damaged, WrongPin, Unreachable."""
        with self._loader.storage_key() as (key, name):
            if name != leaf.primary:
                raise _another_tpm()
            self._refuse_changed(leaf.guard)
            # here, where one call at a time gets to: of many at once only one tries a wrong PIN
            if (leaf.private, auth) in REFUSED:
                raise WrongPin(counted=False)
            if leaf.guard.pin:
                self.state().refuse_last_try()
            with (
                self._loader.sealed_object(key, leaf) as sealed,
                self._way_past(leaf.guard, key) as session,
            ):
                self._esapi.tr_set_auth(sealed, TPM2B_AUTH(auth))
                try:
                    return bytes(self._esapi.unseal(sealed, session))
                except TSS2_Exception as error:
                    raise self._no(leaf, auth, int(error.rc)) or error from None

    def _no(self, leaf: Leaf, auth: bytes, rc: int) -> AnchorError | WrongPin | None:
        """Why the TPM did not unseal; None when the code says nothing special here."""
        match codes.code_of(rc):
            case codes.AUTH_FAIL if leaf.guard.pin:
                REFUSED.add(leaf.private, auth)
                return WrongPin(counted=True)
            case codes.LOCKOUT:
                return self.state().lockout()
            case codes.POLICY_FAIL | codes.PCR_CHANGED:
                self._refuse_changed(leaf.guard)
                return Unreachable(
                    "a PCR changed just while the leaf was opened",
                    "something is measuring right now",
                    "it is tried again",
                )
        return None

    def _refuse_changed(self, guard: Guard) -> None:
        if guard.pcrs is None:
            return
        try:
            now = self.pcrs(guard.pcrs.bank, guard.pcrs.numbers)
        except Misconfigured as gone:  # the leaf's bank, whichever the settings name by now
            raise Changed(gone.seen, gone.means, _HEAL) from None
        if numbers := guard.pcrs.differing(now):
            raise Changed(
                f"{named(numbers)} changed since the leaf was sealed",
                "an update, a setting, or somebody changed what this machine boots",
                "find out what it was; then kluis heal seals it anew, once the keyring is open",
            )

    @contextmanager
    def _way_past(self, guard: Guard, key: ESYS_TR) -> Iterator[ESYS_TR]:
        """A session that fulfils what the guard asks for, but for the PIN itself."""
        kind = TPM2_SE.HMAC if guard.pcrs is None else TPM2_SE.POLICY
        with self._loader.session(key, kind) as session:
            if guard.pcrs is not None:
                picked = _selection(guard.pcrs.bank, guard.pcrs.numbers)
                self._esapi.policy_pcr(session, b"", picked)
                if guard.pin:
                    self._esapi.policy_auth_value(session)
            yield session


def _selection(bank: str, numbers: Collection[int]) -> TPML_PCR_SELECTION:
    picked, _ = TPML_PCR_SELECTION.unmarshal(selection(bank, numbers))
    return picked


def _another_tpm() -> AnchorError:
    return Changed(
        "the TPM has another storage key than the one the leaf was sealed under",
        "it was cleared, or this is another TPM: a new board, say, or another machine",
        _HEAL,
    )
