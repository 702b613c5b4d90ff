"""What stands in for a cluster's controllers: callbacks on changes, in one thread of their own.

A callback gets every change of its kind in order, first what there is already, as an informer does.
It may write to the double, at once or with ``later``. What it raises is kept, and fails the test.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from typing import Protocol

from tests.support.kubernetes.kinds import Kind, Object
from tests.support.kubernetes.storage import Change, Storage

Callback = Callable[[Change], None]
IDLE_S = 30.0


class Controllers:
    """The thread that calls."""

    def __init__(self, storage: Storage) -> None:
        self.errors: list[Exception] = []
        self._storage = storage
        self._callbacks: list[tuple[str, Callback]] = []
        self._todo: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._news = threading.Condition()
        self._busy = False
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="controllers", daemon=True)
        storage.listeners.append(self._changed)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what is not due yet is not done."""
        with self._news:
            self._ended = True
            self._news.notify_all()
        self._thread.join(IDLE_S)

    def forget(self) -> None:
        """Drop all callbacks, and what is still to be done."""
        with self._storage.lock, self._news:
            self._callbacks.clear()
            self._todo.clear()

    def on_change(self, key: str, callback: Callback) -> None:
        """Call for each change of a kind, and for what there is."""
        with self._storage.lock:
            kind = self._storage.kind(key)
            self._callbacks.append((key, callback))
            for item in self._storage.all(kind):
                version = int(item["metadata"]["resourceVersion"])
                self._call(callback, Change(version, "ADDED", kind, item, None))

    def later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do something in the controllers' thread, after a time."""
        with self._news:
            due = time.monotonic() + delay_s
            heapq.heappush(self._todo, (due, next(self._count), action))
            self._news.notify_all()

    def settle(self, timeout_s: float = IDLE_S) -> None:
        """Return when nothing is left to do. Raises TimeoutError."""
        with self._news:
            if not self._news.wait_for(lambda: not self._todo and not self._busy, timeout_s):
                raise TimeoutError(f"the controllers were not idle within {timeout_s} s")

    def _changed(self, change: Change) -> None:
        for key, callback in self._callbacks:
            if key == change.kind.key:
                self._call(callback, change)

    def _call(self, callback: Callback, change: Change) -> None:
        self.later(0.0, lambda: callback(change))

    def _run(self) -> None:
        while (action := self._next()) is not None:
            try:
                action()
            except Exception as error:  # noqa: BLE001 - kept for the test
                self.errors.append(error)

    def _next(self) -> Callable[[], None] | None:
        with self._news:
            self._busy = False
            self._news.notify_all()
            while not self._ended:
                wait_s = self._todo[0][0] - time.monotonic() if self._todo else None
                if wait_s is not None and wait_s <= 0:
                    self._busy = True
                    return heapq.heappop(self._todo)[2]
                self._news.wait(wait_s)
            return None


class _Cluster(Protocol):
    def on_change(self, key: str, callback: Callback) -> None: ...
    def later(self, delay_s: float, action: Callable[[], None]) -> None: ...
    def get(self, key: str, name: str, namespace: str = "") -> Object: ...
    def set_status(self, key: str, name: str, status: Object, namespace: str = "") -> Object: ...


class Workloads:
    """Deployments, StatefulSets and DaemonSets whose pods follow the template.

    A changed template is rolled out in two steps of ``step_s`` each: seen, then done. One in
    ``stuck`` (its name) is seen and never done, as with a broken image.
    """

    def __init__(self, cluster: _Cluster, step_s: float = 0.02) -> None:
        self.stuck: set[str] = set()
        self._cluster = cluster
        self._step_s = step_s
        for plural in ("deployments", "statefulsets", "daemonsets"):
            cluster.on_change(f"{plural}.apps", self._changed)

    def _changed(self, change: Change) -> None:
        item = change.object
        seen = (item.get("status") or {}).get("observedGeneration")
        if change.type != "DELETED" and seen != item["metadata"]["generation"]:
            self._cluster.later(self._step_s, lambda: self._step(change, done=False))

    def _step(self, change: Change, *, done: bool) -> None:
        key, name, namespace = change.kind.key, change.name, change.namespace
        try:
            item = self._cluster.get(key, name, namespace)
        except KeyError:
            return  # deleted meanwhile
        if item["metadata"]["generation"] != change.object["metadata"]["generation"]:
            return  # a later change has steps of its own
        self._cluster.set_status(key, name, _status(change.kind, item, done=done), namespace)
        if not done and name not in self.stuck:
            self._cluster.later(self._step_s, lambda: self._step(change, done=True))


def _status(kind: Kind, item: Object, *, done: bool) -> Object:
    """The status in the middle of a rollout, or after it."""
    wanted = item["spec"].get("replicas", 1)
    updated, seen = (wanted if done else 0), {"observedGeneration": item["metadata"]["generation"]}
    if kind.kind == "DaemonSet":
        return seen | {
            "desiredNumberScheduled": wanted,
            "currentNumberScheduled": wanted,
            "updatedNumberScheduled": updated,
            "numberAvailable": wanted,
            "numberReady": wanted,
        }
    counts = seen | {
        "replicas": wanted,
        "updatedReplicas": updated,
        "readyReplicas": wanted,
        "availableReplicas": wanted,
    }
    if kind.kind == "StatefulSet":
        new = f"{item['metadata']['name']}-{item['metadata']['generation']}"
        old = (item.get("status") or {}).get("currentRevision", new)
        return counts | {"updateRevision": new, "currentRevision": new if done else old}
    progress = {"type": "Progressing", "status": "True"}
    progress["reason"] = "NewReplicaSetAvailable" if done else "ReplicaSetUpdated"
    available = {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"}
    return counts | {"conditions": [available, progress]}
