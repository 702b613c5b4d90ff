"""A whole life of kluis, and then the search for every secret of it, everywhere it must not be.

Everything is caught: what every process printed and logged, every file, and again and again the
command line and the environment of every process. Each secret is looked for raw, in hex, in both
kinds of base64, and, for paper, by its words. It may be in two places only: in the one output it
was printed to, and where a stock server demands it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile

from kluis import compose, configuration
from kluis.keyring import custody
from kluis.keyring.keys import Key
from tests.support.bao import Bao, transit_seal
from tests.support.ceremony import become
from tests.support.house import ANCHORS, CLIENT, FACADE, KEYRING, Done, House, Service
from tests.support.watched import WatchingHouse

PASSPHRASE = "seven quiet umbrellas dance"
CONFIGURATION = (
    ANCHORS
    + '[anchors.attic]\nkind = "passphrase"\nmemory_mib = 19\niterations = 1\nlanes = 1\n'
    + '[anchors.cellar]\nkind = "static"\nenv = "CELLAR_KEY"\n'
    + KEYRING.replace("disk or family", "disk or cellar or attic or family")
    + '[keyrings.homelab.keys.fixed]\nkind = "static-seal"\n'
    + FACADE
    + CLIENT
)


@dataclass
class Life:
    """Everything that was said and seen, by where it was."""

    house: House
    said: dict[str, bytes] = field(default_factory=dict)
    secrets: dict[str, bytes] = field(default_factory=dict)
    allowed: set[tuple[str, str]] = field(default_factory=set)

    def run(
        self, *arguments: str, stdin: str = "", code: int | None = 0, forked: bool = True
    ) -> Done:
        """Run a command and keep what it said.

        A fork of this process is much quicker than a new interpreter, and says the same.
        """
        run = _forked if forked else House.kluis
        done = run(self.house, *arguments, stdin=stdin)
        assert code is None or done.code == code, done
        name = f"{len(self.said)}: kluis {' '.join(arguments)}"
        self.said[name + " (stdout)"] = done.out.encode()
        self.said[name + " (stderr)"] = done.err.encode()
        return done

    def printed_once(self, secret: str, value: str, done: Done) -> None:
        """A secret that the last command had to print."""
        self.secrets[secret] = value.encode()
        where = next(name for name in reversed(self.said) if name.endswith("(stdout)"))
        assert value in done.out
        self.allowed.add((secret, where))


def _forked(house: House, *arguments: str, stdin: str) -> Done:
    with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as err:
        given.write(stdin.encode())
        given.seek(0)
        if (pid := os.fork()) == 0:
            become(house, arguments, lambda: _say(err.fileno()), given.fileno(), out.fileno())
        _, status = os.waitpid(pid, 0)
        said = [os.pread(file.fileno(), 1 << 20, 0).decode() for file in (out, err)]
    return Done(os.waitstatus_to_exitcode(status), *said)


def _say(errors: int) -> None:
    os.dup2(errors, 2)


def forms(secret: bytes) -> Iterator[tuple[str, bytes]]:
    """Every way in which a secret could be written down."""
    yield "raw", secret
    yield "hex", secret.hex().encode()
    yield "HEX", secret.hex().upper().encode()
    for name, encode in (("base64", base64.b64encode), ("base64 URL", base64.urlsafe_b64encode)):
        for shift in range(3):  # the middle of a longer text, at any place in it
            text = encode(bytes(shift) + secret).rstrip(b"=")
            yield f"{name} at {shift}", text[(shift * 8 + 5) // 6 : -1]
    words = secret.split(b" ")
    if len(words) == 33:
        yield "ten of its words", b" ".join(words[8:18])


@contextmanager
def watching_processes(said: dict[str, bytes]) -> Iterator[None]:
    """Command line and environment of every process, read again and again."""
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(said, ended))
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _watch(said: dict[str, bytes], ended: threading.Event) -> None:
    own = os.getpid()
    while not ended.wait(0.05):
        for process in Path("/proc").glob("[0-9]*"):
            if int(process.name) == own:
                continue
            for what in ("cmdline", "environ"):
                try:
                    data = (process / what).read_bytes()
                except OSError:
                    continue
                if b"kluis" in data or b"bao" in data:
                    said[f"/proc {what} of {_name(process)} {process.name}"] = data


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "?"


def keyring_secrets(house: House) -> dict[str, bytes]:
    """The root secret, what the leaves hold, and the keys' material: by opening the keyring."""

    async def opened() -> dict[str, bytes]:
        file = configuration.read(house.file)
        here = compose.house(file, alone=False, accept_rollback=False)
        await here.open_once()
        found = here.guards["homelab"].require_open()
        secrets = {"the root secret": found.root.reveal()}
        for path, leaf in found.contents.leaves.items():
            secrets[f"the secret of the leaf {path}"] = leaf.reveal()
        for name, key in found.contents.keys.items():
            secrets |= materials(name, key)
        return secrets

    return asyncio.run(opened())


def materials(name: str, key: Key) -> dict[str, bytes]:
    return {
        f"version {n} of the key {name}": version.material for n, version in key.versions.items()
    }


def test_the_search_finds_a_secret_however_it_is_written(tmp_path: Path) -> None:
    life = Life(House(tmp_path))
    secret, share = os.urandom(32), " ".join(f"word{n}" for n in range(33))
    life.secrets = {"secret": secret, "share": share.encode()}
    for before in range(4):
        whole = b"x" * before + secret + b"tail"
        written = {
            "raw": whole,
            "hex": whole.hex().encode(),
            "base64": base64.b64encode(whole),
            "base64 URL": base64.urlsafe_b64encode(whole),
            "paper": f"a log of {share[30:-30]}".encode(),
        }
        assert len(list(leaks(life, written))) == 5
    assert not list(leaks(life, {"other": os.urandom(4096)}))


def test_no_secret_is_anywhere_but_where_it_was_asked_for(tmp_path: Path) -> None:
    house = House(tmp_path / "house", CONFIGURATION)
    cellar = os.urandom(32)
    house.environment["CELLAR_KEY"] = cellar.hex()
    life = Life(house)
    with watching_processes(life.said):
        live(life, tmp_path)
    os.environ.pop("CELLAR_KEY", None)
    life.secrets["the key of the disk"] = house.key.read_bytes()
    life.secrets["the key of the cellar"] = cellar
    life.secrets["the passphrase"] = PASSPHRASE.encode()
    files = files_in(tmp_path)
    assert len(life.secrets) > 15
    assert len(life.said) > 40
    found = list(leaks(life, {**life.said, **files}))
    assert not found, "\n".join(found)


def test_no_share_of_a_watched_server_is_anywhere(tmp_path: Path) -> None:
    bao = Bao(tmp_path / "vault")
    table = f'[servers.vault]\naddresses = ["{bao.address}"]\nunseal = "homelab/vault"\n'
    house = WatchingHouse(tmp_path / "house", table)
    life = Life(house)
    house.apply()
    with watching_processes(life.said), bao:
        with house.watch() as service:
            life_of_a_watched_server(life, bao)
            life.said["the metrics"] = house.watch_metrics().encode()
            life.said["the log of watch"] = service.log_file.read_bytes()
        life.said["the log of the server"] = bao.log_file.read_bytes()
    files = files_in(tmp_path)
    assert len(life.secrets) == 3 + 3 + 2 + 1
    found = list(leaks(life, {**life.said, **files}))
    assert not found, "\n".join(found)


def life_of_a_watched_server(life: Life, bao: Bao) -> None:
    """Made, restarted, sealed by shares that do not fit, made anew in its shares, and looked at."""
    life.run("server", "init", "vault", "--shares", "3", "--threshold", "2", "--yes")
    life.secrets |= custody_of(life.house, "first")
    bao.wait_active()
    bao.kill9()
    bao.start()
    bao.wait_active()
    life.run("key", "import", "homelab/vault", "--shares", "-", stdin="00" * 33, code=1)
    made = life.run("server", "generate-root", "vault")
    life.printed_once("a root token that was asked for", made.out.strip(), made)
    life.run("server", "rekey", "vault", "--shares", "3", "--threshold", "2", "--yes")
    life.secrets |= custody_of(life.house, "second")
    bao.kill9()
    bao.start()
    bao.wait_active()
    for command in ("status", "server list", "server show vault", "key list", "watch --once"):
        life.run(*command.split())
        life.run(*command.split(), "--output", "json")


def custody_of(house: House, which: str) -> dict[str, bytes]:
    """What is kept for the server now."""
    found = keyring_secrets(house)
    kept = custody.from_bytes(next(v for name, v in found.items() if name.endswith("key vault")))
    shares = {f"{which} share {n}": share for n, share in enumerate(kept.shares)}
    return {**shares, f"root token of the {which}": kept.root_token.encode()}


def files_in(folder: Path) -> dict[str, bytes]:
    """All that lies in files, but for the empty pages of databases."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): path.read_bytes().replace(bytes(4096), b"\0") for path in paths}


def leaks(life: Life, places: Mapping[str, bytes]) -> Iterator[str]:
    for place, data in places.items():
        for secret, value in life.secrets.items():
            if (secret, place) in life.allowed or may_be(secret, place):
                continue
            for form, needle in forms(value):
                if needle in data:
                    yield f"{secret} ({form}) is in {place}"
                    break


def may_be(secret: str, place: str) -> bool:
    """The keys' own sources, and what a stock server demands."""
    if secret == "the key of the disk":
        return place.endswith("house/anchor.key")
    if secret == "the key of the cellar":  # kluis itself is given it by environment
        return place.startswith("/proc environ of ") and "bao" not in place
    if secret == "the newest token":
        return place.endswith("bao/bao.hcl")
    return False


def live(life: Life, tmp_path: Path) -> None:
    house = life.house
    done = life.run("apply", "--yes", "--output", "json", stdin=PASSPHRASE + "\n", forked=False)
    shares = done.json["shares"]["family"]
    for number, share in enumerate(shares):
        life.printed_once(f"share {number}", share, done)
    token = done.json["tokens"]["bletchley"]
    life.printed_once("the first token", token, done)
    life.secrets |= keyring_of(house)
    with house.serve() as service:
        service.wait_logged('"event": "opened"')
        newest = life_with_a_server(life, tmp_path, service, shares)
        failures(life, shares)
        life.said["the log of serve"] = service.log_file.read_bytes()
    assert newest != token
    locked_from_the_start(life, shares)
    run_a_server(life, tmp_path)
    life.secrets |= keyring_of(house)
    shrink(life)


def keyring_of(house: House) -> dict[str, bytes]:
    os.environ["CELLAR_KEY"] = house.environment["CELLAR_KEY"]
    found = keyring_secrets(house)
    epoch = json.loads(house.document().read_text())["epoch"]
    return {f"{name} (epoch {epoch})": value for name, value in found.items()}


def life_with_a_server(life: Life, tmp_path: Path, service: Service, shares: list[str]) -> str:
    issued = life.run("client", "issue", "bletchley", "--output", "json")
    token = str(issued.json["token"])
    life.printed_once("the newest token", token, issued)
    address = f"http://127.0.0.1:{life.house.port}"
    seal = transit_seal(address, token, "bletchley", "homelab/")
    with Bao(tmp_path / "bao", seal=seal, log_level="debug") as bao:
        made = bao.init()
        life.secrets["the server's root token"] = made.root_token.encode()
        life.secrets["the server's recovery share"] = bytes.fromhex(made.shares[0])
        bao.kv_put(made.root_token, "garden", {"gate": "oak"})
        life.run("lock", "homelab")
        bao.kill9()
        bao.start()
        bao.wait_sealed()
        life.run("unlock", "homelab", stdin=shares[0], code=2)
        life.run("unlock", "homelab", stdin=shares[2])
        bao.wait_active()
        life.run("lock", "homelab")
        life.run("unlock", "homelab", "--passphrase", "attic", stdin=PASSPHRASE)
        life.run("key", "rotate", "homelab/bletchley")
        bao.kill9()
        bao.start()
        bao.wait_active()
        assert bao.kv_get(made.root_token, "garden") == {"gate": "oak"}
        life.said["the log of bao"] = bao.log_file.read_bytes()
    service.send(signal.SIGHUP)
    service.wait_logged('"event": "reloaded"')
    for command in ("status", "verify homelab", "client list", "key list", "apply"):
        life.run(*command.split())
        life.run(*command.split(), "--output", "json")
    return token


def failures(life: Life, shares: list[str]) -> None:
    """Every way in which a secret goes to the wrong place, or a wrong secret comes."""
    house = life.house
    life.run("lock", "homelab")
    slip = shares[0].replace(shares[0].split()[20], "xylophone")
    for line in (slip, " ".join(shares[0].split()[:32]), PASSPHRASE, shares[0] + "\n" + shares[0]):
        life.run("unlock", "homelab", stdin=line, code=1)
    life.run("unlock", "homelab", "--passphrase", "attic", stdin=shares[1], code=1)
    life.run("unlock", "homelab", "--passphrase", "attic", stdin=PASSPHRASE + "x", code=1)
    life.run("unlock", "homelab", "--passphrase", "disk", stdin=PASSPHRASE, code=1)
    life.run("unlock", "homelab", stdin=shares[1])
    life.run("unlock", "homelab", "--anchors", code=None)
    for token in ("kluis_" + "A" * 43, "", life.secrets["the first token"].decode()):
        for body in ({"plaintext": "!"}, {"ciphertext": "vault:v1:AAAA"}, {}):
            house.call("PUT", "homelab/decrypt/bletchley", body, token)
            house.call("PUT", "homelab/encrypt/nothing", body, token)
    house.key.chmod(0o644)
    life.run("verify", "homelab", code=1)
    house.key.chmod(0o600)
    key = house.key.read_bytes()
    house.key.write_bytes(key + b"\n")
    life.run("verify", "homelab", code=1)
    house.key.write_bytes(key)
    life.run("verify", "homelab")


def locked_from_the_start(life: Life, shares: list[str]) -> None:
    """Without its machines' keys: once killed while locked, once opened by paper."""
    house = life.house
    key, cellar = house.key.read_bytes(), house.environment.pop("CELLAR_KEY")
    house.key.unlink()
    with house.serve() as service:
        life.run("status", code=2)
        life.run("unlock", "homelab", stdin=shares[1], code=2)
        service.end(signal.SIGKILL)
    life.run("status", code=2)
    life.run("apply", "--yes", "--reissue", "family", code=1)
    house.key.touch(mode=0o600)
    house.key.write_bytes(key)
    house.environment["CELLAR_KEY"] = cellar


def run_a_server(life: Life, tmp_path: Path) -> None:
    """``kluis run`` hands a static key over in memory: not even the child's environment has it."""
    from kluis.servers.handoff import STATIC_STANZA

    bao = Bao(tmp_path / "fixed", seal=STATIC_STANZA)
    arguments = ["--key", "homelab/fixed", "--address", bao.address, "--", *bao.argv]
    with life.house.run(*arguments) as service:
        service.wait_for(lambda: bao.health() == 501, "the server listens")
        made = bao.init()
        life.secrets["the root token of the fixed server"] = made.root_token.encode()
        service.wait_for(lambda: bao.health() == 200, "it is active")
        time.sleep(0.2)  # lets the watcher of processes see it; nothing waits for this
        life.said["the log of run"] = service.log_file.read_bytes()


def shrink(life: Life) -> None:
    """Replace the root secret; the old one and the new one may not lie anywhere."""
    house = life.house
    house.edit(("disk or cellar or attic or family", "disk or family"))
    done = life.run("apply", "--yes", "--output", "json")
    for number, share in enumerate(done.json["shares"]["family"]):
        life.printed_once(f"new share {number}", share, done)
    life.secrets |= keyring_of(house)
