"""A raft snapshot of a server, taken to a file and proven whole before it is called one.

A snapshot is a gzip'd tar of ``meta.json``, ``state.bin`` and ``SHA256SUMS``, which has the digests
of the other two (measured on OpenBao 2.7.2; a server with a seal adds ``SHA256SUMS.sealed``).
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import tarfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

import aiohttp

from kluis.errors import ServerAnswered, ServerError, UsageError, WriteFailed
from kluis.servers.http import HttpApi
from kluis.servers.tls import ServerTls

PATH: Final = "sys/storage/raft/snapshot"
ANSWER_S: Final = 3600.0
SUMS: Final = "SHA256SUMS"
MAX_SUMS_BYTES: Final = 4096
MAX_MEMBERS: Final = 16
_CHUNK_BYTES: Final = 1 << 20
_BEGUN: Final = ".part"


async def take(address: str, tls: ServerTls, token: str, file: Path) -> int:
    """Write a snapshot to a new file, 0600; how many bytes it has.

    Raises ServerError, UsageError when the file is there already, or WriteFailed.
    """
    _refuse_existing(file)
    begun = file.with_name(file.name + _BEGUN)
    api = _Download(address, tls, ANSWER_S)
    try:
        if api.in_the_clear:
            raise _in_the_clear(address)
        api.open()
        with _new(begun) as out:
            size = await api.download(PATH, token, out)
        await asyncio.to_thread(prove, begun)
        begun.replace(file)
    except OSError as error:
        raise WriteFailed(
            f"{file} can't be written: {error.strerror or 'refused'}",
            "without the snapshot nothing is begun",
            "name another file with --snapshot, or make room",
        ) from None
    finally:
        await api.close()
        with suppress(OSError):
            begun.unlink()
    return size


def _refuse_existing(file: Path) -> None:
    if file.exists():
        raise UsageError(
            f"{file} is there already",
            "a snapshot overwrites nothing",
            "name another file with --snapshot, or remove it",
        )


def _new(file: Path) -> IO[bytes]:
    flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    return open(os.open(file, flags, 0o600), "wb")


def _in_the_clear(address: str) -> UsageError:
    return UsageError(
        f"no snapshot is taken of {address} over plain http",
        "others on the way could read along",
        "give the server a certificate, and name it with https://",
    )


class _Download(HttpApi):
    """The same bounded call, but for its answer, which goes to a file."""

    async def download(self, path: str, token: str, out: IO[bytes]) -> int:
        """Write the answer to a file; how many bytes came. Raises ServerError."""
        if self._session is None:
            raise RuntimeError("open comes first")
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._session.get(
                    self._base / f"v1/{path}",
                    headers={"X-Vault-Request": "true", "X-Vault-Token": token},
                    allow_redirects=False,
                    server_hostname=self._server_name,
                    timeout=aiohttp.ClientTimeout(total=None),
                ) as response,
            ):
                if response.status != 200:
                    raise _refused(self.address, response.status)
                return await _written(response, out)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._failure(error, self._timeout_s) from None


async def _written(response: aiohttp.ClientResponse, out: IO[bytes]) -> int:
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        out.write(chunk)
    out.flush()
    os.fsync(out.fileno())
    return out.tell()


def _refused(address: str, status: int) -> ServerAnswered:
    redirected = 300 <= status < 400
    return ServerAnswered(
        f"{address} gave no snapshot: it answered {status}",
        "it is not the active node" if redirected else "the token may not read " + PATH,
        "check which node is active"
        if redirected
        else "give a token that may: root's, or one whose policy allows that path to be read",
        status,
    )


def prove(file: Path) -> None:
    """That a snapshot is whole: what it says of its own parts is so. Raises ServerError."""
    try:
        with gzip.open(file) as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as tar:
            found, sums = _digests(tar)
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, ValueError):
        found, sums = {}, b""
    said = dict(_line(line) for line in sums.decode("ascii", "replace").splitlines())
    if "state.bin" not in said or any(found.get(name) != digest for name, digest in said.items()):
        raise ServerError(
            "what the server gave is no whole snapshot",
            "it was cut short on the way, or the server's disk is full",
            "try again; nothing was begun",
        )


def _line(line: str) -> tuple[str, str]:
    digest, _, name = line.partition(" ")
    return name.strip(), digest


def _digests(tar: tarfile.TarFile) -> tuple[dict[str, str], bytes]:
    """The SHA-256 of every member, and what ``SHA256SUMS`` says."""
    found: dict[str, str] = {}
    sums = b""
    for member in tar:
        content = tar.extractfile(member)
        if content is None or len(found) >= MAX_MEMBERS:
            raise ValueError
        if member.name == SUMS:
            sums = content.read(MAX_SUMS_BYTES)
        else:
            found[member.name] = _sha256(content)
    return found, sums


def _sha256(content: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := content.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()
