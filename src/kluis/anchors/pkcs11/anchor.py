"""The ``pkcs11`` anchor: a key in a hardware security module or smart card.

    sealed = {"mechanism": its number, "key": 32 bytes that name the key,
              "box": what the token made; see pkcs11_ciphers}

Bound to a box are the context, the mechanism and the key's name, so that none of them can be
changed. Every call logs in, does its work and logs out: no login is left behind in the process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import pkcs11

from kluis.anchors.base import COSTLY, KNOCK_S, Anchor, Notice
from kluis.anchors.pkcs11.ciphers import CIPHERS, Cipher
from kluis.anchors.pkcs11.facts import described, key_facts, may_leave, notice_of, token_facts
from kluis.anchors.pkcs11.faults import told
from kluis.anchors.pkcs11.keys import Key, KeyName, exists, keys, the_key
from kluis.anchors.pkcs11.token import TokenPlace, Work
from kluis.anchors.sources import Source
from kluis.errors import AnchorError, Changed, Damaged, Refused
from kluis.keyring import crypto
from kluis.keyring.strict import JSON, Fields, to_base64
from kluis.secret import Secret

T = TypeVar("T")

IDENTITY_BYTES: Final = 32
_ID_BYTES: Final = 8
_WAIT: Final = 0.9
"""Of a call's deadline, so that who waited in vain still can say for what."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """What was sealed, read."""

    cipher: Cipher
    identity: bytes
    box: bytes

    @classmethod
    def parse(cls, sealed: Mapping[str, JSON]) -> Leaf:
        """The parts of ``sealed``. Raises DocumentError, Damaged."""
        fields = Fields(dict(sealed), "sealed")
        cipher = CIPHERS[fields.integer("mechanism", 1, len(CIPHERS)) - 1]
        identity = fields.base64("key", IDENTITY_BYTES)
        box = fields.base64("box", limit_bytes=cipher.most_box_bytes)
        fields.done()
        if len(box) < cipher.least_box_bytes:
            raise Damaged(
                f"sealed.box has {len(box)} bytes",
                f"{cipher.name} makes at least {cipher.least_box_bytes}",
                "once the keyring is open by another way, kluis apply seals it anew",
            )
        return cls(cipher, identity, box)


class Pkcs11Anchor(Anchor):
    """Seals under a key that a PKCS#11 token holds."""

    kind = "pkcs11"
    pace = COSTLY

    def __init__(
        self,
        name: str,
        *,
        module: Path,
        token: str | None,
        slot: int | None,
        key: str,
        pin: Source,
        mechanism: str = "AES-GCM",
        deadline_s: float = 10.0,
    ) -> None:
        super().__init__(name, deadline_s)
        self._place = TokenPlace(module, token, slot, pin)
        self._key = key
        self._cipher = next(cipher for cipher in CIPHERS if cipher.name == mechanism)

    async def _seal(self, secret: Secret, context: bytes) -> Mapping[str, JSON]:
        cipher = self._cipher

        def seal(session: pkcs11.Session) -> tuple[Key, bytes]:
            key = self._named(session)
            cipher.check_key(key)
            bound = _bound(context, cipher, key.identity)
            return key, cipher.encrypt(key, secret.reveal(), bound)

        key, box = await self._use(seal)
        return {
            "mechanism": cipher.number,
            "key": to_base64(key.identity),
            "box": to_base64(box),
        }

    async def _open(self, sealed: Mapping[str, JSON], context: bytes) -> Secret:
        leaf = Leaf.parse(sealed)

        def open_(session: pkcs11.Session) -> tuple[Key, Secret]:
            key = self._of_leaf(session, leaf)
            bound = _bound(context, leaf.cipher, leaf.identity)
            return key, leaf.cipher.open(key, leaf.box, bound)

        return (await self._use(open_))[1]

    async def _knock(self) -> None:
        wait_s = _WAIT * min(KNOCK_S, self.deadline_s)
        await self._in_thread(lambda: self._place.look(wait_s, lambda _library, _token: None))

    async def _probe(self) -> None:
        def check(session: pkcs11.Session) -> tuple[Key, None]:
            key = self._named(session)
            self._cipher.check_key(key)
            self._cipher.check_token(session, key)
            return key, None

        await self._use(check)

    async def _outdated(self, sealed: Mapping[str, JSON]) -> str:
        leaf = Leaf.parse(sealed)
        if leaf.cipher is not self._cipher:
            return f"it was sealed by {leaf.cipher.name}; the settings ask for {self._cipher.name}"
        key, _ = await self._use(lambda session: (self._named(session), None))
        return (
            "" if key.identity == leaf.identity else f"it was sealed under another key than {key}"
        )

    async def _show(self) -> Mapping[str, JSON]:
        return await self._in_thread(self._facts)

    async def _create_key(self) -> str:
        return await self._in_thread(self._made)

    async def _use(self, work: Work[tuple[Key, T]]) -> tuple[Key, T]:
        """What ``work`` gives in a session, and what is to be said of the key it used."""

        def noticing(session: pkcs11.Session) -> tuple[tuple[Key, T], Notice | None]:
            done = work(session)
            return done, notice_of(done[0], str(self._place))

        wait_s = _WAIT * self.deadline_s
        done, self.notice = await self._in_thread(lambda: self._place.use(wait_s, noticing))
        return done

    def _named(self, session: pkcs11.Session) -> Key:
        """The key that the settings name. Raises Missing, Misconfigured."""
        cipher, name = self._cipher, KeyName.parse(self._key, self.name)
        return the_key(session, cipher.key_class, cipher.key_type, name, str(self._place))

    def _of_leaf(self, session: pkcs11.Session, leaf: Leaf) -> Key:
        """The key that a leaf was sealed under, also where the settings name another by now."""
        for name in (KeyName.parse(self._key, self.name), None):
            for key in keys(session, leaf.cipher.key_class, name):
                if key.identity == leaf.identity:
                    return key
        raise Changed(
            f"the leaf was sealed under another key than {self._named(session)}",
            f"the key was replaced, or {self._place} is another token than it was",
            "kluis seals it anew once the keyring is open by another way",
        )

    def _made(self) -> str:
        wait_s, name = _WAIT * self.deadline_s, KeyName.parse(self._key, self.name)
        return self._place.use(wait_s, lambda session: self._make(session, name), writing=True)

    def _make(self, session: pkcs11.Session, name: KeyName) -> str:
        if exists(session, name):
            raise Refused(
                f"{self._place} has a {name} already",
                "kluis replaces no key: what was sealed under it would be lost",
                "use it as it is, or name another key in the settings",
            )
        id_ = crypto.random_bytes(_ID_BYTES) if name.id is None else name.id
        try:
            self._cipher.make(session, id_, name.label or f"kluis {self.name}")
        except pkcs11.PKCS11Error as error:
            raise told(error, f"making a key in {self._place}") from None
        made = self._named(session)
        secured = "is able to leave it all the same" if may_leave(made) else "can't leave it"
        return f"made the {described(made)} key {made} in {self._place}; it {secured}"

    def _facts(self) -> Mapping[str, JSON]:
        wait_s = _WAIT * self.deadline_s
        facts = self._place.look(wait_s, token_facts)
        try:
            return {**facts, "key": self._place.use(wait_s, lambda s: key_facts(self._named(s)))}
        except AnchorError as error:
            return {**facts, "key": f"not seen: {error.seen}"}


def _bound(context: bytes, cipher: Cipher, identity: bytes) -> bytes:
    # neither a mechanism's name nor hex digits have a |, so the three can't be read otherwise
    return b"|".join((context, cipher.name.encode("ascii"), identity.hex().encode("ascii")))
