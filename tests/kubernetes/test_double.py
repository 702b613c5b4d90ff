"""The double keeps the conventions of the Kubernetes API, seen from the wire."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.kubernetes.conftest import WIDGETS
from tests.support.bao import wait_until
from tests.support.kubernetes import Change, KubernetesDouble, Workloads

WIDGET = "/apis/example.org/v1/namespaces/n/widgets"
MERGE = "application/merge-patch+json"
KEY = WIDGETS.key


def connection(cluster: KubernetesDouble) -> http.client.HTTPSConnection:
    assert cluster.authority is not None
    tls = ssl.create_default_context(cafile=str(cluster.authority.certificate))
    return http.client.HTTPSConnection("127.0.0.1", cluster.port, timeout=30, context=tls)


def ask(
    cluster: KubernetesDouble,
    method: str,
    path: str,
    body: object = None,
    *,
    token: str | None = None,
    content_type: str = "application/json",
    **query: str,
) -> tuple[int, dict[str, Any]]:
    """One request from the wire: the status and the object."""
    headers = {"Authorization": f"Bearer {cluster.token if token is None else token}"}
    content = None if body is None else json.dumps(body)
    made = connection(cluster)
    try:
        made.request(
            method,
            f"{path}?{urlencode(query)}" if query else path,
            content,
            {**headers, "Content-Type": content_type},
        )
        answer = made.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        made.close()


def patch(cluster: KubernetesDouble, path: str, body: object) -> tuple[int, dict[str, Any]]:
    return ask(cluster, "PATCH", path, body, content_type=MERGE)


def events(cluster: KubernetesDouble, path: str, **query: str) -> Iterator[dict[str, Any]]:
    """The events of a watch until the double ends it."""
    made = connection(cluster)
    try:
        made.request(
            "GET",
            f"{path}?{urlencode({'watch': 'true', **query})}",
            headers={"Authorization": f"Bearer {cluster.token}"},
        )
        for line in made.getresponse():
            yield json.loads(line)
    finally:
        made.close()


def widget(name: str, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "n"}, **more}


def refusal(answer: tuple[int, Mapping[str, Any]]) -> tuple[int, str]:
    code, status = answer
    assert (status["kind"], status["status"], status["code"]) == ("Status", "Failure", code)
    return code, str(status["reason"])


def test_an_object_is_made_read_changed_and_removed(cluster: KubernetesDouble) -> None:
    code, made = ask(cluster, "POST", WIDGET, widget("a", spec={"size": 1}))
    metadata = made["metadata"]
    assert (code, made["kind"], made["apiVersion"]) == (201, "Widget", "example.org/v1")
    assert metadata["generation"] == 1
    assert ask(cluster, "GET", f"{WIDGET}/a") == (200, made)
    _, changed = patch(cluster, f"{WIDGET}/a", {"spec": {"size": 2}})
    assert int(changed["metadata"]["resourceVersion"]) > int(metadata["resourceVersion"])
    assert changed["metadata"]["uid"] == metadata["uid"]
    code, gone = ask(cluster, "DELETE", f"{WIDGET}/a")
    assert (code, gone["status"], gone["details"]["uid"]) == (200, "Success", metadata["uid"])
    assert refusal(ask(cluster, "GET", f"{WIDGET}/a")) == (404, "NotFound")


def test_what_is_against_the_rules_is_refused_as_a_status(cluster: KubernetesDouble) -> None:
    cluster.create(KEY, widget("a"))
    assert refusal(ask(cluster, "POST", WIDGET, widget("a"))) == (409, "AlreadyExists")
    assert refusal(ask(cluster, "POST", WIDGET, widget("A/b"))) == (422, "Invalid")
    assert refusal(ask(cluster, "GET", f"{WIDGET}/a", token="wrong")) == (401, "Unauthorized")
    assert refusal(ask(cluster, "GET", f"{WIDGET}/a", token="")) == (401, "Unauthorized")
    assert refusal(ask(cluster, "GET", "/apis/example.org/v1/gadgets"))[0] == 404
    assert refusal(ask(cluster, "GET", "/apis/example.org/v2/widgets"))[0] == 404
    wrong_type = ask(cluster, "PATCH", f"{WIDGET}/a", {}, content_type="application/json")
    assert refusal(wrong_type) == (415, "UnsupportedMediaType")
    assert refusal(ask(cluster, "PUT", f"{WIDGET}/a", widget("b"))) == (400, "BadRequest")
    assert refusal(ask(cluster, "GET", WIDGET, labelSelector="a in")) == (400, "BadRequest")
    assert refusal(ask(cluster, "GET", WIDGET, fieldSelector="spec.size=1"))[0] == 400


def test_only_a_write_of_the_present_version_is_taken(cluster: KubernetesDouble) -> None:
    old = cluster.create(KEY, widget("a", spec={"size": 1}))
    version = old["metadata"]["resourceVersion"]
    _, now = patch(cluster, f"{WIDGET}/a", {"spec": {"size": 2}})
    stale = {"metadata": {"resourceVersion": version}, "spec": {"size": 3}}
    assert refusal(patch(cluster, f"{WIDGET}/a", stale)) == (409, "Conflict")
    assert refusal(ask(cluster, "PUT", f"{WIDGET}/a", old)) == (409, "Conflict")
    assert refusal(ask(cluster, "PUT", f"{WIDGET}/a", widget("a"))) == (422, "Invalid")
    assert ask(cluster, "PUT", f"{WIDGET}/a", {**now, "spec": {"size": 4}})[0] == 200
    assert cluster.get(KEY, "a", "n")["spec"] == {"size": 4}


def test_the_status_is_written_by_its_subresource_only(cluster: KubernetesDouble) -> None:
    _, made = ask(cluster, "POST", WIDGET, widget("a", spec={"size": 1}, status={"x": 1}))
    assert "status" not in made
    both = {"spec": {"size": 2}, "status": {"ready": True}}
    assert patch(cluster, f"{WIDGET}/a", both)[1].get("status") is None
    _, after = patch(cluster, f"{WIDGET}/a/status", {"spec": {"size": 9}, **both})
    assert (after["spec"], after["status"]) == ({"size": 2}, {"ready": True})
    assert after["metadata"]["generation"] == 2, "a spec was changed once, and a status is no spec"
    _, labelled = patch(cluster, f"{WIDGET}/a", {"metadata": {"labels": {"a": "b"}}})
    assert labelled["metadata"]["generation"] == 2


def test_a_merge_patch_merges_removes_and_replaces(cluster: KubernetesDouble) -> None:
    cluster.create(KEY, widget("a", spec={"keep": {"x": 1}, "drop": 1, "list": [1, 2]}))
    sent = {"spec": {"keep": {"y": 2}, "drop": None, "list": [3], "new": {"gone": None}}}
    _, after = patch(cluster, f"{WIDGET}/a", sent)
    assert after["spec"] == {"keep": {"x": 1, "y": 2}, "list": [3], "new": {}}
    assert patch(cluster, f"{WIDGET}/a", {"spec": {"list": [3]}}) == (200, after), "no new version"


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("tier=web", "a"),
        ("tier==web,env!=prod", "a"),
        ("env!=prod", "ac"),
        ("env in (prod, test)", "ab"),
        ("env notin (prod)", "ac"),
        ("tier", "ab"),
        ("!tier", "c"),
    ],
)
def test_labels_select(cluster: KubernetesDouble, selector: str, names: str) -> None:
    for name, labels in (
        ("a", {"tier": "web", "env": "test"}),
        ("b", {"tier": "db", "env": "prod"}),
        ("c", {}),
    ):
        cluster.create(KEY, {"metadata": {"name": name, "namespace": "n", "labels": labels}})
    _, found = ask(cluster, "GET", WIDGET, labelSelector=selector)
    assert "".join(item["metadata"]["name"] for item in found["items"]) == names


def test_fields_select_and_a_list_of_all_namespaces_has_all(cluster: KubernetesDouble) -> None:
    for namespace in ("m", "n"):
        cluster.create(KEY, {"metadata": {"name": "a", "namespace": namespace}})
    _, found = ask(cluster, "GET", "/apis/example.org/v1/widgets", fieldSelector="metadata.name=a")
    assert [item["metadata"]["namespace"] for item in found["items"]] == ["m", "n"]
    _, found = ask(cluster, "GET", WIDGET, fieldSelector="metadata.name!=a")
    assert found["items"] == []
    assert found["metadata"]["resourceVersion"] == cluster.version


def test_pages_are_of_one_version_until_it_is_compacted(cluster: KubernetesDouble) -> None:
    for name in "abc":
        cluster.create(KEY, widget(name))
    _, first = ask(cluster, "GET", WIDGET, limit="2")
    assert first["metadata"]["remainingItemCount"] == 1
    cluster.delete(KEY, "c", "n")
    more = first["metadata"]["continue"]
    _, second = ask(cluster, "GET", WIDGET, limit="2", **{"continue": more})
    assert [item["metadata"]["name"] for item in second["items"]] == ["c"]
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    cluster.compact()
    expired = ask(cluster, "GET", WIDGET, limit="2", **{"continue": more})
    assert refusal(expired) == (410, "Expired")
    assert refusal(ask(cluster, "GET", WIDGET, **{"continue": "%%%"}))[0] == 400


def test_a_watch_tells_what_changed_since_a_version(cluster: KubernetesDouble) -> None:
    start = cluster.create(KEY, widget("a"))["metadata"]["resourceVersion"]
    blue = {"metadata": {"labels": {"colour": "blue"}}}
    cluster.patch(KEY, "a", blue, "n")
    cluster.patch(KEY, "a", {"spec": {"size": 2}}, "n")
    cluster.patch(KEY, "a", {"metadata": {"labels": None}}, "n")
    cluster.delete(KEY, "a", "n")
    short = {"resourceVersion": start, "timeoutSeconds": "0.1"}
    told = list(events(cluster, WIDGET, **short))
    assert [one["type"] for one in told] == ["MODIFIED", "MODIFIED", "MODIFIED", "DELETED"]
    assert told[-1]["object"]["metadata"]["resourceVersion"] == cluster.version
    told = list(events(cluster, WIDGET, labelSelector="colour=blue", **short))
    assert [one["type"] for one in told] == ["ADDED", "MODIFIED", "DELETED"]
    told = list(events(cluster, WIDGET, allowWatchBookmarks="true", **short))
    assert told[-1]["type"] == "BOOKMARK"
    assert told[-1]["object"]["metadata"]["resourceVersion"] == cluster.version
    cluster.compact()
    (told_no_more,) = events(cluster, WIDGET, **short)
    assert (told_no_more["type"], told_no_more["object"]["code"]) == ("ERROR", 410)


def test_a_finalizer_keeps_an_object_until_it_is_taken_off(cluster: KubernetesDouble) -> None:
    finalized = {"metadata": {"name": "a", "namespace": "n", "finalizers": ["example.org/x"]}}
    cluster.create(KEY, finalized)
    cluster.delete(KEY, "a", "n")
    assert cluster.get(KEY, "a", "n")["metadata"]["deletionTimestamp"]
    cluster.patch(KEY, "a", {"metadata": {"finalizers": None}}, "n")
    with pytest.raises(KeyError):
        cluster.get(KEY, "a", "n")


def test_a_requested_token_is_a_token(cluster: KubernetesDouble) -> None:
    cluster.create("serviceaccounts", {"metadata": {"name": "kluis", "namespace": "n"}})
    path = "/api/v1/namespaces/n/serviceaccounts/kluis/token"
    spec = {"audiences": ["bao"], "expirationSeconds": 600}
    code, made = ask(cluster, "POST", path, {"spec": spec})
    assert (code, made["spec"]) == (201, spec)
    assert ask(cluster, "GET", WIDGET, token=made["status"]["token"])[0] == 200
    assert refusal(ask(cluster, "POST", path, {"spec": {"expirationSeconds": 1}}))[0] == 422
    assert refusal(ask(cluster, "POST", path.replace("kluis", "nobody"), {}))[0] == 404


def test_a_controller_gets_every_change_and_may_write(cluster: KubernetesDouble) -> None:
    seen: list[tuple[str, str]] = []

    def react(change: Change) -> None:
        seen.append((change.type, change.name))
        if change.type != "DELETED" and "status" not in change.object:
            cluster.set_status(KEY, change.name, {"ready": True}, change.namespace)

    cluster.create(KEY, widget("a"))
    cluster.on_change(KEY, react)
    cluster.create(KEY, widget("b"))
    cluster.settle()
    assert seen == [("ADDED", "a"), ("ADDED", "b"), ("MODIFIED", "a"), ("MODIFIED", "b")]
    assert cluster.get(KEY, "b", "n")["status"] == {"ready": True}


def test_workloads_roll_out_when_their_template_changes(cluster: KubernetesDouble) -> None:
    workloads = Workloads(cluster, step_s=0.01)
    workloads.stuck.add("broken")
    for name in ("good", "broken"):
        cluster.create(
            "deployments.apps", {**widget(name), "spec": {"replicas": 2, "template": {}}}
        )
    again = {"spec": {"template": {"metadata": {"annotations": {"restartedAt": "now"}}}}}
    cluster.patch("deployments.apps", "good", again, "n")
    cluster.settle()
    done = cluster.get("deployments.apps", "good", "n")
    assert done["status"]["observedGeneration"] == done["metadata"]["generation"] == 2
    assert done["status"]["updatedReplicas"] == 2
    assert cluster.get("deployments.apps", "broken", "n")["status"]["updatedReplicas"] == 0


def test_an_open_watch_is_ended_on_command(cluster: KubernetesDouble) -> None:
    told: list[dict[str, Any]] = []
    reading = threading.Thread(target=lambda: told.extend(events(cluster, WIDGET)))
    reading.start()
    wait_until(lambda: cluster.watching == 1, "the watch is open")
    cluster.create(KEY, widget("a"))
    cluster.close_watches()
    reading.join(30)
    assert not reading.is_alive()
    assert [one["type"] for one in told] in ([], ["ADDED"])
