"""Where the facade listens, and what it says when it can't."""

from __future__ import annotations

import resource
import socket
from pathlib import Path

import pytest

from kluis.errors import ListenFailed
from kluis.facade.server import _listen, raise_open_files_limit
from tests.support.facade import serving


def refused(tmp_path: Path, host: str) -> ListenFailed:
    with pytest.raises(ListenFailed) as error, serving(tmp_path, host=host):
        pass
    assert host in error.value.seen
    assert error.value.means
    assert error.value.next_step
    return error.value


@pytest.mark.parametrize(
    "host", ["192.0.2.1", "no-such-host.invalid", "x" * 70 + ".invalid", "a..b", "999.1.1.1"]
)
def test_an_address_that_is_not_ours(tmp_path: Path, host: str) -> None:
    refused(tmp_path, host)


def test_an_address_of_another_network(tmp_path: Path) -> None:
    assert "not an address of this machine" in refused(tmp_path, "192.0.2.1").means


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenFailed) as error:
            _listen("127.0.0.1", port)
    assert error.value.means == "another program listens there"
    assert f"127.0.0.1:{port}" in error.value.seen


def test_as_many_files_as_the_system_allows() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
        raise_open_files_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
