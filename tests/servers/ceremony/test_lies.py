"""Servers that lie, echo what they were sent, or end the connection in the midst."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kluis import compose, configuration
from kluis.errors import ChangeRefused, KluisError, ServerUnreachable, WrongServer
from kluis.keyring.custody import Custody
from kluis.servers.ceremony import admitting, answers, rekeying, roots, settling
from kluis.servers.ceremony.roads import Road
from kluis.servers.client import SealStatus, ServerClient
from kluis.servers.declared import Identity, KeyPath, Listed, Server
from kluis.servers.tls import ServerTls
from kluis.service import operations
from tests.support.ceremony import NAME, Site, beside, fork
from tests.support.pretender import CLUSTER_ID, SEALED, UNSEALED, Pretender, Says, always, answer

ADDRESS = "http://127.0.0.1:8200"
OTHER_ID = CLUSTER_ID.replace("4", "5")
SERVER = Server(NAME, Listed((ADDRESS,)), ServerTls(), unseal=KeyPath("homelab", NAME))
STATUS = SealStatus("shamir", True, True, 3, 5, 0, "", "2.7.2", False, False, "raft", "", "")
KEPT = Custody("unseal", 3, tuple(bytes([n]) * 33 for n in range(1, 6)), step="kept")


@pytest.mark.parametrize(
    ("identity", "kept", "status", "held", "refused"),
    [
        (Identity(), KEPT, STATUS, False, None),
        (Identity(3, 5), KEPT, STATUS, False, None),
        (Identity(), KEPT, STATUS, True, ChangeRefused),
        (Identity(2, 5), KEPT, STATUS, False, WrongServer),
        (Identity(3, 6), KEPT, STATUS, False, WrongServer),
        (Identity(), KEPT, replace(STATUS, threshold=5), False, WrongServer),
        (Identity(), KEPT, replace(STATUS, migration=True), False, WrongServer),
        (Identity(), KEPT, replace(STATUS, recovery_seal=True), False, WrongServer),
        (Identity(), KEPT, replace(STATUS, seal_type="transit"), False, WrongServer),
        (
            Identity(cluster_id=OTHER_ID),
            replace(KEPT, cluster_id=CLUSTER_ID),
            STATUS,
            False,
            WrongServer,
        ),
    ],
)
def test_who_gets_shares(
    identity: Identity,
    kept: Custody,
    status: SealStatus,
    held: bool,
    refused: type[KluisError] | None,
) -> None:
    server = replace(SERVER, identity=identity)
    if refused is None:
        admitting.refuse_unfit(server, ADDRESS, kept, status, held=held)
        return
    with pytest.raises(refused) as raised:
        admitting.refuse_unfit(server, ADDRESS, kept, status, held=held)
    assert raised.value.means
    if held:
        assert raised.value.next_step == f"kluis server release {NAME}"
    for known in (kept.cluster_id, identity.cluster_id or ""):
        assert known in raised.value.seen + raised.value.means


def with_client(
    says: Says, use: Callable[[ServerClient], Coroutine[Any, Any, object]]
) -> Pretender:
    """Use a client of a pretender; what that one was asked."""

    async def work() -> None:
        async with ServerClient(pretender.address) as client:
            await use(client)

    with Pretender(says) as pretender:
        asyncio.run(work())
    return pretender


def test_the_state_is_judged_before_each_share() -> None:
    """A server that is held after the first share gets no second one."""
    judged: list[SealStatus] = []

    def refuse(status: SealStatus) -> None:
        judged.append(status)
        if len(judged) == 2:
            raise ChangeRefused("held", "by a person", "release it")

    async def unseal(client: ServerClient) -> None:
        with pytest.raises(ChangeRefused):
            await settling.unseal(client, ("aa", "bb", "cc"), refuse)

    assert len(with_client(always(SEALED), unseal).shares) == 1


@pytest.mark.parametrize("required", [1, 2, 5])
def test_a_server_that_wants_more_shares_than_are_enough_gets_none(required: int) -> None:
    def says(method: str, path: str, body: bytes) -> bytes:
        return answer({"required": required, "started": False, "progress": 0})

    async def give(client: ServerClient) -> None:
        with pytest.raises(WrongServer):
            await roots.generate(client, Road("sys/generate-root"), KEPT.present)
        with pytest.raises(WrongServer):
            await rekeying.authorise(client, Road("sys/rekey"), "n", KEPT.present)

    asked = with_client(says, give).asked
    assert asked == ["/v1/sys/generate-root/attempt", "/v1/sys/rekey/init"]


def test_an_init_whose_connection_is_cut_is_sent_once() -> None:
    async def init(client: ServerClient) -> None:
        with pytest.raises(ServerUnreachable):
            await client.init(5, 3, kind="secret")

    assert with_client(lambda method, path, body: b"", init).asked == ["/v1/sys/init"]


@pytest.mark.parametrize("value", [-1, 1 << 40, int("ab" * 33, 16), True, "3", None])
def test_a_number_that_could_be_a_share_is_none(value: object) -> None:
    assert answers.number({"required": value}, "required") == 0


@pytest.mark.parametrize("value", ["", "s.a b", "s.\x1b[2J", "s.\n", "é", "x" * 513])
def test_what_a_terminal_would_not_print_as_it_is_is_no_token(value: str) -> None:
    assert answers.token_in(value) == ""


class Echo:
    """An unsealed server that repeats in its errors every share that it was sent."""

    def __init__(self, cluster_id: str) -> None:
        self._status = {**UNSEALED, "cluster_id": cluster_id}
        self.refuses = ""
        self.shares: list[str] = []

    def __call__(self, method: str, path: str, body: bytes) -> bytes:
        path = path.removeprefix("/v1/")
        said = json.loads(body) if body else {}
        self.shares += [said["key"]] if "key" in said else []
        if path.startswith(self.refuses) and self.shares:
            return answer({"errors": [f"\x1b[2J {share}" for share in self.shares]}, 400)
        if path in ("sys/seal-status", "sys/health"):
            return answer(self._status)
        return answer(
            {
                "started": False,
                "required": 3,
                "progress": 0,
                "nonce": CLUSTER_ID,
                "otp": "x" * 26,
                "verification_required": True,
                "complete": len(self.shares) >= 5,
                "keys": ["11" * 33, "22" * 33, "33" * 33],
                "t": 2,
            }
        )


def test_a_server_that_echoes_shares_has_none_of_them_printed(tmp_path: Path) -> None:
    with beside(tmp_path) as site:
        echo = Echo(site.init("--revoke-root")["cluster_id"])
        for command, echo.refuses, sent in (
            (("generate-root", NAME), "sys/generate-root/update", 1),
            (("rekey", NAME, "--yes"), "sys/rekey/update", 2),
            (("rekey", NAME, "--yes"), "sys/rekey/verify", 5),
            (("rotate", NAME), "sys/seal-status", 5),
        ):
            with Pretender(echo) as pretender:
                site.house.edit((site.bao.address, pretender.address))
                code, output = fork(site.house, ("server", *command), lambda: None)
                site.house.edit((pretender.address, site.bao.address))
            assert (code, len(echo.shares)) == (1, sent), output
            assert all(share not in output for share in echo.shares)
            assert "\x1b" not in output
            assert "error: " in output


async def step_of_init(site: Site, step: str) -> None:
    """One step, whatever the command would ask for."""
    house = compose.house(configuration.read(site.house.file), alone=True, accept_rollback=False)
    try:
        await operations.call(house, "server-init", {"server": NAME, "step": step})
    finally:
        house.close()


def test_a_server_that_was_made_is_not_unsealed_by_asking_for_its_secrets(tmp_path: Path) -> None:
    with beside(tmp_path) as site:
        init = ("server", "init", NAME, "--yes")
        site.kill_after("kluis.service.ceremony.making:_keep_or_remember", *init)
        site.here("server", "hold", NAME)
        error = site.here(*init, code=1)["error"]
        assert (error["class"], error["next"]) == ("ChangeRefused", f"kluis server release {NAME}")
        site.here("server", "release", NAME)
        declared = f'unseal = "homelab/{NAME}"\n'
        for line in ("threshold = 2\n", "shares = 7\n"):
            site.house.edit((declared, declared + line))
            assert site.here(*init, code=1)["error"]["class"] == "WrongServer"
            site.house.edit((declared + line, declared))
        assert site.bao.must("GET", "sys/seal-status")["progress"] == 0

        site.init()
        root = site.secrets()["root_token"]
        site.bao.must("PUT", "sys/seal", token=root)
        site.bao.wait_sealed()
        shown = site.init("--show-secrets")
        assert shown["secrets"]["root_token"] == root
        assert not any(step.startswith("unsealed") for step in shown["steps"])
        asyncio.run(step_of_init(site, "unseal"))
        assert site.bao.must("GET", "sys/seal-status")["progress"] == 0
        assert site.bao.health() == 503
