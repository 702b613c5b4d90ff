"""``[servers.…]`` of kluis.toml as objects."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address

from kluis.addresses import split_address
from kluis.configuration import ConfigurationFile
from kluis.servers.declared import Discovery, Identity, KeyPath, Listed, Server
from kluis.settings.servers import ServerSettings


def servers(file: ConfigurationFile) -> Mapping[str, Server]:
    """Every declared server. Nothing is asked, and no file is read yet."""
    return {name: _server(file, name, said) for name, said in file.settings.servers.items()}


def _server(file: ConfigurationFile, name: str, said: ServerSettings) -> Server:
    from kluis.servers.tls import ServerTls  # with certificates, which most files never name

    ca = None if said.ca is None else file.resolve(said.ca)
    return Server(
        name=name,
        discovery=_discovery(file, said),
        tls=ServerTls(ca, said.pin, said.server_name or _name_of(said), said.user),
        identity=Identity(said.threshold, said.shares, said.cluster_id),
        unseal=_key_path(said.unseal),
        recovery=_key_path(said.recovery),
        on_seal=said.on_seal,
        wake=said.wake,
    )


def _name_of(said: ServerSettings) -> str | None:
    """The name that all nodes' certificates have to have, where they are found by it.

    Their addresses come from a name server, which nothing proves; the name stands in kluis.toml.
    """
    if said.dns is None:
        return None
    host, _ = split_address(said.dns)
    try:
        ip_address(host)
    except ValueError:
        return host.rstrip(".")
    return None


def _key_path(path: str | None) -> KeyPath | None:
    if path is None:
        return None
    keyring, _, key = path.partition("/")
    return KeyPath(keyring, key)


def _discovery(file: ConfigurationFile, said: ServerSettings) -> Discovery:
    if said.addresses:
        return Listed(said.addresses)
    from kluis.servers import discovery  # with an HTTP client

    if said.dns is not None:
        return discovery.Dns(*split_address(said.dns))
    if said.kubernetes is not None:
        pods, ways = said.kubernetes, file.settings.kubernetes
        kubeconfig = None if ways.kubeconfig is None else file.resolve(ways.kubeconfig)
        return discovery.Pods(
            kubeconfig, ways.context, pods.namespace, pods.selector, pods.port, pods.scheme
        )
    return Listed(said.addresses)
