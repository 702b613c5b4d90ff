"""Certificates for tests: a CA, and certificates for servers and clients that it vouches for.

ca = Authority(tmp_path / "ca")
server = ca.issue("facade", "localhost", "127.0.0.1")
client = ca.issue("bletchley", "bletchley.example")
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY: Final = timedelta(days=1)
Span = tuple[timedelta, timedelta]
"""From when and until when, from now on."""


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, as PEM files; the key is 0600."""

    certificate: Path
    key: Path

    def install(self, certificate: Path, key: Path) -> None:
        """Put both where a service reads them, the certificate last; each file whole at once."""
        _replace(key, self.key.read_bytes(), 0o600)
        _replace(certificate, self.certificate.read_bytes(), 0o644)


class Authority:
    """A certificate authority of its own, in a folder of its own."""

    def __init__(self, folder: Path, name: str = "test CA") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self.certificate = folder / "ca.crt"
        built = (
            _builder(self._name, self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate.write_bytes(built.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        name: str,
        *hosts: str,
        others: Sequence[x509.GeneralName] = (),
        password: str = "",
        again: Issued | None = None,
        valid: Span = (-DAY, DAY),
    ) -> Issued:
        """A certificate for these hosts and addresses, and ``others``; without SAN if there are
        none. A ``password`` encrypts the key. With ``again`` it is for the key of that one."""
        key = ec.generate_private_key(ec.SECP256R1()) if again is None else _key(again.key)
        builder = (
            _builder(_name(name), self._name, key.public_key(), valid)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
        )
        if names := [*map(_general, hosts), *others]:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        issued = Issued(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        certificate = builder.sign(self._key, hashes.SHA256())
        issued.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        _write_key(issued.key, key, password)
        return issued


def self_signed(folder: Path, name: str, *hosts: str, again: Issued | None = None) -> Issued:
    """A certificate that nobody but itself vouches for; with ``again`` for the key of that one."""
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1()) if again is None else _key(again.key)
    names = x509.SubjectAlternativeName([*map(_general, hosts)])
    builder = _builder(_name(name), _name(name), key.public_key()).add_extension(names, False)
    issued = Issued(folder / f"{name}.crt", folder / f"{name}.key")
    certificate = builder.sign(key, hashes.SHA256())
    issued.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    _write_key(issued.key, key, "")
    return issued


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    valid: Span = (-DAY, DAY),
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + valid[0])
        .not_valid_after(now + valid[1])
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey, password: str) -> None:
    encryption: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(password.encode())
        if password
        else serialization.NoEncryption()
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    _replace(path, pem, 0o600)


def _replace(path: Path, data: bytes, mode: int) -> None:
    """Write a file whole at once, as certificate tools do."""
    new = path.with_name(path.name + ".new")
    new.touch(mode=mode)
    new.chmod(mode)
    new.write_bytes(data)
    new.replace(path)
