"""From the kind of an anchor to its class. A kind's module is imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from kluis.anchors.base import Anchor
from kluis.errors import SettingsError

_CLASSES: Final = {
    "awskms": ("kluis.anchors.awskms.anchor", "AwsKmsAnchor"),
    "passphrase": ("kluis.anchors.passphrase", "PassphraseAnchor"),
    "pkcs11": ("kluis.anchors.pkcs11.anchor", "Pkcs11Anchor"),
    "static": ("kluis.anchors.static", "StaticAnchor"),
    "tang": ("kluis.anchors.tang.anchor", "TangAnchor"),
    "tpm2": ("kluis.anchors.tpm2.anchor", "Tpm2Anchor"),
    "transit": ("kluis.anchors.transit.anchor", "TransitAnchor"),
}

KINDS: Final = tuple(sorted(_CLASSES))


def create(kind: str, name: str, **options: object) -> Anchor:
    """An anchor of a kind; ``options`` are those of its class.

    Raises SettingsError when the kind's extra is not installed.
    """
    path, attribute = _CLASSES[kind]
    try:
        module = import_module(path)
    except ImportError as error:
        if (error.name or "").startswith("kluis"):
            raise
        raise SettingsError(
            f"anchors.{name}: the {kind} anchor needs the package {error.name}",
            "an anchor's packages are installed only where they are used",
            f"pip install 'kluis[{kind}]'",
        ) from None
    anchor: Anchor = getattr(module, attribute)(name, **options)
    return anchor
