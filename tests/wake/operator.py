"""A small model of the External Secrets Operator, on the double of the Kubernetes API.

    operator = Operator(cluster)
    operator.up = False                      # the server that all its stores read from
    make_store(cluster, "vault")             # Ready=False, tried again after 1 s, 2 s, 4 s …
    make_secret(cluster, "app/db", "vault")

What it keeps of the real one, because whoever wakes it depends on that:

- a failure is tried again after 1 s × 2ⁿ, at most 7 minutes, each object apart; any change of an
  object is looked at once, and what fails then counts on. ``second_s`` is how long a second of it
  is; ``failed_before`` is how often everything failed already, in a long outage
- stores are validated; an ExternalSecret is refreshed only while its stores are Ready, which it
  learns ``lag_s`` later than everybody else
- a refresh is due when the interval is over, or labels, annotations or the spec changed
  (``syncedResourceVersion``); never for CreatedOnce, nor with an interval of 0, once synced
- a status that stays the same is not written, and a condition keeps its time while it stays
- children of a ClusterExternalSecret get its force-sync annotation, and lose all of their own
- a store of another controller is not touched
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support.kubernetes import Change, Kind, KubernetesDouble, Object

GROUP = "external-secrets.io"
CLUSTER_STORES = f"clustersecretstores.{GROUP}"
STORES = f"secretstores.{GROUP}"
SECRETS = f"externalsecrets.{GROUP}"
PARENTS = f"clusterexternalsecrets.{GROUP}"
FORCE_SYNC = f"{GROUP}/force-sync"
MAX_BACKOFF_S = 420.0

KINDS = (
    Kind(GROUP, "v1", "clustersecretstores", "ClusterSecretStore", namespaced=False),
    Kind(GROUP, "v1", "secretstores", "SecretStore"),
    Kind(GROUP, "v1", "externalsecrets", "ExternalSecret"),
    Kind(GROUP, "v1", "clusterexternalsecrets", "ClusterExternalSecret", namespaced=False),
)
LONG_AGO = "2026-01-01T00:00:00Z"

Key = tuple[str, str, str]


def install(cluster: KubernetesDouble) -> None:
    """Define the operator's kinds."""
    for kind in KINDS:
        cluster.define(kind)


class Operator:
    """The operator. ``up`` is whether the server answers, which all of its stores read from.

    ``failures`` are those in a row, and ``tries`` all of them, by the key of the object. What is
    named in ``broken`` always fails.
    """

    def __init__(
        self,
        cluster: KubernetesDouble,
        *,
        up: bool = True,
        second_s: float = 1.0,
        failed_before: int = 0,
    ) -> None:
        self.up = up
        self.second_s = second_s
        self.failed_before = failed_before
        self.lag_s = 0.0
        self.failures: Counter[Key] = Counter()
        self.tries: Counter[Key] = Counter()
        self.refreshes: Counter[str] = Counter()
        self.broken: set[str] = set()
        self._cluster = cluster
        self._usable: set[Key] = set()
        cluster.on_change(CLUSTER_STORES, self._store_changed)
        cluster.on_change(STORES, self._store_changed)
        cluster.on_change(PARENTS, self._parent_changed)
        cluster.on_change(SECRETS, self._secret_changed)

    # -- stores

    def _store_changed(self, change: Change) -> None:
        if change.type != "DELETED":
            self._validate(change.kind.key, change.namespace, change.name)

    def _validate(self, kind: str, namespace: str, name: str) -> None:
        store = self._found(kind, namespace, name)
        if store is None or store["spec"].get("controller"):
            return
        key = (kind, namespace, name)
        ready = self.up and name not in self.broken
        self._write(kind, store, {**store.get("status", {}), "conditions": [_ready(store, ready)]})
        self._cluster.later(self.lag_s, lambda: self._learn(key, ready))
        self._retry(key, ready, lambda: self._validate(*key))

    def _learn(self, key: Key, ready: bool) -> None:
        (self._usable.add if ready else self._usable.discard)(key)

    # -- ExternalSecrets

    def _secret_changed(self, change: Change) -> None:
        if change.type == "DELETED":
            return
        for owner in change.object["metadata"].get("ownerReferences", []):
            self._overwrite(owner["name"])
        self._refresh(change.namespace, change.name)

    def _refresh(self, namespace: str, name: str) -> None:
        secret = self._found(SECRETS, namespace, name)
        if secret is None or not _due(secret):
            return
        key = (SECRETS, namespace, name)
        ready = self.up and name not in self.broken and self._stores(secret) <= self._usable
        status = {**secret.get("status", {}), "conditions": [_ready(secret, ready)]}
        if ready:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            status |= {"refreshTime": now, "syncedResourceVersion": _synced(secret)}
            self.refreshes[f"{namespace}/{name}"] += 1
        self._write(SECRETS, secret, status)
        self._retry(key, ready, lambda: self._refresh(namespace, name))

    def _stores(self, secret: Object) -> set[Key]:
        reference = secret["spec"].get("secretStoreRef")
        if reference is None:
            return set()
        if reference.get("kind") == "ClusterSecretStore":
            return {(CLUSTER_STORES, "", reference["name"])}
        return {(STORES, secret["metadata"]["namespace"], reference["name"])}

    # -- ClusterExternalSecrets

    def _parent_changed(self, change: Change) -> None:
        self._overwrite(change.name)

    def _overwrite(self, name: str) -> None:
        """Give the children their annotations."""
        parent = self._found(PARENTS, "", name)
        if parent is None:
            return
        said = parent["metadata"].get("annotations", {}).get(FORCE_SYNC)
        wanted = {} if said is None else {FORCE_SYNC: said}
        for child in self._cluster.objects(SECRETS):
            metadata = child["metadata"]
            owners = [one["name"] for one in metadata.get("ownerReferences", [])]
            has = metadata.get("annotations", {})
            if name in owners and has != wanted:
                patch = {**dict.fromkeys(has), **wanted}
                body = {"metadata": {"annotations": patch}}
                self._cluster.patch(SECRETS, metadata["name"], body, metadata["namespace"])

    # -- what all of them do

    def _retry(self, key: Key, well: bool, again: Any) -> None:
        """Forget the failures, or try again after the time that they cost."""
        self.tries[key] += 1
        if well:
            self.failures.pop(key, None)
            return
        failed = self.failures[key] + self.failed_before
        pause_s = min(MAX_BACKOFF_S, 2.0 ** min(failed, 20))
        self.failures[key] += 1
        self._cluster.later(pause_s * self.second_s, again)

    def _write(self, kind: str, item: Object, status: Object) -> None:
        metadata = item["metadata"]
        if item.get("status") != status:
            namespace = metadata.get("namespace", "")
            self._cluster.set_status(kind, metadata["name"], status, namespace)

    def _found(self, kind: str, namespace: str, name: str) -> Object | None:
        try:
            return self._cluster.get(kind, name, namespace)
        except KeyError:
            return None


def _due(secret: Object) -> bool:
    """Whether the operator would ask for the values now: ``shouldRefresh`` of the real one."""
    spec, status = secret["spec"], secret.get("status", {})
    synced, policy = status.get("syncedResourceVersion"), spec.get("refreshPolicy", "Periodic")
    if not synced or not status.get("refreshTime"):
        return True
    if policy == "CreatedOnce":
        return False
    interval_s = {"0": 0, "0s": 0, "1h0m0s": 3600}[spec.get("refreshInterval", "1h0m0s")]
    if policy == "Periodic" and not interval_s:
        return False
    if synced != _synced(secret):
        return True
    refreshed = datetime.fromisoformat(status["refreshTime"])
    over = refreshed + timedelta(seconds=interval_s) < datetime.now(UTC)
    return policy == "Periodic" and over


def _synced(secret: Object) -> str:
    """What it looked like when it was synced: the generation, and a hash of its metadata."""
    metadata = secret["metadata"]
    said = json.dumps([metadata.get("annotations"), metadata.get("labels")], sort_keys=True)
    return f"{metadata['generation']}-{hashlib.sha256(said.encode()).hexdigest()[:16]}"


def _ready(item: Object, ready: bool) -> Object:
    old: Object = next(iter(item.get("status", {}).get("conditions", [])), {})
    status = "True" if ready else "False"
    if old.get("status") == status:
        return dict(old)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": "Ready", "status": status, "lastTransitionTime": now, "reason": "Model"}


# -- what a test puts into the cluster


def make_store(
    cluster: KubernetesDouble, said: str, *, provider: str = "vault", controller: str = ""
) -> None:
    """A ClusterSecretStore NAME, or a SecretStore NAMESPACE/NAME."""
    namespace, _, name = said.rpartition("/")
    spec: Object = {"provider": {provider: {"server": "https://bao.example:8200"}}}
    if controller:
        spec["controller"] = controller
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    cluster.create(STORES if namespace else CLUSTER_STORES, {"metadata": metadata, "spec": spec})


def make_secret(
    cluster: KubernetesDouble,
    said: str,
    store: str,
    *,
    refreshed: str = "",
    ready: bool = True,
    parent: str = "",
    **spec: Any,
) -> None:
    """An ExternalSecret NAMESPACE/NAME of a store, named as in ``make_store``.

    With ``refreshed``, as it was left by a refresh at that time.
    """
    namespace, _, name = said.rpartition("/")
    kind = "SecretStore" if "/" in store else "ClusterSecretStore"
    metadata: Object = {"name": name, "namespace": namespace}
    if parent:
        owner = {"apiVersion": f"{GROUP}/v1", "kind": "ClusterExternalSecret", "name": parent}
        metadata["ownerReferences"] = [owner | {"controller": True, "uid": "u"}]
    item: Object = {
        "metadata": metadata,
        "spec": {"refreshInterval": "1h0m0s", **spec},
    }
    if store:
        item["spec"]["secretStoreRef"] = {"kind": kind, "name": store.rpartition("/")[2]}
    if refreshed:
        synced = _synced({"metadata": {**metadata, "generation": 1}})
        status = {"type": "Ready", "status": "True" if ready else "False"}
        item["status"] = {
            "refreshTime": refreshed,
            "syncedResourceVersion": synced,
            "conditions": [{**status, "lastTransitionTime": refreshed, "reason": "Model"}],
        }
    cluster.create(SECRETS, item)


def ready_status(cluster: KubernetesDouble, kind: str, said: str) -> str:
    """The status of the Ready condition; empty when there is none yet."""
    namespace, _, name = said.rpartition("/")
    conditions = cluster.get(kind, name, namespace).get("status", {}).get("conditions", [])
    return next((str(one["status"]) for one in conditions), "")


def fresh(cluster: KubernetesDouble, since: datetime) -> list[str]:
    """The ExternalSecrets that are Ready, and were refreshed since then."""
    found: list[str] = []
    for item in cluster.objects(SECRETS):
        status, metadata = item.get("status", {}), item["metadata"]
        ready = [one for one in status.get("conditions", []) if one["status"] == "True"]
        refreshed = status.get("refreshTime", LONG_AGO)
        if ready and datetime.fromisoformat(refreshed) >= since.replace(microsecond=0):
            found.append(f"{metadata['namespace']}/{metadata['name']}")
    return found
