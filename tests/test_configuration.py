"""Reading ``kluis.toml``: relative paths, the places of mistakes, and where the socket lies."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kluis import compose, configuration, locating
from kluis.addresses import is_loopback, split_address
from kluis.configuration import line_of
from kluis.errors import SettingsError, WriteFailed
from kluis.servers.declared import Identity, KeyPath, Listed
from kluis.servers.discovery import Dns, Pods
from kluis.servers.tls import ServerTls
from kluis.settings.mistakes import FORMS
from kluis.settings.root import Configuration
from kluis.store import files
from tests.support.house import ANCHORS, CONFIGURATION, KEYRING

TLS = CONFIGURATION.replace(
    'tls = "off"', 'tls = { certificate = "tls.crt", key = "/k/tls.key", client_ca = "ca.crt" }'
).replace("PORT", "8300")


def written(folder: Path, text: str) -> Path:
    path = folder / "kluis.toml"
    path.write_text(text)
    return path


def test_relative_paths_start_at_the_folder_of_the_file(tmp_path: Path) -> None:
    file = configuration.read(written(tmp_path, TLS))
    assert file.state_folder() == tmp_path / "state"
    assert file.audit_path() == tmp_path / "state" / "audit.jsonl"
    assert file.control_path() == tmp_path / "state" / "control.sock"
    assert file.settings.facade is not None
    files = compose.tls_files(file, file.settings.facade)
    assert files is not None
    assert files.certificate == tmp_path / "tls.crt"
    assert files.key == Path("/k/tls.key")
    assert files.client_ca == tmp_path / "ca.crt"


@pytest.mark.parametrize("name", ["static", "passphrase", "people", "tls", "facade"])
def test_an_anchor_that_is_named_as_a_kind_is_still_named_in_the_error(
    name: str, tmp_path: Path
) -> None:
    text = f'[anchors.{name}]\nkind = "people"\nthreshold = 2\nshares = 99\n'
    with pytest.raises(SettingsError) as caught:
        configuration.read(written(tmp_path, text))
    assert caught.value.seen.startswith(f"kluis.toml line 4, anchors.{name}.shares: ")


def test_more_than_one_mistake_is_counted(tmp_path: Path) -> None:
    text = ANCHORS.replace("threshold", "treshold").replace("file", "fill")
    with pytest.raises(SettingsError) as caught:
        configuration.read(written(tmp_path, text))
    assert caught.value.next_step == "correct it; 2 more after this one"


PKCS11 = 'kind = "pkcs11"\nmodule = "m"\nkey = "k"\n'
TRANSIT = 'kind = "transit"\nkey = "k"\naddress = "https://vault.example"\n'
KINDS = "awskms, passphrase, people, pkcs11, static, tang, tpm2 or transit"
AUTHS = "approle, certificate, jwt, kubernetes or token"

# an anchor, the line and the place under anchors.vault that are named, and the words

WRONG = [
    ("file = 'a'\n", 1, ".kind", f"this field is missing; it should be {KINDS}"),
    ("kind = 'tpm'\n", 2, ".kind", f"'tpm' is no kind; it should be {KINDS}"),
    ("kind = 'static'\nfile = 'a'\nenv = 'B'\n", 1, "", "exactly one of file, env and credential"),
    ("kind = 'static'\nenv = 'a-b'\n", 3, ".env", "the name of a variable, like HSM_PIN"),
    ("kind = 'tpm2'\ndomain = '/'\n", 3, ".domain", "it should be up to 64 letters, digits, "),
    ("kind = 'tpm2'\nheal = 'never'\n", 3, ".heal", "it should be 'auto' or 'ask'"),
    ("kind = 'tpm2'\nask_every_s = -1\n", 3, ".ask_every_s", "it should be greater than or equal"),
    ("kind = 'tpm2'\ntimeout_s = 'long'\n", 3, ".timeout_s", "it should be a number"),
    (
        "kind = 'tpm2'\npcr = [7]\n",
        3,
        ".pcr",
        "no such field; there are ask_every_s, bank, device,",
    ),
    ("kind = 'tpm2'\npin = '1234'\n", 3, ".pin", "pin_credential, pin_env, pin_file"),
    ("kind = 'tpm2'\npcrs = [7, 24]\n", 3, ".pcrs.1", "it should be less than or equal to 23"),
    ("kind = 'tpm2'\npcrs = [-1]\n", 3, ".pcrs.0", "it should be greater than or equal to 0"),
    ("kind = 'tpm2'\npcrs = ['7']\n", 3, ".pcrs.0", "it should be a whole number"),
    ("kind = 'tpm2'\npcrs = 7\n", 3, ".pcrs", "it should be an array, in [ ]"),
    ("kind = 'tpm2'\nbank = 'md5'\n", 3, ".bank", "it should be 'sha1', 'sha256', 'sha384' or"),
    ("kind = 'tpm2'\npin_file = 'a'\npin_env = 'B'\n", 1, "", "at most one of pin_file, pin_env"),
    ("kind = 'pkcs11'\n", 1, ".module", "this field is missing"),
    (PKCS11 + "slot = 0\n", 1, "", "name one of pin_file, pin_env and pin_credential"),
    (PKCS11 + "pin_file = 'p'\n", 1, "", "name the token by its label, or the slot by its number"),
    (PKCS11 + "pin_file = 'p'\nslot = 0\ntoken = 't'\n", 1, "", "name the token by its label, or"),
    (PKCS11 + "slot = '0'\n", 5, ".slot", "it should be a whole number"),
    (PKCS11 + "mechanism = 'AES-CBC'\n", 5, ".mechanism", "it should be 'AES-GCM', 'RSA-OAEP' or"),
    (PKCS11 + f"token = '{'t' * 33}'\n", 5, ".token", "it should have at most 32 characters"),
    ("kind = 'awskms'\n", 1, ".key", "this field is missing"),
    ("kind = 'awskms'\nkey = 'k'\nendpoint = 'http://a'\n", 1, "", "http:// is for loopback only"),
    (
        "kind = 'awskms'\nkey = 'k'\nregion = 'EU West'\n",
        4,
        ".region",
        "a region like eu-central-1",
    ),
    ("kind = 'awskms'\nkey = 'k'\nendpoint = 'kms'\n", 4, ".endpoint", "a URL like https://"),
    ("kind = 'awskms'\nkey = 'k'\nsecret_key = 'x'\n", 4, ".secret_key", "profile, region"),
    (TRANSIT, 1, ".auth", "this field is missing"),
    (TRANSIT + "auth = 'token'\n", 5, ".auth", "it should be a table"),
    (TRANSIT + "auth = {}\n", 5, ".auth.kind", f"this field is missing; it should be {AUTHS}"),
    (TRANSIT + "auth.kind = 'ldap'\n", 5, ".auth.kind", f"'ldap' is no kind; it should be {AUTHS}"),
    (
        TRANSIT + "auth = { kind = 'token' }\n",
        5,
        ".auth",
        "exactly one of file, env and credential",
    ),
    (
        TRANSIT + "auth = { kind = 'token', token = 'hvs.x' }\n",
        *(5, ".auth.token", "there is no such field; there are credential, env, file, kind"),
    ),
    (
        TRANSIT + "[anchors.vault.auth]\nkind = 'approle'\nfile = 'a'\n",
        *(5, ".auth.role_id", "this field is missing"),
    ),
    (
        TRANSIT + "[anchors.vault.auth]\nkind = 'jwt'\nfile = 'a'\nrole = 'r'\nmount = '/jwt'\n",
        *(9, ".auth.mount", "a path like transit or team/transit, without / at its ends"),
    ),
    (
        TRANSIT + "auth = { kind = 'certificate' }\n",
        *(1, "", "auth by certificate needs certificate and certificate_key"),
    ),
    (
        TRANSIT + "certificate = 'c'\nauth = { kind = 'token', file = 'a' }\n",
        *(1, "", "name both certificate and certificate_key, or neither"),
    ),
    (
        TRANSIT.replace("https", "http") + "auth = { kind = 'token', file = 'a' }\n",
        *(1, "", "http:// is for loopback only"),
    ),
    (TRANSIT.replace("https://", ""), 4, ".address", "a URL like https://vault.example:8200"),
    (TRANSIT + "namespace = 'a b'\n", 5, ".namespace", "it should be a path of letters, digits, "),
    ("kind = 'tang'\n", 1, ".url", "this field is missing"),
    ("kind = 'tang'\nurl = 'tang.example'\n", 3, ".url", "a URL like https://vault.example:8200"),
    ("kind = 'tang'\nurl = 'http://a:99999'\n", 3, ".url", "its host or its port can't be"),
    (
        f"kind = 'tang'\nurl = 'http://a'\nthumbprint = '{'x' * 42}'\n",
        *(4, ".thumbprint", "it should be the 43 characters of a SHA-256 thumbprint"),
    ),
]


@pytest.mark.parametrize(("anchor", "line", "place", "words"), WRONG, ids=[w[0] for w in WRONG])
@pytest.mark.parametrize("name", ["vault", "token"])  # one is named as a kind
def test_a_mistake_in_an_anchor_names_the_field_the_line_and_what_is_allowed(
    name: str, anchor: str, line: int, place: str, words: str, tmp_path: Path
) -> None:
    text = f"[anchors.{name}]\n{anchor}".replace("anchors.vault", f"anchors.{name}")
    with pytest.raises(SettingsError) as caught:
        configuration.read(written(tmp_path, text))
    assert caught.value.seen.startswith(f"kluis.toml line {line}, anchors.{name}{place}: ")
    assert words in caught.value.seen
    assert "\n" not in caught.value.seen


def test_every_field_with_a_pattern_says_in_words_what_it_should_be() -> None:
    assert set(patterned("", Configuration.model_json_schema())) == set(FORMS)


def patterned(name: str, schema: Any) -> Iterator[str]:
    """The fields of a schema that have a pattern, and the tables whose keys have one."""
    if isinstance(schema, list):
        for part in schema:
            yield from patterned(name, part)
    if not isinstance(schema, dict):
        return
    if "pattern" in schema:
        yield name
    if "patternProperties" in schema:
        yield f"{name}[key]"
    for key, part in schema.items():
        of_a_field = key in ("properties", "$defs")
        for inner, value in part.items() if of_a_field else [(name, part)]:
            yield from patterned(inner, value)


# -- servers, what they wake, and who watches

SERVERS = (
    ANCHORS
    + KEYRING
    + """
[servers.old-vault]
addresses = ["https://vault-0.vault:8200", "https://vault-1.vault:8200"]
server_name = "vault.example"
ca = "ca.crt"
pin = "sha256:PIN="
cluster_id = "0c09d3d4-5429-8d73-f192-f705d707780f"
threshold = 3
shares = 5
unseal = "homelab/old-vault"
on_seal = "unseal"
wake = ["eso", "hook"]

[servers.by-name]
dns = "vault.example:8200"
recovery = "homelab/by-name"

[servers.in-kubernetes]
kubernetes = { namespace = "vault", selector = "app.kubernetes.io/name=openbao" }

[wake.eso]
kind = "external-secrets"

[wake.hook]
kind = "webhook"
url = "http://127.0.0.1:9/hook"
bearer = { file = "token" }

[kubernetes]
kubeconfig = "kubeconfig"

[watch]
listen = "127.0.0.1:8301"
"""
).replace("PIN", "A" * 43)


def test_declared_servers_become_objects_with_paths_from_the_folder_of_the_file(
    tmp_path: Path,
) -> None:
    made = compose.draw(configuration.read(written(tmp_path, SERVERS))).servers
    assert list(made) == ["old-vault", "by-name", "in-kubernetes"]
    old = made["old-vault"]
    assert old.discovery == Listed(("https://vault-0.vault:8200", "https://vault-1.vault:8200"))
    assert old.tls == ServerTls(tmp_path / "ca.crt", f"sha256:{'A' * 43}=", "vault.example")
    assert old.identity == Identity(3, 5, "0c09d3d4-5429-8d73-f192-f705d707780f")
    assert (old.unseal, old.recovery) == (KeyPath("homelab", "old-vault"), None)
    assert (old.on_seal, old.wake) == ("unseal", ("eso", "hook"))
    named = made["by-name"]
    assert named.discovery == Dns("vault.example", 8200)
    assert named.tls == ServerTls(server_name="vault.example")
    assert (named.identity, named.on_seal) == (Identity(), "hold")
    assert named.recovery == KeyPath("homelab", "by-name")
    pods = made["in-kubernetes"].discovery
    assert isinstance(pods, Pods)
    assert (pods.kubeconfig, pods.port, pods.scheme) == (tmp_path / "kubeconfig", 8200, "https")


AT = 'addresses = "https://a:8200"\n'
HERE = 'addresses = "http://127.0.0.1:8200"\n'
CLEAR = "shares are never sent over plain http beyond loopback; use https"
ONE = "name exactly one of addresses, dns and kubernetes"

# a server, the line and the place under servers.x that are named, and the words

WRONG_SERVERS = [
    ("", 1, "", ONE),
    (AT + 'dns = "a:8200"\n', 1, "", ONE),
    ('addresses = "a:8200"\n', 2, ".addresses.0", "a URL like https://vault.example:8200"),
    ('dns = "a"\n', 2, ".dns", "is not host:port"),
    (AT + 'pin = "sha256:short"\n', 3, ".pin", "kluis server add writes it"),
    (AT + 'cluster_id = "a b"\n', 3, ".cluster_id", "the id that the server tells"),
    (AT + 'server_name = "a b"\n', 3, ".server_name", "a name like vault.vault.svc"),
    (AT + 'user = "openbao"\n', 3, ".user", "no address is http:// on loopback"),
    ('dns = "a:1"\nuser = 998\n', 3, ".user", "no address is http:// on loopback"),
    (HERE + "user = true\n", 3, ".user", 'the name of a user, like "openbao", or a number'),
    (HERE + "user = -1\n", 3, ".user", 'the name of a user, like "openbao", or a number'),
    (HERE + 'user = "a b"\n', 3, ".user", 'the name of a user, like "openbao", or a number'),
    (HERE + "user = 65534\n", 3, ".user", "it proves nothing"),
    (AT + "threshold = 0\n", 3, ".threshold", "it should be greater than or equal to 1"),
    (AT + "shares = 256\n", 3, ".shares", "it should be less than or equal to 255"),
    (AT + 'unseal = "old-vault"\n', 3, ".unseal", "a keyring and a key, like homelab/old-vault"),
    (AT + 'unseal = "office/x"\n', 3, ".unseal", "there is no keyring office"),
    (AT + 'recovery = "office/x"\n', 3, ".recovery", "there is no keyring office"),
    (AT + 'on_seal = "never"\n', 3, ".on_seal", "it should be 'hold' or 'unseal'"),
    (AT + 'wake = ["nobody"]\n', 3, ".wake", "there is no hook nobody"),
    (AT + 'token = "hvs.x"\n', 3, ".token", "there is no such field"),
    ('addresses = "http://a:8200"\nunseal = "homelab/x"\n', 1, "", CLEAR),
    (
        'kubernetes = { namespace = "v", selector = "a=b", scheme = "http" }\n'
        'unseal = "homelab/x"\n',
        *(1, "", CLEAR),
    ),
    ('kubernetes = { namespace = "V" }\n', 2, ".kubernetes", ""),
    (AT + '[wake.hook]\nkind = "command"\n', 3, None, "command: this field is missing"),
    (AT + '[wake.hook]\nkind = "mail"\n', 4, None, "'mail' is no kind"),
    (AT + '[watch]\nlisten = "8301"\n', 4, None, "is not host:port"),
]


@pytest.mark.parametrize(("server", "line", "place", "words"), WRONG_SERVERS)
def test_a_mistake_in_a_server_names_the_field_the_line_and_what_is_allowed(
    server: str, line: int, place: str | None, words: str, tmp_path: Path
) -> None:
    text = f"[servers.x]\n{server}" + ANCHORS + KEYRING
    with pytest.raises(SettingsError) as caught:
        configuration.read(written(tmp_path, text))
    assert caught.value.seen.startswith(f"kluis.toml line {line}, ")
    assert place is None or f", servers.x{place}" in caught.value.seen
    assert words in caught.value.seen
    assert "hvs.x" not in caught.value.seen


def test_plain_http_is_for_loopback_and_for_servers_that_get_no_share(tmp_path: Path) -> None:
    for server in (
        'addresses = "http://127.0.0.1:8200"\nunseal = "homelab/x"\n',
        'addresses = "http://vault.example:8200"\n',
    ):
        configuration.read(written(tmp_path, f"[servers.x]\n{server}" + ANCHORS + KEYRING))


def test_a_user_is_a_name_or_a_number(tmp_path: Path) -> None:
    for user in ("openbao", 998):
        text = f"[servers.x]\n{HERE}user = {json.dumps(user)}\n" + ANCHORS + KEYRING
        made = compose.draw(configuration.read(written(tmp_path, text))).servers
        assert made["x"].tls == ServerTls(user=user)


# -- written


def test_another_text_takes_the_place_with_the_mode_and_by_the_link(tmp_path: Path) -> None:
    real = written(tmp_path, SERVERS)
    real.chmod(0o640)
    (tmp_path / "etc").mkdir()
    link = tmp_path / "etc" / "kluis.toml"
    link.symlink_to(real)
    file = configuration.read(link)
    configuration.write(file, SERVERS + "# more\n")
    assert link.is_symlink()
    assert real.read_text() == SERVERS + "# more\n"
    assert real.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir() if ".new" in path.name] == []


def test_what_is_no_configuration_or_came_too_late_is_not_written(tmp_path: Path) -> None:
    path = written(tmp_path, SERVERS)
    file = configuration.read(path)
    with pytest.raises(SettingsError):
        configuration.write(file, SERVERS.replace("threshold", "treshold"))
    assert path.read_text() == SERVERS
    path.write_text(SERVERS + "# somebody else")
    with pytest.raises(SettingsError, match="was changed in between"):
        configuration.write(file, SERVERS + "# more\n")
    assert path.read_text() == SERVERS + "# somebody else"


def test_one_at_a_time_writes_and_who_comes_second_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOCK_S", 0.0)
    path = written(tmp_path, SERVERS)
    file, prepare, refused = configuration.read(path), files.prepare, []

    def meanwhile(path: Path, data: bytes) -> Path:
        new = prepare(path, data)
        with pytest.raises(WriteFailed, match="another process is writing in") as caught:
            configuration.write(file, SERVERS + "# second\n")
        refused.append(caught.value)
        return new

    with monkeypatch.context() as patch:
        patch.setattr(files, "prepare", meanwhile)
        configuration.write(file, SERVERS + "# first\n")
    assert (path.read_text(), len(refused)) == (SERVERS + "# first\n", 1)
    with pytest.raises(SettingsError, match="was changed in between"):
        configuration.write(file, SERVERS + "# second\n")


def test_a_write_that_fails_leaves_the_old_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, SERVERS)
    file = configuration.read(path)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("fsync", "chmod"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, refuse)
            with pytest.raises(WriteFailed):
                configuration.write(file, SERVERS + "# more\n")
        assert path.read_text() == SERVERS
        assert list(tmp_path.iterdir()) == [path]


PLACES = """\
# a comment
[anchors.disk]
kind = "static"   # = not this

[ anchors . "family" ]
"kind" = "people"
threshold = 2

[keyrings]
homelab.opens = "disk"
homelab.store = { kind = "directory",
  path = "state" }

[[more.things]]
a = 1
"""


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("anchors", "disk", "kind"), 3),
        (("anchors", "disk", "file"), 2),
        (("anchors", "family"), 5),
        (("anchors", "family", "kind"), 6),
        (("anchors", "family", "threshold"), 7),
        (("keyrings", "homelab", "opens"), 10),
        (("keyrings", "homelab", "store", "path"), 11),
        (("keyrings", "office", "opens"), 9),
        (("more", "things", 0, "a"), 14),
        (("nothing",), None),
        ((), None),
    ],
)
def test_a_place_has_the_line_of_the_nearest_thing_around_it(
    place: tuple[str | int, ...], line: int | None
) -> None:
    assert line_of(PLACES, place) == line


@given(st.text(max_size=300))
def test_any_text_is_a_configuration_or_one_clear_error(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kluis.toml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        assert_clear(path)


@given(st.data())
def test_any_damage_to_a_configuration_is_a_configuration_or_one_clear_error(
    data: st.DataObject,
) -> None:
    import tempfile

    at = data.draw(st.integers(0, len(TLS)))
    cut = data.draw(st.integers(0, 40))
    put = data.draw(
        st.text(max_size=12) | st.sampled_from(["{}", "[]", "0", "'", '"""', "=", "\n["])
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kluis.toml"
        path.write_text(TLS[:at] + put + TLS[at + cut :], "utf-8", errors="surrogatepass")
        assert_clear(path)


def assert_clear(path: Path) -> None:
    locating.control_socket(path)
    failure: SettingsError | None = None
    try:
        configuration.read(path)
    except SettingsError as error:
        failure = error
    assert failure is None or all((failure.seen, failure.means, failure.next_step))


def test_the_quick_way_to_the_socket_and_the_full_one_agree(tmp_path: Path) -> None:
    for text in (
        CONFIGURATION.replace("PORT", "1"),
        ANCHORS + KEYRING + '[service]\ncontrol = "run/kluis.sock"\n',
        ANCHORS + KEYRING.replace('"state"', '"/var/lib/kluis"'),
        ANCHORS + KEYRING.replace('"state"', f'"{"s" * 120}"'),
    ):
        path = written(tmp_path, text)
        assert locating.control_socket(path) == configuration.read(path).control_path()


@pytest.mark.parametrize("text", ["", "x", "keyrings = 1", "[keyrings]", "[keyrings.a]", "a = [[["])
def test_a_configuration_without_a_socket_is_read_in_full_first(text: str, tmp_path: Path) -> None:
    assert locating.control_socket(written(tmp_path, text)) is None


def test_a_configuration_of_a_wild_size_is_not_taken_into_memory() -> None:
    assert locating.control_socket(Path("/dev/zero")) is None
    with pytest.raises(SettingsError, match="larger than 1 MiB"):
        configuration.read(Path("/dev/zero"))


def test_a_long_socket_path_is_short_and_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    long = tmp_path / ("x" * 200)
    one, other = locating.socket_path(long / "a"), locating.socket_path(long / "b")
    assert one != other
    assert one.parent == Path("/run/user/7")
    assert len(os.fsencode(one)) <= locating.MAX_SOCKET_PATH_BYTES


def test_the_variables_that_hold_secrets_are_known(tmp_path: Path) -> None:
    text = ANCHORS.replace('file = "anchor.key"', 'env = "DISK_KEY"') + KEYRING
    file = configuration.read(written(tmp_path, text))
    assert compose.anchor_variables(file) == ("DISK_KEY",)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8300", ("127.0.0.1", 8300)),
        ("[::1]:0", ("::1", 0)),
        ("kluis.example:65535", ("kluis.example", 65535)),
    ],
)
def test_addresses_are_host_and_port(text: str, address: tuple[str, int]) -> None:
    assert split_address(text) == address


@pytest.mark.parametrize(
    "text",
    ["", ":8300", "127.0.0.1", "127.0.0.1:", "::1:8300", "[::1]", "a b:1", "a:65536", "a:-1"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not host:port"):
        split_address(text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_loopback_is_told_from_what_others_can_reach(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
