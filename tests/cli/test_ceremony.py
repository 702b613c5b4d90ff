"""kluis server init, generate-root, rekey and rotate, with a real OpenBao each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kluis.service.asking import ask
from tests.support.bao import Bao, static_seal, transit_seal
from tests.support.ceremony import KEPT, NAME, Site, beside, fork, json_of
from tests.support.house import ANCHORS, CLIENT, FACADE, KEYRING, Done, House, Terminal
from tests.support.tls import Authority

INIT = ("server", "init", NAME)


def refuses(house: House, *arguments: str, token: str = "") -> dict[str, str]:
    """The one error that a command ends with."""
    code, output = fork(house, (*arguments, "--output", "json"), with_token(token))
    assert code == 1, output
    assert "Traceback" not in output
    error: dict[str, str] = json_of(output)["error"]
    assert all(error.values()), error
    return error


def shown(house: House, *arguments: str, token: str = "") -> dict[str, Any]:
    """The answer of a command that works."""
    code, output = fork(house, (*arguments, "--output", "json"), with_token(token))
    assert code == 0, output
    return json_of(output)


def with_token(token: str) -> Callable[[], None]:
    """The environment of a person who has a token; without one nothing changes."""
    return lambda: os.environ.update({"BAO_TOKEN": token} if token else {})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Done, Done]]:
    """A Shamir server made by a running service, with all that a new server can have; twice."""
    kept = beside(tmp_path_factory.mktemp("made"), in_memory=False)
    with kept as site, site.house.serve_open():
        wanted = ("--admin-policy", "admins", "--admin-token", "--transit-role", "web", "--yes")
        first = site.house.kluis(*INIT, *wanted)
        again = site.house.kluis(*INIT, "--yes")
        yield site, first, again


def tokens(first: Done) -> list[str]:
    """The administrator's token and that of the Transit role, as they were printed."""
    return [line.rpartition(": ")[2] for line in first.out.splitlines() if line.startswith("token")]


def test_a_shamir_server_is_made_kept_and_unsealed(made: tuple[Site, Done, Done]) -> None:
    site, first, again = made
    assert first.code == 0, first
    lines = [line.partition(":")[0] for line in first.out.splitlines()]
    assert lines == [
        f"{KEPT} can be written; the seal is of type shamir",
        "initialised",
        "unsealed and active",
        "policy for administrators",
        "token with admins, for 24 h",
        "Transit key transit/web, policy seal-web",
        "token for the seal with key_name web, renewed or 30 days",
        "the root token is kept; --revoke-root ends it",
    ]
    assert site.bao.health() == 200
    status = site.bao.must("GET", "sys/seal-status")
    assert (status["t"], status["n"]) == (3, 5)
    assert site.house.json("key", "list")["keys"][KEPT]["kind"] == "unseal-shares"
    assert "5 shares, 3 needed" in site.house.text("key", "list")
    assert (again.code, again.out) == (
        0,
        f"{NAME} is initialised already; {KEPT} keeps 5 shares, 3 needed\n",
    )
    again_json = site.init()
    assert (again_json["stand"], again_json["steps"]) == ("done", [])
    assert again_json["cluster_id"] == status["cluster_id"]


def test_secrets_are_shown_when_asked_for_and_are_nowhere_else(
    made: tuple[Site, Done, Done],
) -> None:
    site, first, again = made
    secrets = site.secrets()
    assert len(secrets["shares"]) == 5
    written = first.out + first.err + again.out + again.err + site.written()
    for secret in (*secrets["shares"], secrets["root_token"]):
        assert len(secret) > 20
        assert secret not in written
    for token in tokens(first):
        assert token not in site.written()
        assert first.out.count(token) == 1
    assert '"what":"shown"' in (site.house.state / "audit.jsonl").read_text()


def test_a_transit_role_can_seal_and_nothing_else(
    made: tuple[Site, Done, Done], tmp_path: Path
) -> None:
    site, first, _ = made
    _, token = tokens(first)
    with Bao(tmp_path / "other", transit_seal(site.bao.address, token, "web")) as other:
        assert other.health() == 501  # its boot probe and the renewal of its token went well
    sealed = site.bao.must("PUT", "transit/encrypt/web", {"plaintext": "YQ=="}, token)["data"]
    assert isinstance(sealed, dict)
    site.bao.must("PUT", "transit/decrypt/web", {"ciphertext": sealed["ciphertext"]}, token)
    known = site.bao.must("GET", "auth/token/lookup-self", token=token)["data"]
    assert isinstance(known, dict)
    assert (known["policies"], known["orphan"], known["period"]) == (["seal-web"], True, 2592000)
    for method, path in (("GET", "transit/keys/web"), ("PUT", "sys/seal"), ("GET", "sys/mounts")):
        assert site.bao.request(method, path, token=token).status == 403


def test_a_root_token_is_made_for_an_administrator(made: tuple[Site, Done, Done]) -> None:
    site, first, _ = made
    admin, seals = tokens(first)
    made_now = shown(site.house, "server", "generate-root", NAME, token=admin)["token"]
    assert site.bao.must("GET", "auth/token/lookup-self", token=made_now)
    error = refuses(site.house, "server", "generate-root", NAME, token=seals)
    assert error["class"] == "UsageError"
    site.bao.must("PUT", "sys/generate-root-token/attempt", {}, admin)
    error = refuses(site.house, "server", "generate-root", NAME, token=admin)
    assert error["class"] == "ChangeRefused"
    one = ("server", "generate-root", NAME, "--token-stdin", "--cancel-other")
    done = site.house.kluis(*one, stdin=f"{admin}\n")
    assert (done.code, done.out.count("\n")) == (0, 1)
    for token in (made_now, done.out.strip()):
        site.bao.must("POST", "auth/token/revoke-self", token=token)
        assert token not in site.written()


def test_a_rekey_makes_the_old_shares_void(made: tuple[Site, Done, Done]) -> None:
    site, first, _ = made
    admin, _ = tokens(first)
    old = site.secrets()["shares"]
    wanted = ("server", "rekey", NAME, "--shares", "3", "--threshold", "2", "--yes")
    site.house.edit((f'unseal = "{KEPT}"', f'unseal = "{KEPT}"\nthreshold = 3 # of them\n'))
    ask(site.house.control_path(), "reload", {})
    site.bao.must("PUT", "sys/rotate/root/init", {"secret_shares": 1, "secret_threshold": 1}, admin)
    assert refuses(site.house, *wanted, token=admin)["class"] == "ChangeRefused"
    done = shown(site.house, *wanted, "--cancel-other", token=admin)
    assert (done["shares"], done["threshold"], done["under_way"]) == (3, 2, False)
    assert done["declared_otherwise"] is False
    assert "threshold = 2 # of them\n" in site.house.file.read_text()
    new = site.secrets()
    assert (len(new["shares"]), new["threshold"]) == (3, 2)
    assert not set(old) & set(new["shares"])
    shown(site.house, "server", "hold", NAME)  # else the service is quicker with the new ones
    site.bao.kill9()
    site.bao.start()
    site.bao.wait_sealed()
    assert [site.bao.unseal(share).status for share in old[:2]] == [200, 400]
    assert [site.bao.unseal(share).status for share in new["shares"][1:]] == [200, 200]
    site.bao.wait_active()
    shown(site.house, "server", "release", NAME)
    assert all(share not in site.written() for share in (*old, *new["shares"]))


def test_a_rotation_takes_the_token_that_there_is(made: tuple[Site, Done, Done]) -> None:
    site, first, _ = made
    kept = shown(site.house, "server", "rotate", NAME)
    assert kept["token"] == "kept"
    given = shown(site.house, "server", "rotate", NAME, token=tokens(first)[0])
    assert (given["token"], given["term"]) == ("given", kept["term"] + 1)
    assert refuses(site.house, "server", "rotate", NAME, token="s.wrong")["class"] == (
        "ServerAnswered"
    )


def test_a_token_of_the_environment_goes_to_no_other_server(made: tuple[Site, Done, Done]) -> None:
    site, first, _ = made

    def rotate(**environment: str) -> tuple[int, dict[str, Any]]:
        asked = ("server", "rotate", NAME, "--output", "json")
        code, output = fork(site.house, asked, lambda: os.environ.update(environment))
        return code, json_of(output)

    token, here = tokens(first)[0], f"{site.bao.address}/v1/".replace("127.0.0.1", "localhost")
    away = "https://prod.example:8200"
    for name, other in (("BAO", "VAULT"), ("VAULT", "BAO")):
        for address in (f"{name}_ADDR", f"{other}_ADDR"):
            code, said = rotate(**{f"{name}_TOKEN": "s.prod", address: away})
            assert (code, said["error"]["class"]) == (1, "UsageError")
            assert address in said["error"]["seen"]
        mine = {f"{name}_TOKEN": token, f"{name}_ADDR": here, f"{other}_ADDR": away}
        code, said = rotate(**mine)
        assert (code, said["token"]) == (0, "given")


def test_an_audit_log_that_the_server_takes_from_its_configuration_only(
    made: tuple[Site, Done, Done],
) -> None:
    error = refuses(made[0].house, *INIT, "--audit", "/var/log/bao.log")
    assert error["class"] == "ChangeRefused"
    assert 'file_path = "/var/log/bao.log"' in error["next"]


def test_a_server_with_an_auto_seal_and_no_root_token_left(tmp_path: Path) -> None:
    """Recovery keys alone make a root token, where the listener lets them."""
    key = tmp_path / "seal.key"
    key.write_bytes(os.urandom(32))
    log, allowed = tmp_path / "bao-audit.log", "unsafe_allow_api_audit_creation = true\n"
    made = beside(tmp_path, static_seal(key), unauthenticated=True, more=allowed)
    with made as site, site.house.serve_open():
        numbers = ("--shares", "3", "--threshold", "2")
        done = site.init(*numbers, "--revoke-root", "--show-secrets", "--audit", str(log))
        assert f"audit log: {log}" in done["steps"]
        assert done["secrets"]["root_token"] not in log.read_text()
        assert done["root_token"] is False
        dead = done["secrets"]["root_token"]
        assert site.bao.request("GET", "auth/token/lookup-self", token=dead).status == 403
        assert site.secrets()["root_token"] == ""

        rotated = shown(site.house, "server", "rotate", NAME)
        assert (rotated["term"], rotated["token"]) == (2, "made")
        assert site.secrets()["root_token"] == ""

        rekeyed = shown(site.house, "server", "rekey", NAME, "--yes")
        assert (rekeyed["shares"], rekeyed["threshold"]) == (3, 2)
        assert site.secrets()["shares"] != done["secrets"]["shares"]

        root = shown(site.house, "server", "generate-root", NAME)["token"]
        accessors = site.bao.must("LIST", "auth/token/accessors", token=root)["data"]
        assert isinstance(accessors, dict)
        assert len(accessors["keys"]) == 1, "a token was left behind"


FACADE_HOUSE = (
    ANCHORS
    + KEYRING
    + KEYRING.replace("homelab", "vaults")
    .replace('path = "state"', 'path = "state2"')
    .replace('[keyrings.vaults.keys.bletchley]\nkind = "transit"\n', "")
    + FACADE
    + CLIENT
)


def test_a_seal_by_kluis_must_work_before_an_init(tmp_path: Path) -> None:
    house = House(tmp_path / "house", FACADE_HOUSE)
    token = house.apply()["tokens"]["bletchley"]
    seal = transit_seal(f"http://127.0.0.1:{house.port}", token, "bletchley", "homelab")
    bao = Bao(tmp_path / "bao", seal)
    house.edit(
        more=f'\n[servers.{NAME}]\naddresses = "{bao.address}"\nrecovery = "vaults/{NAME}"\n'
    )
    with house.serve() as service:
        service.wait_logged('"event": "opened"', 2)
        house.text("lock", "homelab")
        bao.start()
        bao.wait_listening()
        try:
            assert refuses(house, *INIT, "--yes")["class"] == "Locked"
            service.end()
            assert refuses(house, *INIT, "--yes")["class"] == "NotRunning"
            assert bao.must("GET", "sys/init")["initialized"] is False
            with house.serve() as second:
                second.wait_logged('"event": "opened"', 2)
                done = shown(house, *INIT, "--yes")
                assert "homelab/bletchley wraps and unwraps" in done["steps"][0]
                assert bao.health() == 200
        finally:
            bao.kill9()


def test_what_is_not_to_be_initialised_is_left_alone(tmp_path: Path) -> None:
    with beside(tmp_path) as site, site.house.serve_open():
        assert refuses(site.house, *INIT, "--admin-token", "--yes")["class"] == "UsageError"
        assert refuses(site.house, *INIT)["class"] == "UsageError"  # nobody to ask
        terminal = Terminal(site.house, *INIT)
        terminal.expect("5 shares, 3 needed, kept in homelab/old-vault. [y/N]")
        terminal.type("n")
        assert terminal.end() == 1
        assert site.bao.must("GET", "sys/init")["initialized"] is False

        site.bao.init(1, 1)  # by somebody else
        error = refuses(site.house, *INIT, "--yes")
        assert error["class"] == "UsageError"
        assert error["next"].endswith(f"kluis key import {KEPT} --shares -")

        site.empty()
        site.init("--revoke-root")
        error = refuses(site.house, "server", "rotate", NAME)
        assert error["seen"] == "the server does a rotation only for somebody with a token"
        assert "it needs update and sudo on sys/rotate;" in error["next"]
        site.empty()  # the disk is lost
        error = refuses(site.house, *INIT, "--yes")
        assert error["class"] == "ChangeRefused"
        assert "restore" in error["next"]
        assert site.bao.must("GET", "sys/init")["initialized"] is False

        site.bao.kill9()
        assert refuses(site.house, "server", "rotate", NAME)["class"] == "ServerUnreachable"


def test_only_the_right_server_is_initialised(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    bao = Bao(tmp_path / "bao", tls=authority.issue("bao", "127.0.0.1"))
    other = "sha256:" + "A" * 43 + "="
    declared = (
        f'\n[servers.{NAME}]\naddresses = "{bao.address}"\nca = "{authority.certificate}"\n'
        f'unseal = "{KEPT}"\n'
    )
    house = House(tmp_path / "house")
    house.apply()
    with bao:
        house.edit(more=declared)
        assert refuses(house, *INIT, "--yes")["next"].startswith(f"kluis server add {NAME}")
        house.edit((declared, declared + f'pin = "{other}"\n'))
        assert refuses(house, *INIT, "--yes")["class"] == "WrongServer"
        house.edit((other, pin_of(authority.certificate)))
        assert shown(house, *INIT, "--yes")["stand"] == "done"


def pin_of(certificate: Path) -> str:
    from kluis.servers import tls

    return tls.pin_of(tls.certificates(certificate)[0])
