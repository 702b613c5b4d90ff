"""What a write makes of an object: whose fields it may touch, and which the API keeps itself."""

from __future__ import annotations

import copy
import re
import uuid
from datetime import UTC, datetime
from typing import Any, Final

from tests.support.kubernetes.kinds import Kind, Object
from tests.support.kubernetes.refusals import bad_request, conflict, invalid

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_KEPT: Final = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
)


def now() -> str:
    """The time as the API writes it: RFC 3339, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def merge(target: Any, patch: Any) -> Any:
    """JSON merge patch, RFC 7386 section 2."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


def new(kind: Kind, namespace: str, body: Object) -> Object:
    """The object that a create makes; a status comes in by its subresource only."""
    item = copy.deepcopy(body)
    metadata = _checked(kind, namespace, item)
    if not metadata.get("name") and metadata.get("generateName"):
        metadata["name"] = metadata["generateName"] + uuid.uuid4().hex[:5]
    name = str(metadata.get("name") or "")
    if not name:
        raise invalid(kind, "", "metadata.name: Required value: name or generateName is required")
    if not _NAME.fullmatch(name):
        raise invalid(kind, name, "metadata.name: Invalid value: a lowercase RFC 1123 subdomain")
    if metadata.get("resourceVersion"):
        raise bad_request("resourceVersion should not be set on objects to be created")
    if kind.namespaced:
        metadata["namespace"] = namespace
    if kind.status:
        item.pop("status", None)
    metadata.pop("deletionTimestamp", None)
    metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": now(), "generation": 1}
    return {"apiVersion": kind.api_version, "kind": kind.kind, **item}


def replaced(kind: Kind, old: Object, body: Object, subresource: str) -> Object:
    """The object after a PUT, which names the version that it is based on."""
    item = copy.deepcopy(body)
    metadata = _checked(kind, old["metadata"].get("namespace", ""), item)
    name = old["metadata"]["name"]
    if metadata.get("name") != name:
        raise bad_request(
            f"the name of the object ({metadata.get('name')}) does not match the name on the URL"
            f" ({name})"
        )
    if kind.custom and not metadata.get("resourceVersion"):
        raise invalid(kind, name, "metadata.resourceVersion: must be specified for an update")
    return _updated(kind, old, item, subresource)


def patched(kind: Kind, old: Object, body: Any, subresource: str) -> Object:
    """The object after a merge patch."""
    if not isinstance(body, dict):
        raise bad_request("a merge patch is a JSON object")
    item = merge(copy.deepcopy(old), body)
    _checked(kind, old["metadata"].get("namespace", ""), item)
    if item["metadata"].get("name") != old["metadata"]["name"]:
        raise bad_request("the name of the object does not match the name on the URL")
    return _updated(kind, old, item, subresource)


def _checked(kind: Kind, namespace: str, item: Object) -> Object:
    """The metadata of what was sent, after what any write must have right."""
    for name, own in (("apiVersion", kind.api_version), ("kind", kind.kind)):
        if item.get(name, own) != own:
            raise bad_request(f"{name} in the data ({item[name]}) does not match the expected one")
    metadata = item.setdefault("metadata", {})
    if not isinstance(metadata, dict):
        raise bad_request("metadata is an object")
    if kind.namespaced and metadata.get("namespace", namespace) != namespace:
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    return metadata


def _updated(kind: Kind, old: Object, item: Object, subresource: str) -> Object:
    before, after = old["metadata"], item["metadata"]
    for precondition in ("resourceVersion", "uid"):
        if after.get(precondition, before[precondition]) != before[precondition]:
            why = "Precondition failed: UID in precondition" if precondition == "uid" else ""
            raise conflict(kind, before["name"], why)
    if subresource == "status":
        result = {**old, "status": item.get("status")} if "status" in item else _without(old)
        return copy.deepcopy(result)
    for name in _KEPT:
        after.pop(name, None)
        if name in before:
            after[name] = before[name]
    if kind.status:
        item = _without(item) | ({"status": old["status"]} if "status" in old else {})
    if _content(item) != _content(old):
        after["generation"] = before["generation"] + 1
    return copy.deepcopy(item)


def _without(item: Object) -> Object:
    return {name: value for name, value in item.items() if name != "status"}


def _content(item: Object) -> Object:
    """What a generation counts: all but metadata and status."""
    return {name: value for name, value in item.items() if name not in {"metadata", "status"}}
