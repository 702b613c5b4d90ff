"""What an answer means, as tables: the verdict, and whether shares may go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kluis.errors import (
    KluisError,
    ServerAnswered,
    ServerError,
    ServerHung,
    ServerUnreachable,
    UsageError,
    WrongServer,
)
from kluis.servers.client import SealStatus
from kluis.servers.declared import Identity
from kluis.servers.tls import ServerTls
from kluis.servers.watch import judging
from kluis.servers.watch.attempts import Attempts, Outcome
from kluis.servers.watch.evidence import Answer, Case, Past, Way, rules
from kluis.servers.watch.states import Alarm, Condition
from tests.servers.watch.scene import server

ID, OTHER_ID = "00000000-0000-4000-8000-000000000000", "11111111-1111-4111-8111-111111111111"
STATUS = SealStatus("shamir", True, True, 3, 5, 0, "", "2.7.2", False, False, "raft", "", "")
PINNED = server(["https://vault:8200"], ServerTls(pin="sha256:" + "A" * 43 + "="))
RULES = rules(PINNED, "https://vault:8200")
REFUSED = Attempts().after(Outcome.REFUSED, 100.0)
DISTURBED = Attempts().after(Outcome.DISTURBED, 99.9)


def case(
    status: dict[str, Any] | None = None,
    declared: dict[str, Any] | None = None,
    past: Past | None = None,
    held: bool = False,
    now_s: float = 100.0,
    active: bool = False,
) -> Case:
    answer = Answer(replace(STATUS, **(status or {})), active)
    return Case(answer, replace(RULES, **(declared or {})), past or Past(), held, now_s)


UNSEALED = {"sealed": False, "cluster_id": ID}


@pytest.mark.parametrize(
    ("judged", "condition", "alarm", "push"),
    [
        (case(), "unsealing", None, True),
        (case({"progress": 2}), "unsealing", None, True),
        (case(declared={"identity": Identity()}), "unsealing", None, True),
        (case(declared={"way": Way.LOOPBACK}), "unsealing", None, True),
        # who it is
        (case(declared={"way": Way.UNPINNED}), "sealed", "unpinned", False),
        (case(declared={"way": Way.CLEAR}), "sealed", "unpinned", False),
        (case(past=Past(foreign=True)), "wrong", "cluster", False),
        # what seal it has
        (case({"seal_type": "awskms"}), "wrong", "seal", False),
        (case({"seal_type": ""}), "wrong", "seal", False),
        (case({"recovery_seal": True}), "wrong", "seal", False),
        (case({"migration": True}), "wrong", "seal", False),
        (case({"threshold": 2}), "wrong", "seal", False),
        (case({"shares": 4}), "wrong", "seal", False),
        (case({"threshold": 6}, {"identity": Identity()}), "wrong", "seal", False),
        (case({"threshold": 0}, {"identity": Identity()}), "wrong", "seal", False),
        (case({"progress": 3}), "wrong", "seal", False),
        (case({"progress": -1}), "wrong", "seal", False),
        (case({"initialized": False}), "uninitialised", None, False),
        (case({"initialized": False}, held=True), "uninitialised", None, False),
        (
            case({"initialized": False}, past=Past(empty_since_s=100.0 - judging.EMPTY_S)),
            "uninitialised",
            "lost-disk",
            False,
        ),
        # what persons want
        (case(declared={"pushes": False}), "sealed", None, False),
        (case(declared={"pushes": False, "way": Way.CLEAR}), "sealed", None, False),
        (case(held=True), "held", None, False),
        (case(past=Past(by_hand=True)), "held", None, False),
        (case(declared={"lets_be": False}, past=Past(by_hand=True)), "unsealing", None, True),
        # what was tried before
        (case(past=Past(attempts=REFUSED)), "sealed", "shares", False),
        (case(past=Past(attempts=REFUSED), now_s=130.0), "sealed", "shares", True),
        (case(past=Past(attempts=DISTURBED)), "unsealing", None, False),
        (case(past=Past(attempts=DISTURBED), now_s=101.0), "unsealing", None, True),
        # unsealed
        (case(UNSEALED), "unsealed", None, False),
        (case(UNSEALED, held=True), "unsealed", None, False),
        (case(UNSEALED, past=Past(foreign=True)), "wrong", "cluster", False),
        (case(UNSEALED, {"way": Way.UNPINNED}), "unsealed", "unpinned", False),
        (case({**UNSEALED, "threshold": 2}), "unsealed", "seal", False),
        (case(UNSEALED, {"way": Way.UNPINNED, "pushes": False}), "unsealed", None, False),
        (case(UNSEALED, past=Past(leaderless_since_s=81.0)), "unsealed", None, False),
        (case(UNSEALED, past=Past(leaderless_since_s=80.0)), "unsealed", "no-leader", False),
        (
            case(UNSEALED, {"way": Way.UNPINNED}, past=Past(leaderless_since_s=80.0)),
            *("unsealed", "no-leader", False),  # the nearer trouble
        ),
    ],
)
def test_a_verdict(judged: Case, condition: str, alarm: str | None, push: bool) -> None:
    verdict = judging.judge(judged)
    assert (verdict.condition, verdict.alarm, verdict.push) == (condition, alarm, push)
    wordless = alarm is None and (push or verdict.condition is Condition.UNSEALED)
    assert wordless == (verdict.seen == verdict.means == verdict.next_step == "")
    if not wordless:
        assert all("\n" not in text and text for text in (verdict.seen, verdict.means))
        assert verdict.next_step


def test_of_other_numbers_than_declared_no_step_follows_that_ends_the_kept_shares() -> None:
    for numbers in ({"threshold": 2}, {"shares": 4}):
        step = judging.judge(case(numbers)).next_step
        assert step == "if its shares were renewed: kluis server add vault"


@pytest.mark.parametrize(
    ("address", "tls", "way"),
    [
        ("https://vault:8200", ServerTls(pin="x"), Way.PINNED),
        ("https://vault:8200", ServerTls(), Way.UNPINNED),
        ("https://127.0.0.1:8200", ServerTls(), Way.UNPINNED),
        ("http://127.0.0.1:8200", ServerTls(), Way.LOOPBACK),
        ("http://[::1]:8200", ServerTls(), Way.LOOPBACK),
        ("http://localhost:8200", ServerTls(), Way.LOOPBACK),
        ("http://10.0.0.7:8200", ServerTls(pin="x"), Way.CLEAR),
        ("http://localhost.example:8200", ServerTls(), Way.CLEAR),
        ("http://127.0.0.1@vault:8200", ServerTls(), Way.CLEAR),
        ("ftp://127.0.0.1:8200", ServerTls(), Way.CLEAR),
        ("HTTPS://vault:8200", ServerTls(pin="x"), Way.CLEAR),
        ("", ServerTls(), Way.CLEAR),
    ],
)
def test_the_way_to_a_node(address: str, tls: ServerTls, way: Way) -> None:
    assert rules(server([address], tls), address).way is way


@pytest.mark.parametrize(
    ("error", "condition", "alarm"),
    [
        (ServerUnreachable("x", "y", "z"), "unreachable", None),
        (ServerHung("x", "y", "z"), "hung", None),
        (ServerAnswered("x", "secret words", "z", 502), "unreachable", None),
        (WrongServer("x", "y", "z"), "wrong", "certificate"),
        (UsageError("x", "y", "z"), "wrong", "certificate"),
        (ServerError("x", "y", "z"), "wrong", None),
    ],
)
def test_no_usable_answer(error: KluisError, condition: str, alarm: str | None) -> None:
    verdict = judging.failed(error)
    assert (verdict.condition, verdict.alarm, verdict.push) == (condition, alarm, False)
    assert "secret words" not in verdict.means


SEALED_ANSWER = Answer(STATUS)


def unsealed(cluster_id: str = ID, *, proxied: bool = False) -> Answer:
    status = replace(STATUS, sealed=False, cluster_id=cluster_id)
    return Answer(status, True, proxied)


@pytest.mark.parametrize(
    ("seen", "by_hand"),
    [
        ([unsealed(), SEALED_ANSWER], True),
        ([unsealed(), SEALED_ANSWER, SEALED_ANSWER], True),
        ([SEALED_ANSWER], False),
        ([unsealed(), "lost", SEALED_ANSWER], False),
        ([unsealed(), "hung", SEALED_ANSWER], False),
        ([unsealed(), SEALED_ANSWER, "hung", SEALED_ANSWER], True),
        ([unsealed(), SEALED_ANSWER, "lost", SEALED_ANSWER], False),
        ([unsealed(), SEALED_ANSWER, "released", SEALED_ANSWER], False),
        ([unsealed(), "released", SEALED_ANSWER], False),
        ([unsealed(), SEALED_ANSWER, unsealed(), "lost", SEALED_ANSWER], False),
        ([unsealed(proxied=True), SEALED_ANSWER], False),
    ],
)
def test_sealed_by_a_hand_is_what_was_unsealed_on_the_same_connection(
    seen: list[Answer | str], by_hand: bool
) -> None:
    past = Past()
    for step in seen:
        if isinstance(step, Answer):
            past = past.looked(step, RULES, 0.0)
        elif step == "released":
            past = past.released()
        else:
            past = past.disconnected(restarted=step == "lost")
    assert past.by_hand is by_hand


def test_a_standby_is_without_a_leader_from_the_first_answer_that_says_so() -> None:
    lone = replace(unsealed(), active=False, led=False)
    past = Past().looked(unsealed(), RULES, 1.0).looked(lone, RULES, 2.0).looked(lone, RULES, 3.0)
    assert past.leaderless_since_s == 2.0
    for other in (unsealed(), SEALED_ANSWER):
        assert past.looked(other, RULES, 4.0).leaderless_since_s is None
    assert past.disconnected(restarted=False).leaderless_since_s == 2.0
    assert past.disconnected(restarted=True).leaderless_since_s is None


@pytest.mark.parametrize(
    ("declared", "kept", "told", "foreign"),
    [
        (ID, "", [ID], False),
        (ID, "", [OTHER_ID], True),
        (ID, OTHER_ID, [ID], False),
        (None, ID, [OTHER_ID], True),
        (None, "", [OTHER_ID], False),
        (ID, "", [""], False),
        (ID, "", [OTHER_ID, ""], True),
        (ID, "", [OTHER_ID, "", ID], False),
        (ID, "", [OTHER_ID, "", ID, ""], False),
    ],
)
def test_a_foreign_cluster(declared: str | None, kept: str, told: list[str], foreign: bool) -> None:
    past = Past(cluster_id=kept)
    for cluster_id in told:
        declared_rules = replace(RULES, identity=Identity(3, 5, declared))
        past = past.looked(unsealed(cluster_id), declared_rules, 0.0)
        past = past.looked(SEALED_ANSWER, declared_rules, 0.0).disconnected(restarted=True)
    assert past.foreign is foreign


statuses = st.builds(
    SealStatus,
    seal_type=st.sampled_from(["shamir", "", "transit"]) | st.text(max_size=4),
    initialized=st.booleans(),
    sealed=st.booleans(),
    threshold=st.integers(-2, 6) | st.integers(),
    shares=st.integers(-2, 6) | st.integers(),
    progress=st.integers(-2, 6) | st.integers(),
    nonce=st.text(max_size=4),
    version=st.text(max_size=80),
    migration=st.booleans(),
    recovery_seal=st.booleans(),
    storage_type=st.text(max_size=4),
    cluster_name=st.text(max_size=4),
    cluster_id=st.sampled_from([ID, OTHER_ID, ""]) | st.text(max_size=80),
)


@given(
    statuses,
    st.sampled_from(Way),
    st.builds(Identity, st.none() | st.just(3), st.none() | st.just(5), st.none() | st.just(ID)),
    st.booleans(),
    st.booleans(),
)
def test_shares_only_ever_go_where_everything_fits(
    status: SealStatus, way: Way, identity: Identity, held: bool, by_hand: bool
) -> None:
    declared = replace(RULES, way=way, identity=identity)
    past = Past(unsealed_here=by_hand).looked(Answer(status), declared, 1.0)
    verdict = judging.judge(Case(Answer(status), declared, past, held, 1.0))
    if verdict.push:
        assert status.sealed
        assert status.initialized
        assert status.seal_type == "shamir"
        assert not any((status.recovery_seal, status.migration, held, by_hand))
        assert way in (Way.PINNED, Way.LOOPBACK)
        assert 0 <= status.progress < status.threshold <= status.shares <= 255
        assert identity.threshold in (None, status.threshold)
        assert identity.shares in (None, status.shares)
    assert len(judging.shown_version(status)) < 60
    assert verdict.alarm is None or isinstance(verdict.alarm, Alarm)
