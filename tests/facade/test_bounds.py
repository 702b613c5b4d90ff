"""What a stranger may send, and for how long; and the others are served meanwhile."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kluis.facade.limits import Limits
from kluis.facade.protocol import MAX_PIPELINED, MAX_URL_BYTES, BoundedProtocol
from tests.support.facade import Good, RunningFacade, read_to_end, serving

SOON = Limits(request_s=0.5, idle_s=1.0)
IN_TIME_S = 15.0  # after which SOON was not heeded, even by a machine that stood still for a while
HEAD = b"PUT /v1/homelab/decrypt/bletchley HTTP/1.1\r\nHost: kluis\r\n"
HEALTH = b"GET /v1/sys/health HTTP/1.1\r\nHost: kluis\r\n\r\n"
MIB = 1024 * 1024


@pytest.fixture
def facade(tmp_path: Path) -> Iterator[RunningFacade]:
    with serving(tmp_path) as running:
        yield running


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[RunningFacade]:
    """A facade with little patience."""
    with serving(tmp_path, limits=SOON) as running:
        yield running


def refused(received: bytes, status: int) -> None:
    """One answer, in Vault's shape, and the end of the connection."""
    assert received.startswith(b"HTTP/1.1 %d " % status), received[:200]
    assert received.count(b"HTTP/1.1 ") == 1
    assert b'{"errors": ["' in received
    assert b"connection: close" in received


def gone(facade: RunningFacade) -> None:
    facade.wait(lambda: facade.facade.connections == 0, "no connection is left")


def rss_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


# -- sizes


def test_a_body_that_is_announced_too_large_is_refused_before_it_comes(
    facade: RunningFacade,
) -> None:
    refused(facade.exchange(HEAD + b"Content-Length: 104857600\r\n\r\n"), 413)
    refused(facade.exchange(HEAD + b"Content-Length: 65537\r\n\r\n"), 413)
    refused(facade.exchange(HEAD + b"Content-Length: 999999999999999999\r\n\r\n"), 413)


def test_a_body_of_100_mb_costs_no_memory(facade: RunningFacade) -> None:
    facade.exchange(HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    before = rss_bytes()
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    token = facade.token("bletchley").encode()
    for head in (b"Content-Length: 104857600\r\n", b"Transfer-Encoding: chunked\r\n"):
        with Good(facade) as good, facade.connect() as raw:
            with contextlib.suppress(ConnectionError):
                raw.sendall(HEAD + b"X-Vault-Token: %s\r\n" % token + head + b"\r\n")
                for _ in range(1600):
                    raw.sendall(chunk)
            good.check()
    assert rss_bytes() - before < 20 * MIB


@pytest.mark.parametrize("size", [65536, 65537, 70000])
def test_a_chunked_body_over_the_limit(facade: RunningFacade, size: int) -> None:
    token = facade.token("bletchley").encode()
    head = HEAD + b"X-Vault-Token: %s\r\nTransfer-Encoding: chunked\r\n\r\n" % token
    body = b"".join(b"400\r\n" + b"x" * 1024 + b"\r\n" for _ in range(size // 1024))
    rest = size % 1024
    body += b"%x\r\n" % rest + b"x" * rest + b"\r\n" if rest else b""
    with facade.connect() as raw:
        raw.sendall(head + body + b"0\r\n\r\n")
        received = raw.recv(65536)
    status = 400 if size <= 65536 else 413
    assert received.startswith(b"HTTP/1.1 %d " % status)


def test_10_000_headers(facade: RunningFacade) -> None:
    many = b"".join(b"X-%d: x\r\n" % number for number in range(10_000))
    refused(facade.exchange(HEAD + many + b"\r\n"), 431)


def test_headers_that_are_too_large_together(facade: RunningFacade) -> None:
    few = b"".join(b"X-%d: %s\r\n" % (number, b"x" * 1000) for number in range(20))
    refused(facade.exchange(HEAD + few + b"\r\n"), 431)


@pytest.mark.parametrize("piece", [1000, 65536, 1 << 20])
def test_one_header_without_end_is_cut_short_and_costs_no_memory(
    facade: RunningFacade, piece: int
) -> None:
    before = rss_bytes()
    sent = 0
    with Good(facade) as good, facade.connect() as raw:
        raw.sendall(HEAD + b"X-Long: ")
        with contextlib.suppress(ConnectionError):
            while sent < 200 * MIB:
                raw.sendall(b"x" * piece)
                sent += piece
        good.check()
    assert sent < 20 * MIB  # what the sockets' buffers take
    assert rss_bytes() - before < 20 * MIB


def test_a_head_without_end_of_any_kind(facade: RunningFacade) -> None:
    for begin in (b"PUT /", b"PUT /v1/x HTTP/1.1\r\nX", b"PUT /v1/x HTTP/1.1\r\n"):
        sent = 0
        filler = b"Y: y\r\n" * 1000 if begin.endswith(b"\n") else b"y" * 6000
        with facade.connect() as raw, contextlib.suppress(ConnectionError):
            raw.sendall(begin)
            while sent < 100 * MIB:
                raw.sendall(filler)
                sent += len(filler)
        assert sent < 20 * MIB
    gone(facade)


def test_a_chunk_extension_without_end_is_over_when_the_time_is(hasty: RunningFacade) -> None:
    before, start = rss_bytes(), time.monotonic()
    with hasty.connect() as raw, contextlib.suppress(ConnectionError):
        raw.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;")
        while time.monotonic() - start < IN_TIME_S:
            raw.sendall(b"x" * 65536)
    assert time.monotonic() - start < IN_TIME_S
    assert rss_bytes() - before < 20 * MIB


def test_a_long_url(facade: RunningFacade) -> None:
    def get(length: int) -> bytes:
        path = b"/v1/" + b"x" * (length - 4)
        head = b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path
        return facade.exchange(head)

    assert get(MAX_URL_BYTES).startswith(b"HTTP/1.1 404 ")
    refused(get(MAX_URL_BYTES + 1), 414)
    refused(get(60_000), 414)


def test_a_url_in_many_pieces(facade: RunningFacade) -> None:
    with facade.connect() as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(ConnectionError):
            raw.sendall(b"GET /v1/")
            for _ in range(300):
                raw.sendall(b"x" * 100)
        assert b"200 OK" not in read_to_end(raw)


# -- time


@pytest.mark.parametrize(
    "begin",
    [
        b"",
        b"P",
        b"\r\n",
        b"PUT /v1/x HTTP/1.1\r\nHost:",
        HEAD + b"Content-Length: 10\r\n\r\n12345",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n123",
        HEALTH + b"PUT /v1/",
        HEALTH + b"\r\n",
    ],
)
def test_a_half_sent_request_is_closed_in_time(hasty: RunningFacade, begin: bytes) -> None:
    start = time.monotonic()
    hasty.exchange(begin)
    assert time.monotonic() - start < IN_TIME_S
    gone(hasty)


@pytest.mark.parametrize("drop", [b"X: y\r\n", b"\r\n", b"z"])
def test_a_request_that_drips_is_closed_in_time(hasty: RunningFacade, drop: bytes) -> None:
    """A blank line now and then, too, does not keep a connection alive for ever."""
    start = time.monotonic()
    begin = b"PUT /v1/x HTTP/1.1\r\n" if drop.startswith(b"X") else b""
    with hasty.connect() as raw, contextlib.suppress(ConnectionError):
        raw.sendall(begin)
        drip(raw, drop, start)
    assert time.monotonic() - start < IN_TIME_S
    gone(hasty)


def drip(raw: socket.socket, drop: bytes, start: float) -> None:
    """Send a drop now and then, until the facade ends the connection."""
    raw.settimeout(0.05)
    while time.monotonic() - start < IN_TIME_S:
        with contextlib.suppress(TimeoutError):
            raw.sendall(drop)
            if not raw.recv(4096):
                break


def test_an_answered_connection_that_drips_blank_lines_is_closed(hasty: RunningFacade) -> None:
    start = time.monotonic()
    with hasty.connect() as raw, contextlib.suppress(ConnectionError):
        raw.sendall(HEALTH)
        assert raw.recv(65536).startswith(b"HTTP/1.1 200 OK")
        drip(raw, b"\r\n", start)
    assert time.monotonic() - start < IN_TIME_S
    gone(hasty)


def test_an_idle_connection_is_closed(hasty: RunningFacade) -> None:
    start = time.monotonic()
    assert hasty.exchange(HEALTH).startswith(b"HTTP/1.1 200 OK")
    assert time.monotonic() - start < IN_TIME_S


@pytest.mark.parametrize("count", [1, MAX_PIPELINED])
def test_a_client_that_never_reads_is_closed(tmp_path: Path, count: int) -> None:
    metrics = b"GET /metrics HTTP/1.1\r\nHost: kluis\r\n\r\n" * count
    limits = Limits(request_s=2.0, idle_s=2.0)  # in which a good client can surely ask
    with serving(tmp_path, limits=limits) as facade:
        with Good(facade) as good, socket.socket() as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            raw.connect(("127.0.0.1", facade.port))
            raw.settimeout(0.2)
            start = time.monotonic()
            with contextlib.suppress(ConnectionError):
                while time.monotonic() - start < IN_TIME_S:
                    with contextlib.suppress(TimeoutError):
                        raw.sendall(metrics)
            assert time.monotonic() - start < IN_TIME_S
            good.check()
        gone(facade)


def test_a_client_that_asks_and_asks_and_never_reads_is_closed(hasty: RunningFacade) -> None:
    """Until the answers no longer fit anywhere, and the facade has to stop writing."""
    state = hasty.server._state
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        raw.settimeout(30)
        raw.connect(("127.0.0.1", hasty.port))
        hasty.wait(lambda: connection_of(hasty, raw) is not None, "it is connected")
        connection = connection_of(hasty, raw)
        assert connection is not None
        stopped = False
        while not stopped:
            answered = state.total_requests
            raw.sendall(b"GET /metrics HTTP/1.1\r\nHost: kluis\r\n\r\n" * 8)

            def over(wanted: int = answered + 8) -> bool:
                return state.total_requests >= wanted or connection.blocked_since_s is not None

            hasty.wait(over, "it is answered, or the writing stopped")
            stopped = connection.blocked_since_s is not None
        hasty.wait(lambda: connection_of(hasty, raw) is None, "it is closed")
    gone(hasty)


def connection_of(facade: RunningFacade, raw: socket.socket) -> BoundedProtocol | None:
    """The facade's end of a connection."""
    for found in facade.call(lambda: list(facade.server._state.connections)):
        if isinstance(found, BoundedProtocol) and found.client == raw.getsockname():
            return found
    return None


def test_a_client_that_stops_reading_right_before_the_end_is_closed(hasty: RunningFacade) -> None:
    """Less is left to send than would stop the writing: the closing itself has to end."""
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        raw.settimeout(30)
        raw.connect(("127.0.0.1", hasty.port))
        close = b"GET /metrics HTTP/1.1\r\nHost: kluis\r\nConnection: close\r\n\r\n"
        raw.sendall(b"GET /metrics HTTP/1.1\r\nHost: kluis\r\n\r\n" * (MAX_PIPELINED - 1) + close)
        gone(hasty)


# -- counts


def test_one_connection_too_many_is_closed_and_a_place_is_free_again(tmp_path: Path) -> None:
    with serving(tmp_path, limits=Limits(connections=5)) as facade:
        taken = [facade.connect() for _ in range(5)]
        facade.wait(lambda: facade.facade.connections == 5, "the places are taken")
        assert facade.exchange(HEALTH) == b""
        for connection in taken:
            connection.close()
        gone(facade)
        assert facade.get("sys/health").status == 200


def test_idle_connections_make_room_before_the_places_are_gone(tmp_path: Path) -> None:
    with serving(tmp_path, limits=Limits(connections=8, idle_s=3600)) as facade:
        idle = [facade.connect() for _ in range(7)]
        try:
            for connection in idle:
                connection.sendall(HEALTH)
                assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
            for connection in idle:
                assert read_to_end(connection) == b""
        finally:
            for connection in idle:
                connection.close()
        gone(facade)


def test_a_held_request_is_not_idle(tmp_path: Path) -> None:
    with serving(tmp_path, limits=Limits(connections=4)) as facade:
        sealed = facade.encrypted(b"secret")
        body = b'{"ciphertext":"%s"}' % sealed.encode()
        token = facade.token("bletchley").encode()
        request = HEAD + b"X-Vault-Token: %s\r\nContent-Length: %d\r\n\r\n%s" % (
            token,
            len(body),
            body,
        )
        facade.lock()
        held = [facade.connect() for _ in range(3)]
        try:
            for connection in held:
                connection.sendall(request)
            facade.wait_held(3)
            with facade.connect() as fourth:  # and now it is crowded
                fourth.sendall(HEALTH)
                assert fourth.recv(65536).startswith(b"HTTP/1.1 503 ")
                assert read_to_end(fourth) == b""
            facade.open()
            for connection in held:
                assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        finally:
            for connection in held:
                connection.close()


def test_a_connection_that_is_reset_leaves_nothing_behind(facade: RunningFacade) -> None:
    def left() -> int:
        gc.collect()
        return sum(isinstance(found, BoundedProtocol) for found in gc.get_objects())

    before = facade.call(left)
    for _ in range(50):
        with facade.connect() as raw:
            raw.sendall(HEALTH)
            assert raw.recv(65536).startswith(b"HTTP/1.1 200 OK")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    gone(facade)
    facade.wait(
        lambda: facade.call(left) <= before + 2, "no protocol waits for its keep-alive to end"
    )


def test_a_pipeline_without_end_is_closed_and_costs_no_memory(facade: RunningFacade) -> None:
    before = rss_bytes()
    with Good(facade) as good:
        for _ in range(20):
            facade.exchange(HEALTH * 20_000)
        good.check()
    assert rss_bytes() - before < 20 * MIB


def test_requests_in_line_do_not_add_up_their_bodies(facade: RunningFacade) -> None:
    """While the first is held, the bodies of the others count together."""
    facade.lock()
    token = facade.token("bletchley").encode()
    head = HEAD + b"X-Vault-Token: %s\r\n" % token
    held = head + b'Content-Length: 17\r\n\r\n{"ciphertext":"x"}'[:-1]
    with facade.connect() as raw:
        raw.sendall(held.replace(b"17", b"18") + b"}")
        facade.wait_held(1)
        large = head + b"Content-Length: 30000\r\n\r\n" + b"x" * 30000
        with contextlib.suppress(ConnectionError):
            raw.sendall(large * 4)
        assert read_to_end(raw) == b""  # nothing may be taken for the answer to the first
        facade.wait_held(0)


def test_a_flood_of_denials_is_answered_429_and_does_not_fill_the_log(tmp_path: Path) -> None:
    with serving(tmp_path, limits=Limits(denials_per_s=5)) as facade, Good(facade) as good:
        start = time.monotonic()
        answers = [facade.encrypt(b"a", "unknown").status for _ in range(300)]
        took_s = time.monotonic() - start
        denied = answers.count(403)
        assert denied + answers.count(429) == 300
        assert 10 <= denied <= 10 + 5 * (took_s + 1)
        records = [r for r in facade.audited() if r["verdict"] == "denied"]
        assert len(records) == denied
        assert facade.metrics()["kluis_denials_total"] == 300
        good.check()


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Vault-Namespace": "elsewhere"},
        {"X-Vault-Namespace": "root"},
        {"X-Vault-Token": "unknown", "X-Vault-Namespace": "elsewhere"},
        {"Authorization": "Bearer unknown"},
    ],
)
def test_no_stranger_gets_round_the_bound_on_denials(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    with serving(tmp_path, limits=Limits(denials_per_s=5)) as facade:
        start = time.monotonic()
        answers = {facade.put("x/decrypt/y", {}, headers=headers).status for _ in range(100)}
        took_s = time.monotonic() - start
        assert answers == {403, 429}
        assert len(facade.audited()) <= 10 + 5 * (took_s + 1)


def test_a_clients_rate_is_bounded(tmp_path: Path) -> None:
    with serving(tmp_path, limits=Limits(requests_per_s=2)) as facade:
        answers = [facade.encrypt(b"a", facade.token("bletchley")) for _ in range(30)]
        assert {answer.status for answer in answers} == {200, 429}
        refusals = [answer.headers for answer in answers if answer.status == 429]
        assert {headers["retry-after"] for headers in refusals} == {"1"}


# -- garbage

GARBAGE = [
    b"\x00" * 1000,
    b"\xff" * 1000,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),  # a TLS hello
    b"SSH-2.0-OpenSSH_9.7\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /\r\n\r\n",
    b"get / http/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
    b"GET / HTTP/1.1\r\n: no name\r\n\r\n",
    b"GET / HTTP/1.1\r\nA B: c\r\n\r\n",
    b"GET / HTTP/1.1\nHost: x\n\n",
    b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http:// HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT evil.example:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    HEAD + b"Content-Length: -1\r\n\r\n",
    HEAD + b"Content-Length: 1x\r\n\r\n",
    HEAD + b"Content-Length: 5_0\r\n\r\n",
    HEAD + b"Content-Length: 5, 5\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    HEAD + b"Transfer-Encoding: gzip, chunked, gzip\r\n\r\n",
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_gets_no_more_than_a_refusal(facade: RunningFacade, garbage: bytes) -> None:
    closing = garbage.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    for sent in (garbage, closing):
        with facade.connect() as raw:
            raw.sendall(sent)
            with contextlib.suppress(OSError):  # it has ended the connection already
                raw.shutdown(socket.SHUT_WR)
            received = read_to_end(raw)
        assert received == b"" or received.startswith(b"HTTP/1.1 4"), received[:100]
        assert received.count(b"HTTP/1.1 ") <= 1
    assert {record["what"] for record in facade.audited()} <= {"no token"}
    gone(facade)
    assert facade.get("sys/health").status == 200


def test_a_facade_under_garbage_keeps_serving_the_others(tmp_path: Path) -> None:
    chance = random.Random(7)
    with serving(tmp_path, limits=Limits(request_s=1.0)) as facade, Good(facade) as good:

        def misbehave(seed: float) -> None:
            own = random.Random(seed)
            for _ in range(20):
                with contextlib.suppress(OSError), facade.connect(timeout_s=1.0) as raw:
                    raw.sendall(own.choice([*GARBAGE, HEALTH * 500, HEAD, own.randbytes(4000)]))
                    if own.random() < 0.5:
                        raw.recv(100)

        threads = [threading.Thread(target=misbehave, args=(chance.random(),)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        good.check()
