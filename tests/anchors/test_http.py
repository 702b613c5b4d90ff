"""One bounded HTTP call: every way in which it can fail, by class."""

from __future__ import annotations

import asyncio
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kluis.anchors import http
from kluis.anchors.http import MAX_ANSWER_BYTES, Answer
from kluis.anchors.tls import tls_context
from kluis.errors import AnchorError, Misconfigured, Refused, Unreachable
from tests.support.bao import free_port
from tests.support.tls import Authority, Issued


@contextmanager
def speaking(
    says: bytes | Callable[[socket.socket], None], tls: ssl.SSLContext | None = None
) -> Iterator[str]:
    """A server that answers each connection with these bytes, whatever it is asked."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                raw, _ = listening.accept()
            except OSError:
                return
            try:
                with raw if tls is None else tls.wrap_socket(raw, server_side=True) as connection:
                    connection.settimeout(30)
                    if callable(says):
                        says(connection)
                    else:
                        connection.recv(65536)
                        connection.sendall(says)
            except OSError:
                raw.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{listening.getsockname()[1]}/path"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


def get(url: str, context: ssl.SSLContext | None = None) -> Answer:
    return asyncio.run(asyncio.wait_for(http.call("GET", url, tls=context), 30))


def refusal(url: str, context: ssl.SSLContext | None = None) -> AnchorError:
    with pytest.raises(AnchorError) as caught:
        get(url, context)
    assert caught.value.seen
    assert caught.value.means
    assert caught.value.next_step
    return caught.value


def reply(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    length = b"Content-Length: %d" % len(body)
    return b"\r\n".join([b"HTTP/1.1 " + status, length, *headers, b"", body])


def test_status_body_and_json_come_back_whatever_the_status() -> None:
    for status in (b"200 OK", b"403 No", b"503 Later"):
        with speaking(reply(b'{"a": 1}', status=status)) as url:
            answer = get(url)
        assert (answer.status, answer.json()) == (int(status[:3]), {"a": 1})


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"\xff", b"1", b"[" * 100_000])
def test_what_is_no_json_object_is_an_empty_one(body: bytes) -> None:
    assert Answer(200, body).json() == {}


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (b"7", 7.0),
        (b"999999999", 60.0),
        (b"-1", 0.0),
        (b"9" * 40, 0.0),
        (b"soon", 0.0),
        (b"Fri, 31 Dec 1999 23:59:59 GMT", 0.0),
        ("٣".encode(), 0.0),
    ],
)
def test_retry_after_is_bounded(header: bytes, seconds: float) -> None:
    with speaking(reply(b"", b"Retry-After: " + header)) as url:
        assert get(url).retry_after_s == seconds


def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    with speaking(reply(b"", b"Location: http://127.0.0.1:1/", status=b"307 There")) as url:
        assert get(url).status == 307


def test_nobody_listens() -> None:
    error = refusal(f"http://127.0.0.1:{free_port()}/")
    assert type(error) is Unreachable
    assert error.seen.endswith("can't be reached: Connection refused")


@pytest.mark.parametrize(
    "says", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"], ids=["nothing", "half"]
)
def test_a_connection_that_is_cut_is_to_be_tried_again(says: bytes) -> None:
    with speaking(says) as url:
        error = refusal(url)
    assert type(error) is Unreachable
    assert error.seen.endswith("can't be reached: cut off")


@pytest.mark.parametrize("says", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x15\x03\x03\x00\x02\x02\x0a"])
def test_what_is_not_http_is_a_misconfiguration(says: bytes) -> None:
    with speaking(says) as url:
        error = refusal(url)
    assert type(error) is Misconfigured
    assert error.seen.endswith("is not HTTP")


def test_an_answer_without_an_end_is_broken_off() -> None:
    def flood(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(bytes(65536))

    with speaking(flood) as url:
        error = refusal(url)
    assert type(error) is Misconfigured
    assert f"more than {MAX_ANSWER_BYTES} bytes" in error.seen


# -- TLS


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def server_side(issued: Issued, clients: Path | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    if clients is not None:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_a_server_is_known_by_its_authority_and_its_name(authority: Authority) -> None:
    trusting = tls_context(authority.certificate, None, None)
    with speaking(reply(b"{}"), server_side(authority.issue("right", "127.0.0.1"))) as url:
        assert get(url, trusting).status == 200
        for context in (None, tls_context(stranger(authority).certificate, None, None)):
            error = refusal(url, context)
            assert type(error) is Refused
            assert error.seen.endswith("is not accepted")
    with speaking(reply(b"{}"), server_side(authority.issue("wrong", "other.example"))) as url:
        assert type(refusal(url, trusting)) is Refused


def stranger(authority: Authority) -> Authority:
    return Authority(authority.certificate.parent / "stranger", "another CA")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_that_wants_a_certificate_is_told_from_one_that_speaks_no_tls(
    authority: Authority, version: ssl.TLSVersion
) -> None:
    client, foreign = authority.issue("client"), stranger(authority).issue("client")
    side = server_side(authority.issue("server", "127.0.0.1"), authority.certificate)
    side.minimum_version = side.maximum_version = version

    def polite(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(reply(b"{}"))

    with speaking(polite, side) as url:
        assert get(url, tls_context(authority.certificate, *files(client))).status == 200
        for shown in ((None, None), files(foreign)):
            error = refusal(url, tls_context(authority.certificate, *shown))
            assert type(error) is Refused
            if version is ssl.TLSVersion.TLSv1_3 or shown[0]:  # 1.2 has no alert of its own
                assert error.seen.endswith("does not accept the certificate that kluis shows")
            else:
                assert "wants a certificate of its clients" in error.means


def files(issued: Issued) -> tuple[Path, Path]:
    return issued.certificate, issued.key


def test_https_to_a_port_without_tls_is_named(authority: Authority) -> None:
    with speaking(reply(b"{}")) as url:
        error = refusal(
            url.replace("http", "https"), tls_context(authority.certificate, None, None)
        )
    assert type(error) is Refused
    assert error.seen.startswith("no TLS connection with")


def test_a_handshake_that_is_cut_is_to_be_tried_again(authority: Authority) -> None:
    with speaking(b"") as url:
        error = refusal(url.replace("http", "https"))
    assert type(error) is Unreachable


def test_a_server_that_breaks_off_and_gives_no_reason_is_to_be_tried_again(
    authority: Authority,
) -> None:
    def reset(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, *bytes(7)]))

    with speaking(reset, server_side(authority.issue("server", "127.0.0.1"))) as url:
        assert type(refusal(url, tls_context(authority.certificate, None, None))) is Unreachable


def test_files_of_a_connection_are_checked_before_it_is_made(
    authority: Authority, tmp_path: Path
) -> None:
    ca, one, two = authority.certificate, authority.issue("one"), authority.issue("two")
    assert tls_context(None, None, None) is None
    assert tls_context(None, *files(one)) is not None
    locked = authority.issue("locked", password="secret")
    for shown in (
        (tmp_path / "nowhere", None, None),
        (one.key, None, None),
        (ca, one.certificate, two.key),
        (ca, one.certificate, tmp_path / "nowhere"),
        (ca, tmp_path / "nowhere", one.key),
        (ca, *files(locked)),
        (ca, tmp_path, one.key),
    ):
        with pytest.raises(Misconfigured):
            tls_context(*shown)
    one.key.chmod(0o644)
    with pytest.raises(Refused, match="others can read"):
        tls_context(ca, *files(one))


def test_a_knock_sends_nothing() -> None:
    received: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    with speaking(lambda connection: received.put(connection.recv(10))) as url:
        asyncio.run(http.knock(url))
        assert received.get(timeout=30) == b""
    with pytest.raises(Unreachable):
        asyncio.run(http.knock(f"http://127.0.0.1:{free_port()}"))
