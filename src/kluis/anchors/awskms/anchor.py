"""The ``awskms`` anchor: a symmetric key in AWS KMS seals and opens, and never leaves it.

    sealed = {"ciphertext": what Encrypt gave, at most 6144 bytes,
              "key": the ARN of the key that sealed it}                   both in base64

The context is the encryption context ``{"kluis": context}``: AWS binds it, writes it to CloudTrail,
and a policy may ask for it. Opening names the key of the leaf, so that no other key's ciphertext
is taken; when that fails, the key that the settings name now is looked at, to say why.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from kluis.anchors import http
from kluis.anchors.awskms.answers import not_kms
from kluis.anchors.awskms.client import Connection, Way, first_hop
from kluis.anchors.awskms.keys import Arn, parse_alias, parse_arn, parse_name
from kluis.anchors.base import COSTLY, Anchor
from kluis.errors import AnchorError, Changed, Damaged, Misconfigured, Missing, Refused
from kluis.keyring.strict import JSON, Fields, to_base64
from kluis.secret import SECRET_BYTES, Secret

MAX_CIPHERTEXT_BYTES: Final = 6144  # what KMS decrypts at most (API reference: Decrypt)
MAX_ARN_BYTES: Final = 256
MOST_ALIASES: Final = 20


class AwsKmsAnchor(Anchor):
    """Seals under a key in AWS KMS."""

    kind = "awskms"
    pace = COSTLY

    def __init__(
        self,
        name: str,
        *,
        key: str,
        region: str | None = None,
        endpoint: str | None = None,
        profile: str | None = None,
        deadline_s: float = 10.0,
    ) -> None:
        super().__init__(name, deadline_s)
        self._key = key
        self._way = Way(region, endpoint, profile)
        self._url: str | None = None

    async def _seal(self, secret: Secret, context: bytes) -> Mapping[str, JSON]:
        async with self._connected() as kms:
            try:
                answer = await kms.ask(
                    "Encrypt",
                    self._key,
                    Plaintext=secret.reveal(),
                    EncryptionContext=encryption_context(context),
                )
            except Refused as refusal:
                raise await self._reason(kms, refusal) from None
        return sealed_by(answer)

    async def _open(self, sealed: Mapping[str, JSON], context: bytes) -> Secret:
        leaf = read_leaf(sealed)
        async with self._connected() as kms:
            arn = _in_region(leaf.arn, kms.region)
            try:
                answer = await kms.ask(
                    "Decrypt",
                    str(arn),
                    CiphertextBlob=leaf.ciphertext,
                    EncryptionContext=encryption_context(context),
                )
            except (Missing, Refused) as failure:
                raise await self._reason(kms, failure, arn) from None
        return opened_by(answer, arn)

    async def _probe(self) -> None:
        async with self._connected() as kms:
            key = await kms.describe(self._key)
        if (fault := key.fault()) is not None:
            raise fault

    async def _knock(self) -> None:
        if self._url is None:
            session = await self._in_thread(partial(self._way.session, self.deadline_s))
            self._url = await self._way.url(session, parse_name(self._key).region)
        await http.knock(first_hop(self._url))

    async def _outdated(self, sealed: Mapping[str, JSON]) -> str:
        arn = read_leaf(sealed).arn
        name = parse_name(self._key)
        if name.names(arn):
            return ""
        if name.names_one_key:
            return f"the leaf was sealed by {arn}, and the settings name {self._key} now"
        async with self._connected() as kms:
            now = (await kms.describe(self._key)).arn
        if now.opens_for(arn):
            return ""
        return f"the leaf was sealed by {arn}, and {self._key} stands for {now} now"

    async def _show(self) -> Mapping[str, JSON]:
        async with self._connected() as kms:
            key = await kms.describe(self._key)
            facts: dict[str, JSON] = {
                "key": self._key,
                "arn": str(key.arn),
                "aliases": await _aliases(kms, key.arn),
                "region": kms.region,
                "endpoint": kms.place,
                "state": key.state,
                "spec": f"{key.spec}, {key.usage}",
                "multi_region": key.arn.multi_region,
                "rotation": await _rotation(kms, key.arn),
                "credentials_from": await kms.source_of_credentials(),
            }
        days = {"created": key.created, "deleted_on": key.deletion}
        return facts | {name: f"{day:%Y-%m-%d}" for name, day in days.items() if day}

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        name = parse_name(self._key)
        session = await self._in_thread(partial(self._way.session, self.deadline_s))
        async with self._way.connection(session, name.region) as connection:
            self._url = connection.client.meta.endpoint_url
            yield connection

    async def _reason(
        self, kms: Connection, failure: AnchorError, arn: Arn | None = None
    ) -> AnchorError:
        """Why KMS refused, as far as the key that the settings name now can tell."""
        try:
            now = await kms.describe(self._key)
        except AnchorError:
            return failure
        if arn is not None and not now.arn.opens_for(arn):
            return Changed(
                f"{arn} does not open this leaf any more",
                f"{self._key} stands for {now.arn} now, and the key that sealed it is out of reach",
                "once the keyring is open by another way, kluis heal seals it anew",
            )
        return failure if isinstance(failure, Missing) else now.fault() or failure


@dataclass(frozen=True, slots=True)
class Leaf:
    """What the document says of a leaf."""

    ciphertext: bytes
    arn: Arn


def read_leaf(sealed: Mapping[str, JSON]) -> Leaf:
    """The parts of a leaf. Raises DocumentError or Damaged."""
    fields = Fields(dict(sealed), "sealed")
    ciphertext = fields.base64("ciphertext", limit_bytes=MAX_CIPHERTEXT_BYTES)
    arn = parse_arn(fields.base64("key", limit_bytes=MAX_ARN_BYTES).decode("latin-1"))
    fields.done()
    if arn is None or not ciphertext:
        raise Damaged(
            "the leaf names no key of AWS KMS, or holds nothing",
            "it was damaged",
            "once the keyring is open by another way, kluis heal seals it anew",
        )
    return Leaf(ciphertext, arn)


def sealed_by(answer: Mapping[str, object]) -> Mapping[str, JSON]:
    """The leaf in an answer to Encrypt. Raises Misconfigured."""
    ciphertext, arn = answer.get("CiphertextBlob"), parse_arn(str(answer.get("KeyId")))
    if not isinstance(ciphertext, bytes) or arn is None:
        raise not_kms("Encrypt")
    if not 0 < len(ciphertext) <= MAX_CIPHERTEXT_BYTES:
        raise not_kms("Encrypt")
    return {"ciphertext": to_base64(ciphertext), "key": to_base64(str(arn).encode("ascii"))}


def opened_by(answer: Mapping[str, object], arn: Arn) -> Secret:
    """The secret in an answer to Decrypt. Raises Damaged or Misconfigured."""
    plaintext = answer.get("Plaintext")
    if not isinstance(plaintext, bytes) or answer.get("KeyId") != str(arn):
        raise not_kms("Decrypt")
    if len(plaintext) != SECRET_BYTES:
        raise Damaged(
            f"{arn} gave {len(plaintext)} bytes for this leaf",
            f"a secret has {SECRET_BYTES}: what was sealed there is something else",
            "once the keyring is open by another way, kluis heal seals it anew",
        )
    return Secret(plaintext)


def encryption_context(context: bytes) -> dict[str, str]:
    """The encryption context for a context: as text where it is text, else in base64."""
    if re.fullmatch(rb"[\x20-\x7e]*", context):
        return {"kluis": context.decode("ascii")}
    return {"kluis-base64": to_base64(context)}


def _in_region(arn: Arn, region: str) -> Arn:
    """The key that is asked in a region to open what ``arn`` sealed. Raises Changed."""
    if arn.region == region or arn.multi_region:
        return arn.in_region(region)
    raise Changed(
        f"a key of region {arn.region} sealed this leaf, and the anchor is in {region} now",
        "only a multi-region key opens in another region than its own",
        "set region back, or open by another way: kluis heal seals it anew",
    )


async def _aliases(kms: Connection, arn: Arn) -> JSON:
    try:
        found = (await kms.ask("ListAliases", str(arn), Limit=MOST_ALIASES)).get("Aliases")
    except Refused:
        return "not readable: kms:ListAliases is denied"
    if not isinstance(found, list):
        raise not_kms("ListAliases")
    entries = (entry for entry in found[:MOST_ALIASES] if isinstance(entry, dict))
    aliases: list[JSON] = [
        name for entry in entries if (name := parse_alias(entry.get("AliasName")))
    ]
    return aliases


async def _rotation(kms: Connection, arn: Arn) -> str:
    """Whether AWS renews the key's material by itself; what was sealed opens all the same."""
    try:
        answer = await kms.ask("GetKeyRotationStatus", str(arn))
    except (Refused, Misconfigured):  # a key whose material was imported is not rotated
        return "not readable: kms:GetKeyRotationStatus is denied"
    if answer.get("KeyRotationEnabled") is not True:
        return "off"
    days = answer.get("RotationPeriodInDays")
    return f"every {days} days" if isinstance(days, int) else "on"
