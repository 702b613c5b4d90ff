"""Shares taken into a keyring, and servers held and let go: what is refused, kept and recorded."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

from kluis import compose, configuration
from kluis.errors import (
    AuditError,
    ChangeRefused,
    DocumentError,
    KluisError,
    Locked,
    UnknownKey,
    UsageError,
    WrongShares,
)
from kluis.keyring.custody import Custody
from kluis.keyring.keys import Key, Version
from kluis.servers.declared import KeyPath
from kluis.servers.watch.states import Alarm, Condition, Hold, NodeView, ServerView
from kluis.servers.watch.watcher import Watcher
from kluis.service import custody, servers
from tests.keyring.test_share_sets import made
from tests.service.test_keys import Here, opened
from tests.support.bao import free_port
from tests.support.house import ANCHORS, FACADE, KEYRING, House

T = TypeVar("T")
KEY = "homelab/old-vault"
PATH = KeyPath("homelab", "old-vault")
SET = made(3, 5, seed=1)
OTHER = made(3, 5, seed=2)
SERVERS = """
[servers.old-vault]
addresses = ["https://127.0.0.1:PORT"]
unseal = "homelab/old-vault"
cluster_id = "c-1"
threshold = 3

[servers.watched-only]
addresses = ["https://127.0.0.1:PORT"]
"""


def lines(shares: list[bytes]) -> str:
    return "\n".join(share.hex() for share in shares)


def trying(folder: Path, test: Callable[[Here], Awaitable[T]], more: str = SERVERS) -> T:
    """Run a test on a house that was just applied."""

    async def run() -> T:
        house = House(folder / "house", ANCHORS + KEYRING + FACADE + more)
        async with opened(house) as here:
            await here.apply()
            return await test(here)

    return asyncio.run(run())


async def imported(here: Here, shares: list[bytes], **more: Any) -> dict[str, Any]:
    return await here.call("shares-import", key=KEY, shares=lines(shares), **more)


# -- shares


def test_shares_are_kept_recorded_and_never_in_an_answer(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        found = await imported(here, SET)
        assert found == {
            "key": KEY,
            "purpose": "unseal",
            "threshold": 3,
            "shares": 5,
            "changed": True,
            "replaced": False,
            "proven": True,
            "servers": ["old-vault"],
        }
        assert custody.kept(here.inside, PATH) == Custody("unseal", 3, tuple(SET), "c-1")
        listed = (await here.call("key-list"))["keys"]
        kept = {"purpose": "unseal", "shares": 5, "threshold": 3, "step": ""}
        assert listed[KEY] == {"kind": "unseal-shares", "latest": 1, "minimum": 1, "kept": kept}
        (record,) = [r for r in here.records() if r["event"] == "shares-import"]
        assert (record["key"], record["version"]) == ("old-vault", "1")
        text = "".join(path.read_text() for path in here.folder.state.glob("*.json*"))
        assert not any(share.hex() in text for share in SET)
        # what is imported is not declared, and an apply leaves it alone
        assert (await here.apply())["keyrings"]["homelab"]["changed"] is False

    trying(tmp_path, test)


def test_the_same_shares_again_change_nothing_and_more_of_the_set_join_it(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        assert (await imported(here, SET[:3]))["proven"] is False
        before, stand_in = here.folder.snapshot(), watching(here)
        for again in (SET[:3], SET[1:2], [SET[2], SET[0]]):
            assert (await imported(here, again))["changed"] is False
        assert here.folder.snapshot() == before
        # base64, and one that was kept already
        given = f"{base64.b64encode(SET[3]).decode()}\n\n{SET[0].hex()}\n"
        found = await here.call("shares-import", key=KEY, shares=given)
        assert (found["shares"], found["threshold"], found["replaced"]) == (4, 3, False)
        assert (found["changed"], found["proven"]) == (True, True)
        assert custody.kept(here.inside, PATH).shares == tuple(SET[:4])
        assert stand_in.woken == [""]  # once, for what changed
        assert (await here.call("key-list"))["keys"][KEY]["latest"] == 2

    trying(tmp_path, test)


def test_another_set_is_refused_and_with_replace_it_takes_the_place(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        await imported(here, SET)
        refusal = await here.refused(
            ChangeRefused, "shares-import", key=KEY, shares=lines(OTHER), threshold=3
        )
        assert "keeps another set: 5 shares, 3 needed (unseal)" in refusal
        assert "--replace" in refusal
        mixed = lines([OTHER[0], SET[0]])
        await here.refused(UsageError, "shares-import", key=KEY, shares=mixed)
        found = await imported(here, OTHER, replace=True)
        assert (found["changed"], found["replaced"]) == (True, True)
        assert custody.kept(here.inside, PATH).shares == tuple(OTHER)
        again = await imported(here, OTHER, replace=True)
        assert (again["changed"], again["replaced"]) == (False, False)
        await here.refused(
            ChangeRefused, "shares-import", key=KEY, shares=lines(OTHER), recovery=True
        )
        assert (await imported(here, SET, replace=True, recovery=True))["purpose"] == "recovery"

    trying(tmp_path, test)


def test_the_set_that_a_declared_server_needs_is_not_replaced_by_another_servers(
    tmp_path: Path,
) -> None:
    async def test(here: Here) -> None:
        await imported(here, SET)
        args = {"shares": lines(OTHER[:2]), "threshold": 2, "replace": True}
        refusal = await here.refused(ChangeRefused, "shares-import", key=KEY, **args)
        assert "old-vault is declared with 3 needed shares; of these 2 are" in refusal
        assert custody.kept(here.inside, PATH).shares == tuple(SET)

    trying(tmp_path, test)


def test_what_a_replace_would_lose_is_said(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        await imported(here, SET)
        kept = replace(custody.kept(here.inside, PATH), root_token="s.token", step="kept")
        custody.keep(here.inside, PATH, kept, "init")
        refusal = await here.refused(
            ChangeRefused, "shares-import", key=KEY, shares=lines(OTHER), threshold=3
        )
        assert "and a root token, and where an unfinished ceremony stands" in refusal
        assert "s.token" not in refusal
        await imported(here, SET[:1])  # of the same set: nothing of it is lost
        assert custody.kept(here.inside, PATH) == kept

    trying(tmp_path, test)


@pytest.mark.parametrize(
    ("given", "more", "kind", "words"),
    [
        (SET[:3], {}, None, ""),  # the server in kluis.toml needs three
        (SET[:2], {}, UsageError, "3 shares are needed, and 2 came"),
        (SET[:3], {"threshold": 4}, UsageError, "4 shares are needed, and 3 came"),
        (SET[:3], {"threshold": 0}, UsageError, "0 shares are needed"),
        (SET[:3], {"threshold": "3"}, UsageError, "threshold is not a number"),
        (SET[:3], {"threshold": True}, UsageError, "threshold is not a number"),
        (SET, {"threshold": 2}, UsageError, "3 of these shares are needed, not 2"),
        (SET, {"threshold": 5}, UsageError, "3 of these shares are needed, not 5"),
        ([*SET[:3], OTHER[3]], {"threshold": 3}, WrongShares, "do not belong together"),
        ([*SET[:4], OTHER[4]], {"threshold": 3}, WrongShares, "share 5 does not belong"),
        ([SET[0], SET[0]], {}, UsageError, "line 2 is a share that stands above already"),
        ([b"short"], {}, UsageError, "line 1 is not a share"),
        ([], {}, UsageError, "there is no share"),
    ],
)
def test_shares_that_could_not_unseal_are_not_kept(
    given: list[bytes],
    more: dict[str, object],
    kind: type[KluisError] | None,
    words: str,
    tmp_path: Path,
) -> None:
    async def test(here: Here) -> None:
        if kind is None:
            assert (await imported(here, given))["threshold"] == 3
            return
        said = await here.refused(kind, "shares-import", key=KEY, shares=lines(given), **more)
        assert words in said
        assert not any(share.hex() in said for share in given)

    trying(tmp_path, test)


def test_without_a_declared_server_the_threshold_is_told_or_shows_itself(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        said = await here.refused(UsageError, "shares-import", key=KEY, shares=lines(SET[:3]))
        assert "say it with --threshold" in said
        found = await imported(here, SET[:4])
        assert (found["threshold"], found["proven"], found["servers"]) == (3, True, [])
        whole = await here.call("shares-import", key="homelab/one", shares="ab" * 32)
        assert (whole["threshold"], whole["shares"], whole["proven"]) == (1, 1, False)
        assert custody.kept(here.inside, PATH).cluster_id == ""

    trying(tmp_path, test, more="")


@pytest.mark.parametrize(
    ("key", "kind", "words"),
    [
        ("homelab/bletchley", UsageError, "declares homelab/bletchley as a key of kind transit"),
        ("elsewhere/old-vault", UsageError, "there is no keyring elsewhere"),
        ("homelab", UsageError, "can't be the name of a key"),
        ("homelab/", UsageError, "can't be the name of a key"),
        ("homelab/a b", UsageError, "can't be the name of a key"),
        ("homelab/opaque", UnknownKey, "it is of kind opaque"),
    ],
)
def test_shares_are_kept_in_a_key_of_their_own(
    key: str, kind: type[KluisError], words: str, tmp_path: Path
) -> None:
    async def test(here: Here) -> None:
        put(here, "opaque", "opaque", b"something else")
        said = await here.refused(kind, "shares-import", key=key, shares=lines(SET), replace=True)
        assert words in said

    trying(tmp_path, test)


def put(here: Here, name: str, kind: str, material: bytes) -> None:
    from kluis.engine import change
    from kluis.engine.clock import now

    guard = here.inside.guard("homelab")
    key = Key(kind, {1: Version(material, now())})
    guard.save(change.put_key(guard.require_open(), name, key, now()).opened)


def test_material_that_is_damaged_is_imported_anew_with_replace(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        put(here, "old-vault", "unseal-shares", b"{}")
        said = await here.refused(DocumentError, "shares-import", key=KEY, shares=lines(SET))
        assert said.endswith("add --replace to import them in its place")
        assert (await imported(here, SET, replace=True))["changed"] is True

    trying(tmp_path, test)


def test_a_locked_keyring_and_a_log_that_can_not_be_written_keep_nothing(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        assert here.inside.audit is not None
        log = here.inside.audit
        before = here.inside.guard("homelab").document

        def refuse(about: str) -> None:
            raise AuditError("the disk is full", "why", "what to do")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(log, "record", refuse)
            await here.refused(AuditError, "shares-import", key=KEY, shares=lines(SET))
            await here.refused(AuditError, "server-hold", server="old-vault")
        assert here.inside.guard("homelab").document == before
        here.folder.key.unlink()
        here.inside.guard("homelab").lock()
        await here.refused(Locked, "shares-import", key=KEY, shares=lines(SET))

    trying(tmp_path, test)


# -- holds


class Watching:
    """What stands in for the watcher: what it knows, and whom it was told to look at again."""

    def __init__(self, *views: ServerView) -> None:
        self.known = {view.name: view for view in views}
        self.woken: list[str] = []

    def views(self) -> Mapping[str, ServerView]:
        return self.known

    def wake(self, name: str = "") -> None:
        self.woken.append(name)


def watching(here: Here, *views: ServerView) -> Watching:
    stand_in = Watching(*views)
    here.inside.watcher = cast(Watcher, stand_in)
    return stand_in


def hold_of(here: Here, name: str = "old-vault", in_s: float = 0.0) -> Hold | None:
    return servers.hold_of(here.inside, name, time.time() + in_s)


def test_a_hold_lasts_until_its_time_or_its_release_and_the_watcher_is_told(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        stand_in = watching(here)
        assert hold_of(here) is None
        held = await here.call("server-hold", server="old-vault", for_s=7200)
        assert held["hold"]["until"] > held["hold"]["since"]
        known = hold_of(here)
        assert known is not None
        assert known.until_s == known.since_s + 7200
        assert servers.hold_of(here.inside, "old-vault", known.until_s - 1) == known
        assert servers.hold_of(here.inside, "old-vault", known.until_s + 1) is None
        assert hold_of(here, "watched-only") is None
        assert (await here.call("server-hold", server="old-vault"))["hold"]["until"] is None
        assert hold_of(here, in_s=1e9) is not None
        assert (await here.call("server-release", server="old-vault"))["released"] is True
        assert (await here.call("server-release", server="old-vault"))["released"] is False
        assert hold_of(here) is None
        assert stand_in.woken == ["old-vault"] * 4
        by_hand = NodeView("https://a:8200", Condition.HELD, 1.0)
        watching(here, ServerView("old-vault", {by_hand.address: by_hand}))
        assert (await here.call("server-release", server="old-vault"))["released"] is True
        events = [r["event"] for r in here.records() if r["event"].startswith("server")]
        assert events == ["server-hold", "server-hold", "server-release"]

    trying(tmp_path, test)


def test_a_hold_stays_when_the_server_gets_shares_in_another_keyring(tmp_path: Path) -> None:
    office = KEYRING.replace("homelab", "office").replace('"state"', '"office"')

    async def test(here: Here) -> None:
        await here.call("server-hold", server="watched-only")
        here.folder.edit(("[servers.watched-only]", '[servers.watched-only]\nunseal = "office/x"'))
        await here.call("reload")
        assert hold_of(here, "watched-only") is not None
        await here.call("server-hold", server="watched-only", for_s=60)
        assert (await here.call("server-release", server="watched-only"))["released"] is True
        assert hold_of(here, "watched-only") is None

    trying(tmp_path, test, more=office + SERVERS)


def test_a_hold_outlives_the_service_and_needs_no_open_keyring(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        here.inside.guard("homelab").lock()
        await here.call("server-hold", server="old-vault")
        await here.call("server-hold", server="watched-only", for_s=60)

    trying(tmp_path, test)

    file = configuration.read(tmp_path / "house" / "kluis.toml")
    again = compose.house(file, alone=True, accept_rollback=False)
    try:
        now_s = time.time()
        assert servers.hold_of(again, "old-vault", now_s) is not None
        assert servers.hold_of(again, "watched-only", now_s) is not None
        assert servers.hold_of(again, "watched-only", now_s + 61) is None
        assert servers.hold_of(again, "undeclared", now_s) is None
    finally:
        again.close()


@pytest.mark.parametrize("damage", ["bytes", "mode"])
def test_a_record_that_can_not_be_read_holds_every_server_and_says_so(
    damage: str, tmp_path: Path
) -> None:
    async def test(here: Here) -> None:
        await here.call("server-hold", server="watched-only")
        record = here.folder.state / "homelab.holds"
        if damage == "bytes":
            record.write_bytes(b"{}")
        else:
            record.chmod(0o666)
        known = hold_of(here)
        assert known is not None
        assert str(record) in known.seen
        assert hold_of(here) == known  # nothing moves from one look to the next
        watching(here, ServerView("old-vault"))
        listed = (await here.call("server-list", server="old-vault"))["servers"]["old-vault"]
        assert listed["hold"] == {"since": None, "until": None, "seen": known.seen}
        await here.refused(KluisError, "server-hold", server="old-vault")
        await here.refused(KluisError, "server-release", server="old-vault")
        record.unlink()
        assert hold_of(here) is None

    trying(tmp_path, test)


def test_a_record_that_somebody_changed_is_read_again(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        await here.call("server-hold", server="old-vault")
        record = here.folder.state / "homelab.holds"
        assert hold_of(here) is not None
        data = record.read_bytes()
        record.unlink()
        assert hold_of(here) is None
        record.touch(mode=0o600)
        record.write_bytes(data)
        assert hold_of(here) is not None

    trying(tmp_path, test)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"server": "nobody"}, "there is no server nobody | kluis.toml declares: old-vault, wa"),
        ({}, "server is missing"),
        ({"server": "old-vault", "for_s": 0}, "can't be that long"),
        ({"server": "old-vault", "for_s": 366 * 86_400 + 1}, "can't be that long"),
        ({"server": "old-vault", "for_s": "2h"}, "can't be that long"),
        ({"server": "old-vault", "for_s": True}, "can't be that long"),
    ],
)
def test_a_hold_that_can_not_be(args: dict[str, object], words: str, tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        assert words in await here.refused(UsageError, "server-hold", **args)

    trying(tmp_path, test)


# -- what is listed


def test_the_watcher_is_believed_and_a_server_it_does_not_know_yet_is_unknown(
    tmp_path: Path,
) -> None:
    async def test(here: Here) -> None:
        fine = NodeView("https://a:8200", Condition.UNSEALED, 60.0, active=True, version="2.7.2")
        wrong = NodeView(
            "https://b:8200",
            Condition.WRONG,
            61.0,
            alarm=Alarm.CERTIFICATE,
            seen="seen",
            means="why",
            next_step="next",
            certificate_ends_s=86_400.0,
        )
        nodes = {node.address: node for node in (wrong, fine)}
        watching(here, ServerView("old-vault", nodes, Hold(1.0, 120.0), down_since_s=5.0))
        found = await here.call("server-list")
        assert found["watched"] is True
        old = found["servers"]["old-vault"]
        assert (old["condition"], old["down_since"]) == ("wrong", "1970-01-01T00:00:05Z")
        assert old["hold"]["until"] == "1970-01-01T00:02:00Z"
        assert list(old["nodes"]) == ["https://a:8200", "https://b:8200"]
        assert old["nodes"]["https://b:8200"] == {
            "condition": "wrong",
            "since": "1970-01-01T00:01:01Z",
            "active": False,
            "alarm": "certificate",
            "seen": "seen",
            "means": "why",
            "next": "next",
            "version": "",
            "certificate_ends": "1970-01-02T00:00:00Z",
        }
        assert (old["unseal"], old["cluster_id"], old["threshold"]) == (KEY, "c-1", 3)
        assert found["servers"]["watched-only"]["condition"] == "unknown"
        told = (await here.call("status"))["servers"]
        assert told == {"old-vault": old}

    trying(tmp_path, test)


def test_without_a_watcher_each_node_is_asked_once_and_status_asks_nobody(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        found = await here.call("server-list")
        assert found["watched"] is False
        conditions = {name: one["condition"] for name, one in found["servers"].items()}
        assert conditions == {"old-vault": "unreachable", "watched-only": "unreachable"}
        assert list((await here.call("server-list", server="old-vault"))["servers"]) == [
            "old-vault"
        ]
        assert (await here.call("status"))["servers"] == {}
        await here.refused(UsageError, "server-list", server="nobody")

    trying(tmp_path, test, more=SERVERS.replace("PORT", str(free_port())))


@pytest.mark.parametrize(
    ("nodes", "worst"),
    [
        ([], Condition.UNKNOWN),
        ([Condition.UNSEALED, Condition.UNSEALED], Condition.UNSEALED),
        ([Condition.UNSEALED, Condition.HUNG], Condition.HUNG),
        ([Condition.HELD, Condition.UNREACHABLE, Condition.SEALED], Condition.SEALED),
        ([Condition.UNINITIALISED, Condition.WRONG], Condition.WRONG),
    ],
)
def test_a_server_is_as_its_worst_node(nodes: list[Condition], worst: Condition) -> None:
    assert servers.condition(NodeView("a", node, 0.0) for node in nodes) is worst
    assert set(servers.WORST_FIRST) == {*Condition} - {Condition.UNSEALED}
