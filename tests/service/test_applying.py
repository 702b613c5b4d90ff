"""An apply does what was shown, all of it or nothing, and nobody's paper is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kluis import compose, configuration
from kluis.engine import change
from kluis.errors import AlreadyRunning, ChangeRefused, KluisError, Locked, ServiceError, UsageError
from kluis.keyring import tokens
from kluis.keyring.document import from_bytes
from kluis.service import operations
from kluis.service.asking import _answer
from kluis.service.house import House
from kluis.service.serve import together
from kluis.store.directory import DirectoryStore

ANCHORS = """
[anchors.disk]
kind = "static"
file = "disk.key"
[anchors.usb]
kind = "static"
file = "usb.key"
[anchors.family]
kind = "people"
threshold = 2
shares = 3
"""
HOMELAB = """
[keyrings.homelab]
store = { kind = "directory", path = "state" }
opens = "disk or family"
[keyrings.homelab.keys.bletchley]
kind = "transit"
[clients.laptop]
keys = ["homelab/bletchley"]
networks = ["10.0.0.0/24"]
"""
OFFICE = """
[keyrings.office]
store = { kind = "directory", path = "office" }
opens = "usb"
[keyrings.office.keys.desk]
kind = "transit"
"""


class Place:
    """A folder with a configuration, and houses on it."""

    def __init__(self, folder: Path, text: str) -> None:
        self.folder = folder
        self.config = folder / "kluis.toml"
        self.write(text)
        for name in ("disk.key", "usb.key"):
            self.key(name)

    def write(self, text: str) -> None:
        self.config.write_text(ANCHORS + text)

    def edit(self, old: str, new: str) -> None:
        text = self.config.read_text()
        assert old in text
        self.config.write_text(text.replace(old, new))

    def key(self, name: str) -> None:
        path = self.folder / name
        path.write_bytes(tokens.generate("")[0].encode()[-32:])
        path.chmod(0o600)

    def house(self) -> House:
        file = configuration.read(self.config)
        return compose.house(file, alone=False, accept_rollback=False)

    def document(self, keyring: str = "homelab", folder: str = "state") -> Any:
        return from_bytes((self.folder / folder / f"{keyring}.json").read_bytes())


async def call(house: House, name: str, args: Any) -> Any:
    return await operations.call(house, name, args)


async def applied(house: House, **args: Any) -> Any:
    shown = await call(house, "plan", args)
    return await call(house, "apply", {**args, "digest": shown["digest"]})


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def awaited() -> None:
        await main()

    asyncio.run(awaited())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, HOMELAB)


def test_what_was_shown_is_what_is_done(place: Place) -> None:
    async def main() -> None:
        house = place.house()
        await applied(house)
        place.edit("10.0.0.0/24", "10.0.0.1/32")
        shown = await call(house, "plan", {})
        place.edit("10.0.0.1/32", "0.0.0.0/0")  # the words of both plans could be the same
        with pytest.raises(ChangeRefused, match="not the one that was shown"):
            await call(house, "apply", {"digest": shown["digest"]})
        assert place.document().clients["laptop"].networks == ("10.0.0.0/24",)

    run(main)


def test_a_plan_that_was_carried_out_already_is_not_carried_out_twice(place: Place) -> None:
    async def main() -> None:
        house = place.house()
        await applied(house)
        place.key("disk.key")
        await call(house, "lock", {"keyring": "homelab"})
        with pytest.raises(Locked):
            await applied(house, replace=["disk"])

    run(main)


def test_a_reload_during_an_apply_waits_for_its_end(place: Place) -> None:
    async def main() -> None:
        house = place.house()
        await applied(house)
        place.edit('"disk or family"', '"disk or usb or family"')
        shown = await call(house, "plan", {})
        applying = asyncio.create_task(call(house, "apply", {"digest": shown["digest"]}))
        await asyncio.sleep(0)  # it has the lock now
        place.edit('"disk or usb or family"', '"usb"')
        await call(house, "reload", {})
        assert applying.done()
        try:
            applying.result()
        except ChangeRefused:  # it read the file after the edit: then nothing was done
            assert place.document().opens == "disk or family"
        else:
            assert place.document().opens == "disk or usb or family"

    run(main)


def test_when_one_keyring_can_not_be_changed_no_other_is(tmp_path: Path) -> None:
    place = Place(tmp_path, HOMELAB + OFFICE)

    async def main() -> None:
        house = place.house()
        await applied(house)
        before = place.document()
        place.edit('"disk or family"', '"family"')
        place.edit('opens = "usb"', 'opens = "usb and disk"')
        shown = await call(house, "plan", {})
        (place.folder / "usb.key").unlink()
        with pytest.raises(KluisError):
            await call(house, "apply", {"digest": shown["digest"]})
        assert place.document() == before

    run(main)


def test_paper_that_was_written_is_handed_out_when_a_later_write_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path, HOMELAB + OFFICE)
    real = DirectoryStore.save

    def full(self: DirectoryStore, document: Any, *, after: int) -> None:
        if document.name == "office":
            raise ServiceError("the disk is full", "no room", "make room")
        real(self, document, after=after)

    monkeypatch.setattr(DirectoryStore, "save", full)

    async def main() -> None:
        house = place.house()
        done = await applied(house)
        assert len(done["shares"]["family"]) == 3
        assert done["failed"]["seen"] == "the disk is full"
        assert list(done["keyrings"]) == ["homelab"]

    run(main)


def test_a_token_is_not_taken_over_from_a_document_that_nobody_proved(tmp_path: Path) -> None:
    place = Place(tmp_path, HOMELAB + OFFICE)
    place.edit("10.0.0.0/24", "10.0.0.1/32")
    text = place.config.read_text()
    place.config.write_text(text.replace('keys = ["homelab/bletchley"]', 'keys = ["office/desk"]'))

    async def main() -> None:
        await applied(place.house())
        (place.folder / "usb.key").unlink()  # office stays locked: its word counts for nothing
        place.edit('"office/desk"', '"homelab/bletchley", "office/desk"')
        with pytest.raises(Locked):
            await applied(place.house())
        assert place.document().clients == {}

    run(main)


def test_an_anchor_whose_key_was_stolen_is_replaced_with_the_root_secret(place: Place) -> None:
    async def main() -> None:
        house = place.house()
        await applied(house)
        place.key("disk.key")
        done = await applied(house, replace=["disk"])
        assert done["keyrings"]["homelab"]["epoch"] == 2
        assert place.document().keys["bletchley"].latest == 2

    run(main)


def test_a_leaf_that_no_longer_opens_is_healed_and_its_reason_is_told(place: Place) -> None:
    async def main() -> None:
        house = place.house()
        await applied(house)
        place.key("disk.key")
        shown = await call(house, "plan", {})
        assert "does not open this leaf" in shown["notes"]["homelab/disk"]["seen"]
        await call(house, "apply", {"digest": shown["digest"]})
        assert place.document().epoch == 1
        assert await place.house().guards["homelab"].try_open()

    run(main)


def test_only_people_get_paper_and_only_anchors_in_use_are_replaced(place: Place) -> None:
    async def main() -> None:
        house = place.house()
        for args in ({"reissue": ["disk"]}, {"replace": ["usb"]}):
            with pytest.raises(UsageError):
                await call(house, "plan", args)

    run(main)


def test_a_folder_belongs_to_one_house_also_when_it_joins_later(tmp_path: Path) -> None:
    place = Place(tmp_path, HOMELAB)

    def alone() -> House:
        return compose.house(configuration.read(place.config), alone=True, accept_rollback=False)

    async def main() -> None:
        house = alone()
        with pytest.raises(AlreadyRunning):
            alone()
        await applied(house)
        place.write(HOMELAB + OFFICE)
        await applied(house)
        place.write(OFFICE)
        with pytest.raises(AlreadyRunning):
            alone()
        place.write(HOMELAB.replace('"state"', '"elsewhere"'))
        with pytest.raises(ServiceError, match="is to move"):
            await call(house, "reload", {})
        house.close()
        place.write(OFFICE)
        alone().close()

    run(main)


def test_a_change_that_a_lock_overtook_is_not_written(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        house = place.house()
        await applied(house)
        before = place.document()
        real = change.change

        async def overtaken(*args: Any) -> Any:
            changed = await real(*args)
            await call(house, "lock", {"keyring": "homelab"})
            return changed

        monkeypatch.setattr(change, "change", overtaken)
        place.edit("10.0.0.0/24", "10.0.0.1/32")
        with pytest.raises(Locked):
            await applied(house)
        assert place.document() == before
        assert not house.guards["homelab"].is_open

    run(main)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"1",
        b"{}",
        b'{"ok": 1}',
        b'{"error": {}}',
        b'{"error": []}',
        b'{"error": {"class": "annotations", "seen": "", "means": "", "next": ""}}',
        b'{"error": {"class": "__class__", "seen": "", "means": "", "next": ""}}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_whatever_answers_on_the_socket_is_an_error_or_an_answer(line: bytes) -> None:
    with pytest.raises(ServiceError):
        _answer(Path("control.sock"), line)


def test_the_end_of_a_part_is_the_end_of_all() -> None:
    ended: list[str] = []

    async def part(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async def fails() -> None:
        raise ServiceError("the facade fell over", "", "")

    async def main() -> None:
        with pytest.raises(ServiceError, match="fell over"):
            await together(part("server"), [part("control"), fails()])
        assert sorted(ended) == ["control", "server"]

    run(main)
