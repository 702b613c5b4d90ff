"""Every mistake of a user: one clear error, exit code 1, nothing changed on the disk."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.house import KLUIS, Done, House, one_error


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> House:
    made = House(tmp_path_factory.mktemp("first") / "house")
    made.apply()
    return made


@pytest.fixture
def house(first: House, tmp_path: Path) -> House:
    """A house that was applied once."""
    return House.like(first, tmp_path / "house")


# -- kluis.toml: (what is replaced, by what), the line and place named, words of the error

EDITS: dict[str, tuple[tuple[str, str], str, str]] = {
    "an unknown anchor": (
        ("disk or family", "disk or famly"),
        "kluis.toml line 12, keyrings.homelab.opens: ",
        "'famly' is not an anchor: disk or ▸famly",
    ),
    "an unclosed bracket": (
        ("disk or family", "disk or 2 of (family, disk"),
        "kluis.toml line 12, keyrings.homelab.opens: ",
        "this bracket is never closed: disk or 2 of ▸(family, disk",
    ),
    "a threshold of 0": (
        ("disk or family", "0 of (disk, family)"),
        "kluis.toml line 12, keyrings.homelab.opens: ",
        "0 of 2 can't be: ▸0 of (disk, family)",
    ),
    "a threshold above the count": (
        ("disk or family", "3 of (disk, family)"),
        "kluis.toml line 12, keyrings.homelab.opens: ",
        "3 of 2 can't be",
    ),
    "an anchor named twice": (
        ("disk or family", "2 of (disk, family, disk)"),
        "kluis.toml line 12, keyrings.homelab.opens: ",
        "the anchor 'disk' is named twice: 2 of (disk, family, ▸disk)",
    ),
    "an empty rule": (
        ("disk or family", ""),
        "kluis.toml line 12, keyrings.homelab.opens: ",
        "the expression is empty",
    ),
    "people of 0": (
        ("threshold = 2", "threshold = 0"),
        "kluis.toml line 7, anchors.family.threshold: ",
        "greater than or equal to 1",
    ),
    "people above the count": (
        ("threshold = 2", "threshold = 4"),
        "kluis.toml line 5, anchors.family: ",
        "4 of 3 shares can't be",
    ),
    "1 of several people": (
        ("threshold = 2", "threshold = 1"),
        "kluis.toml line 5, anchors.family: ",
        "SLIP-39 has no 1 of several",
    ),
    "an unknown field": (
        ('file = "anchor.key"', 'fille = "anchor.key"'),
        "kluis.toml line 3, anchors.disk.fille: ",
        "there is no such field; there are ask_every_s, credential, domain, env, file, heal, ",
    ),
    "an unknown table": (
        ("[facade]", "[facades]"),
        "kluis.toml line 17, facades: ",
        "there is no such field; there are anchors, clients, facade, keyrings, kubernetes,",
    ),
    "a wrong type": (
        ("shares = 3", 'shares = "three"'),
        "kluis.toml line 8, anchors.family.shares: ",
        "it should be a whole number",
    ),
    "a number where a path belongs": (
        ('file = "anchor.key"', "file = 7"),
        "kluis.toml line 3, anchors.disk.file: ",
        "it should be a path, in quotes",
    ),
    "a missing field": (
        ("threshold = 2\n", ""),
        "kluis.toml line 5, anchors.family.threshold: ",
        "this field is missing",
    ),
    "an unknown kind of anchor": (
        ('kind = "static"', 'kind = "floppy"'),
        "kluis.toml line 2, anchors.disk.kind: ",
        "'floppy' is no kind; it should be awskms, ",
    ),
    "an anchor without a kind": (
        ('kind = "static"\n', ""),
        "kluis.toml line 1, anchors.disk.kind: ",
        "this field is missing; it should be awskms, ",
    ),
    "an anchor with two sources": (
        ('file = "anchor.key"', 'file = "anchor.key"\nenv = "KEY"'),
        "kluis.toml line 1, anchors.disk: ",
        "exactly one of file, env and credential",
    ),
    "a name with capitals": (
        ("[anchors.disk]", "[anchors.Disk]"),
        "kluis.toml line 1, anchors.Disk: ",
        "it should be a name of up to 63 small letters, digits and -, a letter first",
    ),
    "a reserved name of a keyring": (
        ("[keyrings.homelab]", "[keyrings.sys]"),
        "kluis.toml line 10, keyrings.sys: ",
        "the name 'sys' has a meaning of its own",
    ),
    "a reserved name of an anchor": (
        ("[anchors.disk]", "[anchors.or]"),
        "kluis.toml line 1, anchors.or: ",
        "the name 'or' has a meaning of its own",
    ),
    "a table twice": (
        ("[anchors.family]", "[anchors.disk]"),
        "not TOML",
        "line 5",
    ),
    "a key twice": (
        ("threshold = 2", "shares = 2"),
        "not TOML",
        "line 8",
    ),
    "a mistake of TOML": (
        ("threshold = 2", "threshold = = 2"),
        "not TOML",
        "line 7",
    ),
    "a number of 5000 digits": (
        ("threshold = 2", "threshold = 1" + "0" * 5000),
        "not TOML",
        "limit",
    ),
    "brackets within brackets": (
        ("threshold = 2", "threshold = " + "[" * 20_000),
        "not TOML",
        "recursion",
    ),
    "tls off where others can reach it": (
        ("127.0.0.1:", "0.0.0.0:"),
        "kluis.toml line 17, facade: ",
        'tls = "off" is for loopback only, and 0.0.0.0 is not',
    ),
    "tls of another word": (
        ('tls = "off"', 'tls = "on"'),
        "kluis.toml line 19, facade.tls: ",
        'must be a table with certificate and key, or "off"',
    ),
    "tls without a key": (
        ('tls = "off"', 'tls = { certificate = "tls.crt" }'),
        "kluis.toml line 19, facade.tls.key: ",
        "this field is missing",
    ),
    "an address without a port": (
        ("127.0.0.1:", "127.0.0.1 "),
        "kluis.toml line 18, facade.listen: ",
        "is not host:port",
    ),
    "a key path of no keyring": (
        ('["homelab/bletchley"]', '["home/bletchley"]'),
        "kluis.toml line 22, clients.bletchley.keys: ",
        "there is no key home/bletchley",
    ),
    "a key path of no key": (
        ('["homelab/bletchley"]', '["homelab/blechley"]'),
        "kluis.toml line 22, clients.bletchley.keys: ",
        "there is no key homelab/blechley",
    ),
    "a key path that is none": (
        ('["homelab/bletchley"]', '["bletchley"]'),
        "kluis.toml line 22, clients.bletchley.keys.0: ",
        "it should be a keyring and a key, like homelab/bletchley",
    ),
    "a client of a static seal": (
        ('kind = "transit"', 'kind = "static-seal"'),
        "kluis.toml line 22, clients.bletchley.keys: ",
        "homelab/bletchley is of kind static-seal",
    ),
    "a network with host bits": (
        ('["homelab/bletchley"]', '["homelab/bletchley"]\nnetworks = ["10.0.0.1/24"]'),
        "kluis.toml line 23, clients.bletchley.networks: ",
        "has host bits set",
    ),
    "a certificate that nobody is asked for": (
        ('["homelab/bletchley"]', '["homelab/bletchley"]\ncertificate_san = "a.example"'),
        "kluis.toml line 23, clients.bletchley.certificate_san: ",
        "the facade asks nobody for a certificate",
    ),
}


@pytest.mark.parametrize("mistake", EDITS)
def test_a_mistake_in_the_configuration_is_named_with_its_place(mistake: str, house: House) -> None:
    edit, place, words = EDITS[mistake]
    house.edit(edit)
    error = house.refuses("apply", "--yes")
    assert error["class"] == "SettingsError"
    assert place in error["seen"]
    assert words in error["seen"]


@pytest.mark.parametrize(
    "command", ["status", "serve", "explain", "verify", "key", "client", "run"]
)
def test_every_command_refuses_a_configuration_it_does_not_understand(
    command: str, house: House
) -> None:
    house.edit(("threshold = 2", "threshold = 2\nquorum = 2"))
    arguments = {
        "explain": ("explain", "homelab"),
        "verify": ("verify", "homelab"),
        "run": ("run", "--key", "homelab/bletchley", "--", "true"),
    }
    if command in ("key", "client"):
        assert "line 8" in one_error(house.kluis(command, "list"))[0]
    else:
        assert "line 8" in house.refuses(*arguments.get(command, (command,)))["seen"]


def a_folder_at(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe_at(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


FILES: dict[str, tuple[Callable[[House], object], str]] = {
    "missing": (lambda house: house.file.unlink(), "No such file or directory"),
    "a folder": (lambda house: a_folder_at(house.file), "Is a directory"),
    "not UTF-8": (lambda house: house.file.write_bytes(b'a = "\xff"'), "is not text"),
    "huge": (lambda house: house.file.write_bytes(b"#" * 2_000_000), "larger than 1 MiB"),
    "empty": (lambda house: house.file.write_bytes(b""), "declares no keyring"),
    "binary": (lambda house: house.file.write_bytes(os.urandom(64) + b"\0"), "kluis.toml"),
}


@pytest.mark.parametrize("fault", FILES)
def test_a_configuration_that_can_not_be_read_is_one_error(fault: str, house: House) -> None:
    spoil, words = FILES[fault]
    spoil(house)
    assert words in house.refuses("status", "--config", "kluis.toml")["seen"]


def test_without_any_configuration_the_places_are_named(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.file.unlink()
    error = house.refuses("status")
    assert error["seen"] == "there is no kluis.toml"
    assert "/etc/kluis/kluis.toml" in error["means"]


# -- the anchor's key

KEYS: dict[str, tuple[Callable[[Path], object], str]] = {
    "others can read it": (lambda key: key.chmod(0o640), "others can read"),
    "it is of a wrong size": (
        lambda key: key.write_bytes(b"1" * 33),
        "33 bytes that are not a key",
    ),
    "it is empty": (lambda key: key.write_bytes(b""), "0 bytes that are not a key"),
    "it is huge": (lambda key: key.write_bytes(b"1" * 100_000), "more than 4096 bytes"),
    "it is a folder": (a_folder_at, "is not a regular file"),
    "it is a pipe": (a_pipe_at, "is not a regular file"),
    "it is missing": (lambda key: key.unlink(), "is not there"),
}


@pytest.mark.parametrize("fault", KEYS)
def test_a_keyring_is_not_made_with_a_key_file_that_can_not_serve(
    fault: str, tmp_path: Path
) -> None:
    house = House(tmp_path)
    spoil, words = KEYS[fault]
    spoil(house.key)
    error = house.refuses("apply", "--yes")
    assert error["seen"].startswith("anchors.disk: ")
    assert words in error["seen"]
    assert not house.state.exists()


# -- the document


def changed(house: House, **members: Any) -> None:
    """Write the document anew, with other members, in its canonical form."""
    import rfc8785

    document = json.loads(house.document().read_text())
    house.document().write_bytes(rfc8785.dumps({**document, **members}))


def rolled_back(house: House) -> None:
    """Put the first document in the place of the second."""
    house.json("key", "rotate", "homelab/bletchley")
    shutil.copy(house.state / "history" / "homelab.1.json", house.document())


def foreign(house: House) -> None:
    """Put another house's keyring of the same name there."""
    other = House(house.folder.parent / "other")
    other.apply()
    shutil.copy(other.document(), house.document())


DOCUMENTS: dict[str, tuple[Callable[[House], object], str, str]] = {
    "damaged": (lambda h: h.document().write_bytes(b"\0" * 500), "NotJson", "homelab.json"),
    "truncated": (
        lambda h: os.truncate(h.document(), h.document().stat().st_size // 2),
        "NotJson",
        "homelab.json",
    ),
    "empty": (lambda h: h.document().write_bytes(b""), "NotJson", "homelab.json"),
    "indented": (
        lambda h: h.document().write_text(
            json.dumps(json.loads(h.document().read_text()), indent=1)
        ),
        "NotCanonical",
        "homelab.json",
    ),
    "of another format": (lambda h: changed(h, kluis="other/1"), "ForeignFormat", "homelab.json"),
    "of a newer format": (lambda h: changed(h, kluis="keyring/2"), "NewerFormat", "homelab.json"),
    "with a field more": (lambda h: changed(h, more=1), "UnknownField", "homelab.json"),
    "huge": (lambda h: h.document().write_bytes(b" " * 5_000_000), "TooLarge", "homelab.json"),
    "of another name": (lambda h: changed(h, name="office"), "Conflict", "homelab.json"),
    "rolled back": (rolled_back, "RolledBack", "is at revision 1; here 2 was seen"),
    "another keyring's": (foreign, "RolledBack", "homelab is at revision 1"),
}


@pytest.mark.parametrize("fault", DOCUMENTS)
def test_a_document_that_can_not_be_believed_is_refused_by_every_command(
    fault: str, house: House
) -> None:
    spoil, kind, words = DOCUMENTS[fault]
    spoil(house)
    error = house.refuses("status")
    assert error["class"] == kind
    assert words in error["seen"]
    assert house.refuses("apply", "--yes") == error
    assert house.refuses("serve") == error


def test_a_forged_document_opens_for_nobody_and_changes_nothing(house: House) -> None:
    document = json.loads(house.document().read_text())
    document["clients"]["bletchley"]["networks"] = ["0.0.0.0/0"]
    document["revision"] = 2
    changed(house, **document)
    found = house.json("status", code=2)["keyrings"]["homelab"]
    assert (found["state"], found["contradicted"]) == ("locked", True)
    assert "Put the last good document back" in house.text("status", code=2)
    error = house.refuses("apply", "--yes")
    assert error["class"] == "Locked"


def test_a_rollback_that_is_accepted_is_said_loudly_by_apply(house: House) -> None:
    rolled_back(house)
    done = house.kluis("apply", "--yes", "--accept-rollback")
    assert done.code == 0
    assert "note: homelab: homelab is at revision 1; here 2 was seen" in done.err
    assert "may bring back what was revoked" in done.err
    assert house.kluis("apply", "--yes", "--accept-rollback").err == ""
    house.text("status")


def test_a_rollback_that_is_accepted_is_said_loudly_by_serve(house: House) -> None:
    rolled_back(house)
    with house.serve_open("--accept-rollback") as service:
        said = [line for line in service.events() if line["event"] == "rollback accepted"]
        assert [(line["level"], line["keyring"]) for line in said] == [("warning", "homelab")]
        assert "revision 1; here 2 was seen" in said[0]["seen"]


# -- the state folder


@pytest.mark.parametrize("what", ["state", "state/homelab.json", "state/history"])
def test_a_state_that_is_open_to_others_is_refused(what: str, house: House) -> None:
    path = house.folder / what
    path.chmod(path.stat().st_mode | 0o044)
    house.edit(more='\n[keyrings.homelab.keys.colossus]\nkind = "transit"\n')
    error = house.refuses("apply", "--yes")
    assert error["class"] == "Unsafe"
    assert error["next"].startswith("chmod ")


def test_a_state_folder_that_can_not_be_made_is_one_error(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.edit(('path = "state"', 'path = "anchor.key/state"'))
    error = house.refuses("apply", "--yes")
    assert "anchor.key" in error["seen"]


def test_a_state_folder_that_can_not_be_written_is_one_error(house: House) -> None:
    house.edit(more='\n[keyrings.homelab.keys.colossus]\nkind = "transit"\n')
    (house.state / "serve.lock").unlink()
    house.state.chmod(0o500)
    before = house.snapshot()
    done = without_privileges(house, "apply", "--yes")
    said = one_error(done)
    assert "can't be locked: Permission denied" in said[0]
    assert all(said)
    assert house.snapshot() == before
    house.state.chmod(0o700)


def without_privileges(house: House, *arguments: str) -> Done:
    """Run a command as somebody to whom permissions mean something, also when root tests."""
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.getuid() == 0 else []
    done = subprocess.run(
        [*drop, *KLUIS, *arguments],
        cwd=house.folder,
        env=house.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


# -- what serve meets


def certificate(folder: Path, *, san: bool) -> None:
    """A key and a certificate for it, with or without a subject alternative name."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kluis.example")])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
    )
    if san:
        alternative = x509.SubjectAlternativeName([x509.DNSName("kluis.example")])
        builder = builder.add_extension(alternative, critical=False)
    made = builder.sign(key, hashes.SHA256())
    (folder / "tls.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").touch(mode=0o600)
    (folder / "tls.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


TLS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no certificate": (lambda f: (f / "tls.crt").unlink(), "tls.crt can't be read"),
    "no key": (lambda f: (f / "tls.key").unlink(), "tls.key can't be read"),
    "a key that others can read": (lambda f: (f / "tls.key").chmod(0o644), "others can read"),
    "a key of another certificate": (
        lambda f: shutil.copy(f / "anchor.key", f / "tls.key"),
        "does not fit",
    ),
    "no certificate in the file": (
        lambda f: (f / "tls.crt").write_text("hello"),
        "is not a certificate in PEM",
    ),
    "a certificate without a SAN": (
        lambda f: certificate(f, san=False),
        "has no subject alternative name",
    ),
    "a client CA that is none": (lambda f: (f / "ca.crt").write_text("no"), "holds no CA"),
}


@pytest.mark.parametrize("fault", TLS)
def test_tls_files_that_can_not_serve_are_one_error(fault: str, house: House) -> None:
    table = '{ certificate = "tls.crt", key = "tls.key", client_ca = "ca.crt" }'
    house.edit(('tls = "off"', f"tls = {table}"))
    certificate(house.folder, san=True)
    shutil.copy(house.folder / "tls.crt", house.folder / "ca.crt")
    spoil, words = TLS[fault]
    spoil(house.folder)
    error = house.refuses("serve")
    assert error["class"] == "SettingsError"
    assert words in error["seen"]


def test_a_busy_port_is_one_error(house: House) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", house.port))
        busy.listen()
        error = house.refuses("serve")
    assert error["class"] == "ListenFailed"
    assert error["means"] == "another program listens there"


def test_an_address_of_another_machine_is_one_error(house: House) -> None:
    house.edit(
        ("127.0.0.1:", "192.0.2.1:"),
        ('tls = "off"', 'tls = { certificate = "tls.crt", key = "tls.key" }'),
    )
    certificate(house.folder, san=True)
    assert house.refuses("serve")["means"] == "it is not an address of this machine"


def test_a_second_serve_on_the_same_state_is_one_error(house: House) -> None:
    with house.serve_open() as service:
        error = house.refuses("serve")
        assert error["class"] == "AlreadyRunning"
        assert f"process {service.pid}" in error["seen"]
        again = house.refuses("run", "--key", "homelab/bletchley", "--", "true")
        assert again["class"] == "AlreadyRunning"
        house.text("status")


def test_serve_before_apply_and_without_a_facade_say_what_is_missing(tmp_path: Path) -> None:
    house = House(tmp_path)
    assert house.kluis("serve").err.count("error: ") == 1
    assert "run kluis apply" in one_error(house.kluis("serve"))[2]
    house.apply()
    house.edit(
        ('[facade]\nlisten = "127.0.0.1:PORT"\ntls = "off"\n'.replace("PORT", str(house.port)), "")
    )
    assert "has no [facade]" in house.refuses("serve")["seen"]


def test_an_audit_log_that_can_not_be_written_is_one_error(house: House) -> None:
    house.edit(('tls = "off"', 'tls = "off"\naudit = "anchor.key/audit.jsonl"'))
    error = house.refuses("serve")
    assert error["class"] == "AuditError"


# -- the command line itself

CALLS: dict[str, tuple[tuple[str, ...], str]] = {
    "an unknown command": (("statsu",), "No such command 'statsu'"),
    "an unknown option": (("status", "--nonsense"), "No such option: --nonsense"),
    "a missing argument": (("verify",), "Missing argument 'keyring'"),
    "a missing option": (("run", "--", "true"), "Missing option '--key'"),
    "an argument too many": (("lock", "homelab", "office"), "unexpected extra argument"),
    "no number": (("run", "--key", "a/b", "--restarts", "many", "--", "true"), "'--restarts'"),
    "an unknown keyring": (("explain", "nowhere"), "there is no keyring nowhere"),
    "an unknown keyring to verify": (("verify", "nowhere"), "there is no keyring nowhere"),
    "no key to run with": (("run", "--key", "homelab", "--", "true"), "homelab has no key ?"),
    "an unknown key to run with": (("run", "--key", "homelab/x", "--", "true"), "has no key x"),
    "people without paper": (("apply", "--yes", "--reissue", "disk"), "disk has no paper"),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_command_that_was_called_wrongly_is_one_error(call: str, house: House) -> None:
    arguments, words = CALLS[call]
    assert words in house.refuses(*arguments)["seen"]


@pytest.mark.parametrize("arguments", [("statsu",), ("explain", "nowhere"), ("unlock", "homelab")])
def test_in_text_an_error_is_on_standard_error_alone(
    arguments: tuple[str, ...], house: House
) -> None:
    done = house.kluis(*arguments)
    assert all(one_error(done))
    assert done.out == ""


def test_an_unknown_form_of_output_is_one_error(house: House) -> None:
    assert "yaml" in one_error(house.kluis("status", "--output", "yaml"))[0]


def test_output_that_nobody_reads_or_that_has_no_room_is_no_traceback(house: House) -> None:
    for target in ("| head -c 0", "> /dev/full"):
        done = subprocess.run(
            ["bash", "-c", f'"$@" status {target}; exit "${{PIPESTATUS[0]}}"', "sh", *KLUIS],
            cwd=house.folder,
            env=house.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr
