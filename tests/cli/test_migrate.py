"""``kluis server migrate``: two ways from the first command to the last, as a person goes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kluis.service.asking import ask
from tests.support.bao import Bao, Initialised, bao_binary, free_port, wait_until
from tests.support.house import ANCHORS, CLIENT, FACADE, KEYRING, Done, House

STATIC = '\n[keyrings.homelab.keys.seal]\nkind = "static-seal"\n'
SERVER = '\n[servers.bletchley]\naddresses = ["http://127.0.0.1:BAO"]\nunseal = "homelab/of-it"\n'
SERVER_HEAD, SERVERS_HEAD = "[servers.bletchley]\naddresses", "[servers]\nbletchley.addresses"


class Home:
    """A house that has the shares of a Shamir-sealed server."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        server = SERVER.replace("BAO", str(port))
        self.house = House(folder / "house", ANCHORS + KEYRING + STATIC + FACADE + CLIENT + server)
        self.house.apply()
        self.bao = Bao(folder / "bao", port=port)
        self.bao.start()
        self.bao.wait_listening()
        self.made: Initialised = self.bao.init(3, 2)
        for share in self.made.shares[:2]:
            self.bao.unseal(share)
        self.bao.wait_active()
        self.bao.kv_put(self.made.root_token, "it", {"is": "here"})
        shares = "\n".join(self.made.shares)
        self.house.text("key", "import", "homelab/of-it", "--shares", "-", stdin=shares)

    def migrate(self, *arguments: str, stdin: str = "") -> Done:
        """The command for its only server."""
        token = {"BAO_TOKEN": self.made.root_token}
        command = ("server", "migrate", "bletchley", *arguments)
        return self.house.kluis(*command, stdin=stdin, environment=token)

    def restart(self, file: Path) -> None:
        """Restart it with the stanzas of a file."""
        self.bao.kill9()
        self.bao.seal = file.read_text("utf-8")
        self.bao.write_config()
        self.bao.start()
        self.bao.wait_listening()

    def works(self) -> bool:
        """Whether what was written before can still be read."""
        return self.bao.kv_get(self.made.root_token, "it") == {"is": "here"}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    made.bao.kill9()


def test_to_the_facade_with_a_snapshot_and_a_token_that_nobody_sees(home: Home) -> None:
    folder = home.house.folder / "bletchley-seal"
    said = home.house.refuses("server", "migrate", "bletchley", "--to", "facade", "--yes")
    assert said["seen"] == "no facade is running"
    with home.house.serve_open():
        assert home.migrate().code == 1
        said = home.house.refuses("server", "migrate", "bletchley", "--to", "facade", "--yes")
        assert "BAO_TOKEN" in said["next"]
        begun = home.migrate("--to", "facade", "--issue", "--yes")
        assert begun.code == 2, begun
        files = sorted(folder.iterdir())
        stanzas = ["0-before.hcl", "1-migrate.hcl", "2-after.hcl", "3-back.hcl"]
        assert [file.name for file in files[:4]] == stanzas
        assert [file.suffix for file in files[4:]] == [".snap"]
        assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
        stanza = (folder / "1-migrate.hcl").read_text()
        assert 'token      = "kluis_' in stanza
        assert "kluis_" not in begun.out + begun.err
        assert home.made.root_token not in begun.out + begun.err
        assert f"file:  {folder}/1-migrate.hcl" in begun.out

        home.restart(folder / "1-migrate.hcl")
        with home.house.beside("server", "migrate", "bletchley", "--wait") as process:
            wait_until(lambda: stands(home) == ("prove", "moved"), "it has moved", 60)
            home.restart(folder / "2-after.hcl")
            out, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
        assert "moved from shamir to facade, proven" in out
        assert "kluis.toml: unseal of [servers.bletchley] is recovery now" in err
        assert 'recovery = "homelab/of-it"\n' in home.house.file.read_text()
        assert ", not unseal" not in out
        assert home.works()
        done = home.migrate("--to", "facade", "--output", "json")
        assert (done.code, done.json["place"]) == (0, "done")
        again = home.house.kluis("server", "migrate", "bletchley", "--back", "--yes")
        assert (again.code, "is proven" in again.err) == (1, True)


def stands(home: Home) -> tuple[str, str]:
    told = ask(home.house.control_path(), "server-migration", {"server": "bletchley"})
    return told["place"], told["nodes"][home.bao.address]["stand"]


def test_to_a_static_seal_that_kluis_run_hands_over(home: Home) -> None:
    begun = home.migrate("--to", "static", "--no-snapshot", "--yes", "--out", "stanzas")
    assert begun.code == 2, begun
    folder = home.house.folder / "stanzas"
    assert "/proc/self/fd/" in (folder / "1-migrate.hcl").read_text()

    home.bao.kill9()
    home.bao.seal = (folder / "1-migrate.hcl").read_text()
    home.bao.write_config()
    home.bao.process = None  # from now on kluis starts it
    with home.house.run(*by_kluis(home)) as service:
        service.wait_ready()
        home.bao.wait_sealed()
        told = home.migrate("--output", "json")
        assert (told.code, told.json["place"]) == (2, "prove"), told
        assert home.works()
    with home.house.run(*by_kluis(home)) as service:
        service.wait_ready()
        home.bao.wait_active()
        # as if the command had been killed when it was proven
        proven = ask(home.house.control_path(), "server-migrate", {"server": "bletchley"})
        assert (proven["place"], proven["rename"]) == ("done", {"old": "unseal", "new": "recovery"})
        as_it_was = home.house.file.read_text()
        home.house.edit((SERVER_HEAD, SERVERS_HEAD), ("\nunseal =", "\nbletchley.unseal ="))
        done = home.migrate()
        assert "kluis.toml was not changed: [servers.bletchley] can't be written" in done.err
        assert 'in [servers.bletchley] write recovery = "homelab/of-it", not unseal' in done.out
        home.house.configure(as_it_was)
        told = home.migrate("--output", "json")
        assert (told.code, told.json["place"], told.json["rename"]) == (0, "done", None), told
        assert '\nrecovery = "homelab/of-it"\n' in home.house.file.read_text()
        assert home.works()


def by_kluis(home: Home) -> list[str]:
    server = [bao_binary(), "server", f"-config={home.bao.config_file}"]
    return ["--key", "homelab/seal", "--address", home.bao.address, "--", *server]
