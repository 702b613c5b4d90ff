"""The kubeconfig: which cluster and which user a context names, as far as kluis can follow.

What would need another program (``exec``, ``auth-provider``), would trust anybody
(``insecure-skip-tls-verify``) or would go another way (``proxy-url``, ``as``) is refused, and never
passed over in silence.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Final

from kluis.errors import NoApiAccess
from kluis.kubernetes import files

Section = Mapping[str, object]

_REFUSED: Final = {
    "exec": "it starts a program that fetches credentials, and kluis starts none",
    "auth-provider": "Kubernetes itself has given that up",
    "username": "Kubernetes itself has given passwords up",
    "as": "kluis asks in its own name only",
    "as-uid": "kluis asks in its own name only",
    "as-groups": "kluis asks in its own name only",
    "as-user-extra": "kluis asks in its own name only",
    "insecure-skip-tls-verify": "then anybody on the way could be the API",
    "proxy-url": "kluis asks the API directly",
}


@dataclass(frozen=True, slots=True)
class Context:
    """What a context says, with the paths in it made absolute."""

    server: str
    ca: files.Content | None = None
    server_name: str = ""
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    certificate: files.Content | None = None
    key: files.Content | None = field(default=None, repr=False)
    namespace: str = "default"


def read(path: Path, context: str | None = None) -> Context:
    """A context of the file; None: its current one. Raises NoApiAccess."""
    return parse(files.read(path, "a kubeconfig"), path, context)


def parse(data: bytes, path: Path, context: str | None = None) -> Context:
    """A context of a kubeconfig's bytes; ``path`` is where they come from. Raises NoApiAccess."""
    file = _File(path, _load(data, path))
    name = context or file.text(file.root, "current-context")
    if not name:
        raise NoApiAccess(
            f"{path} has no current context",
            "it does not say which of its clusters is meant",
            "name one as context in [kubernetes]",
        )
    chosen = file.named("contexts", "context", name)
    cluster = file.named("clusters", "cluster", file.text(chosen, "cluster"))
    user_name = file.text(chosen, "user")
    user = file.named("users", "user", user_name) if user_name else {}
    file.refuse(cluster)
    file.refuse(user)
    return _context(file, chosen, cluster, user)


def _context(file: _File, chosen: Section, cluster: Section, user: Section) -> Context:
    certificate = file.content(user, "client-certificate")
    key = file.content(user, "client-key")
    if (certificate is None) != (key is None):
        raise file.unusable("a client certificate and its key belong together, and one is missing")
    token_file = file.text(user, "tokenFile")
    return Context(
        server=file.text(cluster, "server"),
        ca=file.content(cluster, "certificate-authority"),
        server_name=file.text(cluster, "tls-server-name"),
        token=file.text(user, "token"),
        token_file=file.beside(token_file) if token_file else None,
        certificate=certificate,
        key=key,
        namespace=file.text(chosen, "namespace") or "default",
    )


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    root: Section

    def text(self, section: Section, name: str) -> str:
        found = section.get(name)
        if found is None:
            return ""
        if not isinstance(found, str):
            raise self.unusable(f"{name} is not a string")
        return found

    def named(self, plural: str, single: str, name: str) -> Section:
        """The entry of a name in one of the three lists."""
        entries = self.root.get(plural)
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and entry.get("name") == name:
                found = entry.get(single)
                return found if isinstance(found, dict) else {}
        raise NoApiAccess(
            f"{self.path} has no {single} {name[:80]!r}",
            "the name is written in another way there, or it is another file that is meant",
            f"look at the names under {plural}: kubectl config view",
        )

    def refuse(self, section: Section) -> None:
        for name, why in _REFUSED.items():
            if section.get(name) not in (None, "", "false"):
                raise NoApiAccess(
                    f"{self.path} uses {name}",
                    why,
                    "make a service account for kluis, and a kubeconfig with its token",
                )

    def content(self, section: Section, name: str) -> files.Content | None:
        """The bytes of ``NAME-data`` (base64), else the file that ``NAME`` is."""
        if data := self.text(section, f"{name}-data"):
            try:
                return base64.b64decode("".join(data.split()), validate=True)
            except (binascii.Error, ValueError):
                raise self.unusable(f"{name}-data is not base64") from None
        found = self.text(section, name)
        return self.beside(found) if found else None

    def beside(self, path: str) -> Path:
        """A path of the file: relative ones start at its folder."""
        return self.path.parent / path

    def unusable(self, why: str) -> NoApiAccess:
        return NoApiAccess(
            f"{self.path} can't be used as a kubeconfig", why, "check it: kubectl config view"
        )


def _load(data: bytes, path: Path) -> Section:
    """Every scalar as a string, no tags, no merging: nothing in the file makes an object."""
    try:
        yaml = import_module("yaml")
    except ImportError:
        raise NoApiAccess(
            "a kubeconfig is read with the package PyYAML, which is not installed",
            "it is installed only where it is used",
            "pip install 'kluis[kubernetes]'",
        ) from None
    try:
        found: object = yaml.load(data, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise NoApiAccess(
            f"{path} can't be used as a kubeconfig",
            "it is not YAML, or not a mapping",
            "check the path, and the file: kubectl config view",
        )
    return found
