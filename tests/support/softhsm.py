"""Real PKCS#11 tokens in software for tests.

    hsm = SoftHsm(tmp_path / "hsm", monkeypatch)       # a copy of SoftHSM 2 of its own
    token = hsm.token("house", pin="1234")
    hsm.remove("house"); hsm.insert("house")

A library reads SOFTHSM2_CONF when it starts, once per process. Each SoftHsm loads a copy of the
file, which the loader takes for another library, with a state of its own.

``nss_token`` is the token of the Network Security Services: unlike SoftHSM 2.6 it has OAEP with
SHA-256.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pkcs11
import pytest
from pkcs11.constants import Attribute, MechanismFlag
from pkcs11.mechanisms import KeyType

from tests.support.faulty_pkcs11 import Faulty

SOFTHSM: Final = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN: Final = "1234"
SO_PIN: Final = "87654321"
NSS_PIN: Final = "another long PIN 31415"
BOTH_WAYS: Final = MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT


@dataclass(frozen=True)
class Token:
    """A token that was set up."""

    module: Path
    label: str
    slot: int
    pin: str
    tool: Path
    """Another copy of the module, with a state of its own: another program's."""

    @contextmanager
    def user(self) -> Iterator[pkcs11.Session]:
        """A session of its user in another program; writes what it makes."""
        with self._seen().open(rw=True, user_pin=self.pin) as session:
            yield session

    @contextmanager
    def anybody(self) -> Iterator[pkcs11.Session]:
        """A session of somebody who has no PIN; can put public objects into the token."""
        with self._seen().open(rw=True) as session:
            yield session

    def mistype(self) -> None:
        """Give the token a wrong PIN, in another program."""
        with pytest.raises(pkcs11.PinIncorrect):
            self._seen().open(user_pin=f"{self.pin}?")

    def _seen(self) -> pkcs11.Token:
        return pkcs11.lib(str(self.tool)).get_token(token_label=self.label)

    def lose(self, label: str) -> None:
        """Remove every key of a label."""
        with self.user() as session:
            for found in list(session.get_objects({Attribute.LABEL: label})):
                found.destroy()


class SoftHsm:
    """A copy of SoftHSM 2, and a folder for its tokens."""

    def __init__(
        self, folder: Path, environment: pytest.MonkeyPatch, mechanisms: str = "ALL"
    ) -> None:
        assert SOFTHSM.exists(), "SoftHSM 2 is missing; install it with: apt install softhsm2"
        self.folder = folder
        self.tokens = folder / "tokens"
        self.tokens.mkdir(parents=True)
        self.module = self.copy("libsofthsm2.so")
        self.tool = self.copy("tool.so")
        conf = folder / "softhsm2.conf"
        conf.write_text(
            f"directories.tokendir = {self.tokens}\n"
            f"slots.mechanisms = {mechanisms}\n"
            "log.level = ERROR\n"
        )
        environment.setenv("SOFTHSM2_CONF", str(conf))
        self._folders: dict[str, Path] = {}

    def token(self, label: str, pin: str = PIN) -> Token:
        """Set up a token, before the module is loaded: it reads the folder when it starts."""
        before = set(self.tokens.iterdir())
        self._util("--init-token", "--free", "--label", label, "--pin", pin, "--so-pin", SO_PIN)
        (made,) = set(self.tokens.iterdir()) - before
        self._folders[label] = made
        slot = int(made.name.replace("-", "")[-8:], 16) & 0x7FFFFFFF  # of the serial number
        return Token(self.module, label, slot, pin, self.tool)

    def copy(self, name: str) -> Path:
        """One more copy of the module: with the same tokens, and a state of its own."""
        return Path(shutil.copy(SOFTHSM, self.folder / name))

    def remove(self, label: str) -> None:
        """Take a token out."""
        self._folders[label].rename(self._drawer(label))

    def insert(self, label: str) -> None:
        """Put it in again."""
        self._drawer(label).rename(self._folders[label])

    def _drawer(self, label: str) -> Path:
        return self.folder / f"{self._folders[label].name}.out"

    def _util(self, *arguments: str) -> None:
        subprocess.run(["softhsm2-util", *arguments], check=True, capture_output=True, timeout=30)


def make_aes(session: pkcs11.Session, label: str, id_: bytes, **more: bool) -> None:
    """An AES key; ``more`` are attributes by their names."""
    session.generate_key(
        KeyType.AES,
        256,
        label=label,
        id=id_,
        store=True,
        capabilities=BOTH_WAYS,
        template={
            Attribute.EXTRACTABLE: False,
            **{Attribute[name.upper()]: value for name, value in more.items()},
        },
    )


def make_rsa(session: pkcs11.Session, label: str, id_: bytes) -> None:
    """An RSA key of 2048 bits: half the time of one that an anchor makes."""
    session.generate_keypair(
        KeyType.RSA, 2048, label=label, id=id_, store=True, capabilities=BOTH_WAYS
    )


@contextmanager
def nss_token() -> Iterator[Token]:
    """One for all tests: its library can't be loaded twice, nor started without parameters."""
    real = next(Path("/usr/lib").glob("*/libsoftokn3.so"), None)
    assert real is not None, "the NSS token is missing; install it with: apt install libnss3"
    with tempfile.TemporaryDirectory() as name:
        store = Path(name) / "store"
        store.mkdir()
        proxy = Faulty(Path(name) / "module", real, f"configDir='sql:{store}' flags=optimizeSpace")
        tokens = [slot.get_token() for slot in pkcs11.lib(str(proxy.module)).get_slots()]
        (token,) = (one for one in tokens if "Certificate" in one.label)
        with token.open(rw=True, so_pin="") as session:
            session.init_pin(NSS_PIN)
        yield Token(proxy.module, token.label, token.slot.slot_id, NSS_PIN, proxy.module)
