"""A ceremony whose process dies (SIGKILL) between any two steps, and is run again.

The commands do their work themselves here, without a service, so that what dies is the ceremony.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ceremony import NAME, Site, beside

INIT = ("server", "init", NAME, "--yes")
REKEY = ("server", "rekey", NAME, "--yes")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server that is made, without its root token."""
    folder = tmp_path_factory.mktemp("made")
    with beside(folder, unauthenticated=True, in_memory=False) as made:
        made.init("--revoke-root")
        yield made


def error_of(site: Site, *arguments: str) -> str:
    return str(site.here(*arguments, code=1)["error"]["class"])


def test_anywhere_in_an_init(tmp_path: Path) -> None:
    with beside(tmp_path) as site:
        anywhere_in_an_init(site)


def anywhere_in_an_init(site: Site) -> None:
    site.kill_after("kluis.service.ceremony.standing:keep", *INIT)  # the intent is written
    assert site.bao.must("GET", "sys/init")["initialized"] is False
    site.kill_after("kluis.servers.client:ServerClient.init", *INIT)  # nobody has the answer
    assert site.bao.must("GET", "sys/init")["initialized"] is True
    assert error_of(site, *INIT) == "InitLost"
    assert error_of(site, *INIT) == "InitLost"  # and goes on saying so
    site.empty()
    # from here on nothing is lost any more
    site.kill_after("kluis.service.ceremony.making:_keep_or_remember", *INIT)
    assert site.bao.health() == 503
    site.kill_after("kluis.servers.client:ServerClient.unseal", *INIT, nth=2)
    assert site.bao.must("GET", "sys/seal-status")["progress"] == 2
    site.kill_after("kluis.servers.ceremony.settling:unseal", *INIT)
    assert site.bao.health() == 200
    wanted = ("--transit-role", "web", "--revoke-root")
    site.kill_after("kluis.servers.ceremony.settling:token_for", *INIT, *wanted)
    site.kill_after("kluis.servers.ceremony.settling:revoke", *INIT, *wanted)
    done = site.init("--revoke-root")
    assert (done["stand"], done["root_token"]) == ("done", False)
    assert site.init()["steps"] == []


def test_anywhere_in_a_rekey(site: Site) -> None:
    first = site.secrets()["shares"]
    # the server has begun, and the keyring does not know: somebody else's, as far as it can tell
    site.kill_after("kluis.servers.ceremony.rekeying:begin", *REKEY)
    assert error_of(site, *REKEY) == "ChangeRefused"
    site.kill_after("kluis.service.ceremony.rekeying:_begin", *REKEY, "--cancel-other")
    site.kill_after("kluis.servers.ceremony.rekeying:authorise", *REKEY)
    assert site.secrets()["shares"] == first
    # both sets are kept, and the server waits for the new one: it is finished
    site.kill_after("kluis.service.ceremony.rekeying:_authorise", *REKEY)
    done = site.here(*REKEY)
    assert done["steps"] == ["the rekey that was begun before is finished"]
    second = site.secrets()["shares"]
    assert not set(first) & set(second)
    # the server has taken the new set, and the keyring does not know which is valid
    site.kill_after("kluis.servers.ceremony.rekeying:verify", *REKEY)
    assert site.secrets()["shares"] == second
    assert site.here(*REKEY)["steps"] == done["steps"]
    third = site.secrets()["shares"]
    assert not set(second) & set(third)
    # the server has forgotten it, so the old set stays valid; then a new rekey is made
    site.kill_after("kluis.service.ceremony.rekeying:_authorise", *REKEY)
    restart(site, third)
    done = site.here(*REKEY, "--shares", "2", "--threshold", "2")
    assert "had not come to its end" in done["steps"][0]
    assert (len(site.secrets()["shares"]), done["under_way"]) == (2, False)


def restart(site: Site, shares: list[str]) -> None:
    """Restart the server, and unseal it with these shares."""
    site.bao.kill9()
    site.bao.start()
    site.bao.wait_sealed()
    for share in shares[:3]:
        assert site.bao.unseal(share).status == 200
    site.bao.wait_active()


def test_in_a_rotation_with_a_token_of_its_own(site: Site) -> None:
    made = site.secrets()
    site.kill_after("kluis.service.ceremony.rooting:_with_token", "server", "rotate", NAME)
    assert error_of(site, *REKEY) == "UsageError"
    left = site.secrets()["root_token"]
    assert site.bao.request("GET", "auth/token/lookup-self", token=left).status == 200
    done = site.here("server", "rotate", NAME)
    assert (done["term"], done["token"]) == (2, "made")
    assert site.bao.request("GET", "auth/token/lookup-self", token=left).status == 403
    assert site.secrets() == made
