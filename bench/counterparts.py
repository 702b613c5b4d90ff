"""The real places where trust can live, for benchmarks: those of the tests, and two files.

They are started by what the tests start them with (tests/support), so `make dev` and the packages
that `make test` asks for must be there; `make bench` sees to both.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from bench.processes import BenchFailed
from kluis import compose
from kluis.anchors.base import Anchor
from kluis.engine import change
from kluis.engine.opening import Opening
from kluis.keyring.document import Document
from tests.support.moto import no_credentials
from tests.support.places import places, private

KINDS: Final = {
    "disk": "static",
    "word": "passphrase",
    "tpm": "tpm2",
    "hsm": "pkcs11",
    "cloud": "awskms",
    "east": "transit",
    "nas": "tang",
}
"""The kind of each anchor, by its name."""
REAL: Final = ("tpm", "hsm", "cloud", "east", "nas")
"""Those that have a counterpart."""
_KEYRING: Final = """
[keyrings.homelab]
store = {{ kind = "directory", path = "state" }}
opens = "{rule}"
"""
_MADE: Final = "2026-01-01T00:00:00Z"


@dataclass(frozen=True)
class Keyring:
    """A document, the anchors of its leaves, and the kluis.toml that names them."""

    configuration: Path
    document: Document
    anchors: Mapping[str, Anchor]

    async def open_ms(self) -> float:
        """How long it takes from the question to all anchors until it is open."""
        opening = Opening(self.document)
        started_s = time.perf_counter()
        opened = await opening.ask(self.anchors)
        took_s = time.perf_counter() - started_s
        if opened is None:
            raise BenchFailed(f"not opened: {opening.failures}")
        opened.wipe()
        return took_s * 1000


@dataclass(frozen=True)
class Counterparts:
    """Where anchors are: what kluis.toml says of each, by its name."""

    folder: Path
    settings: Mapping[str, str]

    async def keyring(self, name: str, rule: str) -> Keyring:
        """A new keyring. Raises BenchFailed."""
        tables = (f"[anchors.{one}]\n{settings}\n" for one, settings in self.settings.items())
        path = self.folder / f"{name}.toml"
        path.write_text("\n".join(tables) + _KEYRING.format(rule=rule))
        drawn = compose.blueprint(path)
        made = await change.make(drawn.wanted["homelab"], drawn.anchors, lambda _client: (), _MADE)
        if made.away:
            raise BenchFailed(f"not sealed: {', '.join(made.away)}")
        return Keyring(path, made.opened.document, drawn.anchors)

    def only(self, *names: str) -> Counterparts:
        """Some of them."""
        return Counterparts(self.folder, {name: self.settings[name] for name in names})


@contextlib.contextmanager
def counterparts(folder: Path) -> Iterator[Counterparts]:
    """All of them, running. Raises BenchFailed."""
    with contextlib.ExitStack() as stack:
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        no_credentials(environment, folder)
        with counted_as_failed():
            found = stack.enter_context(places(folder / "places", environment))
        found["west"].lose()  # a second one of its kind, which would only share the cores
        key, word = private(folder / "disk.key", ""), private(folder / "word", "")
        key.write_bytes(secrets.token_bytes(32))
        word.write_text(secrets.token_urlsafe(24))
        settings = {name: place.settings for name, place in found.items()}
        settings["disk"] = f'kind = "static"\nfile = "{key}"'
        settings["word"] = f'kind = "passphrase"\nfile = "{word}"'
        yield Counterparts(folder, settings)


@contextlib.contextmanager
def counted_as_failed() -> Iterator[None]:
    """What a starter of the tests says of its counterpart, said as a benchmark does."""
    try:
        yield
    except AssertionError as error:
        raise BenchFailed(f"a counterpart could not be started: {error}") from None
