"""Reading of collections: selectors, pages of one version, and where a page goes on."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

from tests.support.kubernetes import selectors
from tests.support.kubernetes.kinds import Kind, Object
from tests.support.kubernetes.refusals import Refusal, bad_request, expired
from tests.support.kubernetes.routes import Route
from tests.support.kubernetes.storage import Storage


def wanted(kind: Kind, query: Mapping[str, str]) -> selectors.Matches:
    """Whether an object fits both selectors of a query. Raises Refusal (400)."""
    by_label = selectors.labels(query.get("labelSelector", ""))
    by_field = selectors.fields(query.get("fieldSelector", ""), kind)
    return lambda item: by_label(item) and by_field(item)


def version_of(said: str) -> int:
    """A version as a number. Raises Refusal (400)."""
    if not said.isdecimal():
        raise bad_request(f"Invalid value: {said!r}: the resource version must be a number")
    return int(said)


def page(storage: Storage, route: Route, query: Mapping[str, str]) -> Object:
    """A list, or a page of it. Raises Refusal."""
    matches = wanted(route.kind, query)
    with storage.lock:
        at, after = _start(storage, query)
        found = [item for item in storage.all(route.kind, route.namespace, at) if matches(item)]
    rest = [item for item in found if _place(item) > after]
    limit = int(query.get("limit") or 0) or len(rest)
    metadata: Object = {"resourceVersion": str(at)}
    items = rest[:limit]
    if len(rest) > limit:
        metadata["continue"] = _token(at, _place(items[-1]))
        if not query.get("labelSelector") and not query.get("fieldSelector"):
            metadata["remainingItemCount"] = len(rest) - limit
    return {
        "kind": f"{route.kind.kind}List",
        "apiVersion": route.kind.api_version,
        "metadata": metadata,
        "items": [_listed(route.kind, item) for item in items],
    }


def _start(storage: Storage, query: Mapping[str, str]) -> tuple[int, list[str]]:
    """The version of a page, and the place after which it begins."""
    if more := query.get("continue", ""):
        if query.get("resourceVersion", "0") != "0":
            raise bad_request("specifying resource version is not allowed when using continue")
        at, after = _read_token(more)
        if at < storage.compacted:
            message = (
                "The provided continue parameter is too old to display a consistent list result."
            )
            raise expired(message, **{"continue": _token(storage.version, after)})
        return at, after
    if version_of(query.get("resourceVersion") or "0") > storage.version:
        raise Refusal(504, "Timeout", "Too large resource version")
    return storage.version, []


def _place(item: Object) -> list[str]:
    return [item["metadata"].get("namespace", ""), item["metadata"]["name"]]


def _token(at: int, after: list[str]) -> str:
    said = json.dumps({"v": "meta.k8s.io/v1", "rv": at, "start": after}).encode()
    return base64.urlsafe_b64encode(said).decode().rstrip("=")


def _read_token(token: str) -> tuple[int, list[str]]:
    try:
        said = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        return int(said["rv"]), [str(part) for part in said["start"]]
    except (ValueError, KeyError, TypeError):
        raise bad_request("continue key is not valid") from None


def _listed(kind: Kind, item: Object) -> Object:
    """In a list of a built-in kind, the items do not say what they are."""
    if kind.custom:
        return item
    return {name: value for name, value in item.items() if name not in {"kind", "apiVersion"}}
