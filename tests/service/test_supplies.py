"""What transit anchors hang on: servers and facades, found by their addresses."""

from __future__ import annotations

import pytest

from kluis.keyring.circles import KeyringId, Return, cold_start
from kluis.service.explain.supplies import Home, graph_of
from tests.service.installations import home, people, static, transit

K = KeyringId("", "k")
TLS = {"certificate": "tls.crt", "key": "tls.key"}


def served(*homes: Home) -> dict[str, tuple[str, set[str]]]:
    """The servers of k's anchors, and the keyrings that those need."""
    return {
        anchor: (supply.server, {str(need) for need in supply.needs})
        for anchor, supply in graph_of(homes)[K].supplies.items()
    }


@pytest.mark.parametrize(
    ("known", "asked"),
    [
        ("https://bao.example:8200", "https://BAO.example:8200/"),
        ("https://bao.example", "https://bao.example:443/v1"),
        ("http://127.0.0.1:8200", "http://localhost:8200"),
        (["https://a.example", "https://b.example"], "https://b.example"),
    ],
)
def test_an_anchor_is_served_by_the_client_of_that_address(known: object, asked: str) -> None:
    anchors = {"bao": transit(asked)}
    one = home(rules={"k": "bao"}, anchors=anchors, clients={"bletchley": (["k"], known)})
    assert served(one) == {"bao": ("bletchley", {"k"})}


def test_an_anchor_is_served_by_the_server_that_a_key_unseals() -> None:
    keys = {"seal": {"kind": "static-seal", "address": "https://bao.example:8200"}}
    anchors = {"bao": transit("https://bao.example:8200")}
    one = home(rules={"k": "bao"}, anchors=anchors, keys=keys)
    assert served(one) == {"bao": ("seal", {"k"})}


@pytest.mark.parametrize(
    ("declared", "asked"),
    [
        ({"addresses": ["https://a:8200", "https://bao:8200"]}, "https://BAO:8200/v1"),
        ({"dns": "bao.example:8200"}, "https://bao.example:8200"),
        ({"addresses": "http://127.0.0.1:8200"}, "http://localhost:8200"),
    ],
)
def test_an_anchor_at_a_server_that_shares_are_pushed_to_needs_the_keyring_of_the_shares(
    declared: dict[str, object], asked: str
) -> None:
    anchors = {"bao": transit(asked), "disk": static()}
    rules = {"k": "bao", "other": "disk"}
    watched = {"old-vault": declared}
    assert served(home(rules=rules, anchors=anchors, servers=watched)) == {}
    pushed = {"old-vault": {**declared, "unseal": "other/old-vault"}}
    one = home(rules=rules, anchors=anchors, servers=pushed)
    assert served(one) == {"bao": ("old-vault", {"other"})}
    assert cold_start(graph_of([one]), K).returns is Return.ITSELF


def test_shares_in_the_keyring_that_only_their_own_server_opens_never_come_back() -> None:
    watched = {"old-vault": {"addresses": "https://bao:8200", "unseal": "k/old-vault"}}
    one = home(rules={"k": "bao"}, anchors={"bao": transit("https://bao:8200")}, servers=watched)
    found = cold_start(graph_of([one]), K)
    assert found.returns is Return.NEVER
    assert [(hop.supply.server, str(hop.to)) for hop in found.circles[0].hops] == [
        ("old-vault", "k")
    ]
    far = home("far.toml", rules={"o": "disk"}, anchors={"disk": static()}, servers=watched_by_o())
    near = home(rules={"k": "bao"}, anchors={"bao": transit("https://bao:8200")})
    assert served(near, far) == {"bao": ("old-vault of far.toml", {"o of far.toml"})}


def watched_by_o() -> dict[str, object]:
    return {"old-vault": {"addresses": "https://bao:8200", "unseal": "o/old-vault"}}


def test_an_anchor_whose_server_nobody_names_hangs_on_nothing() -> None:
    anchors = {"bao": transit("https://elsewhere:8200"), "disk": static()}
    one = home(
        rules={"k": "bao or disk"},
        anchors=anchors,
        clients={"bletchley": (["k"], [])},
        facade={"listen": "127.0.0.1:8300"},
    )
    assert served(one) == {}
    assert cold_start(graph_of([one]), K).returns is Return.ITSELF


@pytest.mark.parametrize(
    ("facade", "asked"),
    [
        ({"listen": "127.0.0.1:8300"}, "http://localhost:8300"),
        ({"listen": "[::1]:8300"}, "http://127.0.0.1:8300/"),
        ({"listen": "0.0.0.0:8300", "tls": TLS}, "https://127.0.0.1:8300"),
        ({"listen": "10.0.0.5:8300", "tls": TLS}, "https://10.0.0.5:8300"),
        (
            {"listen": "0.0.0.0:8300", "tls": TLS, "address": "https://kluis.example"},
            "https://kluis.example/v1/",
        ),
    ],
)
def test_an_anchor_at_the_facade_needs_the_keyring_of_its_mount(
    facade: dict[str, object], asked: str
) -> None:
    anchors = {"self": transit(asked, mount="other"), "disk": static()}
    one = home(rules={"k": "self", "other": "disk"}, anchors=anchors, facade=facade)
    assert served(one) == {"self": ("the facade", {"other"})}


def test_a_mount_that_is_no_keyring_is_taken_to_need_them_all() -> None:
    anchors = {"self": transit("http://127.0.0.1:8300", mount="typo"), "disk": static()}
    one = home(
        rules={"k": "self", "other": "disk"},
        anchors=anchors,
        facade={"listen": "[::]:8300", "tls": TLS},
    )
    assert served(one) == {"self": ("the facade", {"k", "other"})}


def test_two_installations_that_open_each_other_are_found_together_only() -> None:
    near = home(
        rules={"k": "far"},
        anchors={"far": transit("https://kluis2.example:8300", mount="o")},
        facade={"listen": "0.0.0.0:8300", "tls": TLS, "address": "https://kluis1.example:8300"},
    )
    far = home(
        "far.toml",
        rules={"o": "back"},
        anchors={"back": transit("https://kluis1.example:8300/", mount="k")},
        facade={"listen": "0.0.0.0:8300", "tls": TLS, "address": ["https://kluis2.example:8300"]},
    )
    assert served(near) == {}
    assert served(near, far) == {"far": ("the facade of far.toml", {"o of far.toml"})}
    found = cold_start(graph_of([near, far]), K)
    assert found.returns is Return.NEVER
    assert [str(hop.to) for hop in found.circles[0].hops] == ["o of far.toml", "k"]


def test_loopback_is_looked_up_at_home_before_anywhere_else() -> None:
    anchors = {"bao": transit("http://127.0.0.1:8200")}
    near = home(rules={"k": "bao"}, anchors=anchors)
    far = home(
        "far.toml",
        rules={"o": "disk"},
        anchors={"disk": static()},
        clients={"colossus": (["o"], "http://localhost:8200")},
    )
    assert served(near, far) == {"bao": ("colossus of far.toml", {"o of far.toml"})}
    both = home(
        rules={"k": "bao"}, anchors=anchors, clients={"bletchley": (["k"], "http://[::1]:8200")}
    )
    assert served(both, far) == {"bao": ("bletchley", {"k"})}


def test_people_and_passphrases_that_are_typed_wait_for_a_person() -> None:
    anchors = {
        "family": people(2, 3),
        "typed": {"kind": "passphrase"},
        "read": {"kind": "passphrase", "file": "passphrase"},
        "disk": static(),
    }
    graph = graph_of([home(rules={"k": "family or typed or read or disk"}, anchors=anchors)])
    assert graph[K].attended == {"family", "typed"}
