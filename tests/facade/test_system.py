"""What a monitor sees: health, seal-status, leader, metrics; and what a stranger must not."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from kluis.engine.clock import now
from kluis.engine.guard import Guard
from kluis.facade import limits
from kluis.facade.limits import MAX_BUCKETS, Rate, Spared
from kluis.facade.system import Health
from kluis.keyring import tokens
from kluis.keyring.document import Client
from tests.support.facade import Keyring, serving


def test_health_tells_open_from_locked_at_once(tmp_path: Path) -> None:
    with serving(tmp_path) as facade:
        for _ in range(3):
            found = facade.get("sys/health")
            assert found.status == 200
            assert found.body["sealed"] is False
            assert found.body["keyrings"]["homelab"]["state"] == "open"
            facade.lock()
            found = facade.get("sys/health")
            assert found.status == 503
            assert found.body["sealed"] is True
            assert found.body["initialized"] is True
            assert found.body["keyrings"]["homelab"]["state"] == "locked"
            assert found.body["keyrings"]["homelab"]["needs"] == [["disk"]]
            facade.open()


def test_one_locked_keyring_is_enough_to_be_sealed(tmp_path: Path) -> None:
    with serving(tmp_path, Keyring("homelab"), Keyring("office", ["seal"])) as facade:
        facade.lock("office")
        found = facade.get("sys/health")
        assert found.status == 503
        states = {name: k["state"] for name, k in found.body["keyrings"].items()}
        assert states == {"homelab": "open", "office": "locked"}


@pytest.mark.parametrize(
    ("query", "when_open", "when_locked"),
    [
        ("", 200, 503),
        ("?sealedcode=200", 200, 200),
        ("?sealedcode=299&activecode=201", 201, 299),
        ("?standbyok=true&sealedcode=429", 200, 429),
        ("?sealedcode=abc&activecode=", 200, 503),
        ("?sealedcode=99&activecode=600", 200, 503),
        ("?sealedcode=100&activecode=2000", 200, 503),
        ("?sealedcode=%32%30%30", 200, 200),
        ("?sealedcode=٢٠٠", 200, 503),
        ("?sealedcode=200%0d%0aX:y", 200, 503),
        ("?" + "&" * 1500, 200, 503),
    ],
)
def test_health_takes_vaults_overrides_and_nothing_else(
    tmp_path: Path, query: str, when_open: int, when_locked: int
) -> None:
    with serving(tmp_path) as facade:
        path = "/v1/sys/health" + query.replace("٢٠٠", "%D9%A2%D9%A0%D9%A0")
        for method in ("GET", "HEAD"):
            assert facade.request(method, path).status == when_open
        facade.lock()
        for method in ("GET", "HEAD"):
            found = facade.request(method, path)
            assert found.status == when_locked
            assert method == "GET" or found.raw == b""


def test_only_loopback_is_told_what_the_anchors_said(tmp_path: Path) -> None:
    with serving(tmp_path) as facade:
        near = facade.get("sys/health").body["keyrings"]["homelab"]["anchors"]["disk"]
        assert set(near) == {"state", "seen", "means", "next"}
        health = Health(facade.guards)
        far = facade.call(lambda: health.reply("", in_words=False)).body.decode()
        assert '"disk": {"state": "ok"}' in far or '"disk": {"state": "waiting"}' in far
        assert "seen" not in far
        assert str(tmp_path) not in far


def test_nothing_that_anybody_may_ask_holds_a_secret(tmp_path: Path) -> None:
    with serving(tmp_path) as facade:
        token = facade.token("bletchley")
        facade.decrypt(facade.real_wrap()[1], token)
        shown = b"".join(
            facade.request("GET", path).raw
            for path in ("/metrics", "/v1/sys/health", "/v1/sys/seal-status", "/v1/sys/leader")
        ).decode()
        assert token not in shown
        assert tokens.digest(token.encode()) not in shown


def test_the_leader_is_whoever_answers(tmp_path: Path) -> None:
    with serving(tmp_path) as facade:
        found = facade.get("sys/leader").body
        assert found["ha_enabled"] is False
        assert found["is_self"] is True


def test_seal_status_has_what_a_command_line_reads(tmp_path: Path) -> None:
    with serving(tmp_path) as facade:
        facade.lock()
        found = facade.get("sys/seal-status").body
        for name in ("type", "initialized", "sealed", "t", "n", "progress", "nonce", "version"):
            assert name in found
        assert found["sealed"] is True


NAMES = {
    "kluis_requests_total",
    "kluis_unseals_total",
    "kluis_denials_total",
    "kluis_held_requests",
    "kluis_connections",
    "kluis_keyring_open",
    "kluis_keyring_epoch",
    "kluis_keyring_revision",
    "kluis_anchor_ok",
    "kluis_anchor_notice",
    "kluis_heals_total",
    "kluis_held_seconds_bucket",
    "kluis_held_seconds_count",
    "kluis_held_seconds_sum",
    "kluis_client_token_expiry_seconds",
}


def test_the_names_of_the_metrics_are_a_contract(tmp_path: Path) -> None:
    with serving(tmp_path) as facade:
        _, token = tokens.generate(now(), _in(timedelta(hours=1)))
        clients = {**facade.document().clients, "ends": Client((token,), ("bletchley",))}
        facade.rewrite(clients=clients)
        facade.decrypt(facade.real_wrap()[1], facade.token("bletchley"))
        facade.decrypt("", "")
        facade.wait(lambda: facade.facade.connections == 0, "no connection is left")
        samples = facade.metrics()
        assert {name.partition("{")[0] for name in samples} == NAMES
        counted = 'kluis_requests_total{operation="decrypt",verdict="released",what="unseal"}'
        assert samples[counted] == 1.0
        assert samples['kluis_keyring_open{keyring="homelab"}'] == 1.0
        assert samples['kluis_keyring_revision{keyring="homelab"}'] == 2.0
        expiry = samples['kluis_client_token_expiry_seconds{client="ends",keyring="homelab"}']
        assert 3500 < expiry <= 3600
        assert samples["kluis_connections"] == 1.0
        facade.lock()
        locked = facade.metrics()
        assert locked['kluis_keyring_open{keyring="homelab"}'] == 0.0


def _in(time_left: timedelta) -> str:
    return (datetime.now(UTC) + time_left).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_no_stranger_makes_a_metric(tmp_path: Path) -> None:
    """Names that strangers choose are no labels: memory would grow without end."""
    with serving(tmp_path) as facade:

        def ask(number: int) -> None:
            facade.put(f"k{number}/decrypt/x{number}", {}, f"t{number}")
            facade.put(f"k{number}/decrypt/x{number}", {}, facade.token("bletchley"))
            facade.put(f"homelab/rewrap/bletchley{number}", {}, facade.token("bletchley"))
            facade.put(f"homelab/op{number}/bletchley", {}, facade.token("bletchley"))
            facade.put("homelab/decrypt/bletchley", {f"m{number}": 1}, facade.token("bletchley"))

        ask(0)
        before = set(facade.metrics())
        for number in range(1, 30):
            ask(number)
        assert set(facade.metrics()) == before


def test_a_metric_of_many_clients_does_not_hold_up_the_others(tmp_path: Path) -> None:
    """Anybody may ask for the metrics: at most a tenth of the time goes into them."""
    with serving(tmp_path) as facade:
        clients = dict(facade.document().clients)
        for number in range(4000):
            token = tokens.generate(now(), _in(timedelta(days=1)))[1]
            clients[f"client-{number}"] = Client((token,), ("bletchley",))
        facade.call(lambda: _know(facade.guards["homelab"], clients))
        first = len(facade.metrics())
        assert first > 4000
        made: list[float] = []
        collect = facade.facade.metrics._text._make

        def counted() -> bytes:
            made.append(time.monotonic())
            return collect()

        facade.facade.metrics._text._make = counted
        start = time.monotonic()
        while time.monotonic() - start < 1.0:
            assert facade.request("GET", "/metrics").status == 200
        assert len(made) <= 30


def _know(guard: Guard, clients: dict[str, Client]) -> None:
    guard.document = replace(guard.document, clients=clients)


def test_what_is_spared_is_made_anew_when_its_key_changes_or_its_time_has_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s, made = 1000.0, 0

    def make() -> bytes:
        nonlocal now_s, made
        now_s += 0.5
        made += 1
        return b"%d" % made

    monkeypatch.setattr(limits, "time", SimpleNamespace(monotonic=lambda: now_s))
    spared = Spared(make)
    assert spared.get("a") == spared.get("a") == b"1"
    assert spared.get("b") == b"2"
    assert spared.get("a") == b"3"
    now_s += 4.4
    assert spared.get("a") == b"3"
    now_s += 0.2
    assert spared.get("a") == spared.get("a") == b"4"


def test_a_rate_is_a_bucket_that_fills_with_time() -> None:
    rate = Rate(10)
    assert [rate.allows("x", 0.0) for _ in range(25)].count(True) == 20
    assert not rate.allows("x", 0.05)
    assert rate.allows("x", 0.2)
    assert [rate.allows("x", 1000.0) for _ in range(25)].count(True) == 20
    assert rate.allows("y", 0.0)


def test_a_rate_remembers_so_many_names_and_no_more() -> None:
    rate = Rate(1)
    for number in range(3 * MAX_BUCKETS):
        assert rate.allows(str(number), 0.0)
    assert len(rate._buckets) == MAX_BUCKETS
