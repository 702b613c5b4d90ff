"""The one place where settings become objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kluis.anchors import registry
from kluis.anchors.base import Anchor, Pace
from kluis.anchors.sources import CredentialSource, EnvironmentSource, FileSource, Source
from kluis.compose.hooks import hook_variables, hooks
from kluis.compose.servers import servers
from kluis.configuration import ConfigurationFile, read
from kluis.keyring import policy, tree
from kluis.keyring.crypto import Argon2Cost
from kluis.keyring.plan import Wanted, WantedClient
from kluis.service.blueprint import Blueprint
from kluis.service.house import House
from kluis.settings.anchors import (
    AnchorSettings,
    AppRoleAuth,
    AuthSettings,
    CertificateAuth,
    JwtAuth,
    KubernetesAuth,
    MachineSettings,
    PassphraseSettings,
    PeopleSettings,
    PinSettings,
    Pkcs11Settings,
    SourceSettings,
    StaticSettings,
    TokenAuth,
    Tpm2Settings,
    TransitSettings,
)
from kluis.settings.root import Configuration, FacadeSettings
from kluis.store.directory import DirectoryStore

if TYPE_CHECKING:
    from kluis.facade.app import Facade
    from kluis.facade.clients import Caller
    from kluis.facade.limits import Limits
    from kluis.facade.tls import TlsFiles


def blueprint(path: Path) -> Blueprint:
    """What the configuration in a file asks for. Raises SettingsError."""
    return draw(read(path))


def draw(file: ConfigurationFile) -> Blueprint:
    """What a configuration asks for."""
    settings = file.settings
    folders = {
        name: file.resolve(keyring.store.path) for name, keyring in settings.keyrings.items()
    }
    return Blueprint(
        anchors={
            name: _anchor(file, name, anchor)
            for name, anchor in settings.anchors.items()
            if not isinstance(anchor, PeopleSettings)
        },
        stores={name: DirectoryStore(folder) for name, folder in folders.items()},
        wanted={name: _wanted(settings, name) for name in settings.keyrings},
        folders=folders,
        file=file.path,
        declared=settings.anchors,
        audit=file.audit_path() if settings.keyrings else None,
        servers=servers(file),
        hooks=lambda: hooks(file),
    )


def _anchor(file: ConfigurationFile, name: str, settings: MachineSettings) -> Anchor:
    anchor = registry.create(
        settings.kind, name, **_options(file, settings), deadline_s=settings.timeout_s
    )
    anchor.heals = settings.heal == "auto"
    if settings.ask_every_s is not None:
        anchor.pace = Pace(settings.ask_every_s, max(settings.ask_every_s, anchor.pace.last_s))
    return anchor


_AS_THEY_ARE: Final[Mapping[str, set[str]]] = {
    "awskms": {"key", "region", "endpoint", "profile"},
    "passphrase": set(),
    "pkcs11": {"token", "slot", "key", "mechanism"},
    "static": set(),
    "tang": {"url", "thumbprint"},
    "tpm2": {"device", "pcrs", "bank"},
    "transit": {"address", "key", "mount", "namespace"},
}


def _options(file: ConfigurationFile, settings: MachineSettings) -> dict[str, object]:
    """What the class of an anchor's kind takes beside the name and the deadline."""
    options: dict[str, object] = settings.model_dump(include=_AS_THEY_ARE[settings.kind])
    if isinstance(settings, StaticSettings | PassphraseSettings):
        options["source"] = _source(file, settings)
    if isinstance(settings, PassphraseSettings):
        memory_kib = settings.memory_mib * 1024
        options["cost"] = Argon2Cost(memory_kib, settings.iterations, settings.lanes)
    if isinstance(settings, Tpm2Settings | Pkcs11Settings):
        options["pin"] = _source(file, settings.pin())
    if isinstance(settings, Pkcs11Settings):
        options["module"] = file.resolve(settings.module)
    if isinstance(settings, TransitSettings):
        options["auth"] = _auth(file, settings.auth)
        for name in ("ca", "certificate", "certificate_key"):
            path: Path | None = getattr(settings, name)
            options[name] = None if path is None else file.resolve(path)
    return options


def _auth(file: ConfigurationFile, settings: AuthSettings) -> object:
    from kluis.anchors.transit import auth

    if isinstance(settings, CertificateAuth):
        return auth.Certificate(settings.role, settings.mount)
    source: Any = _source(file, settings)  # the settings demand one
    match settings:
        case TokenAuth():
            return auth.Token(source)
        case AppRoleAuth():
            return auth.AppRole(settings.role_id, source, settings.mount)
        case JwtAuth() | KubernetesAuth():
            shared = source.as_shared() if isinstance(source, FileSource) else source
            return auth.Jwt(settings.role, shared, settings.mount)


def _source(file: ConfigurationFile, settings: SourceSettings | None) -> Source | None:
    if settings is None:
        return None
    if settings.file is not None:
        return FileSource(file.resolve(settings.file))
    if settings.env is not None:
        return EnvironmentSource(settings.env)
    return None if settings.credential is None else CredentialSource(settings.credential)


def _wanted(settings: Configuration, name: str) -> Wanted:
    keyring = settings.keyrings[name]
    rule = policy.parse(keyring.opens)
    return Wanted(
        name=name,
        opens=rule,
        leaves={anchor: _leaf(settings, anchor) for anchor in policy.names(rule)},
        keys={key: wanted.kind for key, wanted in keyring.keys.items()},
        clients=_clients(settings, name),
    )


def _leaf(settings: Configuration, name: str) -> tree.Leaf:
    anchor = settings.anchors[name]
    if isinstance(anchor, PeopleSettings):
        return tree.PeopleLeaf(name, anchor.threshold, anchor.shares, identifier=0)
    return tree.AnchorLeaf(name, anchor.kind)


def _clients(settings: Configuration, keyring: str) -> dict[str, WantedClient]:
    found: dict[str, WantedClient] = {}
    for name, client in settings.clients.items():
        paths = (path.split("/", 1) for path in client.keys)
        keys = tuple(sorted({key for owner, key in paths if owner == keyring}))
        if keys:
            found[name] = WantedClient(keys, client.certificate_san, client.networks)
    return found


def house(file: ConfigurationFile, *, alone: bool, accept_rollback: bool, log: Any = None) -> House:
    """The keyrings of a configuration. Raises KluisError when a document can't be read."""
    return House(
        lambda: blueprint(file.path), alone=alone, accept_rollback=accept_rollback, log=log
    )


_AWS_VARIABLES: Final = {
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
}


def anchor_variables(file: ConfigurationFile) -> tuple[str, ...]:
    """The variables of the environment that hold secrets of ours: not for a server to see."""
    sources = (source for a in file.settings.anchors.values() for source in _sources(a))
    named = {source.env for source in sources if source.env is not None}
    aws = any(anchor.kind == "awskms" for anchor in file.settings.anchors.values())
    return tuple(sorted(named | hook_variables(file) | (_AWS_VARIABLES if aws else set())))


def _sources(settings: AnchorSettings) -> Iterator[SourceSettings]:
    if isinstance(settings, SourceSettings):
        yield settings
    if isinstance(settings, PinSettings) and (pin := settings.pin()) is not None:
        yield pin
    if isinstance(settings, TransitSettings) and isinstance(settings.auth, SourceSettings):
        yield settings.auth


def facade(file: ConfigurationFile, house: House, private: Mapping[str, Caller]) -> Facade:
    """The facade of these keyrings. Raises AuditError."""
    from kluis.facade.app import Facade
    from kluis.facade.audit import AuditLog

    house.audit = AuditLog(file.audit_path())
    house.runs = {
        (keyring, key)
        for caller in private.values()
        for keyring, grant in caller.grants.items()
        for key in grant.keys
    }
    return Facade(house.guards, private, house.audit, limits(file.settings.facade))


def limits(facade: FacadeSettings | None) -> Limits:
    """The facade's limits."""
    from kluis.facade.limits import Limits

    return Limits() if facade is None else Limits(**facade.limits.model_dump())


def tls_files(file: ConfigurationFile, facade: FacadeSettings) -> TlsFiles | None:
    """The facade's certificate; None where TLS is off."""
    from kluis.facade.tls import TlsFiles

    if facade.tls == "off":
        return None
    ca = facade.tls.client_ca
    return TlsFiles(
        certificate=file.resolve(facade.tls.certificate),
        key=file.resolve(facade.tls.key),
        client_ca=None if ca is None else file.resolve(ca),
    )
