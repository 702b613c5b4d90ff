"""Six real places of trust at once, each of which can be lost and had back.

    with places(tmp_path, monkeypatch) as found:
        house = House(tmp_path / "house", toml(found) + …)
        found["nas"].lose()                         # its Tang server is gone
        found["nas"].restore()

| place | what it is | lost when |
|---|---|---|
| tpm | swtpm | it is switched off |
| hsm | a token of SoftHSM 2 | it is pulled out |
| cloud | AWS KMS by moto | the way there is cut |
| nas | a Tang server | it is switched off |
| east | Transit of an OpenBao | it is sealed |
| west | Transit of another OpenBao | it was killed |
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Final

import pytest

from kluis.anchors.pkcs11.anchor import Pkcs11Anchor
from kluis.anchors.sources import FileSource
from kluis.errors import AnchorError, Unreachable
from tests.support.bao import Bao, free_port, wait_until
from tests.support.moto import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, Moto, moto
from tests.support.softhsm import SoftHsm
from tests.support.swtpm import Swtpm
from tests.support.tang import Tang, listens

NAMES: Final = ("tpm", "hsm", "cloud", "nas", "east", "west")
POLICY: Final = """
path "transit/+/kluis" { capabilities = ["update"] }
path "transit/keys/kluis" { capabilities = ["read"] }
"""


class Place(ABC):
    """One place. ``settings`` are those of its anchor in kluis.toml."""

    name: ClassVar[str]
    lost: ClassVar[type[AnchorError]] = Unreachable
    """What its anchor says while it is lost."""
    settings: str

    @abstractmethod
    def lose(self) -> None: ...

    @abstractmethod
    def restore(self) -> None: ...


class Chip(Place):
    """The TPM of this machine."""

    name = "tpm"

    def __init__(self, tpm: Swtpm) -> None:
        self.tpm = tpm
        self.settings = f'kind = "tpm2"\ndevice = "{tpm.device}"'

    def lose(self) -> None:
        self.tpm.stop()

    def restore(self) -> None:
        self.tpm.start()


class Hsm(Place):
    """A token in a slot."""

    name = "hsm"

    def __init__(self, hsm: SoftHsm, folder: Path) -> None:
        self.hsm = hsm
        token = hsm.token("house")
        pin = private(folder / "hsm.pin", token.pin)
        self.settings = (
            f'kind = "pkcs11"\nmodule = "{token.module}"\ntoken = "house"\nkey = "kluis"\n'
            f'pin_file = "{pin}"'
        )
        anchor = Pkcs11Anchor(
            "hsm",
            module=token.module,
            token="house",
            slot=None,
            key="kluis",
            pin=FileSource(pin),
            mechanism="AES-GCM",
            deadline_s=30,
        )
        asyncio.run(anchor.create_key())

    def lose(self) -> None:
        self.hsm.remove("house")

    def restore(self) -> None:
        self.hsm.insert("house")


class Cloud(Place):
    """A key in the cloud, and the way there."""

    name = "cloud"

    def __init__(self, aws: Moto) -> None:
        self.port = free_port()
        self._to = aws.endpoint.removeprefix("http://")
        self._way: subprocess.Popen[bytes] | None = None
        self.settings = (
            f'kind = "awskms"\nkey = "{aws.create_key()}"\nregion = "{REGION}"\n'
            f'endpoint = "http://127.0.0.1:{self.port}"'
        )

    def lose(self) -> None:
        if self._way is not None:
            os.killpg(self._way.pid, signal.SIGKILL)
            self._way.wait()
            self._way = None

    def restore(self) -> None:
        here = f"TCP-LISTEN:{self.port},reuseaddr,fork,bind=127.0.0.1"
        self._way = subprocess.Popen(
            ["socat", here, f"TCP:{self._to}"],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(lambda: listens(self.port), "the way to the cloud is open")


class Nas(Place):
    """A Tang server in the network."""

    name = "nas"

    def __init__(self, tang: Tang) -> None:
        self.tang = tang
        self.settings = f'kind = "tang"\nurl = "{tang.url}"\nthumbprint = "{tang.thumbprint()}"'

    def lose(self) -> None:
        self.tang.stop()

    def restore(self) -> None:
        self.tang.start()


class Site(Place):
    """Another OpenBao with Transit."""

    def __init__(self, bao: Bao, folder: Path) -> None:
        self.bao = bao
        made = bao.init()
        self.root, self.share = made.root_token, made.shares[0]
        self._unseal()
        bao.make_transit_key(self.root, "kluis")
        bao.must("PUT", "sys/policies/acl/kluis", {"policy": POLICY}, self.root)
        wish = {"policies": ["kluis"], "period": "1h"}
        auth = bao.must("POST", "auth/token/create-orphan", wish, self.root)["auth"]
        assert isinstance(auth, dict)
        token = private(folder / f"{self.name}.token", str(auth["client_token"]))
        self.settings = (
            f'kind = "transit"\naddress = "{bao.address}"\nkey = "kluis"\n'
            f'auth = {{ kind = "token", file = "{token}" }}'
        )

    def _unseal(self) -> None:
        self.bao.unseal(self.share)
        self.bao.wait_active()


class East(Site):
    """It is sealed when it is lost."""

    name = "east"

    def lose(self) -> None:
        self.bao.must("PUT", "sys/seal", {}, self.root)
        self.bao.wait_sealed()

    def restore(self) -> None:
        self._unseal()


class West(Site):
    """It is killed when it is lost."""

    name = "west"

    def lose(self) -> None:
        self.bao.kill9()

    def restore(self) -> None:
        self.bao.start()
        self.bao.wait_listening()
        self._unseal()


@contextlib.contextmanager
def places(folder: Path, environment: pytest.MonkeyPatch) -> Iterator[Mapping[str, Place]]:
    """All six, running, by their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in aws_environment(folder).items():
        environment.setenv(name, value)
    with contextlib.ExitStack() as stack:
        found = [
            Chip(stack.enter_context(Swtpm(folder / "chip"))),
            Hsm(SoftHsm(folder / "hsm", environment), folder),
            Cloud(stack.enter_context(moto())),
            Nas(stack.enter_context(Tang(folder / "tang"))),
            East(stack.enter_context(Bao(folder / "east")), folder),
            West(stack.enter_context(Bao(folder / "west")), folder),
        ]
        cloud = found[2]
        stack.callback(cloud.lose)
        cloud.restore()
        yield {place.name: place for place in found}


def toml(found: Mapping[str, Place], common: str = "") -> str:
    """The anchors of these places, for kluis.toml."""
    return "".join(
        f"[anchors.{name}]\n{place.settings}\n{common}\n\n" for name, place in found.items()
    )


def aws_environment(folder: Path) -> dict[str, str]:
    """Credentials for moto, and nothing of this machine's own."""
    return {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
        "AWS_CONFIG_FILE": str(folder / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "no-credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def private(path: Path, text: str) -> Path:
    """A file that only its owner can read."""
    path.touch(mode=0o600)
    path.write_text(text)
    return path
