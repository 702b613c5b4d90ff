"""The ``tang`` anchor: a Tang server in the network; whoever is where it answers can open.

    sealed = {"jwe": a JWE in compact form (ASCII, at most 4 KiB), in base64}

Sealing needs what the server advertises, vouched for by the pinned signing key. Opening needs one
answer of the server, which learns nothing by it (tang_protocol.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

from yarl import URL

from kluis.anchors import http
from kluis.anchors.base import NETWORK, Anchor, Notice
from kluis.anchors.tang.keys import Advertisement, Key, not_tang, read_advertisement
from kluis.anchors.tang.protocol import MAX_JWE_BYTES, Leaf, Recovery, read_leaf, seal
from kluis.errors import AnchorError, Changed, Damaged, Misconfigured, Missing, Refused, Unreachable
from kluis.keyring.strict import JSON, Fields, to_base64
from kluis.secret import Secret

_OK: Final = 200
_BAD_REQUEST: Final = 400
_FORBIDDEN: Final = (401, 403)
_NOT_FOUND: Final = 404
_NOT_ALLOWED: Final = 405
_BUSY: Final = 429
_TROUBLE: Final = 500
_JWK: Final = {"Content-Type": "application/jwk+json"}


class TangAnchor(Anchor):
    """Seals to a Tang server, pinned by the thumbprint of one of its signing keys."""

    kind = "tang"
    pace = NETWORK

    def __init__(
        self, name: str, *, url: str, thumbprint: str | None = None, deadline_s: float = 10.0
    ) -> None:
        super().__init__(name, deadline_s)
        self._url = url.rstrip("/")
        self._thumbprint = thumbprint
        place = URL(url)
        self._host = f"{place.host}:{place.port}"

    async def _seal(self, secret: Secret, context: bytes) -> Mapping[str, JSON]:
        if self._thumbprint is None:
            raise Misconfigured(
                f"no thumbprint is set for {self._host}",
                "without it anybody in between could have the leaf sealed to a key of his own",
                f"kluis anchor show {self.name} prints it: compare, and set thumbprint",
            )
        key = self._exchange_key(await self._advertised())
        return {"jwe": to_base64(seal(secret, context, key))}

    async def _open(self, sealed: Mapping[str, JSON], context: bytes) -> Secret:
        leaf = _leaf(sealed)
        leaf.refuse_other_context(context)
        recovery = Recovery(leaf)
        url = f"{self._url}/rec/{leaf.kid}"
        answer = await http.call("POST", url, body=recovery.question, headers=_JWK)
        if answer.status != _OK:
            raise await self._why_no_recovery(answer)
        return recovery.secret(answer.content)

    async def _probe(self) -> None:
        self._exchange_key(await self._advertised())

    async def _knock(self) -> None:
        await http.knock(self._url)

    async def _outdated(self, sealed: Mapping[str, JSON]) -> str:
        leaf = _leaf(sealed)
        if self._thumbprint is None:  # nothing could be sealed anew
            return ""
        present = (await self._advertised()).exchange
        if not present or leaf.kid in {key.thumbprint for key in present}:
            return ""
        return (
            "the server's exchange key was rotated: this leaf opens only as long as"
            " the old key's file stays there"
        )

    async def _show(self) -> Mapping[str, JSON]:
        found = await self._get()
        return {
            "url": self._url,
            "thumbprint": self._thumbprint,
            "pinned": await self._pinned(found),
            "signing_keys": [key.thumbprint for key in found.signing],
            "exchange_keys": [key.thumbprint for key in found.exchange],
        }

    async def _pinned(self, found: Advertisement) -> str:
        """What became of the pinned key, in a word."""
        if self._thumbprint is None:
            return "not set"
        if found.advertises(self._thumbprint):
            return "advertised"
        try:
            await self._advertised()
        except Refused:
            return "gone"
        return "rotated"

    async def _advertised(self) -> Advertisement:
        """What the server advertises; if a thumbprint is set, vouched for by its key."""
        if self._thumbprint is None:
            self.notice = Notice(
                f"no thumbprint is set for {self._host}",
                "what was sealed opens; nothing new can be sealed",
                f"kluis anchor show {self.name} prints it: compare, and set thumbprint",
            )
            return await self._get()
        # Signed by this key too, even if it was rotated out; 404 when its file is gone.
        answer = await http.call("GET", f"{self._url}/adv/{self._thumbprint}")
        found = await (self._get() if answer.status == _NOT_FOUND else self._read(answer))
        if not await self._in_thread(partial(found.vouched_by, self._thumbprint)):
            raise self._not_vouched()
        self.notice = self._rotated(found, self._thumbprint)
        return found

    def _rotated(self, found: Advertisement, thumbprint: str) -> Notice | None:
        if found.advertises(thumbprint):
            return None
        present = " or ".join(key.thumbprint for key in found.signing)
        return Notice(
            f"the pinned signing key of {self._host} was rotated out",
            "it still vouches for the present keys, until its file is deleted on the server",
            f'pin the present one: thumbprint = "{present}"',
        )

    async def _get(self) -> Advertisement:
        """What everybody is told; its own keys signed it."""
        answer = await http.call("GET", f"{self._url}/adv")
        if answer.status == _NOT_FOUND:
            raise await self._why_not_found()
        return await self._read(answer)

    async def _read(self, answer: http.Answer) -> Advertisement:
        if answer.status != _OK:
            raise self._refusal(answer)
        return await self._in_thread(partial(read_advertisement, answer.content))

    async def _why_not_found(self) -> AnchorError:
        # Only a Tang server knows /rec/{kid}, and that it is not to be read.
        answer = await http.call("GET", f"{self._url}/rec/kluis")
        if answer.status == _NOT_ALLOWED:
            return self._no_keys()
        return not_tang(f"{self._host} knows no /adv")

    async def _why_no_recovery(self, answer: http.Answer) -> AnchorError:
        if answer.status == _BAD_REQUEST:
            return Damaged(
                f"{self._host} does not take the point of this leaf for its key",
                "the leaf is damaged: it names a key of another curve",
                "once the keyring is open by another way, kluis apply seals it anew",
            )
        if answer.status != _NOT_FOUND:
            return self._refusal(answer)
        self._exchange_key(await self._advertised())  # raises where the server can't be sealed to
        return Changed(
            f"{self._host} no longer has the key that this leaf was sealed to",
            "its file was deleted on the server; there are other keys now",
            "once the keyring is open by another way, kluis apply seals it anew",
        )

    def _exchange_key(self, found: Advertisement) -> Key:
        if not found.exchange:
            raise self._no_keys()
        return found.exchange[0]

    def _no_keys(self) -> Missing:
        return Missing(
            f"{self._host} is a Tang server that advertises no exchange key",
            "its keys were deleted, or their files are damaged",
            "bring them back from a backup, or make new ones there: tangd-keygen /var/lib/tang",
        )

    def _not_vouched(self) -> Refused:
        return Refused(
            f"the pinned key does not vouch for what {self._host} advertises",
            "its file was deleted on the server, or another server answers in its place",
            f"run tang-show-keys on the server; if kluis anchor show {self.name} prints the same,"
            " set it as thumbprint",
        )

    def _refusal(self, answer: http.Answer) -> AnchorError:
        status = answer.status
        if status in _FORBIDDEN:
            return Refused(
                f"{self._host} forbids it with status {status}",
                "a proxy before it lets kluis not through, or the key is not for recovery",
                "look at the log of the server, and of the proxy before it",
            )
        if status == _BUSY or status >= _TROUBLE:
            return Unreachable(
                f"{self._host} answers with status {status}",
                "it has no signing key or can't read its keys, or a proxy does not reach it",
                "look at the log of the server, and of the proxy before it",
                retry_s=answer.retry_after_s,
            )
        return not_tang(f"{self._host} answers with status {status}")


def _leaf(sealed: Mapping[str, JSON]) -> Leaf:
    fields = Fields(dict(sealed), "sealed")
    token = fields.base64("jwe", limit_bytes=MAX_JWE_BYTES)
    fields.done()
    return read_leaf(token)
