"""What the double keeps: objects, the one version that all writes count up, and their history.

Every method may be called from any thread. Objects that come out are copies.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tests.support.kubernetes import writing
from tests.support.kubernetes.kinds import BUILT_IN, Kind, Object
from tests.support.kubernetes.refusals import (
    conflict,
    exists,
    expired,
    no_such_path,
    not_found,
)

Place = tuple[str, str, str]
FIRST_VERSION = 1000


@dataclass(frozen=True)
class Change:
    """One write: what happened to which object, and at which version. Not to be changed."""

    version: int
    type: Literal["ADDED", "MODIFIED", "DELETED"]
    kind: Kind
    object: Object
    previous: Object | None

    @property
    def name(self) -> str:
        """Of the object."""
        return str(self.object["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Of the object; empty for what is in none."""
        return str(self.object["metadata"].get("namespace", ""))


class Storage:
    """The objects of a cluster."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.version = FIRST_VERSION
        self.compacted = 0
        self.history: list[Change] = []
        self.listeners: list[Callable[[Change], None]] = []
        self._kinds: dict[str, Kind] = {}
        self._by_type: dict[tuple[str, str], Kind] = {}
        self._objects: dict[Place, Object] = {}
        for kind in BUILT_IN:
            self.define(kind)

    # -- kinds

    def define(self, kind: Kind) -> None:
        """Know one more kind, as after a CRD was made."""
        self._kinds[kind.key] = kind
        self._by_type[kind.api_version, kind.kind] = kind

    def kind(self, key: str) -> Kind:
        """A kind by its key. Raises Refusal (404)."""
        if key not in self._kinds:
            raise no_such_path()
        return self._kinds[key]

    # -- reading

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """One object. Raises Refusal (404)."""
        with self.lock:
            return copy.deepcopy(self._found(kind, namespace, name))

    def all(self, kind: Kind, namespace: str = "", at: int | None = None) -> list[Object]:
        """The objects of a kind in the order of their keys, as of a version; now without one."""
        with self.lock:
            state = self._objects if at is None else self._state(at)
            return [
                copy.deepcopy(item)
                for (key, within, _), item in sorted(state.items(), key=lambda one: one[0])
                if key == kind.key and namespace in ("", within)
            ]

    def since(self, version: int, kind: Kind, namespace: str = "") -> Sequence[Change]:
        """The changes of a kind after a version. Raises Refusal (410)."""
        with self.lock:
            if version < self.compacted:
                raise expired(f"too old resource version: {version} ({self.compacted})")
            return [
                change
                for change in self.history[max(0, version - FIRST_VERSION) :]
                if change.kind.key == kind.key and namespace in ("", change.namespace)
            ]

    def compact(self) -> None:
        """Forget the history before the present version; versions before it are expired."""
        with self.lock:
            self.compacted = self.version

    def clear(self) -> None:
        """Remove every object, finalizers or not."""
        with self.lock:
            for item in list(self._objects.values()):
                kind = self._by_type[item["apiVersion"], item["kind"]]
                self._write(kind, "DELETED", copy.deepcopy(item), item)

    # -- writing

    def create(self, kind: Kind, namespace: str, body: Object) -> Object:
        """Raises Refusal."""
        with self.lock:
            item = writing.new(kind, namespace, body)
            name = item["metadata"]["name"]
            if (kind.key, namespace, name) in self._objects:
                raise exists(kind, name)
            return self._write(kind, "ADDED", item, None)

    def replace(
        self, kind: Kind, namespace: str, name: str, body: Object, subresource: str = ""
    ) -> Object:
        """PUT. Raises Refusal."""
        with self.lock:
            old = self._found(kind, namespace, name)
            return self._update(kind, old, writing.replaced(kind, old, body, subresource))

    def patch(
        self, kind: Kind, namespace: str, name: str, body: object, subresource: str = ""
    ) -> Object:
        """A merge patch. Raises Refusal."""
        with self.lock:
            old = self._found(kind, namespace, name)
            return self._update(kind, old, writing.patched(kind, old, body, subresource))

    def delete(
        self, kind: Kind, namespace: str, name: str, preconditions: Object | None = None
    ) -> Object:
        """Remove an object, or mark it while finalizers keep it. Raises Refusal."""
        with self.lock:
            old = self._found(kind, namespace, name)
            for field, wanted in (preconditions or {}).items():
                if old["metadata"].get(field) != wanted:
                    raise conflict(kind, name, f"Precondition failed: {field}")
            item = copy.deepcopy(old)
            if item["metadata"].get("finalizers"):
                item["metadata"].setdefault("deletionTimestamp", writing.now())
                return self._update(kind, old, item)
            return self._write(kind, "DELETED", item, old)

    def _found(self, kind: Kind, namespace: str, name: str) -> Object:
        found = self._objects.get((kind.key, namespace, name))
        if found is None:
            raise not_found(kind, name)
        return found

    def _update(self, kind: Kind, old: Object, item: Object) -> Object:
        """A write that changes nothing is no write: no new version, and no event."""
        if item == old:
            return copy.deepcopy(old)
        metadata = item["metadata"]
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            return self._write(kind, "DELETED", item, old)
        return self._write(kind, "MODIFIED", item, old)

    def _write(
        self,
        kind: Kind,
        what: Literal["ADDED", "MODIFIED", "DELETED"],
        item: Object,
        old: Object | None,
    ) -> Object:
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        change = Change(self.version, what, kind, item, old)
        self._apply(self._objects, change)
        self.history.append(change)
        for listener in self.listeners:
            listener(change)
        return copy.deepcopy(item)

    def _state(self, at: int) -> dict[Place, Object]:
        state: dict[Place, Object] = {}
        for change in self.history[: at - FIRST_VERSION]:
            self._apply(state, change)
        return state

    @staticmethod
    def _apply(state: dict[Place, Object], change: Change) -> None:
        place = (change.kind.key, change.namespace, change.name)
        if change.type == "DELETED":
            state.pop(place, None)
        else:
            state[place] = change.object
