"""The stanzas that a person puts into a server's configuration, one file for each restart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from kluis.errors import UsageError
from kluis.servers.handoff import STATIC_STANZA
from kluis.servers.migration import hcl
from kluis.servers.migration.hcl import Stanza

BEFORE: Final = "0-before.hcl"
MIGRATE: Final = "1-migrate.hcl"
AFTER: Final = "2-after.hcl"
BACK: Final = "3-back.hcl"

NO_STANZA: Final = "# no seal stanza: the server is sealed by Shamir's shares\n"
_TRUST: Final = (
    '  # tls_ca_cert = "/path/to/ca.crt"   # where the server does not trust the facade\'s CA yet\n'
)


def facade(address: str, keyring: str, key: str, client: str, token: str = "") -> Stanza:
    """``seal "transit"`` with kluis's facade. Without a token its place is marked."""
    shown = token or f"the token of {client}, in place of these words"
    fields = {"address": address, "token": shown, "key_name": key, "mount_path": f"{keyring}/"}
    lines = "".join(
        f"  {name:10} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in fields.items()
    )
    return Stanza("transit", lines + (_TRUST if address.startswith("https:") else ""), fields)


def static() -> Stanza:
    """``seal "static"`` for a server that ``kluis run`` starts."""
    return given(hcl.seal_of(STATIC_STANZA), "static")


def given(stanza: Stanza | None, kind: str) -> Stanza:
    """The stanza of a person, which must be of a kind. Raises UsageError."""
    if stanza is None or kind not in ("", stanza.kind):
        raise UsageError(
            f"--new-config has {'no seal' if stanza is None else f'a seal {stanza.kind}'}",
            f"it must have a stanza of kind {kind}" if kind else "there is nothing to move to",
            "give a file with the stanza to move to",
        )
    return stanza


def files(old: Stanza | None, new: Stanza | None, *, repoint: bool) -> Mapping[str, str]:
    """Texts by the names of their files. None is Shamir, which has no stanza."""
    before, after = _alone(old), _alone(new)
    if repoint:
        return {BEFORE: before, AFTER: after}
    return {
        BEFORE: before,
        MIGRATE: _moving(old, new),
        AFTER: after,
        BACK: _moving(new, old),
    }


def _alone(stanza: Stanza | None) -> str:
    return NO_STANZA if stanza is None else stanza.text()


def _moving(old: Stanza | None, new: Stanza | None) -> str:
    """The disabled stanza of the old seal, and the new one."""
    left = "" if old is None else old.text(disabled=True)
    return left + ("" if new is None else new.text())
