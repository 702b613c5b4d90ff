"""``kluis watch`` and a watching ``kluis serve`` as processes, beside a real Shamir server."""

from __future__ import annotations

import json
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from kluis.servers.watch.states import Alarm, Condition, Hold, NodeView, Recovery, ServerView
from kluis.service.asking import ask
from kluis.service.watch.metrics import WatchMetrics
from kluis.service.watch.waking import verdict
from tests.support.applied import applied
from tests.support.house import ANCHORS, FACADE, KEYRING, Service, one_error
from tests.support.watched import Shamir, WatchingHouse, server_table, shamir

HOOK = """
[wake.note]
kind = "command"
command = ["sh", "-c", "echo $KLUIS_SERVER >> woken; test ! -e broken"]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shamir]:
    with shamir(tmp_path_factory.mktemp("server") / "bao") as made:
        yield made


@pytest.fixture(scope="module")
def prepared(server: Shamir, tmp_path_factory: pytest.TempPathFactory) -> WatchingHouse:
    more = server_table("old", server, 'wake = ["note"]') + HOOK
    made = WatchingHouse(tmp_path_factory.mktemp("prepared") / "house", more)
    applied(made)
    made.keep("old", server)
    return made


@pytest.fixture
def house(prepared: WatchingHouse, tmp_path: Path) -> WatchingHouse:
    """Watches the server, and wakes by a command that notes it."""
    return WatchingHouse.copy(prepared, tmp_path / "house")


def woken(house: WatchingHouse) -> list[str]:
    file = house.folder / "woken"
    return file.read_text().split() if file.exists() else []


def shows(house: WatchingHouse, service: Service, sample: str) -> None:
    """The metrics have a sample; they may be a moment old."""
    service.wait_for(lambda: sample in house.watch_metrics(), sample)


def in_service(house: WatchingHouse, service: Service, server: Shamir) -> None:
    """The server works, and the service knows it."""
    server.bao.wait_active()
    shows(house, service, 'kluis_server_node{condition="unsealed"')
    shows(house, service, 'kluis_server_down_seconds{server="old"} 0.0')


def test_a_server_that_dies_is_unsealed_again_and_what_waits_is_woken_once(
    house: WatchingHouse, server: Shamir
) -> None:
    with house.watch() as service:
        in_service(house, service, server)
        assert woken(house) == []
        for time_ in (1, 2):
            server.restart()
            server.bao.wait_active()
            service.wait_logged('"event": "woken"', time_)
            assert woken(house) == ["old"] * time_
        shows(house, service, 'kluis_wakes_total{hook="note",kind="command",outcome="ok"} 2.0')
        shows(house, service, 'kluis_recovery_seconds_count{server="old"} 2.0')
        shows(house, service, 'kluis_server_shares_sent_total{server="old"} 4.0')
        shows(house, service, 'kluis_keyring_open{keyring="homelab"} 1.0')

        (house.folder / "broken").touch()
        outcomes = house.json("server", "wake", "old", code=1)["outcomes"]
        assert [(one["hook"], one["kind"], one["ok"]) for one in outcomes] == [
            ("note", "command", False)
        ]
        service.wait_logged('"event": "not woken"')
        assert woken(house) == ["old"] * 3

        assert house.json("watch", "--once")["watched"] is True
        assert one_error(house.kluis("watch"))[1] == "two of them would write over each other"
        assert service.end() == 0
        assert all(json.loads(line)["event"] for line in service.log.splitlines())
        assert not any(share in service.log for share in server.made.shares)


def test_a_hold_is_respected_and_its_release_is_at_once(
    house: WatchingHouse, server: Shamir
) -> None:
    with house.watch() as service:
        in_service(house, service, server)
        ask(house.control_path(), "server-hold", {"server": "old", "for_s": 3600})
        server.restart()
        shows(house, service, 'kluis_server_node{condition="held"')
        assert server.bao.health() == 503
        shows(house, service, 'kluis_server_held{server="old"} 1.0')
        shows(house, service, 'kluis_server_hold_seconds{server="old"} 35')
        assert house.once(2)["servers"]["old"]["condition"] == "held"
        ask(house.control_path(), "server-release", {"server": "old"})
        server.bao.wait_active()


def test_a_keyring_that_opens_unseals_what_waited_for_it(
    house: WatchingHouse, server: Shamir
) -> None:
    with house.watch() as service:
        in_service(house, service, server)
        ask(house.control_path(), "lock", {"keyring": "homelab"})
        server.restart()
        service.wait_logged('"event": "server alarm"')
        unable = house.ask("health")
        assert (unable.status, unable.body["locked"]) == (503, ["homelab"])
        shows(house, service, 'kluis_server_alarm{alarm="locked"')
        ask(house.control_path(), "unlock", {"keyring": "homelab"})
        server.bao.wait_active()
        service.wait_logged('"event": "server alarm over"')
        able = house.ask("health")
        assert (able.status, able.body["ok"]) == (200, True)
        assert house.ask("secrets").status == 404


def test_a_reload_takes_other_servers_and_a_mistake_changes_nothing(
    house: WatchingHouse, server: Shamir
) -> None:
    with house.watch() as service:
        in_service(house, service, server)
        again = server_table("again", server).replace("homelab/again", "homelab/old")
        house.edit(more=again)
        service.send(signal.SIGHUP)
        shows(house, service, 'kluis_server_down_seconds{server="again"}')
        house.edit(("[servers.again]", "[servers.again]\nwake = ['nobody']"))
        service.send(signal.SIGHUP)
        service.wait_logged('"event": "not reloaded"')
        shows(house, service, 'kluis_server_down_seconds{server="again"}')


def test_serve_begins_to_watch_when_a_reload_declares_the_first_server(
    server: Shamir, tmp_path: Path
) -> None:
    house = WatchingHouse(tmp_path / "house", base=ANCHORS + KEYRING + FACADE)
    applied(house)
    house.keep("old", server)
    with house.serve() as service:
        assert "kluis_server_down_seconds" not in house.metrics()
        house.edit(more=server_table("old", server))
        server.restart()
        service.send(signal.SIGHUP)
        server.bao.wait_active()
        service.wait_logged('"event": "recovered"')
        counted = 'kluis_recovery_seconds_count{server="old"} 1.0'
        service.wait_for(lambda: counted in house.metrics(), counted)
        status = ask(house.control_path(), "status", {})
        assert status["servers"]["old"]["condition"] == "unsealed"


def test_the_monitor_takes_no_body_and_goes_on(house: WatchingHouse, server: Shamir) -> None:
    with house.watch() as service:
        in_service(house, service, server)
        url = f"http://127.0.0.1:{house.watch_port}/health"
        posted = urllib.request.Request(url, data=b"x" * 100_000, method="POST")
        with pytest.raises(OSError, match=r"413|reset|Broken"):
            urllib.request.urlopen(posted, timeout=30)
        assert house.ask("health").status == 200


UNSEALED = Condition.UNSEALED


@pytest.mark.parametrize(
    ("conditions", "alarms", "word"),
    [
        ([], [], "unsealed"),
        ([UNSEALED, UNSEALED], [], "unsealed"),
        ([UNSEALED], [Alarm.UNPINNED], "alarm"),
        ([Condition.SEALED], [Alarm.LOCKED], "sealed"),
        ([Condition.SEALED], [Alarm.SHARES], "alarm"),
        ([UNSEALED, Condition.HELD], [], "sealed"),
        ([UNSEALED, Condition.UNSEALING], [], "sealed"),
        ([Condition.HELD, Condition.UNREACHABLE], [], "alarm"),
        ([UNSEALED, Condition.HUNG], [], "alarm"),
        ([Condition.WRONG], [Alarm.CERTIFICATE], "alarm"),
        ([Condition.UNINITIALISED], [Alarm.LOST_DISK], "alarm"),
        ([Condition.UNKNOWN], [], "alarm"),
    ],
)
def test_one_word_for_all_nodes(
    conditions: list[Condition], alarms: list[Alarm], word: str
) -> None:
    alarm = {0: alarms[0]} if alarms else {}
    nodes = [
        NodeView(f"node-{number}", found, 0, alarm=alarm.get(number))
        for number, found in enumerate(conditions)
    ]
    assert verdict(nodes) == word


def test_metrics_are_there_before_anything_happened_and_go_with_their_server() -> None:
    now_s = time.time()
    node = NodeView("https://a", Condition.HELD, now_s, certificate_ends_s=now_s + 100)
    views = {"old": ServerView("old", {"https://a": node}, Hold(now_s, now_s + 50), now_s - 9)}
    metrics = WatchMetrics(lambda: views, [("eso", "external-secrets")])

    def sampled() -> dict[tuple[str, ...], float]:
        return {
            (sample.name, *(v for k, v in sorted(sample.labels.items()) if k != "le")): sample.value
            for family in metrics.collect()
            for sample in family.samples
        }

    found = sampled()
    assert found["kluis_server_node", "held", "https://a", "old"] == 1
    assert 9 <= found["kluis_server_down_seconds", "old"] < 60
    assert 0 < found["kluis_server_hold_seconds", "old"] <= 50
    assert found["kluis_recovery_seconds_count", "old"] == 0
    assert found["kluis_server_shares_sent_total", "old"] == 0
    assert found["kluis_wakes_total", "eso", "external-secrets", "failed"] == 0
    metrics.recovered(Recovery("old", 3.0, 0.5))
    metrics.woken("eso", "external-secrets", ok=False)
    found = sampled()
    assert found["kluis_recovery_seconds_sum", "old"] == 3.0
    assert found["kluis_unsealing_seconds_sum", "old"] == 0.5
    assert found["kluis_wakes_total", "eso", "external-secrets", "failed"] == 1
    views.clear()
    assert not [key for key in sampled() if "old" in key]
