"""The seal stanza in a configuration: found where a server finds it, and in nothing else."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kluis.errors import UsageError
from kluis.servers.migration import stanzas
from kluis.servers.migration.hcl import MAX_CONFIG_BYTES, Stanza, seal_of

TOKEN = 'a"}b'
FULL = """\
storage "raft" { path = "x" }   # seal "static" {
/* seal "no" { } */
listener "tcp" { address = "seal" }
seal "transit" {
  address    = "https://kms.example:8200"   # a comment with }
  // another "
  token      = "a\\"}b"
  disabled   = "false"
  key_name   = "unseal"
  mount_path = "transit/"
}
telemetry { note = <<EOF
seal "transit" {
EOF
}
"""


def test_the_stanza_is_found_among_all_that_looks_like_one() -> None:
    found = seal_of(FULL)
    assert found is not None
    assert (found.kind, found.fields["token"]) == ("transit", TOKEN)
    again = seal_of(found.text())
    assert again is not None
    assert {**again.fields, "disabled": "false"} == found.fields


def test_the_disabled_stanza_says_all_that_the_old_one_said() -> None:
    found = seal_of(FULL)
    assert found is not None
    text = found.text(disabled=True)
    assert text.count("disabled") == 1
    with pytest.raises(UsageError, match="disabled"):
        seal_of(text)
    for name, value in found.fields.items():
        if name not in ("disabled", "token"):
            assert f'"{value}"' in text


def test_a_heredoc_stays_as_it_is() -> None:
    heredoc = "<<EOF\na\n\n  b  \nEOF"
    found = seal_of(f'seal "pkcs11" {{\n\n  pin = {heredoc}\n}}\n')
    assert found is not None
    assert found.text() == f'seal "pkcs11" {{\n  pin = {heredoc}\n}}\n'


def test_json_is_read_as_well_and_written_as_hcl() -> None:
    fields = {"address": "https://kms.example:8200", "token": TOKEN, "disable_renewal": True}
    for seal in ({"transit": fields}, [{"transit": fields}], [{"transit": [fields]}]):
        found = seal_of(json.dumps({"seal": seal, "ui": True}))
        assert found is not None
        again = seal_of(found.text())
        assert again is not None
        assert (again.kind, again.fields["token"]) == ("transit", TOKEN)


@pytest.mark.parametrize(
    "config",
    [
        'ui = true\nstorage "raft" {\n}\n',
        "",
        '{"ui": true}',
        'listener "tcp" {\n  seal "transit" {\n  }\n}\n',
    ],
)
def test_without_a_stanza_there_is_none(config: str) -> None:
    assert seal_of(config) is None


@pytest.mark.parametrize(
    "config",
    [
        'seal "transit" {',
        "}",
        'seal "transit" {}\nseal "static" {}',
        'seal "transit" { disabled = "true" }',
        'seal "transit" { disabled = true }',
        'seal "Tr ansit" {}',
        'a = "no end',
        "/* no end",
        "a = <<EOF\nno end",
        '{"seal": [1]}',
        '{"seal": {"transit": {"a": {}}}}',
        '{"seal": {"a": {}, "b": {}}}',
        "{",
        " " * (MAX_CONFIG_BYTES + 1),
    ],
)
def test_what_can_not_be_understood_is_refused(config: str) -> None:
    with pytest.raises(UsageError):
        seal_of(config)


PIECES = st.sampled_from(
    ['seal "transit" {', "}", "{", '"', "#", "/*", "*/", "<<EOF\n", "\nEOF\n", 'a = "b"\n', "\\"]
)


@given(st.one_of(st.text(), st.lists(PIECES).map("".join)))
def test_any_text_gives_a_stanza_or_one_clear_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        found = seal_of(text)
        assert found is None or isinstance(found, Stanza)


def test_the_files_of_a_move_between_two_seals() -> None:
    old = seal_of(FULL)
    new = stanzas.facade("https://kluis.example:8300", "homelab", "bletchley", "bletchley", "t")
    files = stanzas.files(old, new, repoint=False)
    assert list(files) == [stanzas.BEFORE, stanzas.MIGRATE, stanzas.AFTER, stanzas.BACK]
    assert files[stanzas.MIGRATE].count("seal ") == 2
    assert files[stanzas.MIGRATE].index("disabled") < files[stanzas.MIGRATE].index("kluis.example")
    assert files[stanzas.BACK].index("disabled") < files[stanzas.BACK].index("kms.example")
    assert "disabled" not in files[stanzas.AFTER] + files[stanzas.BEFORE]
    assert 'mount_path = "homelab/"' in files[stanzas.AFTER]
    assert list(stanzas.files(old, new, repoint=True)) == [stanzas.BEFORE, stanzas.AFTER]


def test_shamir_has_no_stanza_and_needs_none_disabled() -> None:
    new = stanzas.static()
    files = stanzas.files(None, new, repoint=False)
    assert files[stanzas.BEFORE] == stanzas.NO_STANZA
    assert files[stanzas.MIGRATE] == files[stanzas.AFTER] == new.text()
    assert files[stanzas.BACK] == new.text(disabled=True)


def test_a_stanza_of_ones_own_must_be_of_the_kind_that_was_asked_for() -> None:
    assert stanzas.given(seal_of('seal "pkcs11" { lib = "x" }'), "").kind == "pkcs11"
    for given_kind, wanted in (('seal "static" {}', "transit"), ("ui = true", "")):
        with pytest.raises(UsageError):
            stanzas.given(seal_of(given_kind), wanted)
    assert "secret" not in repr(seal_of('seal "transit" { token = "secret" }'))
