"""Who a server is, before a byte of a request goes to it: a real OpenBao with many certificates."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from kluis.errors import UsageError, WrongServer
from kluis.servers import tls
from kluis.servers.client import ServerClient
from kluis.servers.tls import (
    PIN_PATTERN,
    ServerTls,
    certificates,
    pin_of,
    read_certificate,
    trusting,
)
from tests.support.bao import Bao, wait_until
from tests.support.tls import DAY, Authority, Issued, self_signed

HOSTS = ("localhost", "127.0.0.1")


@dataclass
class Site:
    """A server, and what can vouch for it."""

    bao: Bao
    ca: Authority
    other: Authority
    first: Issued
    folder: Path

    def show(self, issued: Issued) -> None:
        """Let the server show this certificate, as after a renewal: without a restart."""
        assert self.bao.tls is not None
        assert self.bao.process is not None
        issued.install(self.bao.tls.certificate, self.bao.tls.key)
        wanted = certificates(issued.certificate)[0].public_bytes(Encoding.PEM).decode("ascii")
        self.bao.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.shown() == wanted, "the server shows the new certificate")

    def shown(self) -> str:
        with contextlib.suppress(OSError):
            return ssl.get_server_certificate(("127.0.0.1", self.bao.port), timeout=5)
        return ""

    def believes(self, whom: ServerTls) -> str:
        """Empty when the server is believed; else why not."""

        async def ask() -> None:
            async with ServerClient(self.bao.address, tls=whom) as client:
                await client.seal_status()

        try:
            asyncio.run(ask())
        except WrongServer as error:
            refused = error
        else:
            return ""
        assert refused.seen == f"the certificate of {self.bao.address} was refused"
        assert refused.next_step
        return refused.means


PIN = "its key is not the pinned one"
CHAIN = "no known authority signed it, or it expired"
NAME = "it does not name vault.example"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("tls")
    ca, other = Authority(folder / "ca"), Authority(folder / "other", "another CA")
    first = ca.issue("first", *HOSTS)
    used = Issued(folder / "used.crt", folder / "used.key")
    first.install(used.certificate, used.key)
    with Bao(folder / "bao", tls=used) as bao:
        yield Site(bao, ca, other, first, folder)


@pytest.fixture
def site(running: Site) -> Iterator[Site]:
    yield running
    running.show(running.first)


def pin(issued: Issued) -> str:
    return pin_of(certificates(issued.certificate)[0])


def test_a_pin_is_what_openssl_makes_of_the_key(site: Site) -> None:
    script = (
        f"openssl x509 -in {site.first.certificate} -noout -pubkey | openssl pkey -pubin"
        " -outform der | openssl dgst -sha256 -binary | openssl base64"
    )
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=True, timeout=30)
    assert pin(site.first) == f"sha256:{done.stdout.decode().strip()}"
    assert re.fullmatch(PIN_PATTERN, pin(site.first))


def test_a_pin_comes_on_top_of_chain_and_name(site: Site) -> None:
    ca, key = site.ca.certificate, pin(site.first)
    stranger = pin(site.ca.issue("stranger", *HOSTS))
    assert site.believes(ServerTls(ca)) == ""
    assert site.believes(ServerTls(ca, key)) == ""
    assert site.believes(ServerTls(ca, stranger)) == PIN
    assert site.believes(ServerTls(None, key)) == CHAIN
    assert site.believes(ServerTls(site.other.certificate, key)) == CHAIN
    assert site.believes(ServerTls(ca, key, "localhost")) == ""
    assert site.believes(ServerTls(ca, key, "vault.example")) == NAME


def test_a_pinned_authority_vouches_alone(site: Site) -> None:
    both = site.folder / "both.crt"
    both.write_bytes(site.ca.certificate.read_bytes() + site.other.certificate.read_bytes())
    one, two = (pin_of(certificate) for certificate in certificates(both))
    assert site.believes(ServerTls(both)) == ""
    assert site.believes(ServerTls(both, one)) == ""
    assert site.believes(ServerTls(both, two)) == CHAIN
    assert site.believes(ServerTls(both, one, "vault.example")) == NAME


def test_a_renewed_certificate_fits_the_pin_of_its_key_and_another_key_does_not(site: Site) -> None:
    ca, key = site.ca.certificate, pin(site.first)
    authority = pin_of(certificates(ca)[0])
    site.show(site.ca.issue("renewed", *HOSTS, again=site.first))
    assert site.believes(ServerTls(ca, key)) == ""
    site.show(site.ca.issue("rekeyed", *HOSTS))
    assert site.believes(ServerTls(ca, key)) == PIN
    assert site.believes(ServerTls(ca, authority)) == ""
    site.show(site.other.issue("elsewhere", *HOSTS, again=site.first))
    assert site.believes(ServerTls(ca, key)) == CHAIN
    assert site.believes(ServerTls(ca, authority)) == CHAIN


def test_an_expired_certificate_and_one_for_another_host_are_refused(site: Site) -> None:
    ca, key = site.ca.certificate, pin(site.first)
    past = (-2 * DAY, -DAY)
    site.show(site.ca.issue("expired", *HOSTS, again=site.first, valid=past))
    assert site.believes(ServerTls(ca, key)) == CHAIN
    site.show(site.ca.issue("elsewhere", "vault.example", again=site.first))
    assert site.believes(ServerTls(ca, key)) == "it does not name 127.0.0.1"
    assert site.believes(ServerTls(ca, key, "vault.example")) == ""


def test_a_self_signed_certificate_is_believed_by_itself_with_its_name(site: Site) -> None:
    mine = self_signed(site.folder / "self", "vault", *HOSTS)
    site.show(mine)
    assert site.believes(ServerTls(None, pin(mine))) == CHAIN
    assert site.believes(ServerTls(mine.certificate)) == ""
    assert site.believes(ServerTls(mine.certificate, pin(mine))) == ""
    assert site.believes(ServerTls(mine.certificate, pin(mine), "vault.example")) == NAME
    renewed = self_signed(site.folder / "again", "vault", *HOSTS, again=mine)
    assert pin(renewed) == pin(mine)
    site.show(renewed)
    assert site.believes(ServerTls(mine.certificate, pin(mine))) == CHAIN  # it is another one
    assert site.believes(ServerTls(renewed.certificate, pin(mine))) == ""
    stranger = self_signed(site.folder / "stranger", "vault", *HOSTS)
    site.show(stranger)
    assert site.believes(ServerTls(mine.certificate, pin(mine))) == CHAIN


def test_one_certificate_of_an_authority_is_believed_without_the_authority(site: Site) -> None:
    assert site.believes(ServerTls(site.first.certificate, pin(site.first))) == ""
    site.show(site.ca.issue("another", *HOSTS))
    assert site.believes(ServerTls(site.first.certificate, pin(site.first))) == CHAIN


@pytest.mark.parametrize("content", [None, b"", b"no PEM", b"-----BEGIN CERTIFICATE-----\nAA\n"])
def test_a_file_without_an_authority_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "ca.crt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError) as error:
        ServerTls(path).context()
    assert error.value.seen == f"{path} can't be used as a certificate authority"


# -- what a certificate says of itself


def der(issued: Issued) -> bytes:
    return certificates(issued.certificate)[0].public_bytes(Encoding.DER)


def test_what_a_certificate_says_is_read(tmp_path: Path) -> None:
    issued = Authority(tmp_path, "ca").issue("vault", *HOSTS, "vault.example")
    read = read_certificate(der(issued))
    assert (read.subject, read.issuer) == ("CN=vault", "CN=ca")
    assert sorted(read.names) == ["127.0.0.1", "localhost", "vault.example"]
    assert read.ends_s - read.starts_s == 2 * DAY.total_seconds()
    assert read.pin == pin(issued)
    assert read.pem.encode() == issued.certificate.read_bytes()
    command = [
        "openssl",
        "x509",
        "-in",
        str(issued.certificate),
        "-noout",
        "-fingerprint",
        "-sha256",
    ]
    done = subprocess.run(command, capture_output=True, check=True, timeout=30)
    assert done.stdout.decode().strip().endswith(f"Fingerprint={read.fingerprint}")
    assert trusting(read.pem).check_hostname


def test_names_that_could_harm_a_terminal_are_made_plain(tmp_path: Path) -> None:
    issued = Authority(tmp_path, "ca\x1b[2J").issue("\x9b31m\x07" + "x" * 40, "localhost")
    read = read_certificate(der(issued))
    assert (read.subject + read.issuer).isprintable()


def test_a_certificate_without_names_has_none(tmp_path: Path) -> None:
    assert read_certificate(der(Authority(tmp_path).issue("vault"))).names == ()


def test_bytes_that_are_no_certificate_have_no_pin() -> None:
    pinned = f"sha256:{'A' * 43}="
    assert not tls._has_pin(None, pinned)
    assert not tls._has_pin(b"no certificate", pinned)


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    others = [x509.DirectoryName(x509.Name([])), x509.RFC822Name("a@b.example")]
    return der(Authority(tmp_path_factory.mktemp("seed")).issue("vault", *HOSTS, others=others))


@given(st.data())
@settings(max_examples=300)
def test_any_bytes_are_a_certificate_or_a_value_error(seed: bytes, data: st.DataObject) -> None:
    changed = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(seed) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        read = read_certificate(bytes(changed))
        assert (read.subject + read.issuer + "".join(read.names)).isprintable()
