"""How could a share reach the wrong hands? Each test is one way, and asserts that none came."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
import uvloop

from kluis.errors import ServerUnreachable, UsageError, WrongServer
from kluis.keyring.custody import Custody
from kluis.servers.client import ServerClient
from kluis.servers.declared import Identity, KeyPath, Server
from kluis.servers.tls import ServerTls
from kluis.servers.watch import judging, knocking, probing
from kluis.servers.watch.probing import Lines
from kluis.servers.watch.states import Alarm, Condition, ServerView
from tests.servers.watch.scene import SHARES, Run, Scene, once, pinned, scene, server, until
from tests.support.bao import free_port
from tests.support.pretender import CLUSTER_ID, SEALED, UNSEALED, Pretender, always, answer
from tests.support.tls import Authority, Issued

CUSTODY: Final = Custody("unseal", 3, SHARES)


class Places:
    """The right server's certificate, and those of others."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "ca")
        self.other_authority = Authority(folder / "other", "another CA")
        self.right = self.authority.issue("vault", "127.0.0.1")
        self.other_key = self.authority.issue("vault2", "127.0.0.1")
        self.other_name = self.authority.issue("vault3", "other.example")
        self.other_ca = self.other_authority.issue("vault", "127.0.0.1")
        self.tls = pinned(self.authority, self.right)
        self.ca_pinned = pinned(self.authority, Issued(self.authority.certificate, self.right.key))


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    return Places(tmp_path_factory.mktemp("places"))


Shown = Callable[[Places], tuple[Issued, ServerTls]]


@pytest.mark.parametrize(
    ("shown", "alarm"),
    [
        (lambda p: (p.other_key, p.tls), Alarm.CERTIFICATE),
        (lambda p: (p.other_ca, p.tls), Alarm.CERTIFICATE),
        (lambda p: (p.other_ca, ServerTls(None, p.tls.pin)), Alarm.CERTIFICATE),
        (lambda p: (p.other_name, p.ca_pinned), Alarm.CERTIFICATE),
        (lambda p: (p.other_ca, p.ca_pinned), Alarm.CERTIFICATE),
        (lambda p: (p.right, ServerTls(p.tls.ca, p.tls.pin, "other.example")), Alarm.CERTIFICATE),
        (lambda p: (p.right, ServerTls(p.tls.ca / "none", p.tls.pin)), Alarm.CERTIFICATE),
        (lambda p: (p.right, ServerTls(p.tls.ca, None)), Alarm.UNPINNED),
    ],
    ids=[
        "another key of the same authority",
        "another authority",
        "an authority that the system does not know",
        "another name, with the pinned authority",
        "another authority than the pinned",
        "not the declared name",
        "no file of the authority",
        "nobody pinned it",
    ],
)
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_no_share_for_one_that_is_not_proven(
    places: Places, shown: Shown, alarm: Alarm, run: Run
) -> None:
    issued, tls = shown(places)
    with Pretender(always(SEALED), issued) as pretender:
        made, view = once(server([pretender.address], tls), CUSTODY, run=run)
    assert [node.alarm for node in view.nodes.values()] == [alarm]
    assert (pretender.shares, made.heard.count) == ([], 0)
    if alarm is Alarm.CERTIFICATE:
        assert pretender.asked == []  # refused in the handshake: not one request


def test_the_proven_one_does_get_them(places: Places) -> None:
    for tls, run in ((places.tls, uvloop.run), (places.ca_pinned, asyncio.run)):
        with Pretender(always(SEALED), places.right) as pretender:
            made = scene(server([pretender.address], tls), CUSTODY)
            run(_sent(made))
        assert made.heard.count == len(pretender.shares) > 0


@pytest.mark.parametrize(
    ("says", "condition", "alarm"),
    [
        ({"initialized": False}, Condition.UNINITIALISED, Alarm.LOST_DISK),
        ({"type": "transit"}, Condition.WRONG, Alarm.SEAL),
        ({"recovery_seal": True}, Condition.WRONG, Alarm.SEAL),
        ({"migration": True}, Condition.WRONG, Alarm.SEAL),
        ({"t": 2}, Condition.WRONG, Alarm.SEAL),
        ({"n": 6}, Condition.WRONG, Alarm.SEAL),
        ({"progress": 3}, Condition.WRONG, Alarm.SEAL),
        ({"progress": -1}, Condition.WRONG, Alarm.SEAL),
    ],
    ids=str,
)
def test_no_share_for_a_proven_server_with_another_seal(
    says: dict[str, object], condition: Condition, alarm: Alarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "EMPTY_S", 0.0)
    with Pretender(always({**SEALED, **says})) as pretender:
        made, view = once(server([pretender.address]), CUSTODY)
    assert [(node.condition, node.alarm) for node in view.nodes.values()] == [(condition, alarm)]
    assert (pretender.shares, made.heard.count) == ([], 0)


@pytest.mark.parametrize(
    "custody",
    [
        Custody("recovery", 3, SHARES),
        Custody("unseal", 2, SHARES),
        Custody("unseal", 3, SHARES[:2]),
    ],
    ids=["recovery keys", "of another threshold", "too few"],
)
def test_what_is_kept_must_be_for_this_seal(custody: Custody) -> None:
    with Pretender(always(SEALED)) as pretender:
        made, view = once(server([pretender.address], identity=Identity()), custody)
    assert [node.alarm for node in view.nodes.values()] == [Alarm.SEAL]
    assert (pretender.shares, made.heard.count) == ([], 0)


def test_shares_that_are_known_to_be_of_another_cluster_are_not_sent() -> None:
    mistyped = Custody("unseal", 3, SHARES, cluster_id=CLUSTER_ID.replace("4", "5"))
    declared = Identity(3, 5, CLUSTER_ID)
    with Pretender(always(SEALED)) as pretender:
        made, view = once(server([pretender.address], identity=declared), mistyped)
    assert [node.alarm for node in view.nodes.values()] == [Alarm.CLUSTER]
    assert (pretender.shares, made.heard.count) == ([], 0)


def test_a_server_without_declared_shares_is_only_watched() -> None:
    with Pretender(always(SEALED)) as pretender:
        _, view = once(server([pretender.address], unseal=None), CUSTODY)
    assert [node.condition for node in view.nodes.values()] == [Condition.SEALED]
    assert pretender.shares == []


def test_a_redirect_carries_no_share_away() -> None:
    with Pretender(always(SEALED)) as elsewhere:
        location = f"Location: {elsewhere.address}/v1/sys/unseal\r\n"

        def says(method: str, path: str, body: bytes) -> bytes:
            return answer({}, 307, location) if "unseal" in path else answer(SEALED)

        with Pretender(says) as pretender:
            asyncio.run(_sent(scene(server([pretender.address]), CUSTODY)))
    assert len(pretender.shares) >= 1
    assert elsewhere.asked == []


def test_a_server_that_shows_another_cluster_and_is_sealed_then_gets_none() -> None:
    state = dict(UNSEALED)
    identity = Identity(3, 5, CLUSTER_ID.replace("0", "1"))
    with Pretender(lambda method, path, body: answer(state)) as pretender:
        one = scene(server([pretender.address], identity=identity, on_seal="unseal"), CUSTODY)

        async def play() -> None:
            async with one.watching():
                await one.becomes(Condition.WRONG, Alarm.CLUSTER)
                state.update(SEALED)
                del state["cluster_id"]
                await until(lambda: "told" not in one.node().seen, one.node)
                await asyncio.sleep(0.2)

        asyncio.run(play())
    assert pretender.shares == []


def test_each_share_goes_over_the_connection_that_was_judged() -> None:
    """It ends its connection after each answer: whoever comes next could be another one."""

    def says(method: str, path: str, body: bytes) -> bytes:
        return answer(SEALED, headers="Connection: close\r\n")

    with Pretender(says) as pretender:
        made = scene(server([pretender.address]), CUSTODY)

        async def play() -> None:
            async with made.watching():
                await until(lambda: len(pretender.asked) >= 3, made.node)

        asyncio.run(play())
    assert (pretender.shares, made.heard.count) == ([], 0)


def test_a_connection_that_was_cut_is_never_made_anew_for_a_share() -> None:
    async def play(pretender: Pretender) -> None:
        line = await Lines().to(pretender.address, ServerTls(), "127.0.0.1", lambda: None)
        await line.seal_status()
        assert not line.lost
        assert line._connector.transport is not None
        line._connector.transport.abort()
        with pytest.raises(ServerUnreachable):
            await line.unseal("ab" * 33)
        await line.close()

    with Pretender(always(SEALED)) as pretender:
        asyncio.run(play(pretender))
    assert pretender.shares == []


def test_a_person_who_says_hold_in_the_middle_is_heard() -> None:
    state = dict(SEALED)

    def says(method: str, path: str, body: bytes) -> bytes:
        if "unseal" in path:
            from kluis.servers.watch.states import Hold

            one.holds["vault"] = Hold(0.0)
            state.update(progress=1, nonce="n")
        return answer(state)

    with Pretender(says) as pretender:
        one = scene(server([pretender.address]), CUSTODY)
        views = asyncio.run(one.watcher.once(30))
    assert next(iter(views["vault"].nodes.values())).condition is Condition.HELD
    assert len(pretender.shares) == 1


def test_a_server_that_echoes_a_share_brings_it_into_no_words(
    capfd: pytest.CaptureFixture[str],
) -> None:
    state = dict(SEALED)
    kept = [share.hex() for share in SHARES]

    def says(method: str, path: str, body: bytes) -> bytes:
        if "unseal" in path:
            state.update(version=kept[0], type=kept[0], cluster_id=kept[0], sealed=False)
            return answer({"errors": [kept[0], kept[1]]}, 400)
        return answer(state) if state else answer({"errors": [kept[0]]}, 500)

    with Pretender(says) as pretender:
        one = scene(server([pretender.address], identity=Identity(3, 5, CLUSTER_ID)), CUSTODY)

        async def play() -> None:
            async with one.watching():
                await until(lambda: len(pretender.shares) > 0, one.node)
                await one.becomes(Condition.WRONG, Alarm.CLUSTER)
                state.update(sealed=True)
                await until(lambda: "told" not in one.node().seen, one.node)
                state.clear()
                await one.becomes(Condition.UNREACHABLE)

        asyncio.run(play())
    told = repr(one.heard) + repr(one.watcher.views()) + "".join(capfd.readouterr())
    assert not any(share[:20] in told for share in kept)


def test_never_more_than_the_threshold_and_always_the_same(places: Places) -> None:
    """A server that always says that nothing came yet is told the same three, after a rest."""
    with Pretender(always(SEALED)) as pretender:
        made = scene(server([pretender.address]), CUSTODY)
        asyncio.run(_sent(made, attempts=3))
    shares = [json.loads(body)["key"] for body in pretender.shares]
    assert set(shares) <= {share.hex() for share in SHARES[:3]}
    assert max(count for _, _, count in made.heard.sendings) <= 3


async def _sent(made: Scene, attempts: int = 1) -> Mapping[str, ServerView]:
    """Watch until shares went out so often."""
    async with made.watching():
        await until(lambda: len(made.heard.sendings) >= attempts, made.node)
        return made.watcher.views()


@pytest.mark.parametrize("address", ["http://localhost:8200", "http://127.0.0.1:8200"])
def test_plain_http_does_not_leave_this_machine(address: str) -> None:
    with pytest.raises(WrongServer, match="leads away"):
        asyncio.run(Lines().to(address, ServerTls(), "192.0.2.7", lambda: None))


def test_the_client_sends_no_share_in_the_clear() -> None:
    async def send() -> None:
        async with ServerClient("http://192.0.2.7:8200") as client:
            await client.unseal("ab" * 33)

    with pytest.raises(UsageError, match="plain http"):
        asyncio.run(send())


def test_a_line_never_goes_unverified(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="context"):
        probing.Line("https://127.0.0.1:8200", ServerTls(), None, "127.0.0.1", lambda: None)


def test_a_knock_tells_a_refusal_from_silence() -> None:
    async def play() -> None:
        assert await knocking.knock(f"http://127.0.0.1:{free_port()}") == knocking.Knock("", True)
        assert await knocking.knock("http://no-such-name.invalid:8200") == knocking.Knock()
        with pytest.raises(UsageError):
            await knocking.knock("nowhere")

    asyncio.run(play())


def test_no_other_server_suffers_from_a_fault_of_kluis() -> None:
    """What can't happen happens at two servers: it is said in our words, and the third goes on."""

    class Broken:
        async def addresses(self) -> list[str]:
            raise RuntimeError(SHARES[0].hex())

    def fails(path: KeyPath) -> Custody:
        raise RuntimeError(SHARES[0].hex())

    with Pretender(always(UNSEALED)) as well, Pretender(always(SEALED)) as sealed:
        servers = {
            "well": replace(server([well.address]), name="well"),
            "sealed": replace(server([sealed.address]), name="sealed"),
            "broken": Server("broken", Broken(), ServerTls()),
        }
        one = Scene(servers, None)
        one.watcher._fleet.custody = fails

        async def play() -> None:
            async with one.watching():
                await one.becomes(Condition.UNSEALED, server="well")
                await until(lambda: "RuntimeError" in one.node("sealed").seen, one.node)
                await until(lambda: "RuntimeError" in one.watcher.views()["broken"].seen, one.node)

        asyncio.run(play())
    assert sealed.shares == []
    assert SHARES[0].hex() not in repr(one.watcher.views()) + repr(one.heard)
