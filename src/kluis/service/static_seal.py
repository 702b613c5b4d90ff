"""The keys that a server on ``seal "static"`` gets, and the stanza that names their files."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import NamedTuple

from kluis.engine.guard import Guard
from kluis.secret import Secret


class SealKey(NamedTuple):
    """One version of a ``static-seal`` key, and the id under which a server knows it."""

    key: Secret
    key_id: str

    def as_text(self) -> bytes:
        """44 characters of base64: no byte of it could be taken for a space and be trimmed."""
        return base64.b64encode(self.key.reveal())


def newest(guard: Guard, name: str) -> tuple[SealKey, ...]:
    """The newest version of a key and, where it is not retired, the one before.

    Raises Locked or UnknownKey.
    """
    key = guard.key(name, "static-seal")
    numbers = [key.latest] + ([key.latest - 1] if key.latest > key.minimum else [])
    return tuple(
        SealKey(Secret(key.versions[number].material), f"{guard.name}-{name}-v{number}")
        for number in numbers
    )


def stanza(keys: tuple[SealKey, ...], files: tuple[Path, ...]) -> str:
    """The stanza for keys in files, newest first. It holds no secret."""
    lines = [
        line
        for which, (_, key_id), file in zip(("current", "previous"), keys, files, strict=False)
        for line in (f'  {which}_key    = "file://{file}"', f'  {which}_key_id = "{key_id}"')
    ]
    return "\n".join(['seal "static" {', *lines, "}", ""])
