"""The record of a migration: found beside any keyring, and never written from what is outdated."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from kluis.errors import UsageError
from kluis.keyring.migrations import Migration, Progress
from kluis.servers.declared import KeyPath, Listed, Server
from kluis.servers.migration import plan
from kluis.servers.migration.standing import Presence, Seen
from kluis.servers.tls import ServerTls
from kluis.service.house import House
from kluis.service.migration import beginning, moving, record
from kluis.service.migration.checks import Checked
from kluis.service.migration.targets import Target
from kluis.store.directory import DirectoryStore

NODE = "http://127.0.0.1:8200"
PROVEN = Progress(moved="2026-01-02T00:00:00Z", proven="2026-01-02T00:00:00Z")
OLD = Migration(
    *("v", "shamir", "transit", "facade", "", "2026-01-01T00:00:00Z"),
    key="a/k",
    client="c",
    progress=PROVEN,
)
NEW = Migration("v", "transit", "shamir", "shamir", "b/of-v", "2026-02-01T00:00:00Z")


@pytest.fixture
def house(tmp_path: Path) -> House:
    stores = {name: DirectoryStore(tmp_path / name) for name in ("a", "b")}
    blueprint = SimpleNamespace(stores=stores, audit=None)
    inside = SimpleNamespace(blueprint=blueprint, audit=None, changing=asyncio.Lock())
    return cast(House, inside)


@pytest.mark.parametrize(("first", "second"), [("a", "b"), ("b", "a")])
def test_what_is_under_way_is_not_hidden_by_what_ended_beside_another_keyring(
    house: House, first: str, second: str
) -> None:
    record.save(house, first, OLD)
    record.refuse_second(house, "v")
    record.save(house, second, NEW)
    assert record.required(house, "v") == (second, NEW)
    with pytest.raises(UsageError, match="on its way"):
        record.refuse_second(house, "v")
    late = replace(OLD, began="2026-03-01T00:00:00Z")
    record.save(house, first, late)
    assert record.required(house, "v") == (second, NEW), "that one did not end"
    ended = replace(NEW, progress=PROVEN)
    record.save(house, second, ended)
    assert record.required(house, "v") == (first, late)


def test_what_begins_takes_the_place_of_what_ended_beside_any_keyring(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server("v", Listed((NODE,)), ServerTls())
    target = Target("shamir", "shamir", None, "")
    checked = Checked(server, "transit", "raft", (NODE,), NODE, "", target, KeyPath("b", "of-v"))

    async def check(_house: House, _args: object) -> Checked:
        return checked

    monkeypatch.setattr(beginning, "check", check)
    record.save(house, "a", OLD)
    record.save(house, "a", replace(OLD, server="w"))
    args = {"server": "v", "snapshot": "", "folder": "f"}
    asyncio.run(beginning.server_migrate_begin(house, args))
    assert record.required(house, "v")[0] == "b"
    left = house.blueprint.stores["a"].load_migrations("a")
    assert list(left.servers) == ["w"]


def test_nothing_is_proven_or_forgotten_that_another_call_changed_since(house: House) -> None:
    read = replace(OLD, progress=Progress(moved="2026-01-02T00:00:00Z"))
    back = plan.turned(read, (), "2026-01-03T00:00:00Z")
    record.save(house, "a", back)
    assert asyncio.run(moving._finish(house, "a", read, "")) is None
    asyncio.run(record.forget(house, "a", read))
    assert record.required(house, "v") == ("a", back)
    proven = asyncio.run(moving._finish(house, "a", back, ""))
    assert proven is not None
    assert proven.progress.proven
    asyncio.run(record.forget(house, "a", proven))
    assert record.on_record(house, "v") is None


def test_the_mark_of_the_last_unseal_is_set_on_what_is_on_record_by_then(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def mark(_house: House, _key: KeyPath, _client: str) -> str:
        _, one = record.required(house, "v")
        away = replace(one, progress=replace(one.progress, away=(NODE,)))
        record.save(house, "a", away)  # as another call does meanwhile
        return "2026-01-02T00:00:00.000Z"

    monkeypatch.setattr(moving, "last_unseal", mark)
    record.save(house, "a", replace(OLD, progress=Progress(carried=(NODE,))))
    looks: Sequence[Seen] = [Seen(NODE, Presence.THERE, "transit", sealed=False, active=True)]
    _, one = asyncio.run(moving._noted(house, "v", looks))
    assert (one.progress.away, one.progress.unsealed) == ((NODE,), "2026-01-02T00:00:00.000Z")
    assert record.required(house, "v") == ("a", one)
