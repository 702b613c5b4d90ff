"""Three nodes, as they were measured to show themselves (OpenBao 2.7.2), and what follows."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kluis.keyring.migrations import Migration, Progress
from kluis.servers.migration import plan, words
from kluis.servers.migration.plan import Decision, Place, Push
from kluis.servers.migration.standing import Presence, Seen, Stand, stands

NOW = "2026-11-22T06:00:00Z"
A, B, C = (f"https://10.0.0.{number}:8200" for number in (1, 2, 3))
SHAMIR_OUT = Migration("it", "shamir", "transit", "facade", "homelab/it", NOW)
TRANSIT_ON = Migration("it", "transit", "transit", "facade", "homelab/it", NOW)
TRANSIT_OUT = Migration("it", "transit", "shamir", "shamir", "homelab/it", NOW)


def up(address: str, seal: str, *, migration: bool = False, active: str = "") -> Seen:
    return Seen(address, Presence.THERE, seal, False, migration, bool(active), active)


def sealed(address: str, seal: str, *, migration: bool = False) -> Seen:
    return Seen(address, Presence.THERE, seal, True, migration)


def away(address: str) -> Seen:
    return Seen(address, Presence.AWAY)


def between(address: str) -> Seen:
    """500 to ``sys/seal-status``: it has its shares, and nobody migrated yet."""
    return Seen(address, Presence.UNCLEAR)


def look(one: Migration, *nodes: Seen) -> tuple[Migration, Decision]:
    """Look, and give the shares that are asked for."""
    one = plan.observe(one, nodes, NOW)
    decision = plan.decide(one, nodes)
    if decision.push is not None and decision.push.migrate:
        one = plan.taken(plan.sent(one, decision.push.address), decision.push.address)
    return one, decision


def test_from_shamir_one_node_after_another() -> None:
    one, said = look(SHAMIR_OUT, up(A, "shamir", active="t1"), up(B, "shamir"), up(C, "shamir"))
    assert (said.place, said.nodes) == (Place.RESTART, (B, C))
    one, said = look(
        one, up(A, "shamir", active="t1"), sealed(B, "transit", migration=True), up(C, "shamir")
    )
    assert said.push == Push(B, migrate=True)
    one, said = look(one, up(A, "shamir", active="t1"), between(B), up(C, "shamir"))
    assert (said.place, said.nodes) == (Place.RESTART, (C,))
    one, said = look(
        one, up(A, "shamir", active="t1"), between(B), sealed(C, "transit", migration=True)
    )
    assert said.push == Push(C, migrate=True)
    one, said = look(one, up(A, "shamir", active="t1"), between(B), between(C))
    assert (said.place, said.nodes) == (Place.LAST, (A,))
    one, said = look(one, up(A, "shamir"), between(B), between(C))
    assert said.place is Place.SETTLE, "it stepped down, and nobody took over yet"
    one, said = look(one, between(A), between(B), up(C, "transit", active="t2"))
    assert one.progress.moved
    assert (said.place, set(said.nodes)) == (Place.PROVE, {A, B, C})
    one, said = look(one, away(A), up(B, "transit"), up(C, "transit", active="t2"))
    one, said = look(one, up(A, "transit"), up(B, "transit"), up(C, "transit", active="t2"))
    assert said.nodes == (B, C), "the first came back by itself"
    one, said = look(one, up(A, "transit"), away(B), up(C, "transit", active="t2"))
    one, said = look(one, up(A, "transit", active="t3"), up(B, "transit"), away(C))
    assert said.nodes == (C,)
    one, said = look(one, up(A, "transit", active="t3"), up(B, "transit"), up(C, "transit"))
    assert said.place is Place.DOUBT


def test_from_one_transit_to_another_counts_who_was_given_shares() -> None:
    moving = (up(B, "transit", migration=True), up(C, "transit", migration=True))
    one = TRANSIT_ON
    for address, rest in ((B, up(C, "transit")), (C, moving[0])):
        nodes = (up(A, "transit", active="t1"), sealed(address, "transit", migration=True), rest)
        one, said = look(one, *nodes)
        assert said.push == Push(address, migrate=True)
    one, said = look(one, up(A, "transit", active="t1"), *moving)
    assert (said.place, said.nodes) == (Place.LAST, (A,)), "it does not look like an old one"
    one, said = look(one, up(A, "transit"), up(B, "transit", active="t2"), up(C, "transit"))
    assert (said.place, set(said.nodes)) == (Place.PROVE, {A, B, C})
    # restarted with the disabled stanza, the last node stays sealed for good
    one, said = look(one, sealed(A, "transit"), up(B, "transit", active="t2"), up(C, "transit"))
    found = {A: Stand.SEALED, B: Stand.MOVED, C: Stand.MOVED}
    hint = words.following(one, said, found).hint
    assert A in hint
    assert "disabled" in hint


def test_to_shamir_the_last_node_gets_plain_shares() -> None:
    one = TRANSIT_OUT
    for address in (B, C):
        nodes = [up(A, "transit", active="t1"), up(B, "transit"), up(C, "transit")]
        at = (A, B, C).index(address)
        nodes[at] = sealed(address, "shamir", migration=True)
        one, said = look(one, *nodes)
        assert said.push == Push(address, migrate=True)
    one, said = look(one, between(A), up(B, "shamir", active="t2"), up(C, "shamir"))
    one, said = look(one, sealed(A, "shamir"), up(B, "shamir", active="t2"), up(C, "shamir"))
    assert said.push == Push(A, migrate=False)


def test_all_at_once_needs_no_order() -> None:
    one = SHAMIR_OUT
    all_sealed = [sealed(node, "transit", migration=True) for node in (A, B, C)]
    given = []
    for number in range(3):
        nodes = [between(node) for node in (A, B, C)[:number]] + all_sealed[number:]
        one, said = look(one, *nodes)
        given.append(said.push)
    assert given == [Push(node, migrate=True) for node in (A, B, C)]
    one, said = look(one, between(A), between(B), between(C))
    assert said.place is Place.SETTLE
    one, said = look(one, up(A, "transit"), up(B, "transit", active="t2"), up(C, "transit"))
    assert (said.place, len(said.nodes)) == (Place.PROVE, 3)


def test_an_active_node_that_was_stopped_instead_joins_the_others() -> None:
    """Then it may be needed for an election: it starts with what it takes to migrate."""
    one = TRANSIT_OUT
    for node in (B, C):
        one = plan.taken(plan.sent(one, node), node)
    one, said = look(one, away(A), between(B), between(C))
    assert (said.place, said.nodes) == (Place.RESTART, (A,))
    one, said = look(one, sealed(A, "shamir", migration=True), between(B), between(C))
    assert said.push == Push(A, migrate=True)


def test_a_node_that_restarts_before_the_move_gets_its_shares_anew() -> None:
    one, _ = look(SHAMIR_OUT, up(A, "shamir", active="t1"), sealed(B, "transit", migration=True))
    assert one.progress.carried == (B,)
    one, _ = look(one, up(A, "shamir", active="t1"), away(B))
    assert one.progress.carried == ()
    one, said = look(one, up(A, "shamir", active="t1"), sealed(B, "transit", migration=True))
    assert said.push == Push(B, migrate=True)


def test_going_back_before_the_move_restores_only_who_was_restarted() -> None:
    one = plan.turned(SHAMIR_OUT, [], NOW)
    nodes = [up(A, "shamir", active="t1"), between(B), up(C, "shamir")]
    one, said = look(one, *nodes)
    assert (said.place, said.nodes) == (Place.RESTORE, (B,))
    nodes[1] = sealed(B, "shamir")
    one, said = look(one, *nodes)
    assert said.push == Push(B, migrate=False)
    nodes[1] = up(B, "shamir")
    assert look(one, *nodes)[1].place is Place.GONE_BACK


def test_a_node_that_slept_through_the_move_gets_shares_and_undoes_nothing() -> None:
    progress = Progress(moved=NOW, nodes=(A, B), active_time="t1", carried=(A,), returned=(A,))
    one = Migration("it", "shamir", "transit", "facade", "homelab/it", NOW, progress=progress)
    late = sealed(B, "transit", migration=True)
    one, said = look(one, up(A, "transit", active="t2"), late)
    assert said.push == Push(B, migrate=True)
    assert (one.progress.moved, one.progress.returned) == (NOW, (A,))


def test_a_pod_that_comes_back_at_another_address_has_returned() -> None:
    progress = Progress(moved=NOW, nodes=(A, B), active_time="t1", carried=(A, B))
    one = Migration("it", "shamir", "transit", "facade", "homelab/it", NOW, progress=progress)
    one, said = look(one, up(A, "transit", active="t1"), up(C, "transit"))
    assert said.nodes == (A,)
    assert C in one.progress.returned


@pytest.mark.parametrize(
    ("seen", "stray"),
    [
        (sealed(A, "static"), Stand.FOREIGN),
        (sealed(A, "shamir", migration=True), Stand.AGAINST),
    ],
)
def test_another_seal_is_neither_old_nor_new(seen: Seen, stray: Stand) -> None:
    assert stands(SHAMIR_OUT, [seen]) == {A: stray}
    one, said = look(SHAMIR_OUT, seen)
    assert said.place is Place.STRAY
    assert words.following(one, said, stands(one, [seen])).what


def test_a_person_can_vouch_for_restarts_that_nobody_saw_but_not_for_a_sealed_node() -> None:
    progress = Progress(moved=NOW, nodes=(A, B), active_time="t1")
    one = Migration("it", "shamir", "transit", "facade", "homelab/it", NOW, progress=progress)
    nodes: Sequence[Seen] = [up(A, "transit", active="t1"), up(B, "transit")]
    assert plan.decide(one, nodes).place is Place.PROVE
    assert plan.decide(one, nodes, restarted=True).place is Place.DOUBT
    nodes = [up(A, "transit", active="t1"), sealed(B, "transit")]
    assert plan.decide(one, nodes, restarted=True).nodes == (B,)
