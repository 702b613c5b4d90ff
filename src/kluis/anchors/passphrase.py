"""The ``passphrase`` anchor: something a person remembers, stretched by Argon2id.

    sealed = {"salt": 32 bytes, "memory_kib", "iterations", "lanes",
              "box": nonce (12) ciphertext (32) tag (16)}

The box is AES-256-GCM under Argon2id(passphrase, salt, cost); the associated data is the context,
so that also the cost can't be lowered unseen: another cost gives another key. The default cost is
the second recommended option of RFC 9106.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from typing import Final

from kluis.anchors.base import Anchor
from kluis.anchors.sources import Source
from kluis.errors import Misconfigured, Missing, Refused, TagMismatch
from kluis.keyring import crypto
from kluis.keyring.strict import JSON, Fields, refuse_too_many, to_base64
from kluis.secret import SECRET_BYTES, Secret

DEFAULT_COST: Final = crypto.Argon2Cost(memory_kib=65_536, iterations=3, lanes=4)
MIN_CHARS: Final = 12
MAX_CHARS: Final = 1024
_MAX_MEMORY_KIB: Final = 2 * 1024 * 1024
_MAX_ITERATIONS: Final = 64
_MAX_LANES: Final = 16
_MAX_WORK_KIB: Final = 8 * 1024 * 1024  # memory × iterations: some seconds
_BOX_BYTES: Final = crypto.NONCE_BYTES + SECRET_BYTES + crypto.TAG_BYTES


class PassphraseAnchor(Anchor):
    """Seals under a passphrase: typed by a person, or read from a source."""

    kind = "passphrase"

    def __init__(
        self,
        name: str,
        source: Source | None = None,
        cost: crypto.Argon2Cost = DEFAULT_COST,
        deadline_s: float = 60.0,
    ) -> None:
        super().__init__(name, deadline_s)
        self._source = source
        self._cost = cost
        self._typed: bytes | None = None
        self.needs_person = source is None

    def enter(self, passphrase: str) -> None:
        """Take what a person typed, for the next ``seal`` or ``open``. Raises Misconfigured."""
        self._typed = normalised(passphrase)

    def knowing(self, passphrase: str) -> PassphraseAnchor:
        """The same anchor after ``enter``; this one stays as it is. Raises Misconfigured."""
        anchor = PassphraseAnchor(self.name, self._source, self._cost, self.deadline_s)
        anchor.enter(passphrase)
        return anchor

    def forget(self) -> None:
        """Drop what was typed."""
        self._typed = None

    async def _seal(self, secret: Secret, context: bytes) -> Mapping[str, JSON]:
        salt = crypto.random_bytes(crypto.SALT_BYTES)
        key = await self._stretch(salt, self._cost)
        return {
            "salt": to_base64(salt),
            "memory_kib": self._cost.memory_kib,
            "iterations": self._cost.iterations,
            "lanes": self._cost.lanes,
            "box": to_base64(crypto.Aead(key).seal(secret.reveal(), context)),
        }

    async def _open(self, sealed: Mapping[str, JSON], context: bytes) -> Secret:
        fields = Fields(dict(sealed), "sealed")
        salt = fields.base64("salt", crypto.SALT_BYTES)
        lanes = fields.integer("lanes", 1, _MAX_LANES)
        cost = crypto.Argon2Cost(
            memory_kib=fields.integer("memory_kib", 8 * lanes, _MAX_MEMORY_KIB),
            iterations=fields.integer("iterations", 1, _MAX_ITERATIONS),
            lanes=lanes,
        )
        work_kib = cost.memory_kib * cost.iterations
        refuse_too_many("sealed.memory_kib × sealed.iterations", work_kib, _MAX_WORK_KIB)
        box = fields.base64("box", _BOX_BYTES)
        fields.done()
        try:
            return Secret(crypto.Aead(await self._stretch(salt, cost)).open(box, context))
        except TagMismatch:
            raise Refused(
                "the passphrase does not open this leaf",
                "it was mistyped, or the leaf was sealed under another one",
                "enter the passphrase again",
            ) from None

    async def _probe(self) -> None:
        await self._in_thread(self._reader())

    async def _knock(self) -> None:
        await self._probe()

    async def _show(self) -> Mapping[str, JSON]:
        return {
            "source": "a person" if self._source is None else str(self._source),
            "memory_kib": self._cost.memory_kib,
            "iterations": self._cost.iterations,
            "lanes": self._cost.lanes,
        }

    async def _stretch(self, salt: bytes, cost: crypto.Argon2Cost) -> bytes:
        passphrase = self._reader()
        return await self._in_thread(lambda: crypto.argon2id(passphrase(), salt, cost))

    def _reader(self) -> Callable[[], bytes]:
        """What gives the passphrase, in a thread; what was typed is taken here and now."""
        typed, source = self._typed, self._source
        if typed is not None:
            return lambda: typed
        if source is not None:
            return lambda: _stored(source)
        raise Missing(
            f"nobody entered the passphrase of {self.name}",
            "it is not stored anywhere",
            f"kluis unlock KEYRING --passphrase {self.name}",
        )


def _stored(source: Source) -> bytes:
    try:
        return normalised(source.read().decode("utf-8").removesuffix("\n"))
    except UnicodeDecodeError:
        raise _not_text(str(source)) from None


def normalised(passphrase: str) -> bytes:
    """The bytes of a passphrase: NFKC, so that every keyboard gives the same.

    Raises Misconfigured for one that is too short to withstand guessing, or absurdly long.
    """
    text = unicodedata.normalize("NFKC", passphrase)
    if not MIN_CHARS <= len(text) <= MAX_CHARS:
        raise Misconfigured(
            f"a passphrase of {len(text)} characters",
            f"it needs {MIN_CHARS} to {MAX_CHARS}: whoever has the document can guess at leisure",
            "take several random words",
        )
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:  # a terminal's bytes that are not UTF-8
        raise _not_text("the passphrase") from None


def _not_text(what: str) -> Misconfigured:
    return Misconfigured(f"{what} is not text", "a passphrase is text in UTF-8", "write it anew")
