"""A double of the Kubernetes API for tests: real HTTP, no cluster.

with KubernetesDouble(tmp_path) as cluster:
    cluster.define(Kind("example.org", "v1", "widgets", "Widget"))
    cluster.create("widgets.example.org", {"metadata": {"name": "w", "namespace": "n"}})
    cluster.on_change("widgets.example.org", react)     # a controller: gets every Change
    Workloads(cluster)                                  # Deployments and their like roll out
    settings = {"kubeconfig": cluster.kubeconfig()}     # or cluster.account(folder): a pod's
    cluster.fault(method="PATCH", status=500, times=2)
    assert cluster.asked("PATCH", "/widgets/")[0].json == …

It keeps the API's conventions where a client could tell: one version for all writes, optimistic
concurrency, merge patches (no other kind of patch), status subresources, generations, finalizers,
selectors, pages of one version, watches with bookmarks, 410 for what was compacted, 401 for unknown
tokens, TokenRequest. It has no authorisation, no admission, no schemas, no defaults, no discovery
and no server-side apply. Field selectors know the name, the namespace, and a pod's phase.
"""

from tests.support.kubernetes.controllers import Workloads
from tests.support.kubernetes.faults import Asked, Fault
from tests.support.kubernetes.kinds import Kind, Object
from tests.support.kubernetes.server import KubernetesDouble
from tests.support.kubernetes.storage import Change

__all__ = ["Asked", "Change", "Fault", "Kind", "KubernetesDouble", "Object", "Workloads"]
