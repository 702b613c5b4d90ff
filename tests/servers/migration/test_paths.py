"""Every way from one seal to another, with real OpenBao servers and a real kluis."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from kluis.cli.server import moving
from kluis.errors import ServerError, UsageError, WrongServer
from kluis.servers.migration.hcl import seal_of
from tests.servers.migration.site import Mover, Site, by_transit, kms
from tests.support.bao import Bao, static_seal


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("site"), 5).serving() as site:
        yield site


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bao, str]]:
    bao, token = kms(tmp_path_factory.mktemp("kms"))
    yield bao, token
    bao.kill9()


@pytest.fixture
def baos() -> Iterator[list[Bao]]:
    made: list[Bao] = []
    yield made
    for bao in made:
        bao.kill9()


def mover(site: Site, number: int, baos: list[Bao], folder: Path, seal: str = "") -> Mover:
    bao = Bao(folder / "bao", seal, port=site.ports[number])
    baos.append(bao)
    made = Mover(site, f"s{number}", bao)
    made.set_up()
    return made


def test_from_shamir_to_kluis_with_a_crash_after_every_step_and_back_to_shamir(
    site: Site, baos: list[Bao], tmp_path: Path
) -> None:
    one = mover(site, 0, baos, tmp_path)
    found = one.begin("facade", one.facade())
    assert (found["from"], found["way"], found["storage"]) == ("shamir", "migrate", "raft")
    with pytest.raises(UsageError, match="on its way"):
        one.begin("shamir", None)
    site.crash()
    told = one.go_on()
    assert told["place"] == "restart"
    one.restart(told)
    # as if kluis had ended after the first of two shares
    one.bao.must("PUT", "sys/unseal", {"key": one.shares[0], "migrate": True})
    told = one.go_on()
    assert (told["place"], told["seal"]) == ("prove", "transit")
    site.crash()
    assert one.go_on()["place"] == "prove", "it was not restarted yet"
    one.restart(told)
    one.bao.wait_active()
    assert one.status()["proven"] is None
    told = one.go_on()
    assert told["place"] == "done"
    assert any("recovery keys from now on" in note for note in told["notes"])
    site.crash()
    assert one.go_on()["place"] == "done"

    assert one.begin("shamir", None)["from"] == "transit"
    told = one.moves(one.go_on(), "shamir", restarted=True)
    assert any("they unseal it" in note for note in told["notes"])


def test_from_another_openbao_by_migration_and_out_again(
    site: Site, other: tuple[Bao, str], baos: list[Bao], tmp_path: Path
) -> None:
    old = by_transit(other, "old")
    one = mover(site, 1, baos, tmp_path, old)
    shown = moving.probe(seal_of(old))
    assert one.begin("facade", one.facade(), **shown)["way"] == "migrate"
    told = one.go_on()
    one.restart(told)
    told = one.go_on()
    assert told["place"] == "prove"
    # a restart before the disabled stanza is gone leaves it sealed, and is no proof
    one.files["2-after.hcl"], after = one.files["1-migrate.hcl"], one.files["2-after.hcl"]
    one.restart(told)
    told = one.go_on()
    assert (told["place"], told["nodes"][one.bao.address]["stand"]) == ("prove", "sealed")
    assert "disabled" in told["next"]["hint"]
    one.files["2-after.hcl"] = after
    one.restart(told)
    one.bao.wait_active()
    assert one.go_on(token=one.token)["place"] == "done"

    assert one.begin("other", seal_of(old))["seal"] == "transit"
    one.moves(one.go_on(), "transit")


def test_a_re_point_moves_nothing_and_can_be_taken_back(
    site: Site, other: tuple[Bao, str], baos: list[Bao], tmp_path: Path
) -> None:
    bao, token = other
    path = "transit/export/encryption-key/shared"
    export = json.dumps({"data": bao.must("GET", path, token=token)["data"]})
    site.ask("key-import", key="homelab/s2", export=export, replace=True)
    one = mover(site, 2, baos, tmp_path, by_transit(other, "shared"))

    shown = moving.probe(seal_of(one.bao.seal))
    assert one.begin("facade", one.facade(), **shown)["way"] == "re-point"
    told = one.go_on()
    assert (told["place"], Path(told["next"]["file"]).name) == ("prove", "2-after.hcl")
    one.back()
    told = one.go_on()
    assert Path(told["next"]["file"]).name == "0-before.hcl"
    one.restart({"next": {"file": "2-after.hcl"}})
    one.bao.wait_active()
    assert "still names kluis" in one.go_on(restarted=True)["next"]["what"]
    told = one.go_on()
    assert (told["place"], Path(told["next"]["file"]).name) == ("prove", "0-before.hcl")
    assert "still names kluis" in told["next"]["what"]
    one.restart(told)
    one.bao.wait_active()
    assert one.go_on()["place"] == "gone-back"

    one.begin("facade", one.facade(), **shown)
    told = one.go_on()
    one.restart({"next": {"file": "0-before.hcl"}})
    one.bao.wait_active()
    told = one.go_on()
    assert told["place"] == "doubt", "it was restarted, but not by way of kluis"
    one.restart({"next": {"file": "2-after.hcl"}})
    one.bao.wait_active()
    assert one.go_on()["place"] == "done"
    assert one.bao.kv_get(one.token, "it") == {"is": "here"}


def test_from_a_static_seal_back_at_each_step_and_then_for_good(
    site: Site, baos: list[Bao], tmp_path: Path
) -> None:
    (tmp_path / "key").write_bytes(secrets.token_bytes(32))
    one = mover(site, 3, baos, tmp_path, static_seal(tmp_path / "key"))
    one.begin("facade", one.facade())
    one.restart(one.go_on() | {"next": {"file": "1-migrate.hcl"}})
    one.back()  # before it got any share
    told = one.go_on()
    assert (told["place"], told["back"]) == ("restore", True)
    one.restart(told)
    one.bao.wait_active()
    assert one.go_on()["place"] == "gone-back"
    assert one.status()["place"] is None

    one.begin("facade", one.facade())
    one.restart(one.go_on())
    assert one.go_on()["place"] == "prove"
    one.back()  # after it had moved: a migration of its own
    with pytest.raises(UsageError):
        one.back()
    told = one.go_on()
    assert (told["from"], told["seal"]) == ("transit", "static")
    one.restart(told)
    told = one.go_on()
    one.restart(told)
    one.bao.wait_active()
    assert one.go_on()["place"] == "gone-back"

    one.begin("facade", one.facade())
    one.moves(one.go_on(), "transit")
    with pytest.raises(UsageError, match="proven"):
        one.back()


def test_what_can_not_be_moved_is_refused_before_anything_is_begun(
    site: Site, baos: list[Bao], tmp_path: Path
) -> None:
    bao = Bao(tmp_path / "bao", port=site.ports[4])
    baos.append(bao)
    one = Mover(site, "s4", bao)
    bao.start()
    bao.wait_listening()
    with pytest.raises(WrongServer):
        one.begin("shamir", None)
    made = bao.init(3, 2)
    with pytest.raises(ServerError, match="not unsealed"):
        one.begin("facade", one.facade())
    for share in made.shares[:2]:
        bao.unseal(share)
    bao.wait_active()
    with pytest.raises(UsageError, match="already"):
        one.begin("shamir", None)
    with pytest.raises(UsageError):
        one.begin("nowhere", None)
    with pytest.raises(UsageError, match="no unseal shares of s4 are kept"):
        one.begin("facade", one.facade())
    site.ask(
        "shares-import",
        key="homelab/of-s4",
        shares="\n".join([secrets.token_hex(33) for _ in range(2)]),
        threshold=2,
        replace=True,
    )
    one.begin("facade", one.facade())
    one.restart(one.go_on())
    with pytest.raises(ServerError, match="refused the shares"):
        one.go_on()
    assert one.status()["moved"] is None
    one.back()
    one.restart(one.go_on())
    with pytest.raises(ServerError):
        one.go_on()
    for share in made.shares[:2]:
        bao.unseal(share)
    bao.wait_active()
    assert one.go_on()["place"] == "gone-back"
