"""The alerting rules and the dashboard ask for what a real kluis exports, and for nothing else."""

from __future__ import annotations

import importlib
import json
import re
import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import typer.main

from kluis.cli.main import app
from kluis.servers.tls import certificates, pin_of
from kluis.servers.watch.states import Alarm, Condition
from kluis.service.watch.metrics import FAILED, OK
from tests.support.applied import applied
from tests.support.exported import Exported, matched, metrics_of, unbalanced
from tests.support.house import ANCHORS, CLIENT, FACADE, KEYRING
from tests.support.tls import Authority
from tests.support.watched import Shamir, WatchingHouse, server_table, shamir

yaml: Any = importlib.import_module("yaml")  # ships no types

DEPLOY: Final = Path(__file__).parents[1] / "deploy"
RULES: Final = DEPLOY / "prometheus/kluis.rules.yml"
DASHBOARD: Final = DEPLOY / "grafana/kluis.json"

WATCHED: Final = """
[wake.note]
kind = "command"
command = ["true"]
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Of one run with everything: a facade, an alarm, a recovery, a wake, a hold, and expiries."""
    folder = tmp_path_factory.mktemp("run")
    authority = Authority(folder / "ca")
    issued = authority.issue("bao", "127.0.0.1")
    with shamir(folder / "bao", tls=issued) as server:
        house = _house(folder, authority, server)
        with house.serve() as service:
            server.restart()
            server.bao.wait_active()
            service.wait_logged('"event": "woken"')
            service.wait_logged('"event": "server alarm"')
            house.text("server", "hold", "old", "--for", "1h")
            issued_token = house.json("client", "issue", "bletchley", "--expires", "30d")["token"]
            ask = _Facade(house, authority, issued_token)
            ask.unseal()
            service.wait_for(lambda: "kluis_server_hold_seconds{" in ask("metrics"), "a hold")
            return Exported.read(ask("metrics"), house.watch_metrics())


class _Facade:
    """Asks the facade of a house, over TLS."""

    def __init__(self, house: WatchingHouse, authority: Authority, token: str) -> None:
        self._address = f"https://127.0.0.1:{house.port}"
        self._tls = ssl.create_default_context(cafile=authority.certificate)
        self._token = token

    def __call__(self, path: str, body: dict[str, str] | None = None) -> str:
        request = urllib.request.Request(
            f"{self._address}/{path}",
            None if body is None else json.dumps(body).encode(),
            {"X-Vault-Token": self._token},
            method="GET" if body is None else "PUT",
        )
        with urllib.request.urlopen(request, context=self._tls, timeout=30) as answer:
            text: str = answer.read().decode()
            return text

    def unseal(self) -> None:
        """Wrap and unwrap a root key."""
        wrapped = json.loads(self("v1/homelab/encrypt/bletchley", {"plaintext": "cm9vdA=="}))
        self("v1/homelab/decrypt/bletchley", {"ciphertext": wrapped["data"]["ciphertext"]})


def _house(folder: Path, authority: Authority, server: Shamir) -> WatchingHouse:
    pin = pin_of(certificates(authority.certificate)[0])
    trusts = (f'ca = "{authority.certificate}"', f'pin = "{pin}"')
    old = server_table("old", server, *trusts, 'wake = ["note"]')
    other = server_table("other", server, *trusts, "threshold = 3")
    house = WatchingHouse(
        folder / "house", old + other + WATCHED, ANCHORS + KEYRING + FACADE + CLIENT
    )
    issued = authority.issue("facade", "127.0.0.1")
    tls = f'tls = {{ certificate = "{issued.certificate}", key = "{issued.key}" }}'
    house.edit(('tls = "off"', tls))
    applied(house)
    house.keep("old", server)
    house.keep("other", server)
    return house


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    assert all(set(group) == {"name", "rules"} for group in groups)
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return found


def queries() -> Iterator[tuple[str, str, str]]:
    """Every panel's title, and each expression and legend in it."""
    for panel in panels():
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"], target["legendFormat"]


def everything() -> list[str]:
    return [rule["expr"] for rule in rules()] + [expression for _, expression, _ in queries()]


def test_every_rule_asks_for_what_is_exported_and_names_labels_that_are_there(
    exported: Exported,
) -> None:
    faults = {
        rule["alert"]: found
        for rule in rules()
        if (found := [*exported.faults(rule["expr"], " ".join(rule["annotations"].values()))])
    }
    assert faults == {}


def test_every_panel_asks_for_what_is_exported_and_names_labels_that_are_there(
    exported: Exported,
) -> None:
    faults = {
        title: found
        for title, expression, legend in queries()
        if (found := [*exported.faults(expression, legend)])
    }
    assert faults == {}


def test_what_the_issue_wants_seen_is_on_the_dashboard() -> None:
    shown = {name for _, expression, _ in queries() for name in metrics_of(expression)}
    assert shown >= {
        *("kluis_keyring_open", "kluis_anchor_ok", "kluis_server_node", "kluis_server_alarm"),
        *("kluis_recovery_seconds_bucket", "kluis_held_requests", "kluis_requests_total"),
        *("kluis_denials_total", "kluis_wakes_total", "kluis_client_token_expiry_seconds"),
        *("kluis_facade_certificate_expiry_seconds", "kluis_server_certificate_expiry_seconds"),
        *("kluis_server_hold_seconds", "kluis_anchor_notice"),
    }


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("condition", set(Condition)),
        ("alarm", set(Alarm)),
        ("outcome", {OK, FAILED}),
        ("verdict", {"released", "refused", "denied", "waits"}),
        ("state", {"ok", "waiting"}),
    ],
)
def test_labels_are_compared_with_words_that_exist(label: str, words: set[str]) -> None:
    compared = {value for text in everything() for value in matched(text, label)}
    assert compared
    assert compared <= words


def test_every_alert_says_what_it_is_what_it_means_and_what_to_run() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    for rule in rules():
        assert set(rule["annotations"]) == {"summary", "means", "next"}, rule["alert"]
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch("[0-9]+[smhd]", rule.get("for", "0s")), rule["alert"]


def test_what_an_alert_says_to_run_is_a_command() -> None:
    root: Any = typer.main.get_command(app)
    said = "; ".join(rule["annotations"]["next"] for rule in rules())
    for words in re.findall(r"\bkluis ([a-z]+(?: [a-z]+)?)", said):
        first, _, second = words.partition(" ")
        assert first in root.commands, words
        members = getattr(root.commands[first], "commands", {second: None})
        assert second in members, words


def test_the_dashboard_can_be_loaded_anywhere() -> None:
    text = DASHBOARD.read_text("utf-8")
    board = json.loads(text)
    assert board["schemaVersion"] >= 36
    assert "://" not in text, "an address of somebody"
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))
    sources = {str(found) for found in re.findall(r'"uid": "([^"]*)"', text)}
    assert sources == {"${datasource}", "kluis"}
    variables = [variable["name"] for variable in board["templating"]["list"]]
    used = set(re.findall(r"\$\{?([a-z]+)\}?", " ".join(everything())))
    assert used - set(variables) <= {"__rate_interval", "__range"}
    for panel in panels():
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("sum(rate(kluis_x[5m]))", None),
        ('kluis_x{a="(]"} > 0', None),
        ("sum(kluis_x", "a ( is not closed"),
        ("sum(kluis_x])", "a ] closes nothing"),
        ('kluis_x{a="b}', "a quote is not closed"),
        ("kluis_x)", "a ) closes nothing"),
    ],
)
def test_what_does_not_close_is_found(expression: str, fault: str | None) -> None:
    assert unbalanced(expression) == fault


def test_a_name_a_label_or_a_legend_that_is_not_there_is_found() -> None:
    there = Exported({"kluis_x": {"a": frozenset("1")}})
    assert [*there.faults('sum by (a) (kluis_x{a=~"1|2"})', "{{a}} {{ $labels.a }}")] == []
    assert [*there.faults("kluis_y")] == ["kluis_y is not exported"]
    assert [*there.faults('kluis_x{b="1"}')] == ["kluis_x has no label b"]
    assert [*there.faults("sum by (b) (kluis_x)")] == ["nothing in it has a label b"]
    assert [*there.faults("kluis_x", "{{b}}")] == ["nothing in it has a label b"]
