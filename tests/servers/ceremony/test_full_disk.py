"""A keyring that can't be written when the shares come: none is lost in silence.

The service's files may not grow for a while (RLIMIT_FSIZE), as on a full disk.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import resource
import select
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.ceremony import NAME, Site, become, beside, full_disk_after
from tests.support.house import Service

ANSWERED = "kluis.servers.client:ServerClient.init"
INIT = ("server", "init", NAME, "--yes")


class Full:
    """A site whose service finds the disk full as soon as the server is initialised."""

    def __init__(self, site: Site, service: Service) -> None:
        self.site = site
        self.service = service

    def fill(self, full: bool = True) -> None:
        limit = 8 if full else resource.RLIM_INFINITY
        hard = resource.prlimit(self.service.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(self.service.pid, resource.RLIMIT_FSIZE, (limit, hard))

    def call(self, step: str) -> dict[str, Any]:
        """One step, as the command asks the service for it."""
        from kluis.service.asking import ask

        socket = self.site.house.control_path()
        return ask(socket, "server-init", {"server": NAME, "step": step})


def test_without_room_nothing_is_generated_and_afterwards_nothing_is_lost(tmp_path: Path) -> None:
    with beside(tmp_path) as site, site.house.serve() as service:
        service.wait_logged('"event": "opened"')
        disk = Full(site, service)
        disk.fill()
        refused = site.house.kluis(*INIT, "--output", "json")
        assert refused.json["error"]["class"] in ("WriteFailed", "AuditError")
        assert site.bao.must("GET", "sys/init")["initialized"] is False
        disk.fill(False)

        disk.call("intend")
        disk.fill()
        answer = disk.call("make")
        assert (answer["kept"], answer["service"]) == (False, True)
        assert answer["why"]["class"] in ("WriteFailed", "AuditError")
        disk.fill(False)
        assert site.init()["stand"] == "done"  # the service still had them
        assert site.bao.health() == 200
        assert answer["material"] not in service.log


@pytest.mark.parametrize("person", [False, True])
def test_a_command_on_its_own_asks_a_person_or_tries_until_there_is_room(
    person: bool, tmp_path: Path
) -> None:
    with beside(tmp_path) as site, Command(site, person) as command:
        if person:
            command.expect("try again to keep them? (n prints them here, once) [y/N]")
            command.write("y\n")
            command.expect("try again to keep them? (n prints them here, once) [y/N]")
            command.write("n\n")
            command.expect("root token: s.")
            assert command.ended() == 1
            assert len(re.findall("^[0-9a-f]{66}$", command.shown, re.MULTILINE)) == 5
            assert "kluis key import" in command.shown
        else:
            command.expect("it is tried for 300 s")
            resource.prlimit(command.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            assert command.ended() == 0
            assert "initialised: 5 shares, 3 needed" in command.shown
            assert site.bao.health() == 200
            assert site.secrets()["root_token"] not in command.shown


class Command:
    """``kluis server init`` that finds the disk full when the server gave its shares."""

    def __init__(self, site: Site, person: bool) -> None:
        self._master, slave = pty.openpty()
        self.shown = ""
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._master)
            stdin = slave if person else os.open(os.devnull, os.O_RDONLY)
            become(site.house, INIT, full_disk_after(ANSWERED), stdin, slave)
        os.close(slave)

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._master)

    def write(self, text: str) -> None:
        os.write(self._master, text.encode())

    def expect(self, words: str) -> None:
        """Wait until these words are shown, and forget what came before them."""
        before, self.shown = self.shown, ""
        while words not in self.shown:
            assert self._read(), f"it ended: {before}{self.shown}"

    def ended(self) -> int:
        """Read to the end; the exit code."""
        while self._read():
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], 30)
        assert ready, f"nothing more came: {self.shown}"
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            data = os.read(self._master, 65536).decode("utf-8", "replace")
            self.shown += data.replace("\r\n", "\n")
            return bool(data)
        return False
