"""What a configuration asks for, as objects. compose.py draws it; nothing here reads settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kluis.anchors.base import Anchor
from kluis.keyring.plan import Wanted
from kluis.store.base import Store


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
