"""Keys of AWS KMS: how they are named, and what ``DescribeKey`` says of one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from kluis.anchors.awskms.answers import disabled, not_kms, wrong_state
from kluis.errors import AnchorError, Misconfigured, Refused, Unreachable

_REGION: Final = "[a-z0-9-]{1,32}"
_ARN: Final = re.compile(rf"arn:(aws[a-z-]{{0,16}}):kms:({_REGION}):([0-9]{{12}}):(.{{1,256}})")
_KEY_ID: Final = re.compile("[A-Za-z0-9-]{1,64}")
_ALIAS: Final = re.compile("alias/[A-Za-z0-9/_-]{1,250}")
_WORD: Final = re.compile("[A-Za-z0-9_]{1,64}")
_MULTI_REGION: Final = "mrk-"

_ABLE: Final = ("ENCRYPT_DECRYPT", "SYMMETRIC_DEFAULT")
# The API has them as optional: where they are not told, they are what CreateKey takes for them.
_WORDS: Final = (("KeyState", ""), ("KeyUsage", _ABLE[0]), ("KeySpec", _ABLE[1]))
_STATES_THAT_WORK: Final = ("Enabled", "Updating")


@dataclass(frozen=True, slots=True)
class Arn:
    """The name of one key in all of AWS."""

    partition: str
    region: str
    account: str
    key_id: str

    def __str__(self) -> str:
        return f"arn:{self.partition}:kms:{self.region}:{self.account}:key/{self.key_id}"

    @property
    def multi_region(self) -> bool:
        """Whether other regions may hold replicas, which open what this one sealed."""
        return self.key_id.startswith(_MULTI_REGION)

    def in_region(self, region: str) -> Arn:
        """The replica of a multi-region key in a region."""
        return replace(self, region=region)

    def opens_for(self, other: Arn) -> bool:
        """Whether it is the other key, or a replica of it."""
        return self == (other.in_region(self.region) if other.multi_region else other)


def parse_arn(text: str) -> Arn | None:
    """The ARN of a key; None for whatever else."""
    match = _ARN.fullmatch(text)
    if match is None:
        return None
    kind, _, key_id = match[4].partition("/")
    if kind != "key" or _KEY_ID.fullmatch(key_id) is None:
        return None
    return Arn(match[1], match[2], match[3], key_id)


@dataclass(frozen=True, slots=True)
class KeyName:
    """How the settings name a key: by its id, its ARN, an alias, or the ARN of an alias."""

    text: str
    region: str | None
    """That of an ARN."""

    @property
    def names_one_key(self) -> bool:
        """Whether it can't come to name another key; an alias can."""
        return "alias/" not in self.text

    def names(self, arn: Arn) -> bool:
        """Whether it is the id or the ARN of this key, or of a replica."""
        mine = parse_arn(self.text)
        return mine.opens_for(arn) if mine else self.text == arn.key_id


def parse_name(text: str) -> KeyName:
    """The key's name in the settings. Raises Misconfigured."""
    if match := _ARN.fullmatch(text):
        if parse_arn(text) or _ALIAS.fullmatch(match[4]):
            return KeyName(text, match[2])
    elif _KEY_ID.fullmatch(text) or _ALIAS.fullmatch(text):
        return KeyName(text, None)
    raise Misconfigured(
        "the key's name in the settings is none that AWS KMS knows",
        "a key is named by its id, its ARN, alias/NAME, or the ARN of an alias",
        "set key to one of these: aws kms list-aliases shows them",
    )


def parse_alias(name: object) -> str | None:
    """The name of an alias; None for whatever else."""
    return name if isinstance(name, str) and _ALIAS.fullmatch(name) else None


@dataclass(frozen=True, slots=True)
class Key:
    """A key as ``DescribeKey`` shows it. Times are those of the machine's time zone."""

    arn: Arn
    state: str
    usage: str
    spec: str
    by_aws: bool
    """Whether it is managed by AWS, for its own services only."""
    created: datetime | None
    deletion: datetime | None

    @classmethod
    def of(cls, answer: Mapping[str, object]) -> Key:
        """The key in an answer to ``DescribeKey``. Raises Misconfigured."""
        metadata = answer.get("KeyMetadata")
        if not isinstance(metadata, dict):
            raise not_kms("DescribeKey")
        arn = parse_arn(str(metadata.get("Arn")))
        words = [str(metadata.get(name, default)) for name, default in _WORDS]
        if arn is None or not all(map(_WORD.fullmatch, words)):
            raise not_kms("DescribeKey")
        state, usage, spec = words
        return cls(
            arn,
            state,
            usage,
            spec,
            by_aws=metadata.get("KeyManager") == "AWS",
            created=_time(metadata.get("CreationDate")),
            deletion=_time(metadata.get("DeletionDate")),
        )

    def fault(self) -> AnchorError | None:
        """Why nothing can be sealed or opened with this key; None when it can."""
        return self._fault_of_kind() or self._fault_of_state()

    def _fault_of_kind(self) -> AnchorError | None:
        if (self.usage, self.spec) != _ABLE:
            return Misconfigured(
                f"{self.arn} is a key of spec {self.spec} for {self.usage}",
                "the anchor needs a symmetric key that encrypts and decrypts",
                "make one with: aws kms create-key, and set key to it",
            )
        if self.by_aws:
            return Misconfigured(
                f"{self.arn} is managed by AWS",
                "only AWS's own services can use such a key",
                "make a key of your own with: aws kms create-key, and set key to it",
            )
        return None

    def _fault_of_state(self) -> AnchorError | None:
        match self.state:
            case state if state in _STATES_THAT_WORK:
                return None
            case "Disabled":
                return disabled(str(self.arn))
            case "PendingDeletion" | "PendingReplicaDeletion":
                return self._pending_deletion()
            case "PendingImport":
                return Refused(
                    f"{self.arn} has no key material (PendingImport)",
                    "the material that was imported into it was deleted or expired",
                    "import the same material again: aws kms import-key-material",
                )
            case "Creating" | "Unavailable":
                return Unreachable(
                    f"{self.arn} can't be used at present ({self.state})",
                    "it is being made, or its custom key store is not connected",
                    "wait, or connect the key store: aws kms connect-custom-key-store",
                )
            case _:
                return wrong_state(str(self.arn), f" ({self.state})")

    def _pending_deletion(self) -> Refused:
        when = f" before {self.deletion:%Y-%m-%d}" if self.deletion else " before it is gone"
        return Refused(
            f"{self.arn} is scheduled for deletion",
            "a key that waits for its deletion opens nothing; once deleted it never will again",
            f"cancel it{when}: aws kms cancel-key-deletion, then aws kms enable-key",
        )


def _time(value: object) -> datetime | None:
    return value if isinstance(value, datetime) else None
