"""Reading ``kluis.toml``: relative paths, the places of mistakes, and where the socket lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kluis import compose, configuration, locating
from kluis.addresses import is_loopback, split_address
from kluis.configuration import line_of
from kluis.errors import SettingsError
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
