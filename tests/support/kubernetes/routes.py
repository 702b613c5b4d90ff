"""From the path of a request to what it means: a kind, a namespace, a name, a subresource."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from tests.support.kubernetes.kinds import Kind
from tests.support.kubernetes.refusals import no_such_path
from tests.support.kubernetes.storage import Storage


@dataclass(frozen=True)
class Route:
    """What a path names. Without ``name`` it is a collection."""

    kind: Kind
    namespace: str
    name: str
    subresource: str


def route(storage: Storage, path: str) -> Route:
    """Raises Refusal (404)."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if parts[0] == "api":
        group, version, rest = "", parts[1:2], parts[2:]
    elif parts[0] == "apis" and len(parts) > 2:
        group, version, rest = parts[1], parts[2:3], parts[3:]
    else:
        raise no_such_path()
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces" and rest[2] != "status":
        namespace, rest = rest[1], rest[2:]
    if not 1 <= len(rest) <= 3:
        raise no_such_path()
    plural, name, subresource = (*rest, "", "")[:3]
    kind = storage.kind(f"{plural}.{group}" if group else plural)
    placed = bool(namespace) == kind.namespaced or (not name and not namespace)
    known = subresource in _subresources(kind)
    if [kind.version] != version or not placed or not known:
        raise no_such_path()
    return Route(kind, namespace, name, subresource)


def _subresources(kind: Kind) -> set[str]:
    more = {"status"} if kind.status else {"token"} if kind.key == "serviceaccounts" else set()
    return {"", *more}
