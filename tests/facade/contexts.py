"""TLS as a client of the facade sees it."""

from __future__ import annotations

import ssl

from tests.support.tls import Authority, Issued


def trusting(ca: Authority, shows: Issued | None = None) -> ssl.SSLContext:
    """A context that trusts this CA, and shows a certificate if there is one."""
    context = ssl.create_default_context(cafile=str(ca.certificate))
    if shows is not None:
        context.load_cert_chain(shows.certificate, shows.key)
    return context
