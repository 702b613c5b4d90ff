"""``kluis heal`` and ``kluis anchor``, with a running service and without one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.house import ANCHORS, CLIENT, FACADE, KEYRING, House, Service
from tests.support.tang import Tang

NAS = """
[anchors.nas]
kind = "static"
file = "nas.key"
heal = "ask"
"""
CONFIGURATION = ANCHORS + NAS + KEYRING.replace("disk or", "disk or nas or") + FACADE + CLIENT


@pytest.fixture(params=["with a service", "without a service"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    """A house of three anchors, applied; commands run in both ways."""
    made = House(tmp_path / "house", CONFIGURATION)
    made.make_key("nas.key")
    made.apply()
    with ExitStack() as running:
        if request.param == "with a service":
            running.enter_context(made.serve_open())
        yield made


def test_a_key_that_was_replaced_is_healed_at_a_persons_word(house: House) -> None:
    house.make_key("nas.key")
    before = house.document().read_bytes()
    dry = house.json("heal", "--dry-run")
    assert list(dry["keyrings"]["homelab"]["found"]) == ["nas"]
    assert dry["keyrings"]["homelab"]["healed"] == []
    assert house.document().read_bytes() == before
    assert "these leaves would be sealed anew" in house.text("heal", "--dry-run")
    healed = house.json("heal")["keyrings"]["homelab"]
    assert (healed["healed"], healed["failed"], healed["revision"]) == (["nas"], {}, 2)
    assert house.anchors()["nas"]["state"] == "ok"
    assert house.text("heal") == "homelab: every leaf that could be asked is well.\n"


def test_what_can_not_be_healed_is_said_with_its_reason(house: House) -> None:
    house.make_key("nas.key")
    (house.folder / "nas.key").write_bytes(b"no key")
    done = house.kluis("heal")
    assert done.code == 0  # a wrong file is nothing that sealing anew could heal
    house.edit(('opens = "disk or nas or family"', 'opens = "disk or nas or family" #'))
    assert house.anchors()["nas"]["state"] == "misconfigured"


def test_only_the_named_ones_are_healed(house: House) -> None:
    house.make_key("nas.key")
    assert house.json("heal", "homelab", "--anchor", "disk")["keyrings"]["homelab"]["found"] == {}
    assert house.json("heal", "--anchor", "nas")["keyrings"]["homelab"]["healed"] == ["nas"]


def test_an_unknown_anchor_or_keyring_is_an_error(house: House) -> None:
    assert "homelab" in house.refuses("heal", "elsewhere")["means"]
    assert "disk, nas" in house.refuses("heal", "--anchor", "family")["means"]
    assert "disk, nas" in house.refuses("anchor", "show", "family")["means"]


def test_a_locked_keyring_is_not_healed_and_that_is_said(tmp_path: Path) -> None:
    house = House(tmp_path, CONFIGURATION)
    house.make_key("nas.key")
    house.apply()
    house.key.unlink()
    (tmp_path / "nas.key").unlink()
    done = house.kluis("heal")
    assert done.code == 2
    assert "kluis unlock homelab" in done.out
    assert house.json("heal", code=2)["locked"] == ["homelab"]
    house.refuses("heal", "homelab")


def test_an_anchor_is_probed_and_says_how_long_it_took(house: House) -> None:
    found = house.json("anchor", "probe")["anchors"]
    assert sorted(found) == ["disk", "nas"]
    assert all(said["state"] == "ok" and said["took_ms"] >= 0 for said in found.values())
    assert "it could open now (static, " in house.text("anchor", "probe", "disk")
    (house.folder / "nas.key").unlink()
    shown = " ".join(house.text("anchor", "probe", "nas", code=1).split())
    assert "nas.key is not there" in shown
    found = house.json("anchor", "probe", code=1)["anchors"]
    assert (found["disk"]["state"], found["nas"]["state"]) == ("ok", "missing")
    assert found["nas"]["error"]["class"] == "Missing"


def test_an_anchor_is_shown_without_its_secret(house: House) -> None:
    shown = house.json("anchor", "show", "disk")
    assert shown["facts"] == {"source": str(house.key)}
    assert str(house.key) in house.text("anchor", "show", "disk")
    house.key.unlink()
    assert "anchors.disk: " in house.refuses("anchor", "show", "disk")["seen"]


def test_a_kind_without_a_key_of_its_own_says_so(house: House) -> None:
    assert "static" in house.refuses("anchor", "create-key", "disk")["seen"]


# -- the running service heals by itself ------------------------------------------------------


def events(service: Service, what: str) -> list[dict[str, Any]]:
    return [event for event in service.events() if event["event"] == what]


def test_a_leaf_that_was_away_at_the_apply_is_sealed_when_its_anchor_is_back(
    tmp_path: Path,
) -> None:
    tang = Tang(tmp_path / "tang")
    with tang:
        settings = f'kind = "tang"\nurl = "{tang.url}"\nthumbprint = "{tang.thumbprint()}"'
    asked = 'kind = "static"\nfile = "nas.key"\nheal = "ask"'
    house = House(tmp_path / "house", CONFIGURATION.replace(asked, settings))
    away = house.apply()["keyrings"]["homelab"]["away"]
    assert list(away) == ["nas"]
    assert house.anchors()["nas"]["state"] == "damaged"
    with tang, house.serve() as service:
        service.wait_logged('"event": "healed"')
        (healed,) = events(service, "healed")
        assert (healed["keyring"], healed["anchor"]) == ("homelab", "nas")
        assert healed["level"] == "warning"
        metrics = house.metrics()
        assert 'kluis_heals_total{anchor="nas",keyring="homelab",outcome="healed"} 1.0' in metrics
        assert 'kluis_anchor_notice{anchor="nas",keyring="homelab"} 0.0' in metrics
        house.key.unlink()
        house.json("lock", "homelab")
        house.text("unlock", "homelab")
        assert house.json("status")["keyrings"]["homelab"]["state"] == "open"


def test_an_anchor_that_waits_for_a_person_is_announced_and_not_touched(tmp_path: Path) -> None:
    house = House(tmp_path / "house", CONFIGURATION)
    house.make_key("nas.key")
    house.apply()
    house.make_key("nas.key")
    with house.serve() as service:
        service.wait_logged("waits for a person to heal it")
        assert house.anchors()["nas"]["state"] == "damaged"
        assert house.json("status")["keyrings"]["homelab"]["revision"] == 1
