"""Objects of the Kubernetes API as they come, where they are found, and how to read them.

An object is the JSON that the API sent. The readers never fail: what is absent, or of another type
than it should be, is the empty value of the type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from kluis.errors import UsageError

JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]
Object = Mapping[str, JSON]

_NOTHING: Final[Object] = {}


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of objects by its group (empty: the core's), its version and its plural name."""

    group: str
    version: str
    plural: str

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Where one object is, or all of them, in one namespace or everywhere.

        Raises UsageError for what can't be a name in a path.
        """
        start = f"/apis/{_segment(self.group)}" if self.group else "/api"
        parts = [start, _segment(self.version)]
        if namespace:
            parts += ["namespaces", _segment(namespace)]
        parts += [_segment(part) for part in (self.plural, name, subresource) if part]
        return "/".join(parts)


PODS: Final = Resource("", "v1", "pods")


def _segment(text: str) -> str:
    if not text or text in {".", ".."} or "/" in text or "%" in text:
        raise UsageError(
            f"{text[:80]!r} is not a name in Kubernetes",
            "a name there is a part of a path",
            "write the name as kubectl shows it",
        )
    return quote(text, safe=":")


def value(item: Object, *path: str) -> JSON:
    """What is at a path of members; None where there is nothing."""
    found: JSON = None
    for name in path:
        found = item.get(name)
        item = found if isinstance(found, dict) else _NOTHING
    return found


def text(item: Object, *path: str) -> str:
    """The string at a path."""
    found = value(item, *path)
    return found if isinstance(found, str) else ""


def number(item: Object, *path: str) -> int:
    """The whole number at a path."""
    found = value(item, *path)
    return found if isinstance(found, int) and not isinstance(found, bool) else 0


def member(item: Object, *path: str) -> Object:
    """The object at a path."""
    found = value(item, *path)
    return found if isinstance(found, dict) else _NOTHING


def members(item: Object, *path: str) -> Sequence[Object]:
    """The objects of the list at a path."""
    found = value(item, *path)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def moment(item: Object, *path: str) -> datetime | None:
    """The time at a path (RFC 3339), with its zone."""
    try:
        found = datetime.fromisoformat(text(item, *path))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def name(item: Object) -> str:
    """``metadata.name``."""
    return text(item, "metadata", "name")


def namespace(item: Object) -> str:
    """``metadata.namespace``; empty for what is in none."""
    return text(item, "metadata", "namespace")


def version(item: Object) -> str:
    """``metadata.resourceVersion``: opaque, good for comparing with another and for a watch."""
    return text(item, "metadata", "resourceVersion")


def leaving(item: Object) -> bool:
    """Whether the object is being deleted."""
    return value(item, "metadata", "deletionTimestamp") is not None


def condition(item: Object, kind: str) -> Object:
    """The condition of a type, such as ``Ready``, in the status."""
    found = (one for one in members(item, "status", "conditions") if one.get("type") == kind)
    return next(found, _NOTHING)
