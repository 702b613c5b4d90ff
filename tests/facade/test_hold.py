"""Locked is a state: a decrypt is held, bounded in number and time, and answered on opening."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from kluis.engine.clock import now
from kluis.engine.guard import Guard
from kluis.facade.limits import Limits
from kluis.keyring import tokens
from kluis.keyring.document import Client, from_bytes, to_bytes
from tests.support.facade import DENIED, Reply, RunningFacade, read_to_end, serving

STORM = 3000


def put(path: str, token: str, body: bytes) -> bytes:
    """The bytes of a request."""
    return (
        b"PUT /v1/%s HTTP/1.1\r\nHost: kluis\r\nX-Vault-Token: %s\r\nContent-Length: %d\r\n\r\n%s"
        % (path.encode(), token.encode(), len(body), body)
    )


def held_request(facade: RunningFacade, ciphertext: str) -> bytes:
    body = b'{"ciphertext":"%s"}' % ciphertext.encode()
    return put("homelab/decrypt/bletchley", facade.token("bletchley"), body)


def hold(facade: RunningFacade, count: int, ciphertext: str) -> list[socket.socket]:
    """So many connections, each with a request that waits."""
    request = held_request(facade, ciphertext)
    connections = []
    for _ in range(count):
        connections.append(facade.connect())
        connections[-1].sendall(request)
    facade.wait_held(count)
    return connections


def close(connections: Sequence[socket.socket]) -> None:
    for connection in connections:
        connection.close()


def in_background(pool: ThreadPoolExecutor, facade: RunningFacade, sealed: str) -> Future[Reply]:
    return pool.submit(facade.decrypt, sealed, facade.token("bletchley"))


def test_a_held_decrypt_is_answered_the_moment_the_keyring_opens(tmp_path: Path) -> None:
    with serving(tmp_path) as facade, ThreadPoolExecutor(1) as pool:
        plaintext, ciphertext = facade.real_wrap()
        facade.lock()
        waiting = in_background(pool, facade, ciphertext)
        facade.wait_held(1)
        facade.open()
        assert waiting.result(30).plaintext == plaintext  # and a hold lasts longer
        assert facade.facade.hold.held == 0
        told = [(r["what"], r["verdict"]) for r in facade.audited()]
        assert told == [("held until open", "waits"), ("unseal", "released")]


def test_a_hold_ends_with_503_at_its_limit(tmp_path: Path) -> None:
    with serving(tmp_path, limits=Limits(hold_s=0.1)) as facade:
        _, ciphertext = facade.real_wrap()
        facade.lock()
        answer = facade.decrypt(ciphertext, facade.token("bletchley"))
        assert answer.status == 503
        assert answer.body == {"errors": ["homelab is locked"]}
        assert facade.audited()[-1]["what"] == "held until the limit"
        assert facade.facade.hold.held == 0


def test_the_hold_is_shorter_than_a_stock_servers_patience() -> None:
    assert Limits().hold_s == 50.0  # its transit client gives up after 60 s, retries included


def test_one_request_too_many_to_hold_is_sent_away(tmp_path: Path) -> None:
    with serving(tmp_path, limits=Limits(held=3)) as facade:
        plaintext, ciphertext = facade.real_wrap()
        facade.lock()
        connections = hold(facade, 3, ciphertext)
        try:
            answer = facade.decrypt(ciphertext, facade.token("bletchley"))
            assert answer.status == 503
            assert answer.headers["retry-after"] == "5"
            facade.open()
            for connection in connections:
                assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK")
        finally:
            close(connections)
        again = facade.decrypt(ciphertext, facade.token("bletchley"))
        assert again.plaintext == plaintext


def test_a_client_that_goes_away_frees_its_place_and_nothing_is_released(tmp_path: Path) -> None:
    with serving(tmp_path, limits=Limits(held=2)) as facade:
        _, ciphertext = facade.real_wrap()
        facade.lock()
        for _ in range(5):
            close(hold(facade, 2, ciphertext))
            facade.wait_held(0)
        facade.open()
        assert "released" not in {r["verdict"] for r in facade.audited()}


def test_a_client_that_goes_away_frees_its_place_also_with_requests_in_line(
    tmp_path: Path,
) -> None:
    with serving(tmp_path) as facade, facade.connect() as raw:
        _, ciphertext = facade.real_wrap()
        facade.lock()
        raw.sendall(held_request(facade, ciphertext) * 3)
        facade.wait_held(1)  # the others wait for the answer to the first
        raw.close()
        facade.wait_held(0)
        facade.wait(lambda: facade.facade.connections == 0, "the connection is gone")
        facade.open()
        assert "released" not in {r["verdict"] for r in facade.audited()}


def test_requests_in_line_are_answered_in_their_order(tmp_path: Path) -> None:
    with serving(tmp_path) as facade, facade.connect() as raw:
        sealed = [facade.encrypted(b"%d" % number) for number in range(4)]
        facade.lock()
        raw.sendall(b"".join(held_request(facade, one) for one in sealed))
        facade.wait_held(1)
        facade.open()
        received = b""
        while received.count(b'"plaintext"') < 4:
            received += raw.recv(65536)
        assert [part[:4] for part in received.split(b'"plaintext":"')[1:]] == [
            b"MA==",
            b"MQ==",
            b"Mg==",
            b"Mw==",
        ]


@pytest.mark.timeout(180)
def test_thousands_that_wait_are_all_answered_and_leave_nothing_behind(tmp_path: Path) -> None:
    with serving(tmp_path, limits=Limits(hold_s=150.0)) as facade:
        _, ciphertext = facade.real_wrap()
        facade.lock()
        before = facade.call(lambda: len(asyncio.all_tasks()))
        connections = hold(facade, STORM, ciphertext)
        try:
            assert facade.metrics()["kluis_held_requests"] == STORM
            facade.open()
            for connection in connections:
                assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK")
            assert facade.facade.hold.held == 0
        finally:
            close(connections)
        facade.wait(lambda: facade.facade.connections == 0, "all connections are gone")
        # The keyring is open now: it is surveyed, by a task or two.
        facade.wait(
            lambda: facade.call(lambda: len(asyncio.all_tasks())) <= before + 3, "no task is left"
        )
        released = [r for r in facade.audited() if r["verdict"] == "released"]
        assert len(released) == STORM


def test_what_is_held_is_sent_away_when_the_facade_stops(tmp_path: Path) -> None:
    with serving(tmp_path) as facade:
        _, ciphertext = facade.real_wrap()
        facade.lock()
        connections = hold(facade, 20, ciphertext)
    try:
        for connection in connections:
            assert read_to_end(connection) == b""
    finally:
        close(connections)


def test_while_locked_only_the_probe_is_encrypted_and_with_no_key(tmp_path: Path) -> None:
    with serving(tmp_path) as facade:
        token = facade.token("bletchley")
        facade.lock()
        probe = facade.encrypt(b"a", token).data["ciphertext"]
        assert probe.startswith("vault:v1:")
        assert len(probe.split(":")) == 3
        assert facade.encrypt(b"a", token).data["ciphertext"] != probe
        for plaintext in (b"b", b"aa", b"Heartbeat 1", b'["c2VjcmV0"]', bytes(32)):
            refused = facade.encrypt(plaintext, token)
            assert refused.status == 503
            assert "kluis unlock homelab" in refused.body["errors"][0]
        body = {"ciphertext": probe}
        assert facade.put("homelab/rewrap/bletchley", body, token).status == 503
        assert facade.get("homelab/keys/bletchley", token).status == 503
        facade.open()
        # What was answered while locked was noise: it opens nothing, now or ever.
        assert facade.decrypt(probe, token).status == 400


def test_a_client_that_was_revoked_while_it_waited_gets_nothing(tmp_path: Path) -> None:
    """By the directory of the keyring that opened, not by the one that let it wait."""
    with serving(tmp_path) as facade, ThreadPoolExecutor(1) as pool:
        _, ciphertext = facade.real_wrap()
        guard = facade.guards["homelab"]
        opened = facade.call(lambda: guard.require_open().copy())
        facade.lock()
        waiting = in_background(pool, facade, ciphertext)
        facade.wait_held(1)

        def open_another() -> None:
            without = replace(opened, document=replace(opened.document, clients={}))
            guard.held = False
            guard.adopt(without)

        facade.call(open_another)
        assert waiting.result(30).body == DENIED
        assert facade.audited()[-1]["verdict"] == "denied"


def test_a_lock_right_after_an_opening_releases_nothing(tmp_path: Path) -> None:
    with serving(tmp_path) as facade, ThreadPoolExecutor(4) as pool:
        plaintext, ciphertext = facade.real_wrap()
        guard = facade.guards["homelab"]
        opened = facade.call(lambda: guard.require_open().copy())
        facade.lock()
        waiting = [in_background(pool, facade, ciphertext) for _ in range(4)]
        facade.wait_held(4)

        def open_and_lock() -> None:
            guard.adopt(opened)
            guard.lock()

        facade.call(open_and_lock)
        assert facade.get("sys/health").status == 503  # many turns of the loop later
        assert facade.facade.hold.held == 4
        assert {r["verdict"] for r in facade.audited()} == {"waits"}
        facade.open()
        assert {future.result(30).plaintext for future in waiting} == {plaintext}


@pytest.mark.parametrize("turns", range(6))
def test_a_lock_a_few_turns_of_the_loop_after_an_opening_is_never_an_internal_error(
    tmp_path: Path, turns: int
) -> None:
    with serving(tmp_path) as facade, ThreadPoolExecutor(4) as pool:
        _, ciphertext = facade.real_wrap()
        guard = facade.guards["homelab"]
        opened = facade.call(lambda: guard.require_open().copy())
        facade.lock()
        waiting = [in_background(pool, facade, ciphertext) for _ in range(4)]
        facade.wait_held(4)

        def lock_after(left: int) -> None:
            if left:
                facade.loop.call_soon(lock_after, left - 1)
            else:
                guard.lock()

        def open_and_lock() -> None:
            guard.adopt(opened)
            lock_after(turns)

        locks = guard.locks
        facade.call(open_and_lock)
        facade.wait(lambda: guard.locks > locks, "it is locked again")
        facade.open()  # for those that wait on
        assert {future.result(30).status for future in waiting} <= {200, 503}


def test_a_client_added_to_the_document_while_locked_may_wait_and_gets_nothing(
    tmp_path: Path,
) -> None:
    """Whoever can write the file can't make himself a client: the opening proves the document."""
    with serving(tmp_path / "real") as facade:
        _, ciphertext = facade.real_wrap()
        genuine = facade.document()
        folder, anchor = facade.folder, facade.anchor
    text, token = tokens.generate(now())
    mallory = Client((token,), ("bletchley",))
    path = folder / "state" / "homelab.json"
    path.write_bytes(to_bytes(replace(genuine, clients={**genuine.clients, "mallory": mallory})))
    tampered = from_bytes(path.read_bytes())

    with serving(tmp_path / "victim", limits=Limits(hold_s=0.3)) as facade:

        def begin_anew() -> None:
            guard = Guard(tampered, facade.store, {"disk": anchor})
            facade.guards["homelab"] = guard
            facade.opening = asyncio.create_task(guard.keep_open())  # type: ignore[attr-defined]

        facade.call(begin_anew)
        guard = facade.guards["homelab"]
        facade.wait(lambda: bool(guard._opening.answered), "the anchor answers, rightly")
        assert not guard.is_open
        assert facade.encrypt(b"a", text).status == 200  # it may boot, and wait
        answer = facade.decrypt(ciphertext, text)
        assert answer.status == 503
        assert b"plaintext" not in answer.raw
        released = [r["what"] for r in facade.audited() if r["verdict"] == "released"]
        assert set(released) == {"boot probe while locked"}
        facade.call(facade.opening.cancel)  # type: ignore[attr-defined]


def test_a_health_check_is_answered_while_thousands_wait(tmp_path: Path) -> None:
    with serving(tmp_path) as facade:
        _, ciphertext = facade.real_wrap()
        facade.lock()
        threads = threading.active_count()
        connections = hold(facade, 1000, ciphertext)
        for _ in range(20):
            assert facade.get("sys/health").status == 503
        assert facade.facade.hold.held == 1000
        close(connections)
        assert threading.active_count() < threads + 20
