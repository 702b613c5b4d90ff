"""A disk that is full: nothing is released, nothing is torn, and afterwards all goes on.

The service is a process of its own, whose files the kernel lets grow no further for a while
(RLIMIT_FSIZE): a write then fails, or is cut short, just as on a full disk.
"""

from __future__ import annotations

import base64
import contextlib
import json
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from kluis.facade.audit import Chain
from tests.support.bao import Answer, wait_until
from tests.support.house import House, Service

KEY = "homelab/{}/bletchley"
PLAIN = base64.b64encode(b'["c2VjcmV0"]').decode()


class Full:
    """A running service whose disk can be full."""

    def __init__(self, house: House, service: Service, token: str) -> None:
        self.house = house
        self.service = service
        self.token = token
        self.audit = house.state / "audit.jsonl"

    def room(self, left_bytes: int) -> None:
        """So much more can be written to the log."""
        size = self.audit.stat().st_size + left_bytes
        self._limit(size)

    def mend(self) -> None:
        self._limit(resource.RLIM_INFINITY)

    def _limit(self, size_bytes: int) -> None:
        hard = resource.prlimit(self.service.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(self.service.pid, resource.RLIMIT_FSIZE, (size_bytes, hard))

    def encrypt(self) -> Answer:
        return self.house.call("PUT", KEY.format("encrypt"), {"plaintext": PLAIN}, self.token)

    def decrypt(self, ciphertext: str) -> Answer:
        return self.house.call("PUT", KEY.format("decrypt"), {"ciphertext": ciphertext}, self.token)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> tuple[House, str]:
    made = House(tmp_path_factory.mktemp("full") / "house")
    return made, str(made.apply()["tokens"]["bletchley"])


@pytest.fixture
def disk(house: tuple[House, str]) -> Iterator[Full]:
    with house[0].serve() as service:
        full = Full(house[0], service, house[1])
        service.wait_for(lambda: full.encrypt().status == 200, "the keyring is open")
        for _ in range(30):  # the audit log is larger than the service's own, which grows on
            full.encrypt()
        yield full


def ciphertext_of(answer: Answer) -> str:
    data = answer.body["data"]
    assert isinstance(data, dict)
    return str(data["ciphertext"])


@pytest.mark.parametrize("left_bytes", [0, 1, 100, 250])
def test_nothing_is_released_and_afterwards_all_goes_on(disk: Full, left_bytes: int) -> None:
    ciphertext = ciphertext_of(disk.encrypt())
    before = disk.audit.read_bytes()
    disk.room(left_bytes)
    for _ in range(3):
        answer = disk.decrypt(ciphertext)
        assert answer.status == 500
        assert set(answer.body) == {"errors"}
        assert PLAIN not in json.dumps(dict(answer.body))
        assert disk.encrypt().status == 500
    assert disk.audit.read_bytes() == before, "half a record was left"
    assert disk.house.call("GET", "sys/health").status == 200
    disk.service.wait_logged('"event": "audit"')
    assert "Traceback" not in disk.service.log

    disk.mend()
    assert disk.decrypt(ciphertext).body["data"] == {"plaintext": PLAIN}
    chain = Chain()
    chain.check(disk.audit)
    assert chain.head.seq - chain.first + 1 == len(disk.audit.read_bytes().splitlines())


def test_a_log_that_can_not_be_written_either_does_not_end_the_service(disk: Full) -> None:
    """The audit log can't be opened, and there is no room to say so."""
    ciphertext = ciphertext_of(disk.encrypt())
    rotated = disk.audit.with_name("audit.1")
    disk._limit(1)
    disk.audit.rename(rotated)
    disk.audit.mkdir()
    wait_until(lambda: not _holds_open(disk.service.pid, rotated), "it let go of the old log")
    assert disk.decrypt(ciphertext).status == 500
    assert disk.house.call("GET", "sys/health").status == 200
    disk.audit.rmdir()
    disk.mend()
    wait_until(disk.audit.exists, "a new log is there")
    assert disk.decrypt(ciphertext).status == 200
    chain = Chain()
    for path in (rotated, disk.audit):
        chain.check(path)
    rotated.unlink()


def _holds_open(pid: int, path: Path) -> bool:
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed just now
            if link.readlink() == path:
                return True
    return False


def test_a_service_that_is_killed_and_started_again_goes_on_with_the_chain(
    house: tuple[House, str], tmp_path: Path
) -> None:
    for _ in range(2):
        with house[0].serve() as service:
            full = Full(house[0], service, house[1])
            service.wait_for(lambda f=full: f.encrypt().status == 200, "the keyring is open")
            service.end(signal.SIGKILL)
    chain = Chain()
    chain.check(house[0].state / "audit.jsonl")
    assert chain.head.seq >= 2
