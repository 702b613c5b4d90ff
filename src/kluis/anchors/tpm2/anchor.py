"""The ``tpm2`` anchor: the TPM 2.0 of this machine; by choice with a PIN, and for known PCRs only.

How a leaf looks is in tpm2_leaf.py, what a TPM is asked in tpm2_talk.py.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from tpm2_pytss import TSS2_Exception

from kluis.anchors.base import COSTLY, KNOCK_S, Anchor
from kluis.anchors.sources import Source
from kluis.anchors.tpm2.chip import Chip
from kluis.anchors.tpm2.leaf import Guard, Leaf, bound, proven, read_leaf
from kluis.anchors.tpm2.pcrs import Pcrs, named
from kluis.anchors.tpm2.pin import auth_value
from kluis.anchors.tpm2.talk import Talk, WrongPin
from kluis.errors import Misconfigured, Refused
from kluis.keyring.strict import JSON
from kluis.secret import Secret

T = TypeVar("T")


class Tpm2Anchor(Anchor):
    """Seals to a TPM. ``device`` is a TCTI string, ``bank`` the one of ``pcrs``."""

    kind = "tpm2"

    def __init__(
        self,
        name: str,
        *,
        device: str,
        pcrs: Sequence[int] = (),
        bank: str = "sha256",
        pin: Source | None = None,
        deadline_s: float = 10.0,
    ) -> None:
        super().__init__(name, deadline_s)
        self._chip = Chip(device)
        self._pcrs = frozenset(pcrs)
        self._bank = bank
        self._pin = pin
        if pin is not None:
            self.pace = COSTLY

    async def _seal(self, secret: Secret, context: bytes) -> Mapping[str, JSON]:
        auth = partial(self._auth, wanted=self._pin is not None)
        leaf = await self._ask(partial(self._seal_now, bound(secret, context)), auth)
        return leaf.for_document()

    async def _open(self, sealed: Mapping[str, JSON], context: bytes) -> Secret:
        leaf = read_leaf(sealed)
        auth = partial(self._auth, wanted=leaf.guard.pin)
        return proven(await self._ask(partial(self._unseal_now, leaf), auth), context)

    async def _probe(self) -> None:
        await self._ask(self._probe_now, partial(self._auth, wanted=self._pin is not None))

    async def _knock(self) -> None:
        await self._ask(lambda talk, _: talk.knock(), deadline_s=KNOCK_S)

    async def _outdated(self, sealed: Mapping[str, JSON]) -> str:
        guard = read_leaf(sealed).guard
        return guard.lacks(pin=self._pin is not None, bank=self._bank, pcrs=self._pcrs)

    async def _show(self) -> Mapping[str, JSON]:
        return await self._ask(self._show_now)

    async def _ask(
        self,
        work: Callable[[Talk, bytes], T],
        auth: Callable[[], bytes] = bytes,
        deadline_s: float = math.inf,
    ) -> T:
        """What ``work`` gives, done in a thread with a TPM and an auth value."""
        until = time.monotonic() + min(deadline_s, self.deadline_s)

        def call() -> T:
            value = auth()  # before the TPM is taken: the disk it comes from may hang
            return self._chip.ask(lambda talk: work(talk, value), until)

        return await self._in_thread(call)

    def _auth(self, *, wanted: bool) -> bytes:
        if not wanted:
            return b""
        if self._pin is None:
            raise Misconfigured(
                "this leaf was sealed under a PIN, and the settings name none",
                "the TPM does not unseal it without",
                "set pin_file, pin_env or pin_credential; without a PIN from now on: "
                f"kluis apply --replace {self.name}",
            )
        return auth_value(self._pin)

    def _seal_now(self, data: bytes, talk: Talk, auth: bytes) -> Leaf:
        return talk.seal(data, Guard(self._pin is not None, self._pcrs_now(talk)), auth)

    def _pcrs_now(self, talk: Talk) -> Pcrs | None:
        return talk.pcrs(self._bank, self._pcrs) if self._pcrs else None

    def _unseal_now(self, leaf: Leaf, talk: Talk, auth: bytes) -> bytes:
        try:
            return talk.unseal(leaf, auth)
        except WrongPin as wrong:
            before = "it was refused before; too many wrong tries lock a TPM"
            raise self._wrong_pin(_tries(talk) if wrong.counted else before) from None

    def _wrong_pin(self, means: str) -> Refused:
        return Refused(
            f"the PIN from {self._pin} is not the one the leaf was sealed under",
            means,
            f"put the right one there; to have a new one: kluis apply --replace {self.name}",
        )

    def _probe_now(self, talk: Talk, auth: bytes) -> None:
        talk.storage_key()
        self._pcrs_now(talk)
        if auth:
            talk.state().refuse_lockout()

    def _show_now(self, talk: Talk, _: bytes) -> Mapping[str, JSON]:
        state, banks = talk.state(), talk.banks()
        shown: dict[str, JSON] = {
            "device": self._chip.device,
            "manufacturer": state.manufacturer,
            "model": state.vendor,
            "firmware": state.firmware,
            "storage_key": _storage_key(talk),
            "owner_password": state.has_owner_password,
            "banks": list[JSON](sorted(banks)),
            "wrong_tries": state.wrong_tries,
            "locks_at": state.most_tries,
            "forgives_one_after_s": state.forgives_after_s,
            "locked": state.is_locked,
        }
        if (pcrs := self._pcrs_now(talk)) is not None:
            pairs = zip(pcrs.numbers, pcrs.digests, strict=True)
            shown["bank"] = pcrs.bank
            shown["pcrs"] = {named([number]): digest.hex() for number, digest in pairs}
        return shown


def _storage_key(talk: Talk) -> str:
    """Its name: the same as long as the TPM is the same and was not cleared."""
    try:
        return talk.storage_key().hex()
    except Refused as error:
        return error.seen


def _tries(talk: Talk) -> str:
    with contextlib.suppress(TSS2_Exception):
        state = talk.state()
        return (
            f"wrong tries counted by the TPM: {state.wrong_tries}; at {state.most_tries} it locks"
        )
    return "the TPM counts wrong tries, and locks after too many"
