"""What a configuration asks for, as objects. compose.py draws it; nothing here reads settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from kluis.anchors.base import Anchor
from kluis.keyring.plan import Wanted
from kluis.servers.declared import Server
from kluis.store.base import Store
from kluis.wake.base import Hook


@dataclass(frozen=True, slots=True)
class Blueprint:
    """Anchors by name; stores, wishes and folders by keyring."""

    anchors: Mapping[str, Anchor]
    stores: Mapping[str, Store]
    wanted: Mapping[str, Wanted]
    folders: Mapping[str, Path]
    file: Path | None = None
    """The configuration itself, for whoever must tell it from another one."""
    audit: Path | None = None
    """Where the audit log lies."""
    declared: Mapping[str, object] = field(default_factory=dict)
    """What makes two anchors of a name the same one: their settings."""

    servers: Mapping[str, Server] = field(default_factory=dict)
    """The servers to watch, by their names."""
    hooks: Callable[[], Mapping[str, Hook]] = dict
    """Makes what may run after a recovery, by its names. Raises KluisError."""

    def keeping(self, old: Blueprint) -> Blueprint:
        """The same with the old anchors whose settings did not change.

        They know what a new one would have to learn anew: tokens, PINs that were refused.
        """
        kept = {
            name: old.anchors[name]
            for name, settings in self.declared.items()
            if name in old.anchors and old.declared.get(name) == settings
        }
        return replace(self, anchors={**self.anchors, **kept})
