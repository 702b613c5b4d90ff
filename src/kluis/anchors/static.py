"""The ``static`` anchor: a key of 32 bytes from a file, the environment or a credential.

The key's length picks its decoding, as with OpenBao's static seal: 32 raw bytes, 64 hex digits,
44 characters of standard base64. Text may end with one newline.

    sealed = {"salt": 32 bytes, "box": nonce (12) ciphertext (32) tag (16)}, both in base64

The box is AES-256-GCM under HKDF-SHA-256(key, salt, "kluis anchor/1 static"), the associated
data is the context.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import partial
from typing import Final

from kluis.anchors.base import Anchor
from kluis.anchors.sources import Source
from kluis.errors import Damaged, Misconfigured, TagMismatch
from kluis.keyring import crypto
from kluis.keyring.strict import JSON, Fields, to_base64
from kluis.secret import SECRET_BYTES, Secret

_INFO: Final = "kluis anchor/1 static"
_BOX_BYTES: Final = crypto.NONCE_BYTES + SECRET_BYTES + crypto.TAG_BYTES


class StaticAnchor(Anchor):
    """Seals under a key that lies somewhere on this machine."""

    kind = "static"

    def __init__(self, name: str, source: Source, deadline_s: float = 10.0) -> None:
        super().__init__(name, deadline_s)
        self._source = source

    async def _seal(self, secret: Secret, context: bytes) -> Mapping[str, JSON]:
        salt = crypto.random_bytes(crypto.SALT_BYTES)
        box = (await self._cipher(salt)).seal(secret.reveal(), context)
        return {"salt": to_base64(salt), "box": to_base64(box)}

    async def _open(self, sealed: Mapping[str, JSON], context: bytes) -> Secret:
        fields = Fields(dict(sealed), "sealed")
        salt = fields.base64("salt", crypto.SALT_BYTES)
        box = fields.base64("box", _BOX_BYTES)
        fields.done()
        try:
            return Secret((await self._cipher(salt)).open(box, context))
        except TagMismatch:
            raise Damaged(
                f"the key from {self._source} does not open this leaf",
                "the key was replaced, or the leaf is another keyring's or damaged",
                "bring the old key back, or open by another way and run kluis apply",
            ) from None

    async def _probe(self) -> None:
        await self._read_key()

    async def _knock(self) -> None:
        await self._probe()

    async def _show(self) -> Mapping[str, JSON]:
        await self._read_key()
        return {"source": str(self._source)}

    async def _cipher(self, salt: bytes) -> crypto.Aead:
        return crypto.Aead(crypto.hkdf(await self._read_key(), salt, _INFO))

    async def _read_key(self) -> bytes:
        return await self._in_thread(partial(read_key, self._source))  # its mount may hang


def read_key(source: Source) -> bytes:
    """The 32 bytes of a key. Raises AnchorError; the message never shows what was read."""
    raw = source.read()
    if len(raw) == SECRET_BYTES:
        return raw
    key = _decoded(raw.removesuffix(b"\n"))
    if len(key) == SECRET_BYTES:
        return key
    raise Misconfigured(
        f"{source} has {len(raw)} bytes that are not a key",
        "a key is 32 raw bytes, 64 hex digits or 44 characters of base64",
        "make one with: head -c 32 /dev/urandom > FILE && chmod 600 FILE",
    )


def _decoded(text: bytes) -> bytes:
    """The bytes that a text of a key's length stands for; empty when it is none."""
    try:
        if len(text) == 64:
            return bytes.fromhex(text.decode("ascii"))  # skips blanks: the result may be shorter
        if len(text) == 44:
            return base64.b64decode(text, validate=True)
    except ValueError:
        pass
    return b""
