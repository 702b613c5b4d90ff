"""An answer belongs to the request it is read for.

Behind a proxy that shares connections, two parties that count requests differently would give
one client the answer to another. So nothing here may be read in two ways.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.facade import RunningFacade, read_to_end, serving

HEALTH = b"GET /v1/sys/health HTTP/1.1\r\nHost: kluis\r\n\r\n"
LEADER = b"GET /v1/sys/leader HTTP/1.1\r\nHost: kluis\r\nConnection: close\r\n\r\n"
SMUGGLED = b"GET /v1/smuggled HTTP/1.1\r\nHost: kluis\r\n\r\n"
PUT = b"PUT /v1/homelab/encrypt/bletchley HTTP/1.1\r\nHost: kluis\r\n"


@pytest.fixture
def facade(tmp_path: Path) -> Iterator[RunningFacade]:
    with serving(tmp_path) as running:
        yield running


def statuses(received: bytes) -> list[int]:
    """The statuses of all answers in what was received."""
    parts = received.split(b"HTTP/1.1 ")[1:]
    return [int(part[:3]) for part in parts]


def with_token(facade: RunningFacade, more: bytes = b"") -> bytes:
    return PUT + b"X-Vault-Token: %s\r\n%s" % (facade.token("bletchley").encode(), more)


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5\r\nContent-Length: 5\r\n",
        b"Content-Length: 46\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 46\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n",
        b"Content-Length: 0\r\n Transfer-Encoding: chunked\r\n",
        b"Content-Length : 0\r\n",
        b"Content-Length: +0\r\n",
        b"Content-Length: 0x0\r\n",
        b"Content-Length: \r\n",
    ],
)
def test_a_length_that_can_be_read_in_two_ways_is_refused(
    facade: RunningFacade, headers: bytes
) -> None:
    received = facade.exchange(PUT + headers + b"\r\n0\r\n\r\n" + SMUGGLED)
    assert statuses(received) in ([], [400], [403])
    assert b"no handler" not in received


@pytest.mark.parametrize(
    "header",
    [
        b"X-Vault-Token: another",
        b"x-vault-token: another",
        b"X-Vault-Namespace: root\r\nX-Vault-Namespace: elsewhere",
        b"Authorization: Bearer a\r\nAuthorization: Bearer b",
        b"Host: elsewhere",
    ],
)
def test_a_header_that_names_somebody_stands_once(facade: RunningFacade, header: bytes) -> None:
    received = facade.exchange(with_token(facade, header + b"\r\nContent-Length: 0\r\n\r\n"))
    assert statuses(received) == [400]
    assert b"stands twice" in received
    assert facade.audited() == []


def test_a_trailer_is_no_header_of_this_request_or_the_next(facade: RunningFacade) -> None:
    token = facade.token("bletchley").encode()
    chunked = b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-Vault-Token: %s\r\n\r\n" % token
    renew = b"PUT /v1/auth/token/renew-self HTTP/1.1\r\nHost: x\r\n%s" % chunked
    look = b"GET /v1/auth/token/lookup-self HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    received = facade.exchange(renew + look)
    assert 200 not in statuses(received)
    assert token not in received
    assert len(statuses(received)) <= 2


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c", b"anything"])
@pytest.mark.parametrize("pieces", [1, 2])
def test_the_body_of_an_upgrade_is_no_request(
    facade: RunningFacade, protocol: bytes, pieces: int
) -> None:
    head = PUT + b"Connection: Upgrade\r\nUpgrade: %s\r\nContent-Length: %d\r\n\r\n" % (
        protocol,
        len(SMUGGLED),
    )
    with facade.connect() as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if pieces == 1:
            raw.sendall(head + SMUGGLED)
        else:
            raw.sendall(head)
            with contextlib.suppress(ConnectionError):
                raw.sendall(SMUGGLED)
        received = read_to_end(raw)
    assert statuses(received) in ([400], [])
    assert b"no handler" not in received


def test_a_refusal_is_not_taken_for_the_answer_to_the_request_before(
    facade: RunningFacade,
) -> None:
    """The first request is held; what follows it on the connection is garbage."""
    ciphertext = facade.encrypted(b"secret")
    facade.lock()
    body = b'{"ciphertext":"%s"}' % ciphertext.encode()
    held = with_token(facade).replace(b"encrypt", b"decrypt")
    held += b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    for garbage in (b"garbage\r\n\r\n", PUT + b"Content-Length: 99999999\r\n\r\n"):
        with facade.connect() as raw:
            raw.sendall(held)
            facade.wait_held(1)
            raw.sendall(garbage)
            assert read_to_end(raw) == b""
        facade.wait_held(0)


def test_a_body_too_large_after_an_early_answer_brings_no_second_one(
    facade: RunningFacade,
) -> None:
    """Denied by its head; then its body goes on for ever."""
    with facade.connect() as raw:
        raw.sendall(PUT + b"Transfer-Encoding: chunked\r\n\r\n")
        first = raw.recv(65536)
        assert statuses(first) == [403]
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                raw.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        assert statuses(read_to_end(raw)) == []


def test_the_body_of_a_denied_request_is_not_the_next_request(facade: RunningFacade) -> None:
    denied = PUT + b"Content-Length: %d\r\n\r\n%s" % (len(SMUGGLED), SMUGGLED)
    received = facade.exchange(denied + LEADER)
    assert statuses(received) == [403, 200]
    with facade.connect() as raw:
        raw.sendall(PUT + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED))
        assert statuses(raw.recv(65536)) == [403]
        raw.sendall(SMUGGLED + LEADER)
        assert statuses(read_to_end(raw)) == [200]


@pytest.mark.parametrize("code", [204, 205, 304])
def test_a_status_that_has_no_body_is_sent_without_one(facade: RunningFacade, code: int) -> None:
    head = b"GET /v1/sys/health?activecode=%d HTTP/1.1\r\nHost: x\r\n\r\n" % code
    received = facade.exchange(head + LEADER)
    assert statuses(received) == [code, 200]
    first = received[: received.index(b"HTTP/1.1 200")]
    assert first.endswith(b"\r\n\r\n")


def test_head_is_answered_without_a_body(facade: RunningFacade) -> None:
    received = facade.exchange(HEALTH.replace(b"GET", b"HEAD") + LEADER)
    assert statuses(received) == [200, 200]
    first = received[: received.rindex(b"HTTP/1.1 200")]
    assert first.endswith(b"\r\n\r\n")
    assert b"content-length: 0" not in first


def test_http_1_0_gets_one_answer_and_the_end(facade: RunningFacade) -> None:
    request = b"GET /v1/sys/leader HTTP/1.0\r\n\r\n"
    assert statuses(facade.exchange(request)) == [200]
    assert len(statuses(facade.exchange(request + SMUGGLED))) == 1


def test_what_follows_a_closing_request_is_not_answered(facade: RunningFacade) -> None:
    assert statuses(facade.exchange(LEADER + SMUGGLED)) == [200]


def test_requests_in_one_packet_are_answered_in_order(facade: RunningFacade) -> None:
    received = facade.exchange(HEALTH + SMUGGLED + PUT + b"Content-Length: 0\r\n\r\n" + LEADER)
    assert statuses(received) == [200, 404, 403, 200]


def test_a_request_byte_by_byte(facade: RunningFacade) -> None:
    body = b'{"plaintext":"YQ=="}'
    request = with_token(facade, b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body))
    with facade.connect() as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request + body:
            raw.sendall(bytes([byte]))
        assert statuses(read_to_end(raw)) == [200]


def test_expect_continue_is_answered_once_and_only_to_who_may(facade: RunningFacade) -> None:
    body = b'{"plaintext":"YQ=="}'
    expect = b"Content-Length: %d\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n" % len(body)
    with facade.connect() as raw:
        raw.sendall(with_token(facade, expect))
        assert raw.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.sendall(body)
        assert statuses(read_to_end(raw)) == [200]
    with facade.connect() as raw:
        raw.sendall(PUT + expect)
        assert statuses(read_to_end(raw)) == [403]
    large = expect.replace(b"Content-Length: 20", b"Content-Length: 99999999")
    assert statuses(facade.exchange(with_token(facade, large))) == [413]


PATHS = [
    b"/v1/homelab%2Fencrypt/bletchley",
    b"/v1/homelab/encrypt%2Fbletchley",
    b"/v1/homelab%2fencrypt%2fbletchley",
    b"/v1%2Fhomelab/encrypt/bletchley",
    b"/v1/sys/../homelab/encrypt/bletchley",
    b"/v1/homelab/./encrypt/bletchley",
    b"/v1//homelab/encrypt/bletchley",
    b"//v1/homelab/encrypt/bletchley",
    b"/v1/homelab/encrypt/bletchley/",
    b"/v1/homelab/encrypt/",
    b"/v1/homelab/encrypt",
    b"/v1/homelab/encrypt/bletchley;x",
    b"/v1/homelab/encrypt/bletchley%00",
    b"/v1/homel%61b/encrypt/bletchley",
    b"/V1/homelab/encrypt/bletchley",
    b"/homelab/encrypt/bletchley",
    b"/v1/homelab\\encrypt\\bletchley",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_has_one_spelling(facade: RunningFacade, path: bytes) -> None:
    request = with_token(
        facade, b'Content-Length: 20\r\nConnection: close\r\n\r\n{"plaintext":"YQ=="}'
    )
    received = facade.exchange(request.replace(b"/v1/homelab/encrypt/bletchley", path, 1))
    assert statuses(received)[0] in (403, 404)
    assert "released" not in {record["verdict"] for record in facade.audited()}


def test_an_absolute_url_means_its_path(facade: RunningFacade) -> None:
    request = b"GET http://elsewhere.example/v1/sys/leader HTTP/1.1\r\nHost: x\r\n"
    received = facade.exchange(request + b"Connection: close\r\n\r\n")
    assert statuses(received) == [200]
