"""Strict reading of JSON: what is not exactly the format is refused, each with its own error."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from typing import Final

import rfc8785

from kluis.errors import (
    DuplicateName,
    MissingField,
    NotCanonical,
    NotJson,
    TooLarge,
    UnknownField,
    WrongBase64,
    WrongType,
)

JSON = None | bool | int | str | list["JSON"] | dict[str, "JSON"]
MAX_INTEGER: Final = 2**53 - 1  # RFC 8785 numbers are IEEE 754 doubles
MAX_NESTING: Final = 64  # lists and objects within each other; far below Python's own limit
_REPLACE: Final = "take the document from a backup or from the store's history"

# an escape of half a UTF-16 pair, unless its backslash is itself escaped; or such a half as it is
_SURROGATE: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u[dD][89a-fA-F]|[\ud800-\udfff]")


def canonical(value: JSON) -> bytes:
    """The canonical form of a JSON value (RFC 8785)."""
    return rfc8785.dumps(value)


def read_canonical(data: bytes, limit_bytes: int) -> JSON:
    """The value of canonical JSON. Raises what ``read_json`` raises, and NotCanonical."""
    if len(data) > limit_bytes:
        raise TooLarge(
            f"{len(data)} bytes", f"a document has at most {limit_bytes} bytes", _REPLACE
        )
    value = read_json(data)
    if canonical(value) != data:
        raise NotCanonical(
            "the bytes are not in canonical form (RFC 8785)",
            "kluis writes one form only; something else wrote or changed these bytes",
            _REPLACE,
        )
    return value


def read_json(data: bytes | str) -> JSON:
    """A JSON value of whole numbers, without repeated names, at most 64 levels deep.

    Raises NotJson, DuplicateName, WrongType for other numbers, TooLarge for deeper nesting.
    """
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        value: JSON = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_whole_number,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
        )
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:  # not JSON, or not UTF-8
        position = getattr(error, "pos", getattr(error, "start", 0))
        raise NotJson(
            f"not JSON at character {position}", "the bytes are damaged or cut short", _REPLACE
        ) from None
    if _SURROGATE.search(text):
        raise NotJson("an escaped surrogate", "names and texts are plain UTF-8", _REPLACE)
    _refuse_deep(value)
    return value


def _refuse_deep(value: JSON) -> None:
    """Level by level, so that a limit of ours speaks before the stack of whatever recurses."""
    level = [value]
    for _ in range(MAX_NESTING):
        level = [child for parent in level for child in _groups_in(parent)]
        if not level:
            return
    raise _too_deep()


def _groups_in(value: JSON) -> list[JSON]:
    """The lists and objects right within a list or an object."""
    match value:
        case dict():
            members: Iterable[JSON] = value.values()
        case list():
            members = value
        case _:
            members = ()
    return [member for member in members if isinstance(member, list | dict)]


def _too_deep() -> TooLarge:
    return TooLarge(
        f"lists and objects more than {MAX_NESTING} deep", "no document is nested so", _REPLACE
    )


def _object(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    result: dict[str, JSON] = {}
    for name, value in pairs:
        if name in result:
            raise DuplicateName(
                f"the name {name[:64]!a} stands twice in one object",
                "two readers could believe two different things",
                _REPLACE,
            )
        result[name] = value
    return result


def _whole_number(text: str) -> int:
    # 16 digits and a sign; the conversion of a longer text would cost more than it is worth
    if len(text) > 17 or abs(number := int(text)) > MAX_INTEGER:
        raise WrongType("a number out of range", "numbers stay below 2^53", _REPLACE)
    return number


def _refuse_number(text: str) -> JSON:
    raise WrongType(f"the number {text[:32]}", "only whole numbers are used here", _REPLACE)


class Fields:
    """The members of one object: each is taken once, with its type; ``done`` refuses the rest.

    ``where`` is the path of the object within the document, for the errors.
    """

    def __init__(self, value: JSON, where: str) -> None:
        if not isinstance(value, dict):
            raise wrong_type(where, "an object", value)
        self._left = dict(value)
        self.where = where

    def path(self, name: str) -> str:
        """The place of a member, for an error."""
        return f"{self.where}.{name}" if self.where else name

    def take(self, name: str) -> JSON:
        """A member of any type."""
        if name not in self._left:
            raise MissingField(
                f"{self.path(name)} is missing", "every member of the format is written", _REPLACE
            )
        return self._left.pop(name)

    def has(self, name: str) -> bool:
        """Whether the member is there and was not yet taken."""
        return name in self._left

    def text(self, name: str, pattern: str, limit_chars: int = 4096) -> str:
        """A string that matches ``pattern`` in full."""
        return as_text(self.take(name), self.path(name), pattern, limit_chars)

    def optional_text(self, name: str, pattern: str, limit_chars: int = 4096) -> str | None:
        """A string that matches ``pattern`` in full, or null."""
        value = self.take(name)
        return None if value is None else as_text(value, self.path(name), pattern, limit_chars)

    def integer(self, name: str, low: int, high: int = MAX_INTEGER) -> int:
        """A whole number from ``low`` to ``high``."""
        value = self.take(name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise wrong_type(self.path(name), f"a whole number from {low} to {high}", value)
        return value

    def items(self, name: str, limit: int) -> list[JSON]:
        """A list of at most ``limit`` values."""
        value = self.take(name)
        if not isinstance(value, list):
            raise wrong_type(self.path(name), "a list", value)
        refuse_too_many(self.path(name), len(value), limit)
        return value

    def members(self, name: str, pattern: str, limit: int) -> list[tuple[str, JSON]]:
        """The members of an object whose names are data and match ``pattern``."""
        value = self.take(name)
        if not isinstance(value, dict):
            raise wrong_type(self.path(name), "an object", value)
        refuse_too_many(self.path(name), len(value), limit)
        for member in value:
            as_text(member, f"a name in {self.path(name)}", pattern)
        return list(value.items())

    def base64(self, name: str, length: int | None = None, limit_bytes: int = 65536) -> bytes:
        """Bytes in strict standard base64, of exactly ``length`` if given."""
        return as_base64(self.take(name), self.path(name), length, limit_bytes)

    def done(self) -> None:
        """Refuse whatever was not taken."""
        if self._left:
            raise UnknownField(
                f"{self.path(ascii(min(self._left))[:64])} is not a member of this format",
                "a reader that ignored it could miss what it means",
                "read the document with the version of kluis that wrote it",
            )


def as_text(value: JSON, where: str, pattern: str, limit_chars: int = 4096) -> str:
    """The value, if it is a string that matches ``pattern`` in full."""
    if not isinstance(value, str) or re.fullmatch(pattern, value) is None:
        raise wrong_type(where, "a text of the right form", value)
    refuse_too_many(where, len(value), limit_chars)
    return value


def as_base64(value: JSON, where: str, length: int | None, limit_bytes: int) -> bytes:
    """The bytes, if the value is strict standard base64 with padding."""
    if not isinstance(value, str):
        raise wrong_type(where, "base64", value)
    try:
        data = base64.b64decode(value, validate=True)
    except ValueError:  # binascii.Error, and its base class for what is not ASCII
        data = None
    if data is None or to_base64(data) != value or (length is not None and len(data) != length):
        expected = "strict base64" if length is None else f"strict base64 of {length} bytes"
        raise WrongBase64(f"{where} is not {expected}", "the document is damaged", _REPLACE)
    refuse_too_many(where, len(data), limit_bytes)
    return data


def to_base64(data: bytes) -> str:
    """Standard base64 with padding (RFC 4648, section 4)."""
    return base64.b64encode(data).decode("ascii")


def refuse_too_many(where: str, count: int, limit: int) -> None:
    """Raise TooLarge when a size or a count is above its limit."""
    if count > limit:
        raise TooLarge(f"{where} has {count}", f"at most {limit} are allowed there", _REPLACE)


def wrong_type(where: str, expected: str, value: JSON) -> WrongType:
    """The error for a member that is something else; it never shows the value of it."""
    found = {dict: "an object", list: "a list", str: "a text", int: "a number", bool: "a boolean"}
    return WrongType(
        f"{where or 'the document'} must be {expected}",
        f"it is {found.get(type(value), 'null')} that does not fit",
        _REPLACE,
    )


def sorted_unique(values: Iterable[str], where: str) -> tuple[str, ...]:
    """The values, if they are sorted and none stands twice."""
    result = tuple(values)
    if list(result) != sorted(set(result)):
        raise WrongType(
            f"{where} is not sorted, or repeats a value", "sets are written sorted", _REPLACE
        )
    return result
