"""``[wake.…]`` of kluis.toml as objects."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kluis.anchors.sources import CredentialSource, EnvironmentSource, FileSource, Source
from kluis.configuration import ConfigurationFile
from kluis.settings.anchors import OneSource
from kluis.settings.servers import (
    CommandHook,
    ExternalSecretsHook,
    HookSettings,
    RolloutHook,
    WebhookHook,
)

if TYPE_CHECKING:
    from kluis.wake.base import Hook
    from kluis.wake.cluster import FindAccess
    from kluis.wake.login import Login


def hooks(file: ConfigurationFile) -> Mapping[str, Hook]:
    """Every declared hook, by its name. Nothing is asked, and no file is read yet."""
    return {name: _hook(file, name, said) for name, said in file.settings.wake.items()}


def hook_variables(file: ConfigurationFile) -> frozenset[str]:
    """The variables of the environment that hold hooks' secrets: not for a server to see."""
    bearers = (said.bearer for said in file.settings.wake.values() if isinstance(said, WebhookHook))
    return frozenset(one.env for one in bearers if one is not None and one.env is not None)


def _hook(file: ConfigurationFile, name: str, said: HookSettings) -> Hook:
    match said:
        case ExternalSecretsHook():
            from kluis.wake.external_secrets import ExternalSecrets
            from kluis.wake.stores import parse_key

            stores = tuple(map(parse_key, said.stores))
            return ExternalSecrets(name, _access(file), stores, _login(said), said.timeout_s)
        case RolloutHook():
            from kluis.wake import workloads
            from kluis.wake.rollout import Rollout

            named = tuple(map(workloads.parse, said.workloads))
            return Rollout(name, _access(file), named, said.timeout_s)
        case WebhookHook():
            from kluis.wake.webhook import Webhook

            ca = None if said.ca is None else file.resolve(said.ca)
            bearer = None if said.bearer is None else _source(file, said.bearer)
            return Webhook(name, said.url, bearer, ca, said.timeout_s)
        case CommandHook():
            from kluis.wake.command import Command

            return Command(name, (_program(file, said), *said.command[1:]), said.timeout_s)


def _access(file: ConfigurationFile) -> FindAccess:
    from kluis.kubernetes import access

    ways = file.settings.kubernetes
    kubeconfig = None if ways.kubeconfig is None else file.resolve(ways.kubeconfig)
    return partial(access.find, kubeconfig, ways.context)


def _login(said: ExternalSecretsHook) -> Login | None:
    from kluis.wake.login import Login

    if said.login_role is None or said.login_service_account is None:
        return None
    namespace, _, account = said.login_service_account.partition("/")
    return Login(said.login_role, namespace, account, said.login_mount, said.login_audience)


def _source(file: ConfigurationFile, said: OneSource) -> Source:
    """The one source that the settings demand."""
    if said.file is not None:
        return FileSource(file.resolve(said.file))
    if said.env is not None:
        return EnvironmentSource(said.env)
    return CredentialSource(said.credential or "")


def _program(file: ConfigurationFile, said: CommandHook) -> str:
    """A name is looked for on the PATH; a path starts at the file's folder."""
    program = said.command[0]
    return str(file.resolve(Path(program))) if "/" in program else program
