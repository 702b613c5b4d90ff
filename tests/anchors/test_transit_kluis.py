"""The transit anchor with a key of another kluis, and within a keyring of a real service."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kluis.anchors.sources import FileSource
from kluis.anchors.transit.anchor import TransitAnchor
from kluis.anchors.transit.auth import AppRole, Token
from kluis.engine.clock import now
from kluis.errors import (
    AnchorError,
    Changed,
    Damaged,
    Misconfigured,
    Refused,
    Unreachable,
)
from kluis.keyring import tokens
from kluis.keyring.strict import JSON
from kluis.secret import Secret
from tests.anchors.conftest import Counterparts
from tests.support.facade import Keyring, RunningFacade, serving
from tests.support.house import House
from tests.support.transit import Room, transit_server

CONTEXT = b"kluis/1|00000000-0000-4000-8000-000000000000|1|/|transit"

Sealed = Mapping[str, JSON]


@pytest.fixture
def facade(tmp_path: Path) -> Iterator[RunningFacade]:
    with serving(tmp_path / "kluis") as running:
        yield running


def source(facade: RunningFacade, client: str = "bletchley", text: str = "") -> FileSource:
    path = facade.folder / f"{client}.token"
    path.touch(mode=0o600)
    path.write_text(text or facade.token(client), "ascii")
    return FileSource(path)


def anchor_of(
    facade: RunningFacade,
    *,
    mount: str = "homelab",
    key: str = "bletchley",
    client: str = "bletchley",
    auth: Token | AppRole | None = None,
    deadline_s: float = 10.0,
) -> TransitAnchor:
    return TransitAnchor(
        "other-house",
        address=facade.address,
        key=key,
        mount=mount,
        namespace=None,
        ca=None,
        certificate=None,
        certificate_key=None,
        auth=auth or Token(source(facade, client)),
        deadline_s=deadline_s,
    )


def seal(anchor: TransitAnchor, secret: Secret) -> Sealed:
    return asyncio.run(anchor.seal(secret, CONTEXT))


def open_(anchor: TransitAnchor, sealed: Sealed) -> Secret:
    return asyncio.run(anchor.open(sealed, CONTEXT))


def error_of(call: object) -> AnchorError:
    with pytest.raises(AnchorError) as caught:
        asyncio.run(call)  # type: ignore[arg-type]
    assert caught.value.means
    assert caught.value.next_step
    return caught.value


@pytest.mark.parametrize("mount", ["homelab", "transit"])
def test_another_kluis_is_an_anchor(facade: RunningFacade, mount: str) -> None:
    anchor, secret = anchor_of(facade, mount=mount), Secret.random()
    asyncio.run(anchor.knock())
    asyncio.run(anchor.probe())
    sealed = seal(anchor, secret)
    assert open_(anchor, sealed) == secret
    assert type(error_of(anchor.open(sealed, b"elsewhere"))) is Damaged
    assert anchor.notice is None
    facts = asyncio.run(anchor.show())
    assert (facts["state"], facts["key_type"]) == ("active", "aes256-gcm96")
    assert facade.token("bletchley") not in repr(facts)


def test_a_key_that_was_rotated_or_retired_there(facade: RunningFacade) -> None:
    anchor, secret = anchor_of(facade), Secret.random()
    sealed = seal(anchor, secret)
    facade.rotate()
    assert open_(anchor, sealed) == secret
    assert "was rotated" in asyncio.run(anchor.outdated(sealed))
    assert type(error_of(anchor.open({**sealed, "version": 3}, CONTEXT))) is Damaged
    key = facade.guards["homelab"].require_open().contents.keys["bletchley"]
    facade.rewrite(keys={"bletchley": replace(key, minimum=2)})
    assert type(error_of(anchor.open(sealed, CONTEXT))) is Changed


def test_while_it_is_locked_it_is_sealed_and_not_hung(facade: RunningFacade) -> None:
    anchor = anchor_of(facade, deadline_s=4.0)
    secret = Secret.random()
    sealed = seal(anchor, secret)
    facade.lock()
    for call in (anchor.knock(), anchor.probe(), anchor.open(sealed, CONTEXT)):
        error = error_of(call)
        assert type(error) is Unreachable
        assert error.seen == f"127.0.0.1:{facade.port} is sealed"
    error = error_of(anchor.seal(secret, CONTEXT))
    assert type(error) is Unreachable
    facade.open()
    assert open_(anchor, sealed) == secret


def test_an_open_that_it_holds_ends_the_moment_it_is_unlocked(facade: RunningFacade) -> None:
    anchor, secret = anchor_of(facade), Secret.random()
    sealed = seal(anchor, secret)
    facade.lock()

    def unlock() -> None:
        facade.wait_held(1)
        facade.open()

    unlocking = threading.Thread(target=unlock)
    unlocking.start()
    assert open_(anchor, sealed) == secret  # in time: the hold ends only then, and as a refusal
    unlocking.join()


def test_another_locked_keyring_there_locks_nothing_of_this_one(tmp_path: Path) -> None:
    with serving(tmp_path, Keyring(), Keyring("cellar", ["wine"])) as facade:
        anchor, secret = anchor_of(facade), Secret.random()
        sealed = seal(anchor, secret)
        facade.lock("cellar")
        assert facade.get("sys/health").status == 503
        asyncio.run(anchor.knock())
        asyncio.run(anchor.probe())
        assert open_(anchor, sealed) == secret
        facade.lock("homelab")
        assert type(error_of(anchor.knock())) is Unreachable


def test_a_client_may_use_its_own_keys_only(tmp_path: Path) -> None:
    with serving(tmp_path, Keyring(keys=["bletchley", "hut6"])) as facade:
        anchor = anchor_of(facade, key="hut6")
        error = error_of(anchor.probe())
        assert type(error) is Refused
        assert error.seen.startswith(f"127.0.0.1:{facade.port} denies")
        assert "the client lacks the key" in error.means


def test_a_keyring_that_it_does_not_have_is_a_misconfiguration(facade: RunningFacade) -> None:
    error = error_of(anchor_of(facade, mount="cellar").probe())
    assert type(error) is Misconfigured
    assert error.seen == f"127.0.0.1:{facade.port} has no Transit engine at cellar/"


def test_it_knows_no_logins_and_makes_no_keys(facade: RunningFacade) -> None:
    login = AppRole("role", source(facade))
    error = error_of(anchor_of(facade, auth=login).probe())
    assert type(error) is Misconfigured
    assert error.seen == f"127.0.0.1:{facade.port} has no login at auth/approle/login"
    error = error_of(anchor_of(facade).create_key())
    assert type(error) is Refused
    assert error.seen.endswith("is there already")


def test_a_revoked_token_is_refused_until_a_new_one_lies_there(facade: RunningFacade) -> None:
    anchor, secret = anchor_of(facade), Secret.random()
    sealed = seal(anchor, secret)
    token, issued = tokens.generate(now())
    facade.set_tokens("bletchley", issued)
    error = error_of(anchor.open(sealed, CONTEXT))
    assert type(error) is Refused
    assert error.seen == f"127.0.0.1:{facade.port} refuses the token"
    source(facade, text=token)
    assert open_(anchor, sealed) == secret


@pytest.mark.parametrize(("days", "noticed"), [(13, True), (400, False)])
def test_a_token_that_expires_there_is_announced(
    facade: RunningFacade, days: int, noticed: bool
) -> None:
    ends = datetime.now(UTC) + timedelta(days=days, hours=1)
    expires = ends.strftime("%Y-%m-%dT%H:%M:%SZ")
    token, issued = tokens.generate(now(), expires)
    facade.set_tokens("bletchley", issued)
    anchor = anchor_of(facade, auth=Token(source(facade, text=token)))
    asyncio.run(anchor.probe())
    assert (anchor.notice is not None) is noticed
    if anchor.notice is not None:
        assert anchor.notice.seen == "its token ends in 13 days"


# -- in a house


CONFIGURATION = """\
[anchors.disk]
kind = "static"
file = "anchor.key"

[anchors.kms]
kind = "transit"
address = "ADDRESS"
key = "KEY"
auth = { kind = "token", file = "kms.token" }

[keyrings.homelab]
store = { kind = "directory", path = "state" }
opens = "kms"

[keyrings.homelab.keys.bletchley]
kind = "transit"

[facade]
listen = "127.0.0.1:PORT"
tls = "off"

[clients.bletchley]
keys = ["homelab/bletchley"]
"""


def test_a_house_whose_keyring_opens_by_a_real_openbao(
    tmp_path: Path, counterparts: Counterparts
) -> None:
    room: Room = counterparts.of(transit_server).room()
    text = CONFIGURATION.replace("ADDRESS", room.server.bao.address).replace("KEY", room.key)
    house = House(tmp_path / "house", text)
    token = house.folder / "kms.token"
    token.touch(mode=0o600)
    token.write_text(room.token())
    house.apply()
    assert token.read_text() not in house.document().read_text()
    with house.serve() as service:
        service.wait_for(lambda: house.anchors()["kms"]["state"] == "ok", "the anchor answered")
        assert token.read_text() not in service.log
