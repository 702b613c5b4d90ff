"""From every kind of anchor in ``kluis.toml`` to the object that does what was written there."""

from __future__ import annotations

from pathlib import Path

import pytest

from kluis import compose
from kluis.anchors.awskms.anchor import AwsKmsAnchor
from kluis.anchors.base import COSTLY, LOCAL, NETWORK, Anchor, Pace
from kluis.anchors.passphrase import PassphraseAnchor
from kluis.anchors.pkcs11.anchor import Pkcs11Anchor
from kluis.anchors.registry import KINDS
from kluis.anchors.static import StaticAnchor
from kluis.anchors.tang.anchor import TangAnchor
from kluis.anchors.tpm2.anchor import Tpm2Anchor
from kluis.anchors.transit.anchor import TransitAnchor
from kluis.configuration import read

THUMBPRINT = "A" * 43

TOKEN = """\
kind = "transit"
address = "https://vault.example:8200"
key = "kluis"
auth = { kind = "token", file = "token" }
"""
LEAST: dict[str, tuple[str, type[Anchor], Pace]] = {
    "awskms": ('kind = "awskms"\nkey = "alias/kluis"\n', AwsKmsAnchor, COSTLY),
    "passphrase": ('kind = "passphrase"\n', PassphraseAnchor, LOCAL),
    "pkcs11": (
        'kind = "pkcs11"\nmodule = "hsm.so"\ntoken = "t"\nkey = "k"\npin_file = "pin"\n',
        Pkcs11Anchor,
        COSTLY,
    ),
    "static": ('kind = "static"\nfile = "anchor.key"\n', StaticAnchor, LOCAL),
    "tang": ('kind = "tang"\nurl = "http://tang.example"\n', TangAnchor, NETWORK),
    "tpm2": ('kind = "tpm2"\n', Tpm2Anchor, LOCAL),
    "transit": (TOKEN, TransitAnchor, NETWORK),
}
"""The least that each kind may be given, what becomes of it, and how often it is asked."""

MORE = {
    "awskms": 'region = "eu-central-1"\nendpoint = "http://127.0.0.1:1"\nprofile = "p"\n',
    "passphrase": 'env = "PASS"\nmemory_mib = 19\niterations = 1\nlanes = 1\n',
    "pkcs11": 'mechanism = "RSA-OAEP"\n',
    "static": "",
    "tang": f'thumbprint = "{THUMBPRINT}"\n',
    "tpm2": 'device = "swtpm:path=/s"\npcrs = [7, 11]\nbank = "sha384"\npin_credential = "pin"\n',
    "transit": 'mount = "a/b"\nnamespace = "team"\nca = "ca"\ncertificate = "c"\n'
    'certificate_key = "ck"\n',
}
"""The rest that each may be given."""

AUTHS = {
    "token": 'kind = "token"\nenv = "TOKEN"\n',
    "approle": 'kind = "approle"\nrole_id = "r"\nfile = "secret-id"\nmount = "roles"\n',
    "jwt": 'kind = "jwt"\nrole = "r"\nfile = "jwt"\n',
    "kubernetes": 'kind = "kubernetes"\nrole = "r"\n',
    "certificate": 'kind = "certificate"\nrole = "r"\n',
}


def written(folder: Path, anchor: str) -> Path:
    path = folder / "kluis.toml"
    path.write_text(f"[anchors.vault]\n{anchor}")
    return path


def made(folder: Path, anchor: str) -> Anchor:
    return compose.blueprint(written(folder, anchor)).anchors["vault"]


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ('dns = "vault.example:8200"', "vault.example"),
        ('dns = "Vault.example.:8200"', "Vault.example"),
        ('dns = "vault.example:8200"\nserver_name = "other.example"', "other.example"),
        ('dns = "[::1]:8200"', None),
        ('addresses = "https://vault.example:8200"', None),
    ],
)
def test_what_is_found_by_a_name_has_to_prove_it(
    said: str, name: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "kluis.toml"
    path.write_text(f"[servers.vault]\n{said}\n")
    assert compose.blueprint(path).servers["vault"].tls.server_name == name


def test_every_kind_is_tried_here() -> None:
    assert tuple(sorted(LEAST)) == tuple(sorted(MORE)) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_makes_an_anchor_of_that_kind(kind: str, tmp_path: Path) -> None:
    text, of_class, pace = LEAST[kind]
    anchor = made(tmp_path, text)
    assert type(anchor) is of_class
    assert (anchor.kind, anchor.name) == (kind, "vault")
    assert (anchor.deadline_s, anchor.pace) == (60.0 if kind == "passphrase" else 10.0, pace)
    assert anchor.heals


@pytest.mark.parametrize("kind", KINDS)
def test_everything_that_a_kind_may_say_reaches_its_class(kind: str, tmp_path: Path) -> None:
    text, of_class, _ = LEAST[kind]
    common = 'timeout_s = 3.5\nask_every_s = 90.0\nheal = "ask"\ndomain = "house"\n'
    anchor = made(tmp_path, text + MORE[kind] + common)
    assert type(anchor) is of_class
    assert (anchor.deadline_s, anchor.pace, anchor.heals) == (3.5, Pace(90.0, 90.0), False)


@pytest.mark.parametrize("auth", AUTHS)
def test_every_way_to_log_in_makes_a_transit_anchor(auth: str, tmp_path: Path) -> None:
    tls = 'certificate = "c"\ncertificate_key = "ck"\n'
    text = TOKEN.replace('auth = { kind = "token", file = "token" }\n', tls)
    anchor = made(tmp_path, f"{text}[anchors.vault.auth]\n{AUTHS[auth]}")
    assert type(anchor) is TransitAnchor


def test_an_anchor_that_shall_be_asked_seldom_is_never_asked_more_often(tmp_path: Path) -> None:
    least, _, _ = LEAST["awskms"]
    assert made(tmp_path, least + "ask_every_s = 20.0\n").pace == Pace(20.0, COSTLY.last_s)
    assert made(tmp_path, least + "ask_every_s = 600.0\n").pace == Pace(600.0, 600.0)


@pytest.mark.parametrize(
    "anchor",
    [
        'kind = "static"\nenv = "HIDDEN"\n',
        'kind = "passphrase"\nenv = "HIDDEN"\n',
        'kind = "tpm2"\npin_env = "HIDDEN"\n',
        LEAST["pkcs11"][0].replace('pin_file = "pin"', 'pin_env = "HIDDEN"'),
        TOKEN.replace('file = "token"', 'env = "HIDDEN"'),
        TOKEN.replace('kind = "token", file = "token"', 'kind = "jwt", role="r", env = "HIDDEN"'),
    ],
)
def test_no_secret_of_an_anchor_is_left_in_the_environment_of_a_server(
    anchor: str, tmp_path: Path
) -> None:
    assert compose.anchor_variables(read(written(tmp_path, anchor))) == ("HIDDEN",)
