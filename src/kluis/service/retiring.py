"""May versions of a key be retired? What clients' last unseals and known backups still need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kluis.errors import ChangeRefused
from kluis.facade.clients import PRIVATE_CLIENT
from kluis.facade.usage import Use
from kluis.keyring.backups import Backup
from kluis.keyring.document import Document
from kluis.keyring.strict import JSON


@dataclass(frozen=True, slots=True)
class Weighed:
    """What retiring the versions below ``before`` meets: clients and backups of one key."""

    path: str
    before: int
    latest: int
    uses: Mapping[str, Use]
    backups: tuple[Backup, ...]

    def needing(self) -> dict[str, Use]:
        """Clients whose last unseal needed an older version."""
        return {n: use for n, use in self.uses.items() if 0 < use.unsealed < self.before}

    def unknown(self) -> list[str]:
        """Clients that may use the key, and of whom no unseal is on record."""
        return sorted(name for name, use in self.uses.items() if not use.unsealed)

    def outdated(self) -> list[Backup]:
        """Backups that need an older version."""
        return [backup for backup in self.backups if backup.version < self.before]

    def refusal(self, *, accept_unknown: bool) -> ChangeRefused | None:
        """Why they can't be retired; None when they can."""
        if needing := self.needing():
            return self._needed(*min(needing.items(), key=lambda item: item[1].unsealed))
        if outdated := self.outdated():
            return self._kept_by(outdated[0])
        if (unknown := self.unknown()) and not accept_unknown:
            return ChangeRefused(
                f"no unseal of {', '.join(unknown)} with {self.path} is on record",
                "which version it needs is not known; without that version it stays sealed",
                f"restart it, so that its unseal is on record{self._twice()};"
                " or --accept-unknown, if it needs none",
            )
        return None

    def _twice(self) -> str:
        """One restart proves what a server needs; it needs the latest version after one more."""
        return ", and once more" if self.before > 1 else ""

    def _needed(self, client: str, use: Use) -> ChangeRefused:
        moved = use.wrapped >= self.before and use.wrapped_at >= use.unsealed_at
        return ChangeRefused(
            f"the last unseal of {client} ({use.unsealed_at}) needed version {use.unsealed}"
            f" of {self.path}",
            f"without it {client} could not be unsealed again",
            f"it has wrapped its keys with version {use.wrapped} since: restart it once, as a proof"
            if moved
            else f"restart it, and it wraps its keys with version {self.latest};"
            " restart it once more, as a proof",
        )

    def _kept_by(self, backup: Backup) -> ChangeRefused:
        name = f"{self.path.partition('/')[0]}/{backup.number}"
        return ChangeRefused(
            f"the backup {name} ({backup.label}) needs version {backup.version} of {self.path}",
            "a server restored from it could not be unsealed",
            f"kluis backup forget {name}, once that backup is gone",
        )

    def shown(self) -> dict[str, JSON]:
        """What each client and each backup needs."""
        clients: dict[str, JSON] = {
            name: {
                "state": self._state(use.unsealed),
                "needs": use.unsealed or None,
                "unsealed": use.unsealed_at or None,
                "wrapped": use.wrapped or None,
            }
            for name, use in sorted(self.uses.items())
        }
        backups: dict[str, JSON] = {
            f"{self.path.partition('/')[0]}/{backup.number}": {
                "state": self._state(backup.version),
                "needs": backup.version,
                "label": backup.label,
            }
            for backup in self.backups
        }
        return {"clients": clients, "backups": backups}

    def _state(self, needs: int) -> str:
        if not needs:
            return "unknown"
        return "needs" if needs < self.before else "ready"


def weigh(
    document: Document,
    key: str,
    before: int,
    uses: Mapping[str, Use],
    backups: tuple[Backup, ...],
    *,
    runs: bool,
) -> Weighed:
    """What retiring would meet. Only clients count that may use the key.

    ``runs``: this process started a server with it, which no configuration names.
    """
    clients = {name for name, client in document.clients.items() if key in client.keys}
    if runs or PRIVATE_CLIENT in uses:
        clients.add(PRIVATE_CLIENT)
    return Weighed(
        f"{document.name}/{key}",
        before,
        document.keys[key].latest,
        {name: uses.get(name, Use()) for name in clients},
        backups,
    )
