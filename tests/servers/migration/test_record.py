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
from kluis.service import migration_begin, migration_record, migrations
from kluis.service.house import House
from kluis.service.migration_checks import Checked
from kluis.service.migration_targets import Target
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
    migration_record.save(house, first, OLD)
    migration_record.refuse_second(house, "v")
    migration_record.save(house, second, NEW)
    assert migration_record.required(house, "v") == (second, NEW)
    with pytest.raises(UsageError, match="on its way"):
        migration_record.refuse_second(house, "v")
    late = replace(OLD, began="2026-03-01T00:00:00Z")
    migration_record.save(house, first, late)
    assert migration_record.required(house, "v") == (second, NEW), "that one did not end"
    ended = replace(NEW, progress=PROVEN)
    migration_record.save(house, second, ended)
    assert migration_record.required(house, "v") == (first, late)


def test_what_begins_takes_the_place_of_what_ended_beside_any_keyring(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server("v", Listed((NODE,)), ServerTls())
    target = Target("shamir", "shamir", None, "")
    checked = Checked(server, "transit", "raft", (NODE,), NODE, "", target, KeyPath("b", "of-v"))

    async def check(_house: House, _args: object) -> Checked:
        return checked

    monkeypatch.setattr(migration_begin, "check", check)
    migration_record.save(house, "a", OLD)
    migration_record.save(house, "a", replace(OLD, server="w"))
    args = {"server": "v", "snapshot": "", "folder": "f"}
    asyncio.run(migration_begin.server_migrate_begin(house, args))
    assert migration_record.required(house, "v")[0] == "b"
    left = house.blueprint.stores["a"].load_migrations("a")
    assert list(left.servers) == ["w"]


def test_nothing_is_proven_or_forgotten_that_another_call_changed_since(house: House) -> None:
    read = replace(OLD, progress=Progress(moved="2026-01-02T00:00:00Z"))
    back = plan.turned(read, (), "2026-01-03T00:00:00Z")
    migration_record.save(house, "a", back)
    assert asyncio.run(migrations._finish(house, "a", read, "")) is None
    asyncio.run(migration_record.forget(house, "a", read))
    assert migration_record.required(house, "v") == ("a", back)
    proven = asyncio.run(migrations._finish(house, "a", back, ""))
    assert proven is not None
    assert proven.progress.proven
    asyncio.run(migration_record.forget(house, "a", proven))
    assert migration_record.on_record(house, "v") is None


def test_the_mark_of_the_last_unseal_is_set_on_what_is_on_record_by_then(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def mark(_house: House, _key: KeyPath, _client: str) -> str:
        _, one = migration_record.required(house, "v")
        away = replace(one, progress=replace(one.progress, away=(NODE,)))
        migration_record.save(house, "a", away)  # as another call does meanwhile
        return "2026-01-02T00:00:00.000Z"

    monkeypatch.setattr(migrations, "last_unseal", mark)
    migration_record.save(house, "a", replace(OLD, progress=Progress(carried=(NODE,))))
    looks: Sequence[Seen] = [Seen(NODE, Presence.THERE, "transit", sealed=False, active=True)]
    _, one = asyncio.run(migrations._noted(house, "v", looks))
    assert (one.progress.away, one.progress.unsealed) == ((NODE,), "2026-01-02T00:00:00.000Z")
    assert migration_record.required(house, "v") == ("a", one)
