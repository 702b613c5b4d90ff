"""Where a ceremony stands, as a table; and what is refused before anybody is asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kluis.errors import (
    ChangeRefused,
    InitLost,
    KluisError,
    ServerError,
    ServerUnreachable,
    UsageError,
    WrongServer,
)
from kluis.keyring.custody import Custody
from kluis.servers.ceremony import nodes, standing
from kluis.servers.ceremony.nodes import Node
from kluis.servers.client import SealStatus
from kluis.servers.declared import Identity, KeyPath, Listed, Server
from kluis.servers.tls import ServerTls

ONE, TWO = "https://one:8200", "https://two:8200"
SERVER = Server(
    "old-vault", Listed((ONE, TWO)), ServerTls(pin="sha256:x"), unseal=KeyPath("homelab", "v")
)
NEW = SealStatus("shamir", False, True, 0, 0, 0, "", "2.7.2", False, False, "raft", "", "")
SEALED = replace(NEW, initialized=True, threshold=3, shares=5)
OPEN = replace(SEALED, sealed=False, cluster_id="c1")
AUTO = replace(NEW, seal_type="static", recovery_seal=True)
AWAY = ServerUnreachable("away", "away", "start it")

BEGUN = Custody("unseal", 0, (), step="begun", node=ONE)
KEPT = Custody("unseal", 1, (bytes(33),), step="kept", root_token="s.x")
DONE = replace(KEPT, step="")


def stand(status: SealStatus, kept: Custody | None, second: Node | None = None) -> str:
    found = (Node(ONE, status), second or Node(TWO, status))
    return standing.stand(SERVER, standing.seal_of(SERVER, found), kept, found).value


@pytest.mark.parametrize(
    ("kept", "status", "expected"),
    [
        (None, NEW, "new"),
        (BEGUN, NEW, "begun"),
        (KEPT, SEALED, "kept"),
        (KEPT, OPEN, "kept"),
        (DONE, SEALED, "done"),
        (replace(DONE, step="rekeying"), OPEN, "done"),
        (replace(DONE, step="rotating"), OPEN, "done"),
        (None, SEALED, UsageError),
        (BEGUN, SEALED, InitLost),
        (BEGUN, OPEN, InitLost),
        (KEPT, NEW, ChangeRefused),
        (DONE, NEW, ChangeRefused),
        (replace(DONE, purpose="recovery"), OPEN, UsageError),
    ],
)
def test_the_table(
    kept: Custody | None, status: SealStatus, expected: str | type[KluisError]
) -> None:
    if isinstance(expected, str):
        assert stand(status, kept) == expected
        return
    with pytest.raises(expected) as raised:
        stand(status, kept)
    assert raised.value.means
    assert raised.value.next_step


def test_an_init_that_may_have_happened_at_a_node_that_is_away_is_not_done_elsewhere() -> None:
    away = Node(TWO, failure=AWAY)
    assert stand(NEW, None, away) == "new"
    assert stand(NEW, BEGUN, away) == "begun"
    for node in (TWO, "https://gone:8200"):
        with pytest.raises(ServerUnreachable):
            stand(NEW, replace(BEGUN, node=node), away)
    assert stand(NEW, replace(BEGUN, node="https://gone:8200")) == "begun"


def test_the_node_to_talk_to_is_the_one_that_is_furthest() -> None:
    def chosen(first: SealStatus | None, second: SealStatus | None) -> str:
        found = [Node(a, s, None if s else AWAY) for a, s in ((ONE, first), (TWO, second))]
        return nodes.first_answering(found)[0]

    assert [chosen(NEW, NEW), chosen(None, NEW), chosen(NEW, SEALED)] == [ONE, TWO, TWO]
    assert [chosen(SEALED, OPEN), chosen(OPEN, SEALED), chosen(OPEN, OPEN)] == [TWO, ONE, ONE]
    with pytest.raises(ServerUnreachable):
        chosen(None, None)


def test_an_auto_seal_needs_a_place_for_its_recovery_keys() -> None:
    found = (Node(ONE, AUTO),)
    with pytest.raises(UsageError):
        standing.seal_of(SERVER, found)
    declared = replace(SERVER, recovery=KeyPath("homelab", "r"))
    seal = standing.seal_of(declared, found)
    assert (seal.purpose, str(seal.path)) == ("recovery", "homelab/r")


@pytest.mark.parametrize(
    ("status", "cluster_id", "wrong"),
    [
        (NEW, "", ServerError),
        (SEALED, "", ServerError),
        (OPEN, "c2", WrongServer),
        (replace(OPEN, cluster_id=""), "c1", WrongServer),
    ],
)
def test_shares_are_shown_to_the_active_node_of_the_right_cluster_only(
    status: SealStatus, cluster_id: str, wrong: type[ServerError]
) -> None:
    with pytest.raises(wrong):
        nodes.active(SERVER, (Node(ONE, status, active=True),), cluster_id)
    declared = replace(SERVER, identity=Identity(cluster_id="c2"))
    with pytest.raises(ServerError):
        nodes.active(declared, (Node(ONE, status, active=True),), "")
    with pytest.raises(ServerUnreachable):
        nodes.active(SERVER, (Node(ONE, OPEN), Node(TWO, failure=AWAY)), "c1")
    both = (Node(ONE, OPEN), Node(TWO, OPEN, active=True))
    assert nodes.active(SERVER, both, "c1") == (TWO, OPEN)


@pytest.mark.parametrize(
    ("address", "pin", "believed"),
    [
        ("https://vault:8200", None, False),
        ("https://127.0.0.1:8200", None, False),
        ("https://vault:8200", "sha256:x", True),
        ("http://127.0.0.1:8200", None, True),
        ("http://[::1]:8200", None, True),
        ("http://vault:8200", "sha256:x", False),
    ],
)
def test_who_is_believed(address: str, pin: str | None, believed: bool) -> None:
    server = replace(SERVER, tls=ServerTls(Path("ca.crt"), pin))
    if believed:
        nodes.refuse_unknown(server, address)
        return
    with pytest.raises(UsageError):
        nodes.refuse_unknown(server, address)


@pytest.mark.parametrize(
    ("asked", "present", "made"),
    [
        ((None, None), None, (5, 3)),
        ((None, None), (7, 4), (7, 4)),
        ((2, None), None, (2, 2)),
        ((1, None), None, (1, 1)),
        ((1, 1), None, (1, 1)),
        ((255, 255), None, (255, 255)),
        ((3, 4), None, None),
        ((2, 1), None, None),
        ((0, None), None, None),
        ((-1, -1), None, None),
        ((256, 3), None, None),
        ((None, 6), None, None),
    ],
)
def test_how_many_shares(
    asked: tuple[int | None, int | None],
    present: tuple[int, int] | None,
    made: tuple[int, int] | None,
) -> None:
    if made is not None:
        assert standing.shares_wanted(SERVER, *asked, present) == made
        return
    with pytest.raises(UsageError):
        standing.shares_wanted(SERVER, *asked, present)


def test_a_new_server_is_as_kluis_toml_declares_it() -> None:
    declared = replace(SERVER, identity=Identity(threshold=2, shares=4))
    assert standing.shares_wanted(declared, None, None, None) == (4, 2)
    standing.refuse_undeclared_numbers(declared, 4, 2)
    with pytest.raises(UsageError):
        standing.refuse_undeclared_numbers(declared, 5, 3)
