"""Documents to store. A store believes nothing in them, so their bodies are noise."""

from __future__ import annotations

import random
from dataclasses import replace

from kluis.keyring.document import Body, Document
from kluis.keyring.tree import AnchorLeaf

ID = "12345678-1234-4234-8234-123456789012"


def document(
    revision: int = 1, name: str = "homelab", keyring_id: str = ID, body_bytes: int = 64
) -> Document:
    """A document; the same arguments give the same one."""
    noise = random.Random(f"{revision} {name} {keyring_id}")
    return Document(
        id=keyring_id,
        name=name,
        epoch=1,
        revision=revision,
        written="2026-01-02T03:04:05Z",
        opens="disk",
        tree=AnchorLeaf("disk", "static"),
        keys={},
        clients={},
        body=Body(noise.randbytes(32), noise.randbytes(12), noise.randbytes(body_bytes)),
    )


def marked(old: Document, mark: int) -> Document:
    """The next revision, with one more byte at the end of its body."""
    body = replace(old.body, ciphertext=old.body.ciphertext + bytes([mark]))
    return replace(old, revision=old.revision + 1, body=body)
