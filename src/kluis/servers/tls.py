"""Who a server is before it is told anything: the chain, the name, and the pinned key.

A pin is ``sha256:`` and the base64 of the SHA-256 of a public key (SubjectPublicKeyInfo in DER, as
RFC 7469 has it): the server's own, or that of an authority in the ``ca`` file. It comes on top of
the chain and the name, and never instead of them. A peer that does not fit is refused within the
handshake, before a byte of a request is sent.
"""

from __future__ import annotations

import base64
import hashlib
import ssl
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning

from kluis.errors import UsageError

OTHER_NAME: Final = frozenset({62, 63, 64})
"""OpenSSL's codes (x509_vfy.h) of a certificate that names another host, or another address."""

PIN_PATTERN: Final = r"sha256:[A-Za-z0-9+/]{43}="
_MOST_NAMES: Final = 32
_MOST_CHARS: Final = 256
_UNREADABLE: Final = (ValueError, x509.InvalidVersion, UnsupportedAlgorithm)


@dataclass(frozen=True, slots=True)
class ServerTls:
    """Whom to believe: authorities (None: the system's), a pin, and the name that must be there.

    ``server_name`` is for servers reached by an address that their certificate does not name.
    ``user`` (a name or a uid) is for those reached without TLS, within this machine: who must have
    the socket at the other end (``servers.listener``).
    """

    ca: Path | None = None
    pin: str | None = None
    server_name: str | None = None
    user: str | int | None = None

    def context(self) -> ssl.SSLContext:
        """A context that lets only this server through. Reads files. Raises UsageError."""
        context = _PinnedContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.hostname_checks_common_name = False  # as the servers' own clients: SANs only
        authorities = () if self.ca is None else certificates(self.ca)
        pinned = [one for one in authorities if self.pin and pin_of(one) == self.pin]
        if pinned:  # then nothing else is believed, and the chain itself proves the pin
            _trust(context, pinned)
        else:
            context.pin = self.pin
            if self.ca is None:
                context.load_default_certs()
            else:
                _trust(context, authorities)
        return context


def pin_of(certificate: x509.Certificate) -> str:
    """The pin of a certificate's public key."""
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + base64.b64encode(hashlib.sha256(key).digest()).decode("ascii")


def certificates(path: Path) -> tuple[x509.Certificate, ...]:
    """The certificates in a PEM file. Raises UsageError."""
    try:
        return tuple(x509.load_pem_x509_certificates(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} can't be used as a certificate authority",
            getattr(error, "strerror", None) or "it holds no certificate in PEM form",
            "name a file with the authority's certificate in PEM form",
        ) from None


def _trust(context: ssl.SSLContext, found: Sequence[x509.Certificate]) -> None:
    """Believe these only. One that is no root is enough: a pinned intermediate, or a server's."""
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=b"".join(one.public_bytes(Encoding.DER) for one in found))


class WrongPin(ssl.SSLCertVerificationError):
    """The chain and the name are right, and the key is another one than the pinned."""


class _PinnedSocket(ssl.SSLObject):
    def do_handshake(self) -> None:
        super().do_handshake()
        context = self.context
        pin = context.pin if isinstance(context, _PinnedContext) else None
        if pin is not None and not _has_pin(self.getpeercert(binary_form=True), pin):
            raise WrongPin("the server's key is not the pinned one")


def _has_pin(der: bytes | None, pin: str) -> bool:
    try:
        return der is not None and pin_of(_loaded(der)) == pin
    except _UNREADABLE:
        return False


def _loaded(der: bytes) -> x509.Certificate:
    with warnings.catch_warnings():  # of what a later version will refuse, like a serial below 1
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        return x509.load_der_x509_certificate(der)


class _PinnedContext(ssl.SSLContext):
    """A context whose connections end in the handshake when the peer's key is not the pinned."""

    sslobject_class = _PinnedSocket
    pin: str | None = None


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says of itself. Nothing of it is proven by that. Times are Unix time."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    starts_s: float
    ends_s: float
    pin: str
    fingerprint: str
    """Of the whole certificate, as ``openssl x509 -fingerprint -sha256`` prints it."""
    pem: str


class Onlooker:
    """Contexts that refuse nobody, and note which certificate was shown: only for looking."""

    def __init__(self) -> None:
        self.shown: bytes | None = None
        """The server's certificate of the last handshake, in DER."""

    def context(self) -> ssl.SSLContext:
        """A context that believes anybody. No secret may go over its connections."""
        context = _NotingContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.onlooker = self
        return context


def read_certificate(der: bytes) -> Certificate:
    """What a certificate says. Raises ValueError for what is none, or is of an unknown kind."""
    try:
        read = _loaded(der)
        return Certificate(
            subject=_plain(read.subject.rfc4514_string()),
            issuer=_plain(read.issuer.rfc4514_string()),
            names=_names(read),
            starts_s=read.not_valid_before_utc.timestamp(),
            ends_s=read.not_valid_after_utc.timestamp(),
            pin=pin_of(read),
            fingerprint=hashlib.sha256(der).digest().hex(":").upper(),
            pem=read.public_bytes(Encoding.PEM).decode("ascii"),
        )
    except _UNREADABLE:
        raise ValueError from None


def trusting(pem: str) -> ssl.SSLContext:
    """A context that believes one certificate, with its dates and its name, and no authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _trust(context, x509.load_pem_x509_certificates(pem.encode("ascii")))
    return context


def _names(read: x509.Certificate) -> tuple[str, ...]:
    try:
        found = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return ()
    names = [*found.get_values_for_type(x509.DNSName)]
    names += map(str, found.get_values_for_type(x509.IPAddress))
    return tuple(_plain(name) for name in names[:_MOST_NAMES])


def _plain(text: str) -> str:
    """What a stranger says, in a form that can do nothing to a terminal."""
    return "".join(char if char.isprintable() else " " for char in text[:_MOST_CHARS])


class _NotingSocket(ssl.SSLObject):
    def do_handshake(self) -> None:
        super().do_handshake()
        context = self.context
        if isinstance(context, _NotingContext) and context.onlooker is not None:
            context.onlooker.shown = self.getpeercert(binary_form=True)


class _NotingContext(ssl.SSLContext):
    sslobject_class = _NotingSocket
    onlooker: Onlooker | None = None
