"""The facade's certificate: what is refused, and how it is replaced while it serves."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from kluis.errors import SettingsError
from kluis.facade.tls import TlsFiles
from kluis.keyring.plan import WantedClient
from tests.facade.contexts import trusting
from tests.support.bao import Bao, transit_seal
from tests.support.facade import Keyring, RunningFacade, serving
from tests.support.tls import Authority, Issued


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def files(issued: Issued, client_ca: Path | None = None) -> TlsFiles:
    return TlsFiles(issued.certificate, issued.key, client_ca)


def refused(tls: TlsFiles, words: str) -> None:
    with pytest.raises(SettingsError) as error:
        tls.context()
    assert words in error.value.seen
    assert error.value.means
    assert error.value.next_step


def test_a_certificate_without_a_san(ca: Authority) -> None:
    refused(files(ca.issue("facade")), "has no subject alternative name")


def test_a_key_of_another_certificate(ca: Authority) -> None:
    one, other = ca.issue("one", "localhost"), ca.issue("other", "localhost")
    refused(TlsFiles(one.certificate, other.key), "does not fit")


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o660, 0o601])
def test_a_key_that_others_can_use(ca: Authority, mode: int) -> None:
    issued = ca.issue("facade", "localhost")
    issued.key.chmod(mode)
    refused(files(issued), "others can read")


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640])
def test_a_key_that_its_owner_and_his_group_can_read(ca: Authority, mode: int) -> None:
    issued = ca.issue("facade", "localhost")
    issued.key.chmod(mode)
    assert files(issued).context().minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_key_with_a_password_is_refused_without_asking_for_it(ca: Authority) -> None:
    issued = ca.issue("facade", "localhost", password="guess me")
    refused(files(issued), "does not fit")


def test_missing_files(ca: Authority, tmp_path: Path) -> None:
    issued, missing = ca.issue("facade", "localhost"), tmp_path / "none"
    refused(TlsFiles(missing, issued.key), "can't be read: No such file")
    refused(TlsFiles(issued.certificate, missing), "can't be read: No such file")
    refused(files(issued, missing), "holds no CA")


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_files_that_are_something_else(ca: Authority, tmp_path: Path, content: bytes) -> None:
    issued, other = ca.issue("facade", "localhost"), tmp_path / "other"
    other.write_bytes(content)
    other.chmod(0o600)
    refused(TlsFiles(other, issued.key), "is not a certificate")
    refused(TlsFiles(issued.certificate, other), "does not fit")
    refused(files(issued, other), "holds no CA")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_versions_of_tls_are_refused(
    ca: Authority, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    with serving(tmp_path, tls=files(ca.issue("facade", "localhost"))) as facade:
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(ca.certificate)
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version = old.maximum_version = version
        with pytest.raises(ssl.SSLError):
            facade.get("sys/health", tls=old)
        for good in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            new = trusting(ca)
            new.minimum_version = new.maximum_version = good
            assert facade.get("sys/health", tls=new).status == 200


def test_a_renegotiation_is_refused(ca: Authority, tmp_path: Path) -> None:
    with serving(tmp_path, tls=files(ca.issue("facade", "localhost"))) as facade:
        asked = subprocess.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{facade.port}", "-tls1_2"],
            input=b"R\n",
            capture_output=True,
            timeout=30,
            check=False,
        )
        assert b"RENEGOTIATING" in asked.stdout + asked.stderr
        assert b"no renegotiation" in asked.stdout + asked.stderr


# -- replacing


class Site:
    """A facade with TLS, whose files can be replaced."""

    def __init__(self, facade: RunningFacade, tls: TlsFiles) -> None:
        self.facade = facade
        self.tls = tls

    def works(self, context: ssl.SSLContext) -> bool:
        with contextlib.suppress(OSError):
            return self.facade.get("sys/health", tls=context).status == 200
        return False

    def install(self, issued: Issued) -> None:
        issued.install(self.tls.certificate, self.tls.key)

    def events(self, name: str) -> int:
        return sum(event == name for event, _ in self.facade.logged)

    def reloaded_since(self, count: int) -> bool:
        return self.events("tls reloaded") > count

    def refused_since(self, count: int) -> bool:
        return self.events("tls not reloaded") > count


def replace(path: Path, content: bytes) -> None:
    """Write a file whole at once."""
    new = path.with_name("new")
    new.write_bytes(content)
    new.replace(path)


@pytest.fixture
def site(ca: Authority, tmp_path: Path) -> Iterator[Site]:
    folder = tmp_path / "tls"
    folder.mkdir()
    tls = TlsFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
    ca.issue("first", "localhost", "127.0.0.1").install(tls.certificate, tls.key)
    (folder / "ca.crt").write_bytes(ca.certificate.read_bytes())
    with serving(tmp_path, tls=tls) as facade:
        yield Site(facade, tls)


def test_a_new_certificate_is_taken_up_and_no_connection_is_lost(
    ca: Authority, site: Site, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "new", "new CA")
    connection = http.client.HTTPSConnection(
        "localhost", site.facade.port, timeout=30, context=trusting(ca)
    )
    with contextlib.closing(connection):
        for _ in range(2):
            connection.request("GET", "/v1/sys/leader")
            assert connection.getresponse().read()
            if not site.events("tls reloaded"):
                site.install(other.issue("second", "localhost", "127.0.0.1"))
                site.facade.wait(lambda: site.works(trusting(other)), "the new one is shown")
    assert not site.works(trusting(ca))


def test_a_bad_replacement_keeps_the_old_one_and_a_good_one_ends_that(
    ca: Authority, site: Site
) -> None:
    good = site.tls.certificate.read_bytes()
    site.tls.certificate.write_bytes(b"nonsense")
    site.facade.wait(lambda: site.events("tls not reloaded") > 0, "it is said")
    assert site.works(trusting(ca))
    site.install(ca.issue("other", "localhost"))
    site.facade.wait(lambda: site.events("tls reloaded") > 0, "the next one is taken")

    def spoils(*steps: Callable[[], object]) -> None:
        for spoil in steps:
            before = site.events("tls not reloaded")
            spoil()
            site.facade.wait(partial(site.refused_since, before), "it is said")
            assert site.works(trusting(ca))

    spoils(
        site.tls.certificate.unlink,
        lambda: replace(site.tls.certificate, good),  # which does not fit the key that is there
        lambda: site.tls.key.chmod(0o644),
    )


def test_a_client_ca_that_is_removed_vouches_for_nobody_any_more(
    ca: Authority, site: Site, tmp_path: Path
) -> None:
    new = Authority(tmp_path / "new", "new CA")
    old_client = trusting(ca, ca.issue("old", "old.example"))
    new_client = trusting(ca, new.issue("new", "new.example"))
    assert site.works(old_client)
    assert not site.works(new_client)
    assert site.tls.client_ca is not None
    site.tls.client_ca.write_bytes(ca.certificate.read_bytes() + new.certificate.read_bytes())
    site.facade.wait(lambda: site.works(new_client), "the new CA is trusted")
    assert site.works(old_client)
    site.tls.client_ca.write_bytes(new.certificate.read_bytes())
    site.facade.wait(lambda: not site.works(old_client), "the old CA is not")
    assert site.works(new_client)
    assert site.works(trusting(ca))  # a monitor shows no certificate


def test_a_session_of_before_the_removal_is_not_resumed(
    ca: Authority, site: Site, tmp_path: Path
) -> None:
    client = trusting(ca, ca.issue("old", "old.example"))
    client.maximum_version = ssl.TLSVersion.TLSv1_2

    def handshake(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool | None]:
        raw = socket.create_connection(("127.0.0.1", site.facade.port), timeout=30)
        with client.wrap_socket(raw, server_hostname="localhost", session=session) as wrapped:
            return wrapped.session, wrapped.session_reused

    session, _ = handshake(None)
    new = Authority(tmp_path / "new", "new CA")
    assert site.tls.client_ca is not None
    site.tls.client_ca.write_bytes(new.certificate.read_bytes())
    site.facade.wait(lambda: site.events("tls reloaded") > 0, "the new CA is taken")
    with pytest.raises(OSError):  # noqa: PT011 - a TLS alert, or the connection is reset
        handshake(session)


def test_many_replacements_leave_one_listener(ca: Authority, site: Site) -> None:
    def open_files(replacements: int) -> int:
        for number in range(replacements):
            before = site.events("tls reloaded")
            site.install(ca.issue(f"next{number}", "localhost"))
            site.facade.wait(partial(site.reloaded_since, before), "it is reloaded")
        return len(list(Path("/proc/self/fd").iterdir()))

    once = open_files(1)
    open_files(3)
    assert site.works(trusting(ca))
    site.facade.wait(lambda: open_files(0) <= once + 1, "the old listeners are closed")


def test_tls_garbage_does_not_disturb_the_others(ca: Authority, site: Site) -> None:
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(505)
    sent = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01",
        hello,
        b"\xff" * 5000,
        b"\x15\x03\x03\x00\x02\x02\x28",
    ]
    idle = [site.facade.connect() for _ in range(50)]  # they never begin the handshake
    try:
        for _ in range(10):
            for garbage in sent:
                with site.facade.connect() as raw, contextlib.suppress(ConnectionError):
                    raw.sendall(garbage)
        assert site.works(trusting(ca))
    finally:
        for raw in idle:
            raw.close()


def test_a_stock_server_unseals_over_tls_with_its_certificate(
    ca: Authority, tmp_path: Path
) -> None:
    server = ca.issue("facade", "localhost", "127.0.0.1")
    shown = ca.issue("bletchley", "bletchley.example")
    keyring = Keyring(clients={"bletchley": WantedClient(("bletchley",), "bletchley.example")})
    with serving(tmp_path, keyring, tls=files(server, ca.certificate)) as facade:
        seal = transit_seal(
            f"https://127.0.0.1:{facade.port}",
            facade.token("bletchley"),
            "bletchley",
            "homelab/",
            tls_ca_cert=ca.certificate,
            tls_client_cert=shown.certificate,
            tls_client_key=shown.key,
        )
        with Bao(tmp_path / "bao", seal) as bao:
            bao.init()
            bao.kill9()
            facade.lock()
            bao.start()
            bao.wait_sealed()
            facade.wait_held(1)
            facade.open()
            bao.wait_active()


def test_a_held_client_over_tls_that_goes_away_frees_its_place(
    ca: Authority, tmp_path: Path
) -> None:
    with serving(tmp_path, tls=files(ca.issue("facade", "localhost"))) as facade:
        _, ciphertext = facade.real_wrap()
        facade.lock()
        context = trusting(ca)
        raw = context.wrap_socket(facade.connect(), server_hostname="localhost")
        body = b'{"ciphertext":"%s"}' % ciphertext.encode()
        raw.sendall(
            b"PUT /v1/homelab/decrypt/bletchley HTTP/1.1\r\nHost: x\r\nX-Vault-Token: %s\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (facade.token("bletchley").encode(), len(body), body)
        )
        facade.wait_held(1)
        raw.close()
        facade.wait_held(0)
        facade.wait(lambda: facade.facade.connections == 0, "it is gone")
        assert facade.call(lambda: len(asyncio.all_tasks())) < 10
