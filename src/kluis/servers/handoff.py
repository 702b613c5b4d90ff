"""How a seal reaches the server that ``kluis run`` starts: its environment and open files.

All of this was measured on OpenBao 2.7.2.

``seal "transit"``: ``VAULT_TRANSIT_SEAL_{ADDR,TOKEN,KEY_NAME,MOUNT_PATH}`` each beat the
configuration file, and an empty stanza, ``seal "transit" {}``, is enough. ``BAO_ADDR`` and
``BAO_TOKEN`` are not needed. HashiCorp Vault knows only the last two of the four.

``seal "static"``: the environment beats the file, but a key there is taken as it stands; a
``file://`` is followed only in the configuration file. So a key that is on no disk and in no
environment needs ``STATIC_STANZA`` in the server's configuration, once and for all: the key's
ids come by environment, and a rotation does not edit the file.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from kluis.errors import ServerError
from kluis.secret import Secret

# Numbers that the server's configuration names, so they must not change; high enough to be free.
CURRENT_FD: Final = 100
PREVIOUS_FD: Final = 101

STATIC_STANZA: Final = f"""\
seal "static" {{
  current_key  = "file:///proc/self/fd/{CURRENT_FD}"
  previous_key = "file:///proc/self/fd/{PREVIOUS_FD}"
}}
"""

# What would lead a transit seal elsewhere, whatever VAULT_TRANSIT_SEAL_* says: TRANSIT_WRAPPER_*
# comes first, an agent or proxy replaces the address, a namespace goes out with every call.
_LEADS_ASTRAY: Final = frozenset(
    f"TRANSIT_WRAPPER_{name}" for name in ("ADDR", "TOKEN", "KEY_NAME", "MOUNT_PATH")
) | frozenset(
    f"{prefix}_{name}"
    for prefix in ("BAO", "VAULT")
    for name in ("AGENT_ADDR", "PROXY_ADDR", "HTTP_PROXY", "NAMESPACE")
)

_STATIC_VARIABLES: Final = frozenset(
    f"BAO_STATIC_SEAL_{which}_KEY{what}"
    for which in ("CURRENT", "PREVIOUS")
    for what in ("", "_ID")
)

_MFD_NOEXEC_SEAL: Final = 0x0008  # Linux 6.3; Python has no name for it yet


@dataclass(frozen=True)
class Handoff:
    """What the server is started with.

    ``environment`` is added to kluis's own, after the names in ``removed`` were taken out;
    ``inherited_fds`` are open in the server under the same numbers.
    """

    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    inherited_fds: tuple[int, ...] = ()
    removed: frozenset[str] = frozenset()

    def without(self, *names: str) -> Handoff:
        """The same, but the server does not see these variables of kluis's environment."""
        return replace(self, removed=self.removed.union(names))

    def child_environment(self, own: Mapping[str, str]) -> dict[str, str]:
        """The server's whole environment, where kluis's is ``own``."""
        kept = {name: value for name, value in own.items() if name not in self.removed}
        return {**kept, **self.environment}


def transit_handoff(address: str, token: str, key: str, mount: str) -> Handoff:
    """A Transit facade at ``address`` for ``seal "transit"``, whatever the stanza says.

    The token can be read in ``/proc/PID/environ`` by the server's own user; it is worth no more
    than the facade at ``address`` gives for it.
    """
    seal = {"ADDR": address, "TOKEN": token, "KEY_NAME": key, "MOUNT_PATH": mount}
    environment = {f"VAULT_TRANSIT_SEAL_{name}": value for name, value in seal.items()}
    return Handoff(environment, removed=_LEADS_ASTRAY)


@contextmanager
def static_handoff(
    current: Secret,
    current_id: str,
    previous: Secret | None = None,
    previous_id: str | None = None,
) -> Iterator[Handoff]:
    """Keys for ``seal "static"`` in sealed memfds; the server needs ``STATIC_STANZA``.

    The memfds live until the ``with`` block and every server started in it have ended. Their
    pages may be swapped, as may those of the server.

    Raises:
        ServerError: the descriptors that the stanza names are taken in this process.
    """
    environment = _static_ids(current_id, previous_id if previous else None)
    with ExitStack() as descriptors:
        for key, number in ((current, CURRENT_FD), (previous, PREVIOUS_FD)):
            # The stanza names both files. No previous key is an empty one: measured to be accepted.
            descriptors.callback(os.close, _sealed_memfd(key.reveal() if key else b"", number))
        yield Handoff(environment, (CURRENT_FD, PREVIOUS_FD), _STATIC_VARIABLES)


def static_environment_handoff(
    current: Secret,
    current_id: str,
    previous: Secret | None = None,
    previous_id: str | None = None,
) -> Handoff:
    """Keys for ``seal "static" {}`` in the environment, for a stanza that names no files.

    Weaker than ``static_handoff``: the server's plugins inherit the key, and its user and root
    can read it in ``/proc/PID/environ`` for as long as the server runs.
    """
    environment = _static_ids(current_id, previous_id if previous else None)
    environment["BAO_STATIC_SEAL_CURRENT_KEY"] = _base64(current)
    if previous is not None:
        environment["BAO_STATIC_SEAL_PREVIOUS_KEY"] = _base64(previous)
    return Handoff(environment, removed=_STATIC_VARIABLES)


def _static_ids(current_id: str, previous_id: str | None) -> dict[str, str]:
    ids = {"BAO_STATIC_SEAL_CURRENT_KEY_ID": current_id}
    if previous_id is not None:
        ids["BAO_STATIC_SEAL_PREVIOUS_KEY_ID"] = previous_id
    return ids


def _base64(key: Secret) -> str:
    return base64.b64encode(key.reveal()).decode()


def _sealed_memfd(content: bytes, number: int) -> int:
    """A memfd that nobody can write to or resize any more, open as ``number``."""
    made = _new_memfd()
    try:
        os.write(made, content)
        fcntl.fcntl(
            made,
            fcntl.F_ADD_SEALS,
            fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL,
        )
        # The lowest free number from `number` on: never one that is open already.
        given = fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, number)
    finally:
        os.close(made)
    if given != number:
        os.close(given)
        raise ServerError(
            f"file descriptor {number} is in use",
            f"the server expects its static key there, as /proc/self/fd/{number}",
            "start kluis run without other open files",
        )
    return given


def _new_memfd() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("kluis-seal", flags | _MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: a kernel that does not know the flag yet
            raise
        return os.memfd_create("kluis-seal", flags)
