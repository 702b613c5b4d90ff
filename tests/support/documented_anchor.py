"""The skeleton of an anchor in docs/ANCHORS.md, as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from kluis.anchors.base import Anchor
from kluis.errors import TagMismatch
from kluis.keyring import crypto

PAGE = Path(__file__).parents[2] / "docs" / "ANCHORS.md"


class Client:
    """A service with a blocking library, in memory."""

    def __init__(self) -> None:
        self.key: crypto.Aead | None = crypto.Aead(crypto.random_bytes(crypto.KEY_BYTES))

    def read_key(self) -> None:
        self._key()

    def wrap(self, secret: bytes, context: bytes) -> bytes:
        return self._key().seal(secret, context)

    def unwrap(self, box: bytes, context: bytes) -> bytes:
        try:
            return self._key().open(box, context)
        except TagMismatch:
            raise ValueError from None

    def _key(self) -> crypto.Aead:
        if self.key is None:
            raise KeyError
        return self.key


def documented_anchor(_ground: object) -> Anchor:
    """An anchor of the class that the page shows."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    made: Anchor = names["ExampleAnchor"]("example", Client())
    return made


def forget_key(anchor: Anchor) -> None:
    """The service loses the key."""
    client: Client = anchor._client  # type: ignore[attr-defined]
    client.key = None
