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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kluis.errors import UsageError

PIN_PATTERN: Final = r"sha256:[A-Za-z0-9+/]{43}="


@dataclass(frozen=True, slots=True)
class ServerTls:
    """Whom to believe: authorities (None: the system's), a pin, and the name that must be there.

    ``server_name`` is for servers reached by an address that their certificate does not name.
    """

    ca: Path | None = None
    pin: str | None = None
    server_name: str | None = None

    def context(self) -> ssl.SSLContext:
        """A context that lets only this server through. Reads files. Raises UsageError."""
        context = _PinnedContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
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
        if isinstance(context, _PinnedContext) and context.pin is not None:
            shown = self.getpeercert(binary_form=True)
            if shown is None or pin_of(x509.load_der_x509_certificate(shown)) != context.pin:
                raise WrongPin("the server's key is not the pinned one")


class _PinnedContext(ssl.SSLContext):
    """A context whose connections end in the handshake when the peer's key is not the pinned."""

    sslobject_class = _PinnedSocket
    pin: str | None = None
