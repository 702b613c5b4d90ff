"""Whatever bytes come from outside: an answer or an end, and never a fault."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kluis.errors import AuditError
from kluis.facade.audit import AuditLog, Chain, members
from kluis.facade.limits import Limits
from tests.support.facade import RunningFacade, read_to_end, serving

SLOW = settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def facade(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFacade]:
    with serving(tmp_path_factory.mktemp("fuzz"), limits=Limits(denials_per_s=100)) as running:
        yield running


def answers(received: bytes) -> list[int]:
    """The statuses of the answers; each has to be whole and in Vault's shape."""
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 "), received[:100]
        status = int(head[9:12])
        found.append(status)
        lengths = [line for line in head.split(b"\r\n") if line.startswith(b"content-length: ")]
        if status == 100:
            received = rest
            continue
        (length,) = (int(line[16:]) for line in lengths)
        if status >= 400:
            assert set(json.loads(rest[:length])) == {"errors"}
        received = rest[length:]
    return found


def sent(facade: RunningFacade, data: bytes) -> list[int]:
    """Send bytes, end the sending, and read to the end."""
    with facade.connect() as raw:
        with contextlib.suppress(ConnectionError):
            raw.sendall(data)
            raw.shutdown(socket.SHUT_WR)
        return answers(read_to_end(raw))


PIECES = st.sampled_from(
    [
        b"GET ",
        b"PUT ",
        b"POST /v1/homelab/decrypt/bletchley",
        b"/v1/sys/health",
        b"/metrics",
        b" HTTP/1.1\r\n",
        b" HTTP/1.0\r\n",
        b"Host: x\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: 99999999\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
        b"Expect: 100-continue\r\n",
        b"X-Vault-Token: ",
        b"X-Vault-Namespace: x\r\n",
        b"\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"{}",
        b"hello",
        b"%2f",
        b"\x00",
        b"\xff",
        b"\n",
        b":",
    ]
)


@SLOW
@given(st.lists(PIECES, max_size=30).map(b"".join))
def test_pieces_of_requests(facade: RunningFacade, data: bytes) -> None:
    assert set(sent(facade, data)) <= {100, 200, 400, 403, 404, 405, 413, 429, 431}


@SLOW
@given(st.binary(max_size=2000))
def test_raw_bytes(facade: RunningFacade, data: bytes) -> None:
    assert set(sent(facade, data)) <= {400}


@SLOW
@given(
    st.sampled_from([b"X-Vault-Token: ", b"Connection: ", b"Content-Length: ", b"Host: ", b""]),
    st.binary(max_size=200),
)
def test_a_header_of_any_bytes(facade: RunningFacade, name: bytes, value: bytes) -> None:
    head = b"PUT /v1/homelab/encrypt/bletchley HTTP/1.1\r\n" + name + value + b"\r\n\r\n"
    assert set(sent(facade, head)) <= {400, 403, 413, 429, 431}


@SLOW
@given(st.binary(max_size=300))
def test_a_path_of_any_bytes(facade: RunningFacade, path: bytes) -> None:
    head = b"GET /v1/" + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert set(sent(facade, head)) <= {200, 400, 403, 404, 405, 429}


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=10), children, max_size=4)
    ),
    max_leaves=12,
)
NAMES = st.sampled_from(
    ["plaintext", "ciphertext", "associated_data", "context", "batch_input", "key_version", "x"]
)
OPERATIONS = st.sampled_from(["encrypt", "decrypt", "rewrap"])


@SLOW
@given(OPERATIONS, st.dictionaries(NAMES, JSON_VALUES, max_size=5))
def test_members_of_any_type(
    facade: RunningFacade, operation: str, body: dict[str, object]
) -> None:
    path = f"homelab/{operation}/bletchley"
    answer = facade.put(path, body, facade.token("bletchley"))
    assert answer.status in (200, 400)
    assert answer.status == 400 or (operation == "encrypt" and body.get("plaintext"))


@SLOW
@given(OPERATIONS, st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_bodies_of_any_bytes(facade: RunningFacade, operation: str, body: bytes) -> None:
    path = f"homelab/{operation}/bletchley"
    assert facade.put(path, body, facade.token("bletchley")).status == 400


@SLOW
@given(
    st.text(max_size=100)
    | st.builds(
        "{}:{}:{}".format,
        st.sampled_from(["vault", "kluis", ""]),
        st.sampled_from(["v1", "v0", "v", "1", "v\uff11"]) | st.text(max_size=5),
        st.binary(max_size=80).map(lambda b: base64.b64encode(b).decode()) | st.text(max_size=40),
    )
)
def test_ciphertexts_of_any_kind(facade: RunningFacade, ciphertext: str) -> None:
    for operation in ("decrypt", "rewrap"):
        body = json.dumps({"ciphertext": ciphertext}).encode()
        answer = facade.put(f"homelab/{operation}/bletchley", body, facade.token("bletchley"))
        assert answer.status == 400


@SLOW
@given(st.binary(min_size=1, max_size=300), st.binary(max_size=40))
def test_what_is_encrypted_is_what_is_decrypted(
    facade: RunningFacade, plaintext: bytes, aad: bytes
) -> None:
    token = facade.token("bletchley")
    more = {"associated_data": base64.b64encode(aad).decode()}
    body = {"plaintext": base64.b64encode(plaintext).decode(), **more}
    sealed = facade.put("homelab/encrypt/bletchley", body, token).data["ciphertext"]
    opened = facade.put("homelab/decrypt/bletchley", {"ciphertext": sealed, **more}, token)
    assert opened.plaintext == plaintext


def test_after_all_that_the_log_still_holds(facade: RunningFacade) -> None:
    Chain().check(facade.audit_file)
    assert facade.facade.hold.held == 0
    facade.wait(lambda: facade.facade.connections == 0, "no connection is left")
    assert facade.call(lambda: len(asyncio.all_tasks())) < 10


# -- the audit log


@contextlib.contextmanager
def file_of(content: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audit.jsonl"
        path.write_bytes(content)
        yield path


LINES = st.binary(max_size=60) | JSON_VALUES.map(lambda value: json.dumps(value).encode())


@given(st.lists(LINES, max_size=5).map(b"\n".join))
def test_a_chain_of_any_bytes_holds_or_is_an_error(content: bytes) -> None:
    with file_of(content) as path, contextlib.suppress(AuditError):
        Chain().check(path)
        assert content == b""


@given(st.lists(LINES, min_size=1, max_size=5).map(b"\n".join))
def test_a_file_of_any_bytes_is_never_changed_by_taking_it_for_a_log(content: bytes) -> None:
    with file_of(content) as path:
        try:
            AuditLog(path).close()
        except AuditError:
            assert path.read_bytes() == content
        else:
            assert content == b"" or b'{"seq":'.startswith(content[:7])


@given(
    st.lists(st.dictionaries(st.sampled_from("abc"), st.text(max_size=30)), max_size=8),
    st.data(),
)
def test_no_byte_of_a_log_can_be_changed_unseen(
    records: list[dict[str, str]], data: st.DataObject
) -> None:
    """But in the last record, which only a noted head proves."""
    with file_of(b"") as path:
        log = AuditLog(path)
        for fields in records:
            log.record(members(what="x", **fields))
        log.close()
        written = path.read_bytes()
        chain = Chain(log.head.digest)
        chain.check(path)
        assert chain.head == log.head
        if not records:
            return
        position = data.draw(st.integers(0, len(written) - 1))
        changed = bytearray(written)
        changed[position] ^= data.draw(st.integers(1, 255))
        path.write_bytes(bytes(changed))
        again = Chain(log.head.digest)
        try:
            again.check(path)
        except AuditError:
            return
        assert not again.met
        assert position >= written[:-1].rfind(b"\n") + 1
