"""TLS to the server behind an anchor: whom it trusts, what it shows, and whose refusal it was."""

from __future__ import annotations

import asyncio
import ssl
import stat
from pathlib import Path
from typing import Final

from yarl import URL

from kluis.errors import Misconfigured, Refused

ASK_S: Final = 1.0

# Alerts by which the other side says that it does not take the certificate it was shown.
_CERTIFICATE_ALERTS: Final = frozenset(
    {
        "ACCESS_DENIED",
        "BAD_CERTIFICATE",
        "CERTIFICATE_EXPIRED",
        "CERTIFICATE_REQUIRED",
        "CERTIFICATE_REVOKED",
        "CERTIFICATE_UNKNOWN",
        "UNKNOWN_CA",
        "UNSUPPORTED_CERTIFICATE",
    }
)


def tls_context(
    ca: Path | None, certificate: Path | None, key: Path | None
) -> ssl.SSLContext | None:
    """What a connection trusts and shows (PEM files); None for what a system trusts.

    Reads files, so it may block. Raises Misconfigured, Refused when others can read the key.
    """
    if ca is None and certificate is None:
        return None
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise _unusable(f"{ca} can't be used as a certificate authority", error) from None
    if certificate is not None and key is not None:
        _show_certificate(context, certificate, key)
    return context


def _show_certificate(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        mode = stat.S_IMODE(key.stat().st_mode)
        if mode & 0o027:
            raise Refused(
                f"others can read {key} (mode {mode:04o})",
                "whoever has the key can pretend to be this service",
                f"chmod 600 {key}",
            )
        # An empty password, else OpenSSL would ask for one at the terminal.
        context.load_cert_chain(certificate, key, password="")
    except OSError as error:
        raise _unusable(f"{certificate} and {key} can't be used together", error) from None


def _unusable(seen: str, error: OSError) -> Misconfigured:
    if isinstance(error, ssl.SSLError) or not error.strerror:
        means = "one is not in PEM form, does not fit the other, has a password, or is damaged"
    else:
        means = f"the system says: {error.strerror}"
    return Misconfigured(seen, means, "name files in PEM form that kluis can read")


def fault_of(error: BaseException | None) -> ssl.SSLError | None:
    """The TLS error beneath an error; None when there is none, or the connection just ended."""
    found = None
    while error is not None:
        found = error if isinstance(error, ssl.SSLError) else found  # aiohttp's own is one, too
        error = error.__cause__
    cut_off = isinstance(found, ssl.SSLEOFError | ssl.SSLZeroReturnError)
    return None if cut_off else found


async def fault_of_handshake(place: URL, tls: ssl.SSLContext | None) -> ssl.SSLError | None:
    """Why a server ends connections, if it says so; asked by one on which nothing is sent.

    With TLS 1.3 a server refuses a certificate when the first request is on its way already; the
    request may then be answered by a reset that overtakes the alert.
    """
    try:
        async with asyncio.timeout(ASK_S):
            reader, writer = await asyncio.open_connection(place.host, place.port, ssl=tls or True)
            try:
                await reader.read(1)
            finally:
                writer.transport.abort()  # no farewell: the other side may never answer it
    except (OSError, TimeoutError) as error:
        return fault_of(error)
    return None


def refused(host: str, fault: ssl.SSLError) -> Refused:
    """The error for a TLS connection that one side refused."""
    if isinstance(fault, ssl.SSLCertVerificationError):
        return Refused(
            f"the certificate of {host} is not accepted",
            "no known authority signed it, it expired, or it names another host",
            "name the file of its certificate authority, or renew the certificate",
        )
    if str(getattr(fault, "reason", "")).partition("ALERT_")[2] in _CERTIFICATE_ALERTS:
        return Refused(
            f"{host} does not accept the certificate that kluis shows",
            "it wants one of its clients, and got none, or one that expired or that it does not"
            " know",
            "name a certificate and its key that it accepts, or renew them",
        )
    return Refused(
        f"no TLS connection with {host}",
        "it does not speak TLS there, wants a certificate of its clients, or has no version or"
        " cipher that this machine accepts",
        "check the address: https:// or http://, and the port; and the certificate, if it wants"
        " one",
    )
