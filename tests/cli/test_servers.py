"""``kluis server add|list|show|hold|release|wake``, and shares on their way in, as people do it."""

from __future__ import annotations

import io
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kluis import configuration
from kluis.cli import terminal
from kluis.cli.main import app, guarded
from kluis.cli.server import looking
from kluis.cli.server.candidate import OWN_FILE_MARK
from kluis.keyring.custody import MAX_INPUT_BYTES
from kluis.servers.listener import named
from kluis.servers.tls import certificates, pin_of, read_certificate
from kluis.service import harden
from tests.support.bao import Bao, Initialised, free_port
from tests.support.house import ANCHORS, FACADE, KEYRING, Done, House, Terminal
from tests.support.pretender import CLUSTER_ID, SEALED, UNSEALED, Pretender, always
from tests.support.tls import Authority, Issued, self_signed

HOSTS = ("localhost", "127.0.0.1")
JSON = ("--output", "json")
SHARES = ("key", "import", "homelab/old-vault", "--shares", "-")


@dataclass(frozen=True)
class Vault:
    """A server that nobody here knows yet: initialised, and sealed unless a test opens it."""

    bao: Bao
    issued: Issued
    made: Initialised

    @property
    def pin(self) -> str:
        return pin_of(certificates(self.issued.certificate)[0])

    def open(self) -> str:
        """Unseal it as a person does; its cluster id."""
        for share in self.made.shares[:3]:
            self.bao.unseal(share)
        self.bao.wait_active()
        return str(self.bao.must("GET", "sys/seal-status")["cluster_id"])


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    """With a certificate that it signed itself."""
    folder = tmp_path_factory.mktemp("vault")
    issued = self_signed(folder, "vault", *HOSTS)
    with Bao(folder / "bao", tls=issued) as bao:
        yield Vault(bao, issued, bao.init(5, 3))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> House:
    made = House(tmp_path_factory.mktemp("first") / "house", ANCHORS + KEYRING + FACADE)
    made.apply()
    return made


@pytest.fixture
def house(first: House, tmp_path: Path) -> House:
    """A house that was applied once."""
    made = House.like(first, tmp_path / "house")
    made.configure(ANCHORS + KEYRING + FACADE)
    return made


Inside = Callable[..., Done]
Refuses = Callable[..., dict[str, str]]


@pytest.fixture
def inside(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Inside]:
    """A command in this process, which is quicker: its exit code, and what it printed."""
    monkeypatch.chdir(house.folder)
    monkeypatch.delenv("COLUMNS", raising=False)  # a worker of the test run may have it
    monkeypatch.setattr(harden, "harden", lambda: ())  # of this process, for all tests after it

    def run(*arguments: str, stdin: str = "") -> Done:
        terminal.choose(terminal.Output.TEXT)
        pipe = io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8")
        monkeypatch.setattr(sys, "stdin", pipe)
        code = guarded(lambda: app([*arguments], standalone_mode=False))
        return Done(code, *capsys.readouterr())

    yield run
    terminal.choose(terminal.Output.TEXT)


@pytest.fixture
def refuses(house: House, inside: Inside) -> Refuses:
    """A command that has to end in one clear error, and change nothing; that error."""

    def refused(*arguments: str, stdin: str = "") -> dict[str, str]:
        before = house.snapshot()
        done = inside(*arguments[:2], "--output", "json", *arguments[2:], stdin=stdin)
        error: dict[str, str] = done.json["error"]
        assert done.code == 1
        assert all(error.values()), error
        assert house.snapshot() == before, "something changed on the disk"
        return error

    return refused


# -- add


def own_file(house: House) -> bytes:
    """The certificate that kluis wrote for a server that nobody vouches for."""
    mark, _, pem = (house.folder / "old-vault.crt").read_bytes().partition(b"\n")
    assert mark + b"\n" == OWN_FILE_MARK
    return pem


def test_a_person_compares_the_fingerprint_and_pins_the_server_and_its_cluster_once_it_is_open(
    house: House, vault: Vault
) -> None:
    before, add = house.file.read_text(), ("server", "add", "old-vault")
    fingerprint = read_certificate(_der(vault.issued)).fingerprint
    where = ("--address", vault.bao.address, "--unseal", "homelab/old-vault")

    person = Terminal(house, *add, *where)
    person.expect("NOBODY WHO IS KNOWN HERE VOUCHES FOR IT")
    person.expect(f"SHA-256 {fingerprint}")
    person.expect("openssl x509 -in CERTIFICATE.pem -noout -fingerprint -sha256")
    person.expect("shamir, 3 of 5 shares; sealed")
    person.expect("a sealed server does not tell its cluster id")
    person.expect("is that the server's own fingerprint, and shall all this be written? [y/N]")
    person.type("n")
    person.expect("nothing was written")
    assert person.end() == 1
    assert house.file.read_text() == before
    assert not (house.folder / "old-vault.crt").exists()

    person = Terminal(house, *add, *where)
    person.expect("[y/N]")
    person.type("y")
    person.expect("old-vault is pinned in kluis.toml")
    person.expect("run this again once it is open")
    person.expect("kluis key import homelab/old-vault --shares -")
    assert person.end() == 0
    assert house.file.read_text() == before + (
        f'\n[servers.old-vault]\naddresses = ["{vault.bao.address}"]\nca = "old-vault.crt"\n'
        f'unseal = "homelab/old-vault"\npin = "{vault.pin}"\nthreshold = 3\nshares = 5\n'
    )
    assert own_file(house) == vault.issued.certificate.read_bytes()

    again = house.json(*add)  # nobody is asked where nothing is written
    assert (again["changed"], again["written"]) == (False, {})
    assert "has all of it already; there is nothing to write" in house.text(*add)

    cluster = vault.open()
    assert house.json(*add, "--yes")["written"] == {"cluster_id": cluster}
    assert house.file.read_text().endswith(f'shares = 5\ncluster_id = "{cluster}"\n')
    shown = house.text("server", "show", "old-vault")
    assert "old-vault: unsealed (1 of 1 nodes unsealed)" in shown
    assert f"pinned key:       {vault.pin}" in shown
    assert f"cluster id:       {cluster}" in shown
    vault.bao.must("PUT", "sys/seal", token=vault.made.root_token)


def _der(issued: Issued) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificates(issued.certificate)[0].public_bytes(Encoding.DER)


def test_without_a_person_or_a_yes_nothing_is_written(house: House, vault: Vault) -> None:
    before = house.snapshot()
    done = house.kluis("server", "add", "old-vault", "--address", vault.bao.address)
    assert done.code == 1
    assert "there is nobody to ask" in done.err
    assert house.snapshot() == before


def test_what_a_program_gets_is_a_contract(house: House, vault: Vault, inside: Inside) -> None:
    add = ("server", "add", "old-vault", "--address", vault.bao.address, "--yes")
    made = inside(*add, "--output", "json").json
    assert sorted(made) == [
        *("certificate_file", "changed", "nodes", "reloaded", "server", "was", "written")
    ]
    assert (made["server"], made["changed"], made["reloaded"]) == ("old-vault", True, False)
    assert made["certificate_file"] == str(house.folder / "old-vault.crt")
    node = made["nodes"][vault.bao.address]
    assert sorted(node) == [
        *("certificate", "cluster_id", "cluster_name", "name_fits", "seal"),
        *("storage", "trust", "user", "version"),
    ]
    assert (node["trust"], node["name_fits"]) == ("unknown-authority", True)
    assert (node["certificate"]["key"], node["certificate"]["subject"]) == (vault.pin, "CN=vault")
    assert node["seal"] == {
        "type": "shamir",
        "initialized": True,
        "sealed": True,
        "threshold": 3,
        "shares": 5,
        "migration": False,
    }
    nodes = inside("server", "list", "--output", "json").json["servers"]["old-vault"]["nodes"]
    assert nodes[vault.bao.address]["condition"] == "sealed"


def test_over_plain_http_the_user_who_listens_is_pinned(
    house: House, inside: Inside, refuses: Refuses
) -> None:
    me = named(os.getuid())
    with Pretender(always(SEALED)) as pretender:
        house.edit(more=f'\n[servers.old-vault]\naddresses = "{pretender.address}"\n')
        unproven = "nothing proves who listens there; kluis server add old-vault pins its user"
        assert unproven in inside("server", "list").out
        made = inside("server", "add", "old-vault", "--yes")
        assert f"  user         {me.name} (uid {me.uid})\n" in made.out
        assert "old-vault is declared, with its user, in kluis.toml" in made.out
        assert unproven not in inside("server", "list").out
        assert f"its user:         {me.name}\n" in inside("server", "show", "old-vault").out
        assert inside("server", "add", "old-vault", *JSON).json["changed"] is False
        house.edit((f'user = "{me.name}"', 'user = "stranger"'))
        asked = inside("server", "add", "old-vault")
        assert f"it was stranger, it is {me.name} (uid {me.uid})" in asked.err
        assert f'user = "{me.name}"   (it was stranger)' in asked.out
        assert 'user = "stranger"' in house.file.read_text()
        made = inside("server", "add", "old-vault", "--yes", *JSON)
    assert (made.json["written"], made.json["was"]) == ({"user": me.name}, {"user": "stranger"})
    assert made.json["nodes"][pretender.address]["user"] == {"uid": me.uid, "name": me.name}
    assert pretender.shares == []


def test_a_name_is_a_node_for_each_of_its_addresses(
    house: House, vault: Vault, inside: Inside
) -> None:
    add = ("server", "add", "by-name", "--dns", f"localhost:{vault.bao.port}", "--yes", *JSON)
    made = inside(*add).json
    assert made["written"]["dns"] == f"localhost:{vault.bao.port}"
    assert made["nodes"][vault.bao.address]["trust"] == "unknown-authority"
    assert inside("server", "add", "by-name", *JSON).json["changed"] is False


def test_what_is_found_by_a_name_has_to_have_that_name_in_its_certificate(
    house: House, inside: Inside, refuses: Refuses, tmp_path: Path
) -> None:
    add, by_name = ("server", "add", "by-name"), self_signed(tmp_path, "by-name", "localhost")
    with Pretender(always(SEALED), tls=by_name) as pretender:
        at = f"localhost:{pretender.port}"
        assert inside(*add, "--dns", at, "--yes").code == 0
        nodes = inside("server", "list", *JSON).json["servers"]["by-name"]["nodes"]
        assert nodes[pretender.address]["condition"] == "sealed"
        said = refuses(*add, "--server-name", "vault.example")  # which wins over the name
        assert "does not name vault.example" in said["seen"]
    by_ip = self_signed(tmp_path, "by-ip", "127.0.0.1")
    with Pretender(always(SEALED), tls=by_ip) as pretender:
        at = f"localhost:{pretender.port}"
        said = refuses("server", "add", "by-ip", "--dns", at)
        assert "does not name localhost" in said["seen"]
        assert said["next"].startswith("name its nodes with --address, once for each")
        assert inside("server", "add", "by-ip", "--address", pretender.address, "--yes").code == 0


def test_a_key_with_the_shares_of_another_server_is_warned_of(house: House, inside: Inside) -> None:
    key, others = "homelab/old-vault", "is where the shares of old-vault"
    house.edit(
        more='\n[servers.old-vault]\naddresses = "https://127.0.0.1:1"\n'
        f'unseal = "{key}"\ncluster_id = "{CLUSTER_ID}"\n'
    )
    with Pretender(always(SEALED)) as sealed, Pretender(always(UNSEALED)) as unsealed:
        third = ("server", "add", "third", "--address", unsealed.address, "--unseal", key)
        assert others not in inside(*third, "--yes").err, "it told that it is of that cluster"
        assert "same-shares" not in inside("explain").out
        add = ("server", "add", "second", "--address", sealed.address)
        for option in ("--unseal", "--recovery"):
            asked = inside(*add, option, key)
            assert (asked.code, "there is nobody to ask" in asked.err) == (1, True), asked
            assert f"warning: {key} is where the shares of old-vault, third are kept" in asked.err
        added = inside(*add, "--recovery", key, "--yes")
        assert f"kluis key import {key} --shares - --recovery" in added.out
        assert "same-shares: old-vault, second and third are declared" in inside("explain").out


def test_an_authority_of_ones_own_is_not_taken_for_a_file_of_kluis(
    house: House, inside: Inside, vault: Vault, tmp_path: Path
) -> None:
    authority = self_signed(tmp_path, "authority", *HOSTS).certificate.read_bytes()
    (house.folder / "old-vault.crt").write_bytes(authority)
    refused = inside(
        *("server", "add", "old-vault", "--address", vault.bao.address),
        *("--ca", "old-vault.crt", "--yes"),
    )
    assert refused.code == 1
    assert "old-vault.crt does not vouch for the certificate" in refused.err
    assert (house.folder / "old-vault.crt").read_bytes() == authority


def test_a_certificate_that_was_written_by_a_run_that_was_killed_is_no_obstacle(
    house: House, inside: Inside, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = ("server", "add", "old-vault", "--address", vault.bao.address, "--yes")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(configuration, "write", killed)
        assert inside(*add).code == 130
    assert "old-vault" not in house.file.read_text()
    assert own_file(house) == vault.issued.certificate.read_bytes()
    made = inside(*add)
    assert made.code == 0, made
    assert 'ca = "old-vault.crt"' in house.file.read_text()


def test_another_key_is_shown_beside_the_old_one_with_a_warning(
    house: House, vault: Vault, inside: Inside, tmp_path: Path
) -> None:
    add = ("server", "add", "old-vault")
    inside(*add, "--address", vault.bao.address, "--yes")
    old = f"sha256:{'B' * 43}="
    stranger = self_signed(tmp_path, "stranger", *HOSTS).certificate.read_bytes()
    house.edit((vault.pin, old), ("threshold = 3", "threshold = 2"))
    (house.folder / "old-vault.crt").write_bytes(OWN_FILE_MARK + stranger)
    refused = inside(*add)
    assert refused.code == 1
    assert f"it was {old}, it is {vault.pin}" in refused.err
    assert "somebody may stand between here and the server" in refused.err
    assert "it needs 3 of 5 shares now, not 2 of 5" in refused.err
    assert own_file(house) == stranger
    made = inside(*add, "--yes", "--output", "json").json
    assert made["written"] == {"pin": vault.pin, "threshold": 3}
    assert made["was"] == {"pin": old, "threshold": "2"}
    assert own_file(house) == vault.issued.certificate.read_bytes()


def test_an_authority_is_named_and_pinned_where_that_is_wished(
    house: House, inside: Inside, refuses: Refuses, tmp_path: Path
) -> None:
    ca = Authority(house.folder / "pki")
    issued = ca.issue("vault", *HOSTS)
    add = ("server", "add", "old-vault")
    with Bao(tmp_path / "bao", tls=issued) as bao:
        where = ("--address", bao.address, "--ca", str(ca.certificate))
        assert inside(*add, *where, "--yes", *JSON).json["written"] == {
            "addresses": [bao.address],
            "ca": "pki/ca.crt",
            "pin": pin_of(certificates(issued.certificate)[0]),
        }
        authority = pin_of(certificates(ca.certificate)[0])
        made = inside(*add, "--pin-ca", "--yes")
        assert (made.code, "warning" in made.err) == (0, False), made
        assert f'pin = "{authority}"' in house.file.read_text()
        assert inside(*add, *JSON).json["changed"] is False  # a pin that holds is kept

        other = Authority(tmp_path / "other", "another CA").certificate
        said = refuses(*add, "--ca", str(other))
        assert "other/ca.crt does not vouch for the certificate" in said["seen"]
        said = refuses(*add, "--server-name", "vault.example")
        assert said["means"].startswith("it is for localhost")
        assert said["next"].startswith("add --server-name localhost")


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        (("Old_Vault",), "'Old_Vault' can't be the name of a server"),
        (("sys", "--address", "https://a:1"), "the name 'sys' has a meaning of its own"),
        (("x",), "where x is reached is not known"),
        (("x", "--address", "a:8200"), "it should be a URL like https://vault.example:8200"),
        (("x", "--dns", "a"), "is not host:port"),
        (("x", "--address", "https://a:1", "--dns", "a:1"), "name exactly one of addresses, dns"),
        (("x", "--address", "https://a:1", "--unseal", "office/x"), "there is no keyring office"),
        (
            ("x", "--address", "http://a:1", "--unseal", "homelab/x"),
            "shares are never sent over plain http",
        ),
        (("x", "--address", "https://127.0.0.1:1"), "https://127.0.0.1:1 can't be reached"),
        (("x", "--address", "https://a:1", "--ca", "nowhere.crt"), "nowhere.crt can't be used as"),
    ],
)
def test_what_can_not_be_added(arguments: tuple[str, ...], seen: str, refuses: Refuses) -> None:
    assert seen in refuses("server", "add", *arguments)["seen"]


def test_what_a_person_wrote_of_a_server_stays_his(
    house: House, vault: Vault, refuses: Refuses
) -> None:
    house.edit(more=f'\n[servers]\nold-vault = {{ addresses = "{vault.bao.address}" }} # mine\n')
    said = refuses("server", "add", "old-vault", "--address", "https://127.0.0.1:1")
    assert "is declared already, with other addresses" in said["seen"]
    said = refuses("server", "add", "old-vault", "--yes")
    assert "can't be written into kluis.toml" in said["seen"]
    assert said["next"].startswith('write it yourself: ca = "old-vault.crt"; pin = "sha256:')
    (house.folder / "old-vault.crt").write_text("of another")
    house.configure(ANCHORS + KEYRING + FACADE)
    said = refuses("server", "add", "old-vault", "--address", vault.bao.address, "--yes")
    assert "old-vault.crt is there already" in said["seen"]


# -- shares


def test_shares_come_by_pipe_by_file_and_by_prompt_and_are_never_shown(
    house: House, vault: Vault, inside: Inside, refuses: Refuses
) -> None:
    shares = vault.made.shares
    house.edit(more=f'[servers.old-vault]\naddresses = "{vault.bao.address}"\nthreshold = 3\n')
    three = "\n".join(shares[:3])
    assert "how many of the shares are needed is not" in refuses(*SHARES, stdin=three)["seen"]
    text = house.text(*SHARES, "--threshold", "3", stdin=three)
    assert "homelab/old-vault keeps 3 shares, 3 needed" in text
    assert "whether they belong together shows only with one more share" in text
    assert 'no server uses them yet: unseal = "homelab/old-vault"' in text
    assert "nothing was changed" in inside(*SHARES, stdin=three).out

    file = house.folder / "shares.txt"
    file.write_text(shares[3] + "\n")
    file.chmod(0o644)
    by_file = (*SHARES[:-1], "shares.txt")
    assert "is open to others" in refuses(*by_file)["seen"]
    file.chmod(0o600)
    assert "keeps 4 shares, 3 needed" in inside(*by_file).out

    person = Terminal(house, *SHARES)
    person.expect("share 1 (an empty line ends it): ")
    person.type(shares[4])
    person.expect("share 2 (an empty line ends it): ")
    person.type("no share at all")
    person.expect("line 2 is not a share")
    person.expect("share 2 (an empty line ends it): ")
    person.type("")
    person.expect("keeps 5 shares, 3 needed")
    assert person.end() == 0
    assert not any(share in person.shown for share in shares)
    assert not any(
        share in path.read_text() for path in house.state.rglob("*.json*") for share in shares
    )


@pytest.mark.parametrize(
    ("arguments", "stdin", "seen"),
    [
        (SHARES, "", "there is no share"),
        (SHARES, "hunter2", "line 1 is not a share"),
        (SHARES, "é" * 40, "these are not the shares of a server"),
        (SHARES, "a" * (MAX_INPUT_BYTES + 1), "these are not the shares of a server"),
        ((*SHARES, "--file", "x"), "", "--threshold and --recovery go with --shares"),
        ((*SHARES[:3], "--threshold", "3"), "", "--threshold and --recovery go with --shares"),
        ((*SHARES[:3], "--recovery"), "", "--threshold and --recovery go with --shares"),
        ((*SHARES[:4], "nowhere"), "", "nowhere can't be read: No such file"),
        ((*SHARES[:4], "/dev/null"), "", "/dev/null is not a regular file"),
    ],
)
def test_what_are_no_shares(
    arguments: tuple[str, ...], stdin: str, seen: str, refuses: Refuses
) -> None:
    said = refuses(*arguments, stdin=stdin)
    assert said["seen"].startswith(seen)
    assert "hunter2" not in str(said)


# -- list, hold, release, wake


def test_a_hold_lasts_until_release_and_the_examples_work_as_they_stand(
    house: House, vault: Vault, inside: Inside
) -> None:
    assert "No server is declared; kluis server add" in inside("server", "list").out
    inside("server", "add", "old-vault", "--address", vault.bao.address, "--yes")
    for command in (looking.hold, looking.show, looking.list_, looking.release):
        words = shlex.split(str(command.__doc__).partition("Example: kluis ")[2])
        done = inside(*words)
        assert done.code == (2 if command in (looking.show, looking.list_) else 0), done
        if command is looking.list_:
            assert "held until 20" in done.out
    assert "was not held" in inside("server", "release", "old-vault").out
    assert "held until it is released" in inside("server", "hold", "old-vault").out
    done = inside("server", "list", "--output", "json")
    assert done.code == 2
    assert done.json["servers"]["old-vault"]["hold"]["until"] is None


def test_what_is_no_length_of_time_no_server_or_needs_the_service(
    house: House, refuses: Refuses
) -> None:
    assert refuses("server", "show", "x")["seen"] == "there is no server x"
    assert refuses("server", "wake", "old-vault")["class"] == "NotRunning"
    house.edit(more='[servers.old-vault]\naddresses = "https://a:1"\n')
    for length in ("2", "h", "-1h", "1w", "0s", "400d", "1.5h", "99999999d"):
        assert refuses("server", "hold", "old-vault", f"--for={length}")["next"]


def test_a_running_service_takes_a_new_server_unseals_it_and_tells_of_it(
    house: House, vault: Vault
) -> None:
    house.edit(
        more='[wake.note]\nkind = "command"\ncommand = ["true"]\n'
        f'[servers.nobody]\naddresses = "https://127.0.0.1:{free_port()}"\n'
    )
    with house.serve_open() as service:
        house.json(*SHARES, stdin="\n".join(vault.made.shares))
        house.json("server", "hold", "nobody")
        where = ("--address", vault.bao.address, "--unseal", "homelab/old-vault", "--yes")
        assert house.json("server", "add", "old-vault", *where)["reloaded"] is True
        vault.bao.wait_active()
        service.wait_for(
            lambda: "old-vault: unsealed" in house.kluis("status").out,
            "it says that it is unsealed",
        )
        listed = house.json("server", "list", code=2)
        assert listed["watched"] is True
        assert listed["servers"]["nobody"]["nodes"].popitem()[1]["condition"] == "unreachable"
        assert house.json("status")["servers"].keys() == {"nobody", "old-vault"}
        status = house.text("status")
        assert "old-vault: unsealed (1 of 1 nodes unsealed)" in status
        assert "held until it is released" in status

        house.edit(("[servers.old-vault]", '[servers.old-vault]\nwake = ["note"]'))
        house.json("server", "add", "old-vault", "--yes")
        woken = house.json("server", "wake", "old-vault")["outcomes"]
        assert [(one["hook"], one["ok"]) for one in woken] == [("note", True)]
        house.edit(('["true"]', '["false"]'))
        service.send(signal.SIGHUP)
        service.wait_logged('"event": "reloaded"')
        assert "note (command): not woken" in house.text("server", "wake", "old-vault", code=1)
