"""Transit keys as OpenBao gives them out, and as it takes them back.

Read are the answer of ``transit/export/encryption-key/NAME``, and that of ``transit/backup/NAME``:
base64 of a JSON object which holds the key's policy and its archive. The policy has the versions
that decrypt, the archive also those that were retired. Written is such a backup: what
``transit/restore/NAME`` takes, with every version under its own number.

Those formats grow from release to release. What is used of them is checked; the rest is passed by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from kluis.errors import DocumentError, Inconsistent, UsageError
from kluis.keyring import crypto
from kluis.keyring.keys import MAX_VERSIONS, Key
from kluis.keyring.strict import (
    JSON,
    Fields,
    as_base64,
    canonical,
    read_json,
    refuse_too_many,
    to_base64,
)

MAX_EXPORT_BYTES: Final = 1024 * 1024
SEAL_TYPE: Final = "aes256-gcm96"
_SEAL_TYPE_NUMBER: Final = 0  # of the same type, within a backup
_LAST_SECOND: Final = 253_402_300_799  # of the year 9999
_NAME_PATTERN: Final = r"[A-Za-z0-9_.-]{1,256}"
_NO_TIME: Final = "0001-01-01T00:00:00Z"  # Go's zero time: of an entry that is no version
_EXPORT: Final = "bao read -format=json transit/export/encryption-key/NAME gives one"


@dataclass(frozen=True, slots=True)
class Foreign:
    """A key from elsewhere: 32 bytes a version; versions below ``minimum`` were retired there.

    ``created_s`` is when they were made (Unix time), as far as that is known.
    """

    name: str
    versions: Mapping[int, bytes] = field(repr=False)
    created_s: Mapping[int, int]
    minimum: int


def read(data: bytes) -> Foreign:
    """The key in an export or a backup. Raises DocumentError, or UsageError for another kind."""
    try:
        refuse_too_many("the text", len(data), MAX_EXPORT_BYTES)
        fields = _object(data)
        if fields.has("data"):
            fields = Fields(fields.take("data"), "data")
        if fields.has("backup"):
            packed = fields.text("backup", r"[A-Za-z0-9+/=\s]*", MAX_EXPORT_BYTES)
            fields = _object(packed.encode("ascii"))
        return _from_backup(fields) if fields.has("policy") else _from_export(fields)
    except DocumentError as error:
        error.seen = f"this is no export of a Transit key: {error.seen}"
        error.means = "it is something else, or was cut or changed on the way"
        error.next_step = _EXPORT
        raise


def _object(data: bytes) -> Fields:
    """The members of a JSON object, or of one in base64."""
    text = data.strip()
    if not text.startswith(b"{"):
        unwrapped = b"".join(text.split()).decode("ascii", "replace")
        text = as_base64(unwrapped, "the text", None, MAX_EXPORT_BYTES)
    return Fields(read_json(text), "")


def _from_export(fields: Fields) -> Foreign:
    name = fields.text("name", _NAME_PATTERN)
    if fields.text("type", r"[a-z0-9-]{1,64}") != SEAL_TYPE:
        raise _another_type(name)
    versions = {
        int(number): as_base64(value, f"keys.{number}", crypto.KEY_BYTES, crypto.KEY_BYTES)
        for number, value in _versions(fields)
    }
    _refuse_gaps(name, versions, max(versions, default=0))
    return Foreign(name, versions, {}, min(versions))


def _versions(fields: Fields) -> list[tuple[str, JSON]]:
    return fields.members("keys", r"[1-9][0-9]{0,8}", MAX_VERSIONS)


def _from_backup(backup: Fields) -> Foreign:
    policy = Fields(backup.take("policy"), "policy")
    name = policy.text("name", _NAME_PATTERN)
    if policy.take("type") != _SEAL_TYPE_NUMBER:
        raise _another_type(name)
    _refuse_derived(name, policy)
    latest = policy.integer("latest_version", 1)
    minimum = max(1, policy.integer("min_decryption_version", 0, latest))
    entries = [*_archived(backup, policy), *((int(n), entry) for n, entry in _versions(policy))]
    versions: dict[int, bytes] = {}
    created_s: dict[int, int] = {}
    for number, value in entries:
        entry = Fields(value, f"version {number}")
        material = entry.base64("key", crypto.KEY_BYTES)
        if not crypto.same(versions.setdefault(number, material), material):
            raise Inconsistent(f"version {number} stands there twice, and differs")
        if made_s := entry.integer("creation_time", 0, _LAST_SECOND):
            created_s[number] = made_s
    _refuse_gaps(name, versions, latest)
    return Foreign(name, versions, created_s, max(minimum, min(versions)))


def _archived(backup: Fields, policy: Fields) -> list[tuple[int, JSON]]:
    """The archive's versions. Its first place is that of ``archive_min_version``."""
    first = policy.integer("archive_min_version", 0) if policy.has("archive_min_version") else 0
    archive = backup.take("archived_keys") if backup.has("archived_keys") else None
    if archive is None:
        return []
    places = Fields(archive, "archived_keys").items("keys", MAX_VERSIONS + 1)
    return [(first + place, entry) for place, entry in enumerate(places) if _is_version(entry)]


def _is_version(entry: JSON) -> bool:
    """A trimmed version, and the version 0 that never was, leave an entry without a key."""
    return not isinstance(entry, dict) or entry.get("key") is not None


def _refuse_derived(name: str, policy: Fields) -> None:
    for member in ("derived", "convergent_encryption"):
        if policy.take(member) is not False:
            raise UsageError(
                f"the key {name} derives another key for every context",
                "no seal can use such a key, and kluis serves seals",
                "export the key that the seal stanza names",
            )


def _another_type(name: str) -> UsageError:
    return UsageError(
        f"the key {name} is not of type {SEAL_TYPE}",
        "a transit seal uses keys of that type, and kluis knows no other",
        "export the key that the seal stanza names",
    )


def _refuse_gaps(name: str, versions: Mapping[int, bytes], latest: int) -> None:
    """The last versions must all be there: kluis would give their numbers to keys of its own."""
    if latest > MAX_VERSIONS:
        raise UsageError(
            f"the key {name} is at version {latest}",
            f"a key has at most {MAX_VERSIONS} versions",
            "make a new key in kluis, and move the server there with an unseal -migrate",
        )
    first = min(versions, default=0)
    if first < 1 or sorted(versions) != list(range(first, latest + 1)):
        raise UsageError(
            f"the key {name} lacks some of its versions up to {latest}",
            "what they sealed would not open, and new versions would take their numbers",
            f"export all of it: {_EXPORT}",
        )


def backup(name: str, key: Key, created_s: Mapping[int, int]) -> str:
    """What ``transit/restore/NAME`` takes: secret material, in base64.

    The restored key can't be exported or backed up there until its owner allows it.
    """
    entries: dict[int, JSON] = {
        number: _entry(version.material, version.created, created_s[number])
        for number, version in sorted(key.versions.items())
    }
    first = min(entries)
    trimmed = first if first > 1 else 0
    never_was: list[JSON] = [] if trimmed else [_entry(None, _NO_TIME, 0)]
    policy: dict[str, JSON] = {
        "name": name,
        "keys": {str(n): entry for n, entry in entries.items() if n >= key.minimum},
        "type": _SEAL_TYPE_NUMBER,
        "derived": False,
        "kdf": 0,
        "convergent_encryption": False,
        "exportable": False,
        "allow_plaintext_backup": False,
        "deletion_allowed": False,
        "min_decryption_version": key.minimum,
        "min_encryption_version": key.minimum if trimmed else 0,
        "latest_version": key.latest,
        "min_available_version": trimmed,
        "archive_min_version": trimmed,
        "archive_version": key.latest,
    }
    archive: dict[str, JSON] = {"keys": [*never_was, *entries.values()]}
    return to_base64(canonical({"policy": policy, "archived_keys": archive}))


def _entry(material: bytes | None, created: str, created_s: int) -> JSON:
    return {
        "key": None if material is None else to_base64(material),
        # seals need none, but every version of a Transit key has one
        "hmac_key": None if material is None else to_base64(crypto.random_bytes(crypto.KEY_BYTES)),
        "time": created,
        "creation_time": created_s,
        "public_key": "",
    }
