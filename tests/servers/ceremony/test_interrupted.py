"""Who hangs up, stops the service or presses Ctrl-C while shares are made loses none of them."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import pytest

from kluis.service.asking import ask
from tests.support.bao import wait_until
from tests.support.ceremony import NAME, Site, beside, fork, interrupted_in

INIT = ("server", "init", NAME, "--yes")


def goes_on(site: Site) -> None:
    """The next run has the shares, and brings the server up with them."""
    assert site.bao.health() == 503
    assert site.here(*INIT)["stand"] == "done"
    assert site.bao.health() == 200


def test_in_a_service_that_is_stopped_meanwhile(tmp_path: Path) -> None:
    with beside(tmp_path, in_memory=False) as site, site.house.serve() as service:
        service.wait_logged('"event": "opened"')
        path = site.house.control_path()
        ask(path, "server-init", {"server": NAME, "step": "intend"})
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            request = {"op": "server-init", "args": {"server": NAME, "step": "make"}}
            connection.sendall(json.dumps(request).encode() + b"\n")
            begun = "entering follower state"  # the server is at its init, for a second or more
            wait_until(lambda: begun in site.bao.log(), "the init")
        assert service.end() == 0
        goes_on(site)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_a_command_on_its_own(number: signal.Signals, tmp_path: Path) -> None:
    with beside(tmp_path) as site:
        fate = interrupted_in("kluis.servers.client:ServerClient.init", number)
        code, output = fork(site.house, INIT, fate)
        assert code == (130 if number is signal.SIGINT else -number), output
        goes_on(site)
