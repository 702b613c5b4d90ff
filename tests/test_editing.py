"""Fields of servers written into kluis.toml: the rest of it stays, byte for byte in meaning."""

from __future__ import annotations

import string
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kluis.errors import SettingsError
from kluis.settings.editing import Value, renamed, shown, with_server
from tests.support.house import CONFIGURATION

PIN = "sha256:" + "A" * 43 + "="


def expected(text: str, name: str, fields: dict[str, Value]) -> dict[str, Any]:
    tables = tomllib.loads(text)
    server = tables.setdefault("servers", {}).setdefault(name, {})
    server |= {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}
    return tables


def test_a_new_server_stands_at_the_end_and_nothing_else_changes() -> None:
    fields: dict[str, Value] = {"addresses": ("https://a:8200", "https://b:8200"), "pin": PIN}
    new = with_server(CONFIGURATION, "old-vault", fields)
    assert new == (
        CONFIGURATION + "\n[servers.old-vault]\n"
        f'addresses = ["https://a:8200", "https://b:8200"]\npin = "{PIN}"\n'
    )


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_table_keeps_its_comments_its_order_and_its_layout(end: str) -> None:
    text = f"""\
# the top
  [ servers . "old-vault" ]   # [servers.old-vault]
  addresses = [               # two of them
    "https://a:8200",         # the "first"
    # [wake.x]
    "https://b:8200"
  ]
  "threshold" = 3             # as it was
  'pin'="sha256:{"B" * 43}=" # [old]
  # a word at the end

[servers.old-vault.kubernetes] # another table
namespace = 'vault'

[servers.old-vault-2]
threshold = 1
"""
    fields: dict[str, Value] = {"pin": PIN, "threshold": 4, "cluster_id": "c-1", "ca": 'a"\\.crt'}
    new = with_server(text.replace("\n", end), "old-vault", fields)
    changed = [
        (old, now)
        for old, now in zip(
            text.splitlines(),
            [line for line in new.splitlines() if not line.startswith(("  cluster_id", "  ca"))],
            strict=True,
        )
        if old != now
    ]
    assert changed == [
        ('  "threshold" = 3             # as it was', '  "threshold" = 4             # as it was'),
        (f"  'pin'=\"sha256:{'B' * 43}=\" # [old]", f"  'pin'=\"{PIN}\" # [old]"),
    ]
    assert f'{end}  cluster_id = "c-1"{end}  ca = "a\\"\\\\.crt"{end}  # a word at the end' in new
    assert new.count("\n") == new.count(end)
    assert tomllib.loads(new) == expected(text, "old-vault", fields)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[servers]",
        "# only a comment",
        "[servers.old-vault]",
        "[servers.old-vault.kubernetes]\nnamespace = 'x'",
        "[servers.old-vault]\n[servers.old-vault.kubernetes]\nnamespace = 'x'",
        "[servers.other]\npin = 'x'\n[[a]]\n[[a]]",
        "servers.other.pin = 'x'\n",
        'a = """\n[servers.old-vault]\npin = "y\\"\\\n""" # """\n[servers.old-vault]\n',
        "a = '''\n[servers.old-vault]\n''''' # '''\n",
        'a = "[servers.old-vault]"\nb = \'"\'\n[servers.old-vault]\nc = ["]", \']\', """]\n]"""]',
        "[servers.old-vault]\nc = { a = [1,\n2] }\n\n\n",
        "a = \"\u2028\x85\"\n[servers.old-vault]\nb = ''\n",
    ],
)
def test_forms_of_toml_that_people_write(text: str) -> None:
    fields: dict[str, Value] = {"pin": PIN, "shares": 5}
    assert tomllib.loads(with_server(text, "old-vault", fields)) == expected(
        text, "old-vault", fields
    )


@pytest.mark.parametrize(
    "text",
    [
        "servers = { old-vault = { pin = 'x' } }",
        "servers = 3",
        "[servers]\nold-vault = 3",
        "[servers]\nold-vault = { pin = 'x' }",
        "[servers]\nold-vault.pin = 'x'",
        "[servers.old-vault]\npin = '''x'''",
        "[servers.old-vault]\npin = [1]",
        '[servers.old-vault]\n"p\\u0069n" = "x"',
        "[servers.old-vault\n",
        "a = nan",
        "a = '''",
        "a = " + "[" * 2000,
    ],
)
def test_what_can_not_be_changed_line_by_line_is_refused_with_the_lines_to_write(text: str) -> None:
    with pytest.raises(SettingsError) as error:
        with_server(text, "old-vault", {"pin": PIN, "shares": 5})
    assert error.value.next_step == f'write it yourself: pin = "{PIN}"; shares = 5'
    assert error.value.means


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_field_is_renamed_where_it_stands(end: str) -> None:
    text = """\
[servers.other]
unseal = "a/b"
[servers.x]  # unseal = "a/b"
  "unseal"  = "a/b" # its shares
pin = '''
unseal = "a/b"'''
[servers.x.kubernetes]
unseal = 1
""".replace("\n", end)
    new = renamed(text, "x", "unseal", "recovery")
    assert new == text.replace('"unseal"  =', "recovery  =")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[servers.x]\npin = 'x'",
        "[servers.x]\nunseal = 'a'\nrecovery = 'b'",
        "[servers]\nx.unseal = 'a'",
        "servers = { x = { unseal = 'a' } }",
        '[servers.x]\n"un\\u0073eal" = "a"',
        "servers = 3",
        "[servers.x",
    ],
)
def test_what_can_not_be_renamed_is_refused(text: str) -> None:
    with pytest.raises(SettingsError) as error:
        renamed(text, "x", "unseal", "recovery")
    assert error.value.next_step == "write it yourself: recovery in place of unseal"


def test_what_no_file_can_hold_is_refused() -> None:
    with pytest.raises(SettingsError):
        with_server("", "old-vault", {"ca": "\udcff.crt"})


def test_each_field_is_shown_as_a_line() -> None:
    assert shown({"addresses": ("a",), "shares": 5}) == ('addresses = ["a"]', "shares = 5")


# -- whatever stands around it

BARE = st.text(string.ascii_lowercase + "-", min_size=1, max_size=4)
NAMES = BARE | BARE.map(lambda name: f'"{name}"') | BARE.map(lambda name: f"'{name}'")
TEXTS = st.sampled_from(
    [
        *("1", "true", '""', "''", "[]", "{}", '"a # b"', "'[servers.x]'", '"\\"]"', "1979-05-27"),
        *("[\"a\", 'b']", '[\n  "a", # ]\n  # [servers.x]\n]', "{ a = 1, b = [ 2,\n3 ] }"),
        *('"""\n[servers.x]\npin = "y"\n"""', "'''\n# '' \"\"\"\n'''''", '"""\\\n  \\""" ""\\""""'),
        *('"""a"""', "'''[[x]]'''", '"sha256:x"'),
    ]
)
SPACES = st.sampled_from(["", " ", "\t", "  "])
COMMENTS = st.sampled_from(["", " # pin = 'x'", "# [servers.x]", ' # """', " # '''", "\t#"])
FIELDS = st.sampled_from(["pin", "ca", "threshold", '"shares"', "'cluster_id'", "a", "b", "c.d"])


@st.composite
def lines(draw: st.DrawFn) -> str:
    """An assignment, a header, a comment or nothing."""
    space, comment = draw(SPACES), draw(COMMENTS)
    match draw(st.integers(0, 5)):
        case 0:
            return space + comment
        case 1:
            path = draw(st.lists(NAMES, min_size=1, max_size=3))
            return f"{space}[{draw(SPACES)}{f'{space}.'.join(path)}]{comment}"
        case 2:
            field = draw(st.sampled_from(["x", '"x"', "y", "x.kubernetes"]))
            return f"{space}[servers.{space}{field}{space}]{comment}"
        case _:
            field = draw(FIELDS | NAMES)
            return f"{space}{field}{draw(SPACES)}={draw(SPACES)}{draw(TEXTS)}{comment}"


@given(
    st.lists(lines(), max_size=12),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.dictionaries(
        st.sampled_from(["pin", "ca", "threshold", "cluster_id"]),
        st.sampled_from(["x", 'a"b\\', "é\n\u2028", 7]),
        min_size=1,
    ),
)
@settings(max_examples=200)
def test_whatever_stands_around_it_the_new_file_says_the_old_and_the_new(
    parts: list[str], end: str, whole: bool, fields: dict[str, Value]
) -> None:
    text = end.join(part.replace("\n", end) for part in parts) + (end if whole else "")
    _says_the_old_and_the_new(text, fields)


@given(st.lists(lines(), max_size=6))
def test_after_a_table_of_its_own_it_is_never_refused(parts: list[str]) -> None:
    text = "\n".join(["[servers.x]", 'addresses = "https://a"', *parts])
    try:
        old = tomllib.loads(text)["servers"]
    except (ValueError, RecursionError):
        return
    if any(isinstance(value, dict | list) or "\n" in str(value) for value in old["x"].values()):
        return
    new = with_server(text, "x", {"shares": 5})
    assert tomllib.loads(new) == expected(text, "x", {"shares": 5})


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_text_ends_in_another_error(before: str, after: str) -> None:
    _says_the_old_and_the_new(f"{before}\n[servers.x]\n{after}", {"pin": PIN})


def _says_the_old_and_the_new(text: str, fields: dict[str, Value]) -> None:
    try:
        new = with_server(text, "x", fields)
    except SettingsError:
        return
    assert tomllib.loads(new) == expected(text, "x", fields)
    kept = [line for line in text.splitlines() if "=" not in line and line.strip()]
    assert all(line in new for line in kept), "a comment or a header is gone"
