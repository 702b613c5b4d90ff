"""From the kind of an anchor to its class. A kind's module is imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from kluis.anchors.base import Anchor

_CLASSES: Final = {
    "static": ("kluis.anchors.static", "StaticAnchor"),
    "passphrase": ("kluis.anchors.passphrase", "PassphraseAnchor"),
}

KINDS: Final = tuple(sorted(_CLASSES))


def create(kind: str, name: str, **options: object) -> Anchor:
    """An anchor of a kind; ``options`` are those of its class."""
    module, attribute = _CLASSES[kind]
    anchor: Anchor = getattr(import_module(module), attribute)(name, **options)
    return anchor
