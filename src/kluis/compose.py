"""The one place where settings become objects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kluis.anchors import registry
from kluis.anchors.base import Anchor
from kluis.anchors.sources import CredentialSource, EnvironmentSource, FileSource, Source
from kluis.configuration import ConfigurationFile, read
from kluis.keyring import policy, tree
from kluis.keyring.crypto import Argon2Cost
from kluis.keyring.plan import Wanted, WantedClient
from kluis.service.blueprint import Blueprint
from kluis.service.house import House
from kluis.settings import (
    Configuration,
    FacadeSettings,
    PassphraseSettings,
    PeopleSettings,
    SourceSettings,
    StaticSettings,
)
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
    )


def _anchor(
    file: ConfigurationFile, name: str, anchor: StaticSettings | PassphraseSettings
) -> Anchor:
    options: dict[str, object] = {"source": _source(file, anchor), "deadline_s": anchor.timeout_s}
    if isinstance(anchor, PassphraseSettings):
        memory_kib = anchor.memory_mib * 1024
        options["cost"] = Argon2Cost(memory_kib, anchor.iterations, anchor.lanes)
    return registry.create(anchor.kind, name, **options)


def _source(file: ConfigurationFile, settings: SourceSettings) -> Source | None:
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


def anchor_variables(file: ConfigurationFile) -> tuple[str, ...]:
    """The variables of the environment that hold anchors' secrets: not for a server to see."""
    sources = (a for a in file.settings.anchors.values() if isinstance(a, SourceSettings))
    return tuple(source.env for source in sources if source.env is not None)


def facade(file: ConfigurationFile, house: House, private: Mapping[str, Caller]) -> Facade:
    """The facade of these keyrings. Raises AuditError."""
    from kluis.facade.app import Facade
    from kluis.facade.audit import AuditLog

    return Facade(house.guards, private, AuditLog(file.audit_path()), limits(file.settings.facade))


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
