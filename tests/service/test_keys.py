"""Keys imported, exported, rotated and retired: what is refused, recorded, and at once in force."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from kluis import compose, configuration
from kluis.errors import (
    AuditError,
    ChangeRefused,
    DocumentError,
    KluisError,
    Locked,
    NotFound,
    TooLarge,
    UnknownKey,
    UsageError,
    VersionRefused,
    WriteFailed,
)
from kluis.facade.app import Facade
from kluis.facade.audit import Chain
from kluis.facade.clients import Peer
from kluis.service import house as houses
from kluis.service import operations
from kluis.service.blueprint import Blueprint
from tests.support.house import ANCHORS, CLIENT, FACADE, KEYRING, House

T = TypeVar("T")
KEY = "homelab/bletchley"
MORE = '\n[keyrings.homelab.keys.more]\nkind = "transit"\n'
STATIC = '\n[keyrings.homelab.keys.sealed]\nkind = "static-seal"\n'


def export(*numbers: int, seed: int = 0) -> str:
    """As ``bao read -format=json transit/export/encryption-key/…`` prints it."""
    keys = {str(n): base64.b64encode(bytes([seed + n]) * 32).decode() for n in numbers}
    return json.dumps({"data": {"keys": keys, "name": "autounseal", "type": "aes256-gcm96"}})


class Here:
    """The keyrings of a house, open in this process, and their facade, without a socket."""

    def __init__(self, folder: House, inside: houses.House, facade: Facade | None) -> None:
        self.folder, self.inside, self.facade = folder, inside, facade
        self.token = ""

    async def call(self, name: str, **args: Any) -> dict[str, Any]:
        """What an operation answers, as it goes over the control socket."""
        answer = await operations.call(self.inside, name, json.loads(json.dumps(args)))
        found = json.loads(json.dumps(answer))
        assert isinstance(found, dict)
        return found

    async def refused(self, kind: type[KluisError], name: str, **args: Any) -> str:
        """What was seen, when an operation refuses; it says all three, and changes no file."""
        before = self.folder.snapshot()
        with pytest.raises(kind) as error:
            await self.call(name, **args)
        said = (error.value.seen, error.value.means, error.value.next_step)
        assert all(said), said
        assert type(error.value) is kind or kind in (KluisError, DocumentError)
        assert self.folder.snapshot() == before
        return " | ".join(said)

    async def apply(self, **more: Any) -> dict[str, Any]:
        plan = await self.call("plan")
        return await self.call("apply", digest=plan["digest"], **more)

    async def ask(self, path: str, body: Mapping[str, object]) -> tuple[int, dict[str, Any]]:
        """A request of the client: status and data."""
        assert self.facade is not None
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": json.dumps(body).encode()}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "PUT",
            "raw_path": f"/v1/{path}".encode(),
            "query_string": b"",
            "headers": [(b"x-vault-token", self.token.encode())],
            "state": {"peer": Peer("127.0.0.1")},
        }
        await self.facade(scope, receive, send)
        answer = json.loads(sent[1]["body"])
        return sent[0]["status"], answer.get("data") or answer

    async def wrap(self) -> str:
        body = {"plaintext": base64.b64encode(b"the root key").decode()}
        return str((await self.ask("homelab/encrypt/bletchley", body))[1]["ciphertext"])

    async def unseal(self, ciphertext: str) -> int:
        """As a server does at its start."""
        assert (await self.ask("auth/token/renew-self", {}))[0] == 200
        return (await self.ask("homelab/decrypt/bletchley", {"ciphertext": ciphertext}))[0]

    def records(self) -> list[dict[str, Any]]:
        """What people did, by the audit log, whose chain holds."""
        path = self.folder.state / "audit.jsonl"
        Chain().check(path)
        found = [json.loads(line) for line in path.read_text("ascii").splitlines()]
        return [record for record in found if "event" in record]


@asynccontextmanager
async def opened(folder: House, *, facade: bool = True) -> AsyncIterator[Here]:
    """The house, in this process."""
    file = configuration.read(folder.file)
    inside = compose.house(file, alone=True, accept_rollback=False)
    here = Here(folder, inside, compose.facade(file, inside, {}) if facade else None)
    try:
        yield here
    finally:
        if inside.audit is not None:
            inside.audit.close()
        inside.close()


def trying(folder: Path, test: Callable[[Here], Awaitable[T]], *, facade: bool = True) -> T:
    """Run a test on a house that was just applied."""

    async def run() -> T:
        house = House(folder / "house", ANCHORS + KEYRING + MORE + STATIC + FACADE + CLIENT)
        async with opened(house, facade=facade) as here:
            here.token = (await here.apply())["tokens"]["bletchley"]
            return await test(here)

    return asyncio.run(run())


# -- import


def test_a_declared_key_that_was_not_made_yet_takes_the_import_and_apply_keeps_it(
    tmp_path: Path,
) -> None:
    async def test(here: Here) -> None:
        here.folder.edit((MORE, MORE + MORE.replace("more", "late")))
        here.folder.edit(('keys = ["homelab/bletchley"]', f'keys = ["{KEY}", "homelab/late"]'))
        found = await here.call("key-import", key="homelab/late", export=export(3, 4))
        assert found == {
            "key": "homelab/late",
            "imported": "autounseal",
            "first": 3,
            "latest": 4,
            "minimum": 3,
            "changed": True,
            "replaced": False,
            "clients": [],
        }
        steps = (await here.apply())["keyrings"]["homelab"]["steps"]
        assert len(steps) == 1, steps
        assert "let the client bletchley use" in steps[0]
        assert (await here.apply())["keyrings"]["homelab"]["changed"] is False
        assert (await here.call("key-list"))["keys"]["homelab/late"]["latest"] == 4

    trying(tmp_path, test)


def test_the_same_import_again_changes_nothing_and_a_later_one_adds_versions(
    tmp_path: Path,
) -> None:
    async def test(here: Here) -> None:
        await here.call("key-import", key=KEY, export=export(1, 2), replace=True)
        before = here.folder.snapshot()
        for again in (export(1, 2), export(2)):
            assert (await here.call("key-import", key=KEY, export=again))["changed"] is False
        assert here.folder.snapshot() == before
        found = await here.call("key-import", key=KEY, export=export(2, 3))
        assert (found["changed"], found["replaced"], found["latest"]) == (True, False, 3)
        assert found["clients"] == ["bletchley"]

    trying(tmp_path, test)


def test_a_key_that_apply_made_is_only_replaced_when_told_to(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        said = await here.refused(ChangeRefused, "key-import", key=KEY, export=export(1))
        assert "has other material, which was made here" in said
        assert "--replace" in said
        found = await here.call("key-import", key=KEY, export=export(1), replace=True)
        assert found["replaced"] is True
        assert [record["what"] for record in here.records()] == ["in place of another"]

    trying(tmp_path, test)


def test_a_key_that_a_client_used_is_never_replaced(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        await here.wrap()
        said = await here.refused(
            ChangeRefused, "key-import", key=KEY, export=export(1), replace=True
        )
        assert "bletchley used it" in said

    trying(tmp_path, test)


def test_a_server_that_was_pointed_here_too_early_hinders_no_import(tmp_path: Path) -> None:
    """It probed the key, and could not unseal: nothing is sealed with what is replaced."""

    async def test(here: Here) -> None:
        probe = {"plaintext": base64.b64encode(b"a").decode()}
        assert (await here.ask("homelab/encrypt/bletchley", probe))[0] == 200
        assert await here.unseal(f"vault:v1:{base64.b64encode(bytes(60)).decode()}") == 400
        found = await here.call("key-import", key=KEY, export=export(1), replace=True)
        assert found["replaced"] is True

    trying(tmp_path, test)


def test_a_key_is_not_replaced_when_the_log_of_its_use_is_not_whole(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        await here.wrap()
        log = here.folder.state / "audit.jsonl"
        log.rename(here.folder.folder / "elsewhere")
        said = await here.refused(AuditError, "key-import", key=KEY, export=export(1), replace=True)
        assert "the last records" in said
        assert here.inside.audit is not None
        here.inside.audit.reopen_if_rotated()
        await here.ask("auth/token/renew-self", {})
        said = await here.refused(
            ChangeRefused, "key-import", key=KEY, export=export(1), replace=True
        )
        assert "does not go back to its beginning" in said

    trying(tmp_path, test)


def test_a_key_that_a_known_backup_needs_is_not_replaced(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        await here.call("backup-note", label="old", key=KEY, version=1)
        said = await here.refused(
            ChangeRefused, "key-import", key=KEY, export=export(1), replace=True
        )
        assert "a known backup needs it" in said

    trying(tmp_path, test)


@pytest.mark.parametrize(
    ("key", "kind", "words"),
    [
        ("homelab/nothing", UsageError, "declares no transit key homelab/nothing"),
        ("homelab/sealed", UsageError, "declares no transit key homelab/sealed"),
        ("homelab/", UsageError, "declares no transit key"),
        ("homelab", UsageError, "declares no transit key"),
        ("nowhere/bletchley", UsageError, "there is no keyring nowhere"),
    ],
)
def test_a_key_that_is_not_declared_is_not_imported(
    key: str, kind: type[KluisError], words: str, tmp_path: Path
) -> None:
    async def test(here: Here) -> None:
        assert words in await here.refused(kind, "key-import", key=key, export=export(1))

    trying(tmp_path, test)


def test_into_a_keyring_that_was_not_made_nothing_is_imported(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(House(tmp_path / "house"), facade=False) as here:
            await here.refused(NotFound, "key-import", key=KEY, export=export(1))

    asyncio.run(test())


@pytest.mark.parametrize("text", ["", "{}", "Key  Value\n---  -----\n"])
def test_what_is_no_export_changes_nothing(text: str, tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        said = await here.refused(DocumentError, "key-import", key=KEY, export=text)
        assert "no export of a Transit key" in said
        await here.refused(TooLarge, "key-import", key=KEY, export="x" * 1_100_000)
        await here.refused(UsageError, "key-import", key=KEY, export=None)

    trying(tmp_path, test)


def test_the_refusal_of_an_import_quotes_nothing_of_it(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        secret = base64.b64encode(b"s" * 31).decode()
        text = json.dumps({"keys": {"1": secret}, "name": "seal", "type": "aes256-gcm96"})
        assert secret not in await here.refused(DocumentError, "key-import", key=KEY, export=text)

    trying(tmp_path, test)


# -- what is on record


def test_what_people_do_with_keys_is_on_record_between_what_servers_do(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        await here.call("key-import", key=KEY, export=export(1, 2), replace=True)
        await here.unseal(await here.wrap())
        await here.call("key-export", key=KEY)
        await here.call("key-rotate", key=KEY)
        await here.call("key-retire", key=KEY, before=2)
        await here.call("key-reinstate", key=KEY, first=1)
        about = [(r["event"], r["version"], r["verdict"]) for r in here.records()]
        assert about == [
            ("key-import", "2", "released"),
            ("key-export", "2", "released"),
            ("key-rotate", "3", "released"),
            ("key-retire", "2", "released"),
            ("key-reinstate", "1", "released"),
        ]
        for record in here.records():
            assert record["user"] == str(os.getuid())
            assert (record["keyring"], record["key"]) == ("homelab", "bletchley")

    trying(tmp_path, test)


def test_without_a_facade_the_record_is_written_too(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        await here.call("key-rotate", key=KEY)
        await here.call("key-export", key=KEY)
        assert [record["event"] for record in here.records()] == ["key-rotate", "key-export"]

    trying(tmp_path, test, facade=False)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("key-export", {}),
        ("key-rotate", {}),
        ("key-retire", {"before": 2, "accept_unknown": True}),
        ("key-import", {"export": export(1), "replace": True}),
    ],
)
def test_what_can_not_be_put_on_record_is_not_done(
    name: str, args: dict[str, Any], tmp_path: Path
) -> None:
    async def test(here: Here) -> None:
        await here.call("key-rotate", key=KEY)
        (here.folder.state / "audit.jsonl").write_text("not a log\n")
        await here.refused(AuditError, name, key=KEY, **args)

    trying(tmp_path, test, facade=False)


def test_a_change_that_could_not_be_written_is_on_record_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(here: Here) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise WriteFailed("the disk is full", "", "")

        store = here.inside.blueprint.stores["homelab"]
        monkeypatch.setattr(store, "save", refuse)
        with pytest.raises(WriteFailed):
            await here.call("key-rotate", key=KEY)
        assert [record["verdict"] for record in here.records()] == ["released", "failed"]
        assert (await here.call("key-list"))["keys"][KEY]["latest"] == 1

    trying(tmp_path, test)


# -- export


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("homelab/nothing", UnknownKey),
        ("homelab", UnknownKey),
        ("homelab/sealed", UnknownKey),
        ("nowhere/bletchley", UsageError),
    ],
)
def test_a_key_that_is_not_there_is_neither_exported_nor_retired(
    key: str, kind: type[KluisError], tmp_path: Path
) -> None:
    async def test(here: Here) -> None:
        await here.refused(kind, "key-export", key=key)
        await here.refused(kind, "key-retire", key=key, before=1)
        await here.refused(kind, "key-reinstate", key=key, first=1)

    trying(tmp_path, test)


def test_a_keyring_that_a_person_locked_gives_out_no_key(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        here.inside.guard("homelab").lock()
        for name in ("key-export", "key-rotate", "key-retire", "key-import"):
            await here.refused(Locked, name, key=KEY, before=1, export=export(1))

    trying(tmp_path, test)


def test_an_export_is_imported_elsewhere_with_all_its_versions(tmp_path: Path) -> None:
    async def test(here: Here) -> str:
        old = await here.wrap()
        await here.call("key-rotate", key=KEY)
        backup = (await here.call("key-export", key=KEY))["backup"]
        again = await here.call("key-import", key="homelab/more", export=backup, replace=True)
        assert (again["first"], again["latest"], again["imported"]) == (1, 2, "bletchley")
        return f"{old} {backup}"

    async def other(here: Here) -> None:
        await here.call("key-import", key=KEY, export=backup, replace=True)
        assert await here.unseal(old) == 200

    old, backup = trying(tmp_path / "one", test).split()
    trying(tmp_path / "other", other)


# -- retire


def test_a_version_that_a_client_needs_stays_until_its_next_unseal_but_one(
    tmp_path: Path,
) -> None:
    async def test(here: Here) -> None:
        old = await here.wrap()
        assert await here.unseal(old) == 200
        await here.call("key-rotate", key=KEY)
        said = await here.refused(ChangeRefused, "key-retire", key=KEY, before=2)
        assert "the last unseal of bletchley (" in said
        assert "needed version 1 of homelab/bletchley" in said
        assert "restart it once more" in said
        assert await here.unseal(old) == 200
        new = await here.wrap()  # as a stock server does by itself
        said = await here.refused(ChangeRefused, "key-retire", key=KEY, before=2)
        assert "wrapped its keys with version 2 since" in said
        assert await here.unseal(new) == 200
        assert (await here.call("key-retire", key=KEY, before=2))["changed"] is True

        status, answer = await here.ask("homelab/decrypt/bletchley", {"ciphertext": old})
        assert (status, "version 1 of the key is refused" in str(answer)) == (400, True)
        assert await here.unseal(new) == 200
        assert (await here.call("key-retire", key=KEY, before=2))["changed"] is False

        found = await here.call("key-reinstate", key=KEY, first=1)
        assert (found["changed"], found["minimum"]) == (True, 1)
        assert await here.unseal(old) == 200
        assert (await here.call("key-reinstate", key=KEY, first=1))["changed"] is False

    trying(tmp_path, test)


def test_a_dry_run_says_what_everybody_needs_and_changes_nothing(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        here.folder.edit(
            ("[clients.bletchley]", f'[clients.colossus]\nkeys = ["{KEY}"]\n\n[clients.bletchley]')
        )
        await here.apply()
        await here.unseal(await here.wrap())
        await here.call("key-rotate", key=KEY)
        await here.call("backup-note", label="restic", key=KEY, client="bletchley")
        before = here.folder.snapshot()
        found = await here.call("key-retire", key=KEY, before=2, dry_run=True)
        assert here.folder.snapshot() == before
        assert (found["allowed"], found["changed"], found["minimum"]) == (False, False, 1)
        assert "last unseal of bletchley" in found["why_not"]["seen"]
        bletchley, colossus = (found["clients"][n] for n in ("bletchley", "colossus"))
        assert (bletchley["state"], bletchley["needs"], bletchley["wrapped"]) == ("needs", 1, 1)
        assert colossus == {"state": "unknown", "needs": None, "unsealed": None, "wrapped": None}
        assert found["backups"] == {"homelab/1": {"label": "restic", "needs": 1, "state": "needs"}}
        found = await here.call("key-retire", key=KEY, before=1, dry_run=True)
        assert found["clients"]["bletchley"]["state"] == "ready"

    trying(tmp_path, test)


def test_a_client_of_whom_nothing_is_on_record_is_named(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        await here.call("key-rotate", key=KEY)
        said = await here.refused(ChangeRefused, "key-retire", key=KEY, before=2)
        assert "no unseal of bletchley with homelab/bletchley is on record" in said
        assert "--accept-unknown" in said
        found = await here.call("key-retire", key=KEY, before=2, accept_unknown=True)
        assert (found["changed"], found["minimum"]) == (True, 2)

    trying(tmp_path, test)


def test_what_is_known_is_never_waved_through_as_unknown(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        await here.unseal(await here.wrap())
        await here.call("key-rotate", key=KEY)
        await here.refused(ChangeRefused, "key-retire", key=KEY, before=2, accept_unknown=True)

    trying(tmp_path, test)


def test_a_dismissed_client_holds_nothing_up(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        await here.unseal(await here.wrap())
        await here.call("key-rotate", key=KEY)
        here.folder.edit((CLIENT, ""))
        await here.apply(allow_destroy=True)
        assert (await here.call("key-retire", key=KEY, before=2))["changed"] is True

    trying(tmp_path, test)


def test_the_server_of_kluis_run_counts_as_a_client(tmp_path: Path) -> None:
    from kluis.facade.audit import members
    from kluis.facade.clients import PRIVATE_CLIENT

    async def test(here: Here) -> None:
        assert here.inside.audit is not None
        about = {"client": PRIVATE_CLIENT, "keyring": "homelab", "key": "more", "version": "1"}
        here.inside.audit.record(members(**about, what="unseal", verdict="released"))
        await here.call("key-rotate", key="homelab/more")
        said = await here.refused(ChangeRefused, "key-retire", key="homelab/more", before=2)
        assert f"the last unseal of {PRIVATE_CLIENT}" in said

    trying(tmp_path, test)


def test_a_known_backup_holds_its_version_until_it_is_forgotten(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        await here.unseal(await here.wrap())
        noted = await here.call("backup-note", label="bletchley", key=KEY)
        assert noted == {"id": "homelab/1", "label": "bletchley", "key": KEY, "version": 1}
        await here.call("key-rotate", key=KEY)
        await here.unseal(await here.wrap())
        said = await here.refused(ChangeRefused, "key-retire", key=KEY, before=2)
        assert "the backup homelab/1 (bletchley) needs version 1" in said
        assert "kluis backup forget homelab/1" in said
        await here.call("backup-forget", id="homelab/1")
        assert (await here.call("key-retire", key=KEY, before=2))["changed"] is True

    trying(tmp_path, test)


@pytest.mark.parametrize(
    ("name", "args", "kind"),
    [
        ("key-retire", {"before": 0}, UsageError),
        ("key-retire", {"before": -1}, UsageError),
        ("key-retire", {"before": True}, UsageError),
        ("key-retire", {"before": "2"}, UsageError),
        ("key-retire", {}, UsageError),
        ("key-retire", {"before": 2}, VersionRefused),
        ("key-retire", {"before": 99999}, VersionRefused),
        ("key-reinstate", {"first": 0}, UsageError),
    ],
)
def test_a_version_that_is_not_there_is_refused(
    name: str, args: dict[str, Any], kind: type[KluisError], tmp_path: Path
) -> None:
    async def test(here: Here) -> None:
        await here.refused(kind, name, key=KEY, **args)

    trying(tmp_path, test)


def test_a_version_that_was_never_here_is_not_reinstated(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        await here.call("key-import", key=KEY, export=export(3, 4), replace=True)
        await here.refused(VersionRefused, "key-reinstate", key=KEY, first=2)

    trying(tmp_path, test)


def test_a_changed_audit_log_stops_a_retirement(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        await here.unseal(await here.wrap())
        await here.call("key-rotate", key=KEY)
        path = here.folder.state / "audit.jsonl"
        path.write_bytes(path.read_bytes().replace(b'"version":"1"', b'"version":"2"', 1))
        said = await here.refused(AuditError, "key-retire", key=KEY, before=2)
        assert "the chain is broken" in said

    trying(tmp_path, test)


def test_a_damaged_record_of_backups_stops_a_retirement(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        await here.call("key-rotate", key=KEY)
        await here.call("backup-note", label="restic", key=KEY, version=1)
        (here.folder.state / "homelab.backups").write_bytes(b"{}")
        said = await here.refused(
            DocumentError, "key-retire", key=KEY, before=2, accept_unknown=True
        )
        assert "homelab.backups" in said

    trying(tmp_path, test)


def test_without_a_place_for_an_audit_log_nothing_is_retired(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        await here.call("key-rotate", key=KEY)
        old = here.inside.blueprint
        here.inside.blueprint = Blueprint(old.anchors, old.stores, old.wanted, old.folders)
        await here.refused(UsageError, "key-retire", key=KEY, before=2)

    trying(tmp_path, test, facade=False)


# -- backups


def test_backups_are_noted_listed_and_forgotten(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        assert (await here.call("backup-list"))["backups"] == {}
        await here.call("backup-note", label="restic 2026-11", key=KEY, version=1)
        await here.call("backup-note", label="another", key="homelab/more", version=1)
        found = (await here.call("backup-list"))["backups"]
        assert [found[name]["key"] for name in ("homelab/1", "homelab/2")] == [KEY, "homelab/more"]
        assert found["homelab/1"]["label"] == "restic 2026-11"
        await here.call("backup-forget", id="homelab/1")
        assert list((await here.call("backup-list"))["backups"]) == ["homelab/2"]

    trying(tmp_path, test)


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("backup-note", {"label": "x", "key": KEY, "version": 2}, "has no version 2"),
        ("backup-note", {"label": "x", "key": KEY, "version": 0}, "has no version 0"),
        ("backup-note", {"label": "x", "key": KEY, "version": "1"}, "is not a number"),
        ("backup-note", {"label": "x", "key": "homelab/no", "version": 1}, "no transit key no"),
        ("backup-note", {"label": "x", "key": "homelab/sealed", "version": 1}, "no transit key"),
        ("backup-note", {"label": "x", "key": "nowhere/x", "version": 1}, "no keyring nowhere"),
        ("backup-note", {"label": "[/]", "key": KEY, "version": 1}, "label can't be used"),
        ("backup-note", {"label": "", "key": KEY, "version": 1}, "label can't be used"),
        ("backup-note", {"label": "x", "key": KEY}, "no unseal of bletchley is on record"),
        ("backup-note", {"label": "x", "key": "homelab/more"}, "one of none"),
        ("backup-forget", {"id": "homelab/1"}, "no backup has the number 1"),
        ("backup-forget", {"id": "homelab/x"}, "not the number of a backup"),
        ("backup-forget", {"id": "homelab"}, "not the number of a backup"),
        ("backup-forget", {"id": "nowhere/1"}, "no keyring nowhere"),
    ],
)
def test_a_backup_that_says_nothing_is_refused(
    name: str, args: dict[str, Any], words: str, tmp_path: Path
) -> None:
    async def test(here: Here) -> None:
        assert words in await here.refused(KluisError, name, **args)

    trying(tmp_path, test)
