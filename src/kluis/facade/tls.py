"""The facade's certificate: checked before it is used, and taken anew when its files change."""

from __future__ import annotations

import ssl
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from kluis.errors import SettingsError


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where certificate, key and, if clients show certificates, their CA lie (PEM)."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def stamp(self) -> tuple[tuple[int, int], ...]:
        """Changes when one of the files does."""
        return tuple(_stamp(path) for path in (self.certificate, self.key, self.client_ca) if path)

    def context(self) -> ssl.SSLContext:
        """A context of these files. Raises SettingsError."""
        self._check_certificate()
        self._check_key()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION  # the peer is who it was at the handshake
        context.set_alpn_protocols(["http/1.1"])
        try:
            # An empty password, else OpenSSL would ask for one at the terminal.
            context.load_cert_chain(self.certificate, self.key, password="")
        except (ssl.SSLError, OSError):
            raise SettingsError(
                f"{self.key} does not fit {self.certificate}",
                "the key is another certificate's, has a password, or is damaged",
                "name the certificate and the key that belong together",
            ) from None
        if self.client_ca is not None:
            self._load_client_ca(context, self.client_ca)
        return context

    def ends_s(self) -> float:
        """When the first certificate of the chain ends, in Unix time. Raises SettingsError."""
        try:
            chain = x509.load_pem_x509_certificates(self.certificate.read_bytes())
            return min(one.not_valid_after_utc.timestamp() for one in chain)
        except OSError as error:
            raise _unreadable(self.certificate, error) from None
        except ValueError:
            raise _not_pem(self.certificate) from None

    def _load_client_ca(self, context: ssl.SSLContext, client_ca: Path) -> None:
        try:
            context.load_verify_locations(client_ca)
        except (ssl.SSLError, OSError):
            raise SettingsError(
                f"{client_ca} holds no CA certificate",
                "clients' certificates could not be checked",
                "name a file with the CA in PEM",
            ) from None
        # Optional here, and demanded of clients that are bound to one: monitors have none.
        context.verify_mode = ssl.CERT_OPTIONAL

    def _check_certificate(self) -> None:
        try:
            certificate = x509.load_pem_x509_certificate(self.certificate.read_bytes())
            certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except OSError as error:
            raise _unreadable(self.certificate, error) from None
        except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
            raise _not_pem(self.certificate) from None
        except x509.ExtensionNotFound:
            raise SettingsError(
                f"{self.certificate} has no subject alternative name",
                "servers refuse a certificate that names itself by its common name only",
                "issue one with a SAN for the name or address in the seal's 'address'",
            ) from None

    def _check_key(self) -> None:
        try:
            mode = stat.S_IMODE(self.key.stat().st_mode)
        except OSError as error:
            raise _unreadable(self.key, error) from None
        if mode & 0o027:
            raise SettingsError(
                f"others can read {self.key} (mode {mode:04o})",
                "whoever has the key can pretend to be this service",
                f"chmod 600 {self.key}",
            )


def _unreadable(path: Path, error: OSError) -> SettingsError:
    return SettingsError(
        f"{path} can't be read: {error.strerror}",
        "the facade has no certificate without it",
        "check the path and the permissions",
    )


def _not_pem(path: Path) -> SettingsError:
    return SettingsError(
        f"{path} is not a certificate in PEM",
        "another file, or damaged",
        "name the server's certificate, with its chain after it",
    )


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_ino, status.st_ctime_ns  # which cp --preserve can't set back
