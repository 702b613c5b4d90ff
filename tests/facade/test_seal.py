"""A stock OpenBao whose ``seal "transit"`` is the facade: it always comes back."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from kluis.engine.clock import now
from kluis.facade.limits import Limits
from kluis.keyring import tokens
from kluis.keyring.keys import Key
from kluis.keyring.plan import WantedClient
from tests.support.bao import Bao, bao_binary, clean_environment, transit_seal, wait_until
from tests.support.facade import Keyring, RunningFacade, serving

SECRET = {"motto": "sealed does not mean lost"}


def sealed_by(facade: RunningFacade, folder: Path, mount: str = "homelab/") -> Bao:
    """A stock server whose seal is this facade."""
    seal = transit_seal(facade.address, facade.token("bletchley"), "bletchley", mount)
    return Bao(folder / "bao", seal)


def purposes(facade: RunningFacade) -> list[str]:
    """What the released requests were, in their order."""
    return [r["what"] for r in facade.audited() if r["verdict"] in ("released", "waits")]


def restart(bao: Bao) -> None:
    bao.kill9()
    bao.start()
    bao.wait_active()


def test_a_server_is_initialised_restarted_and_reads_its_secret(tmp_path: Path) -> None:
    with serving(tmp_path) as facade, sealed_by(facade, tmp_path) as bao:
        root = bao.init(shares=3, threshold=2).root_token
        bao.kv_put(root, "motto", SECRET)
        restart(bao)
        assert bao.kv_get(root, "motto") == SECRET
        assert "unseal" in purposes(facade)
        unseals = facade.metrics()
        name = 'kluis_unseals_total{client="bletchley",key="bletchley",keyring="homelab"}'
        assert unseals[name] >= 1


def test_a_server_that_boots_while_locked_stays_up_and_is_active_when_it_opens(
    tmp_path: Path,
) -> None:
    with serving(tmp_path) as facade, sealed_by(facade, tmp_path) as bao:
        root = bao.init().root_token
        bao.kv_put(root, "motto", SECRET)
        bao.kill9()
        facade.lock()
        bao.start()
        bao.wait_sealed()
        facade.wait_held(1)
        assert bao.health() == 503
        assert bao.process is not None
        assert bao.process.poll() is None

        facade.open()
        bao.wait_active()
        assert bao.kv_get(root, "motto") == SECRET
        assert "boot probe while locked" in purposes(facade)
        assert "held until open" in purposes(facade)


def test_a_server_survives_a_lock_longer_than_a_hold(tmp_path: Path) -> None:
    limits = Limits(hold_s=0.2)
    with serving(tmp_path, limits=limits) as facade, sealed_by(facade, tmp_path) as bao:
        bao.init()
        bao.kill9()
        facade.lock()
        bao.start()
        wait_until(
            lambda: sum(r["what"] == "held until the limit" for r in facade.audited()) >= 2,
            "several holds end without an opening",
        )
        assert bao.health() == 503
        facade.open()
        bao.wait_active()


def test_an_init_while_locked_gives_nobody_keys_and_works_once_open(tmp_path: Path) -> None:
    """A stock server that is refused in its init has made an empty barrier, whose key it forgot:
    it has to begin anew with empty storage. What must not be is a key that opens nothing."""
    with serving(tmp_path) as facade:
        facade.lock()
        with sealed_by(facade, tmp_path) as bao:
            assert bao.health() == 501
            refused = bao.request(
                "PUT", "sys/init", {"recovery_shares": 1, "recovery_threshold": 1}
            )
            assert refused.status == 400
            assert set(refused.body) == {"errors"}
            assert "the keyring homelab is locked" in str(refused.body)

        facade.open()
        shutil.rmtree(bao.directory / "data")
        (bao.directory / "data").mkdir()
        with bao:
            root = bao.init().root_token
            bao.kv_put(root, "motto", SECRET)
            restart(bao)
            assert bao.kv_get(root, "motto") == SECRET


def test_a_rotated_key_is_taken_up_and_the_old_version_can_be_retired(tmp_path: Path) -> None:
    with serving(tmp_path) as facade, sealed_by(facade, tmp_path) as bao:
        root = bao.init().root_token
        bao.kv_put(root, "motto", SECRET)
        facade.rotate()
        restart(bao)
        wait_until(
            lambda: any(r["what"] == "wrap" and r.get("version") == "2" for r in facade.audited()),
            "the server wraps its keys anew",
        )
        restart(bao)
        unseals = [r["version"] for r in facade.audited() if r["what"] == "unseal"]
        assert unseals[-1] == "2"

        def retired() -> Key:
            key = facade.guards["homelab"].key("bletchley", "transit")
            return Key(key.kind, key.versions, minimum=2)

        facade.rewrite(keys={"bletchley": facade.call(retired)})
        restart(bao)
        assert bao.kv_get(root, "motto") == SECRET


def test_the_mount_transit_works_where_the_clients_keys_leave_no_doubt(tmp_path: Path) -> None:
    office = Keyring("office", ["elsewhere"], {"other": WantedClient(("elsewhere",))})
    with serving(tmp_path, Keyring(), office) as facade:
        bao = sealed_by(facade, tmp_path, "transit/")
        with bao:
            bao.init()
            restart(bao)
        assert {r.get("keyring") for r in facade.audited() if r["what"] == "unseal"} == {"homelab"}


def test_the_mount_transit_is_refused_where_two_keyrings_have_the_key(tmp_path: Path) -> None:
    with serving(tmp_path, Keyring("homelab"), Keyring("office")) as facade:
        refused = facade.put(
            "transit/encrypt/bletchley", {"plaintext": "YQ=="}, facade.token("bletchley")
        )
        assert refused.status == 400
        assert "homelab, office" in refused.body["errors"][0]
        bao = sealed_by(facade, tmp_path, "transit/")
        bao.start()
        assert bao.wait_exit() != 0
        assert "mount_path" in bao.log()


def test_bao_status_shows_locked_and_open_by_its_exit_code(tmp_path: Path) -> None:
    with serving(tmp_path) as facade:
        is_open = _bao_status(facade)
        assert is_open.returncode == 0
        assert _line(is_open.stdout, "Sealed") == "false"
        facade.lock()
        locked = _bao_status(facade)
        assert locked.returncode == 2
        assert _line(locked.stdout, "Sealed") == "true"


def _line(table: str, name: str) -> str:
    (value,) = [line.split()[-1] for line in table.splitlines() if line.startswith(name)]
    return value


def _bao_status(facade: RunningFacade) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [bao_binary(), "status", f"-address={facade.address}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=clean_environment(),
    )


def test_a_server_whose_token_is_revoked_is_not_served_and_a_new_token_brings_it_back(
    tmp_path: Path,
) -> None:
    with serving(tmp_path) as facade, sealed_by(facade, tmp_path) as bao:
        bao.init()
        bao.kill9()
        text, token = tokens.generate(now())
        facade.set_tokens("bletchley", token)
        bao.start()
        assert bao.wait_exit() != 0
        bao.seal = transit_seal(facade.address, text, "bletchley", "homelab/")
        bao.write_config()
        bao.start()
        bao.wait_active()


@pytest.mark.parametrize("plaintext", [b"Heartbeat 1", b"Heartbeat 4294967296"])
def test_a_heartbeat_is_told_from_an_unseal(tmp_path: Path, plaintext: bytes) -> None:
    with serving(tmp_path) as facade:
        token = facade.token("bletchley")
        sealed = facade.encrypt(plaintext, token).data["ciphertext"]
        assert facade.decrypt(sealed, token).plaintext == plaintext
        assert purposes(facade) == ["heartbeat", "heartbeat"]
        wrapped, ciphertext = facade.real_wrap()
        assert facade.decrypt(ciphertext, token).plaintext == wrapped
        assert purposes(facade)[-1] == "unseal"
