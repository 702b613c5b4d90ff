"""The client against a stock server, and against things that only pretend to be one."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import NoReturn

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kluis.errors import ServerError, ServerUnreachable, UsageError
from kluis.servers.client import Initialised, ServerClient
from kluis.servers.tls import ServerTls
from tests.support.bao import Bao, free_port

STANDBY_S = 60.0  # a single server that is not active yet will be

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def test_a_shamir_server_goes_from_new_to_active_and_sealed_again(tmp_path: Path) -> None:
    async def life(address: str) -> None:
        async with ServerClient(address) as client:
            health = await client.health()
            assert (health.status, health.initialized, health.unsealed) == (501, False, False)

            made = await client.init(3, 2, kind="secret")
            assert len(made.shares) == 3
            assert (await client.health()).status == 503

            status = await client.unseal(made.shares[0])
            assert (status.sealed, status.progress, status.threshold, status.shares) == (
                True, 1, 2, 3,
            )  # fmt: skip
            assert status.cluster_id == ""
            await client.unseal(made.shares[2])
            assert (await client.wait_active(STANDBY_S)).active

            status = await client.seal_status()
            assert (status.sealed, status.seal_type, status.storage_type) == (
                False, "shamir", "raft",
            )  # fmt: skip
            assert status.cluster_id

            await client.seal(made.root_token)
            assert (await client.health()).status == 503

    with Bao(tmp_path) as bao:
        asyncio.run(asyncio.wait_for(life(bao.address), 60))


def test_a_secret_is_read_back(tmp_path: Path) -> None:
    async def life(address: str, token: str) -> None:
        async with ServerClient(address) as client:
            await client.wait_active(STANDBY_S)
            await client.mount_kv(token, "kv")
            await client.kv_put(token, "kv", "app/database", {"password": "hunter2"})
            assert await client.kv_get(token, "kv", "app/database") == {"password": "hunter2"}

    with Bao(tmp_path) as bao:
        made = bao.init()
        bao.unseal(made.shares[0])
        asyncio.run(asyncio.wait_for(life(bao.address, made.root_token), 60))


def test_a_refused_share_and_token_are_not_in_the_error(tmp_path: Path) -> None:
    share, token = "ab" * 40, "s.not-a-token-of-this-server"

    async def refused(address: str) -> list[ServerError]:
        async with ServerClient(address) as client:
            made = await client.init(1, 1, kind="secret")
            errors = [await _refusal(client.unseal(share))]
            await client.unseal(made.shares[0])
            await client.wait_active(STANDBY_S)
            errors.append(await _refusal(client.kv_get(token, "kv", "x")))
            errors.append(await _refusal(client.seal(token)))
            return errors

    with Bao(tmp_path) as bao:
        for error in asyncio.run(refused(bao.address)):
            text = f"{error.seen}|{error.means}|{error.next_step}"
            assert share not in text
            assert token not in text
            assert "\n" not in text
            assert error.next_step


def test_what_an_init_gave_is_not_printed() -> None:
    assert "root" not in repr(Initialised("root", ("share",))).replace("root_token", "")
    assert repr(Initialised("root", ("share",))) == "Initialised()"


def test_nobody_listening_is_one_clear_error() -> None:
    async def ask() -> None:
        async with ServerClient(f"http://127.0.0.1:{free_port()}") as client:
            await client.health()

    with pytest.raises(ServerError, match="can't be reached"):
        asyncio.run(ask())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b'HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{"sealed": "no"}',
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nnot json!",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n[[[[",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
    ],
    ids=["empty", "wrong type", "no JSON", "half a list", "404", "another protocol", "nothing"],
)
def test_another_service_is_never_taken_for_an_unsealed_server(answer: bytes) -> None:
    async def client(address: str) -> None:
        async with ServerClient(address) as client:
            for call in (client.health, client.seal_status):
                with pytest.raises(ServerError):
                    await call()

    asyncio.run(_with_peer(_says(answer), client))


def test_an_endless_answer_ends_at_the_limit() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" " * 65536)
            await writer.drain()

    async def client(address: str) -> None:
        async with ServerClient(address) as client:
            with pytest.raises(ServerError, match="more than 1048576 bytes"):
                await client.health()

    asyncio.run(_with_peer(endless, client))


def test_a_server_that_never_answers_does_not_hold_the_client() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def client(address: str) -> None:
        async with ServerClient(address, timeout_s=0.2) as client:
            with pytest.raises(ServerError, match=r"within 0\.2 s"):
                await client.health()

    asyncio.run(_with_peer(silent, client))


def test_a_redirect_does_not_carry_the_token_away() -> None:
    asked: list[bytes] = []

    async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()

    async def client(address: str) -> None:
        redirect = (
            f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {address}/\r\nContent-Length: 0\r\n\r\n"
        )

        async def ask(address: str) -> None:
            async with ServerClient(address) as client:
                with pytest.raises(ServerError, match="307"):
                    await client.kv_get("token", "kv", "x")

        await _with_peer(_says(redirect.encode()), ask)

    asyncio.run(_with_peer(elsewhere, client))
    assert asked == []


def test_a_certificate_is_verified_unless_only_health_is_watched_on_loopback(
    tmp_path: Path,
) -> None:
    certificate, key = _self_signed(tmp_path)
    port = free_port()
    listener = (
        f'listener "tcp" {{\n  address = "127.0.0.1:{port}"\n'
        f'  cluster_address = "127.0.0.1:{free_port()}"\n'
        f'  tls_cert_file = "{certificate}"\n  tls_key_file = "{key}"\n}}\n'
    )
    address = f"https://127.0.0.1:{port}"

    async def ask() -> None:
        async with ServerClient(address, tls=ServerTls(certificate)) as client:
            assert (await client.seal_status()).initialized is False
        async with ServerClient(address) as client:
            with pytest.raises(ServerError, match=r"certificate of .* was refused"):
                await client.health()
        async with ServerClient(address, tls=False) as client:
            assert (await client.health()).status == 501
            with pytest.raises(UsageError):
                await client.unseal("ab" * 33)
            with pytest.raises(UsageError):
                await client.seal_status()

    with Bao(tmp_path / "bao", more=listener):
        asyncio.run(ask())


@pytest.mark.parametrize(
    "address", ["https://bao.example:8200", "https://192.0.2.1", "https://[2001:db8::1]"]
)
def test_no_certificate_goes_unverified_beyond_loopback(address: str) -> None:
    with pytest.raises(UsageError, match="must be verified"):
        ServerClient(address, tls=False)


@pytest.mark.parametrize(
    "address", ["", "bao.example:8200", "ftp://bao", "https://", "https://u:p@bao", "http://[::"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="not the address of a server"):
        ServerClient(address)


def test_a_ca_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="certificate authority"):
        ServerClient("https://bao.example", tls=ServerTls(tmp_path / "missing"))
    (tmp_path / "empty").touch()
    with pytest.raises(UsageError, match="certificate authority"):
        ServerClient("https://bao.example", tls=ServerTls(tmp_path / "empty"))


async def _refusal(call: Awaitable[object]) -> ServerError:
    with pytest.raises(ServerError) as caught:
        await call
    return caught.value


def _says(answer: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    return serve


async def _with_peer(serve: Serve, client: Callable[[str], Coroutine[None, None, None]]) -> None:
    """Run ``client`` against a peer on loopback; what the peer stumbles over does not matter."""

    async def tolerant(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
            writer.close()
            await writer.wait_closed()
        except (OSError, EOFError):
            pass
        finally:
            writer.transport.abort()  # or what was not read yet would keep it open

    server = await asyncio.start_server(tolerant, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        await asyncio.wait_for(client(f"http://127.0.0.1:{port}"), 30)


def _self_signed(directory: Path) -> tuple[Path, Path]:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bao")])
    now = datetime.datetime.now(datetime.UTC)
    san = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(san, critical=False)
        .sign(private, hashes.SHA256())
    )
    certificate, key = directory / "bao.crt", directory / "bao.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate, key


class BreaksOff(aiohttp.TCPConnector):
    """A connection whose making is cancelled by nobody, or hangs."""

    hangs = False

    async def _create_connection(self, *_: object) -> NoReturn:
        if self.hangs:
            await asyncio.sleep(120)
        raise asyncio.CancelledError


def test_a_connection_that_is_broken_off_is_an_error_and_a_cancelled_call_is_cancelled() -> None:
    async def play() -> None:
        connector = BreaksOff()
        async with ServerClient("http://127.0.0.1:1", connector=connector) as client:
            with pytest.raises(ServerUnreachable):
                await client.seal_status()
            connector.hangs = True
            call = asyncio.create_task(client.seal_status())
            await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    asyncio.run(play())
