"""How the Kubernetes API is reached: by a kubeconfig, else by the account of the pod itself."""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from yarl import URL

from kluis.errors import NoApiAccess
from kluis.kubernetes import files, kubeconfig

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where the kubelet puts the token, the authority and the namespace of a pod's account."""

_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,16384}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it stands in a kubeconfig."""

    said: str = field(repr=False)

    def read(self) -> str:
        """The token. Raises NoApiAccess when it can't be one."""
        return _usable(self.said, "the token in the kubeconfig")


@dataclass(frozen=True, slots=True)
class TokenFile:
    """A token in a file, read for each request: the kubelet replaces it within the hour."""

    path: Path

    def read(self) -> str:
        """The token as it is now. Raises NoApiAccess."""
        content = files.read(self.path, "a token")
        return _usable(content.decode("utf-8", "replace").strip(), str(self.path))


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate to show, and its key, both PEM."""

    certificate: files.Content
    key: files.Content = field(repr=False)


@dataclass(frozen=True, slots=True)
class Access:
    """Where the API is, whom to believe there, and how to prove who asks.

    ``ca`` is PEM; None: the system's authorities. ``server_name`` is the name that must be in the
    certificate where it is not that of ``server``. ``namespace`` is the context's own.
    """

    server: str
    ca: files.Content | None = None
    token: Token | TokenFile | None = None
    certificate: ClientCertificate | None = None
    server_name: str | None = None
    namespace: str = "default"

    def __post_init__(self) -> None:
        """Refuse to send a token where others can read it. Raises NoApiAccess."""
        _check_server(self.server)

    def context(self) -> ssl.SSLContext:
        """Lets only this API through. Reads files. Raises NoApiAccess."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.ca is None:
            context.load_default_certs()
        else:
            _believe(context, files.read(self.ca, "a certificate authority"))
        if self.certificate is not None:
            _show(context, self.certificate)
        return context


def find(kubeconfig_file: Path | None = None, context: str | None = None) -> Access:
    """How to reach the API: by a context of a kubeconfig, else from within the cluster.

    Reads files. Without ``context``, the kubeconfig's current one. Raises NoApiAccess.
    """
    if kubeconfig_file is not None:
        return _of_context(kubeconfig.read(kubeconfig_file, context))
    if context is not None:
        raise NoApiAccess(
            f"the context {context} is named, and no kubeconfig",
            "a context is a part of a kubeconfig",
            "name the file as kubeconfig in [kubernetes], or take the context out",
        )
    return in_cluster()


def in_cluster() -> Access:
    """What a pod has: the API's address in its environment, a token and an authority in files.

    Raises NoApiAccess.
    """
    account = ACCOUNT
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port or not (account / "token").exists():
        raise NoApiAccess(
            "no kubeconfig is named, and this is not a pod with an account",
            "the address of the API, or the token of an account, is not there",
            "name a kubeconfig in [kubernetes]; in a pod, see to automountServiceAccountToken",
        )
    where = f"[{host}]" if ":" in host else host
    namespace = account / "namespace"
    own = files.read(namespace, "a namespace").decode("utf-8", "replace").strip()
    return Access(
        f"https://{where}:{port}",
        account / "ca.crt",
        TokenFile(account / "token"),
        namespace=own or "default",
    )


def _of_context(found: kubeconfig.Context) -> Access:
    token: Token | TokenFile | None = None
    if found.token_file is not None:
        token = TokenFile(found.token_file)
    elif found.token:
        token = Token(found.token)
    certificate = None
    if found.certificate is not None and found.key is not None:
        certificate = ClientCertificate(found.certificate, found.key)
    return Access(
        found.server, found.ca, token, certificate, found.server_name or None, found.namespace
    )


def _usable(token: str, where: str) -> str:
    if _TOKEN.fullmatch(token) is None:
        raise NoApiAccess(
            f"{where} is not a token",
            "it is empty, or has characters that no token has",
            "put the token there by itself",
        )
    return token


def _check_server(server: str) -> None:
    try:
        url = URL(server)
        host = url.host or ""
        usable = bool(host) and url.user is None and not url.query_string
    except ValueError:
        url, host, usable = URL(), "", False
    if not usable or url.scheme not in {"https", "http"}:
        raise NoApiAccess(
            "the address of the Kubernetes API can't be used",
            "it is a URL with a host, without a user and without a query",
            "write it as https://host:6443",
        )
    if url.scheme == "http" and not _is_loopback(host):
        raise NoApiAccess(
            f"the Kubernetes API at {host} is to be asked without TLS",
            "others on the way could read the token, and answer in its place",
            "write https:// in the kubeconfig",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _believe(context: ssl.SSLContext, pem: bytes) -> None:
    """Believe these only; one that is no root is enough, as Kubernetes' own clients have it."""
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=pem.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise NoApiAccess(
            "the certificate authority of the Kubernetes API can't be used",
            "it is not a certificate in PEM form",
            "check certificate-authority or certificate-authority-data in the kubeconfig",
        ) from None


def _show(context: ssl.SSLContext, shown: ClientCertificate) -> None:
    """OpenSSL takes a key from a file only: one in memory, so that no disk ever has it."""
    certificate = files.read(shown.certificate, "a client certificate")
    key = files.read(shown.key, "the key of a client certificate")
    memory = os.memfd_create("kluis-client-certificate", os.MFD_CLOEXEC)
    try:
        with open(memory, "wb", closefd=False) as file:
            file.write(certificate + b"\n" + key)
        # An empty password, else OpenSSL would ask for one at the terminal.
        context.load_cert_chain(f"/proc/self/fd/{memory}", password="")
    except (ssl.SSLError, OSError):
        raise NoApiAccess(
            "the client certificate for the Kubernetes API can't be used",
            "it or its key is not in PEM form, they do not fit, or the key has a password",
            "check client-certificate and client-key in the kubeconfig",
        ) from None
    finally:
        os.close(memory)
