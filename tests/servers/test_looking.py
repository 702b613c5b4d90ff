"""Looking at servers that nobody trusts yet, and what is believed of them afterwards."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from kluis.errors import (
    ChangeRefused,
    KluisError,
    ServerAnswered,
    ServerError,
    ServerHung,
    ServerUnreachable,
    UsageError,
    WrongServer,
)
from kluis.servers import glancing, listener, looking, pinning
from kluis.servers.client import SealStatus
from kluis.servers.declared import Identity, KeyPath, Listed, Server
from kluis.servers.listener import NOBODY, User
from kluis.servers.looking import Look, Trust
from kluis.servers.pinning import Choice
from kluis.servers.tls import Certificate, ServerTls, certificates, pin_of
from kluis.servers.watch.states import Alarm, Condition, Hold, NodeView
from kluis.settings.servers import ServerSettings
from tests.support.bao import Bao, free_port
from tests.support.pretender import SEALED, UNSEALED, Pretender, always
from tests.support.tls import DAY, Authority, Issued, self_signed

HOSTS = ("localhost", "127.0.0.1")


def server(*addresses: str, tls: ServerTls | None = None, **more: object) -> Server:
    made = Server("old-vault", Listed(addresses), tls or ServerTls())
    return replace(made, **more)  # type: ignore[arg-type]  # the fields of a dataclass


def looked(declared: Server) -> Mapping[str, Look | KluisError]:
    return asyncio.run(looking.look(declared))


def seen(declared: Server) -> Look:
    """The look at the only node."""
    (found,) = looked(declared).values()
    assert isinstance(found, Look), found
    return found


# -- a real server


@dataclass(frozen=True)
class Site:
    bao: Bao
    ca: Authority
    issued: Issued
    shares: tuple[str, ...]

    @property
    def tls(self) -> ServerTls:
        return ServerTls(self.ca.certificate)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server that is initialised and sealed."""
    folder = tmp_path_factory.mktemp("looking")
    ca = Authority(folder / "ca")
    issued = ca.issue("vault", *HOSTS)
    with Bao(folder / "bao", tls=issued) as bao:
        fresh = seen(server(bao.address))
        assert (fresh.status.initialized, fresh.status.sealed) == (False, True)
        yield Site(bao, ca, issued, bao.init(5, 3).shares)


def test_a_sealed_server_is_seen_with_all_that_it_shows_and_without_its_cluster_id(
    sealed: Site,
) -> None:
    found = seen(server(sealed.bao.address, tls=sealed.tls))
    certificate = found.certificate
    assert certificate is not None
    assert certificate.pem.encode() == sealed.issued.certificate.read_bytes()
    assert (found.trust, found.name_fits) == (Trust.VOUCHED, True)
    assert found.authorities == (pin_of(certificates(sealed.ca.certificate)[0]),)
    status = found.status
    assert (status.seal_type, status.threshold, status.shares) == ("shamir", 3, 5)
    assert (status.initialized, status.sealed, status.cluster_id) == (True, True, "")
    assert (status.storage_type, status.version) == ("raft", "2.7.2")


def test_who_vouches_and_whether_the_name_fits_are_told_apart(sealed: Site) -> None:
    address = sealed.bao.address
    nobody = seen(server(address))
    assert (nobody.trust, nobody.name_fits, nobody.authorities) == (Trust.UNKNOWN, True, ())
    named = seen(server(address, tls=ServerTls(None, None, "vault.example")))
    assert (named.trust, named.name_fits) == (Trust.UNKNOWN, False)
    both = seen(server(address, tls=replace(sealed.tls, server_name="vault.example")))
    assert (both.trust, both.name_fits) == (Trust.VOUCHED, False)
    right = seen(server(address, tls=replace(sealed.tls, server_name="localhost")))
    assert (right.trust, right.name_fits) == (Trust.VOUCHED, True)


def test_each_node_that_can_not_be_seen_says_why_and_the_others_are_seen(sealed: Site) -> None:
    nobody, clear = f"https://127.0.0.1:{free_port()}", f"http://127.0.0.1:{sealed.bao.port}"
    found = looked(server(nobody, clear, sealed.bao.address))
    assert isinstance(found[nobody], ServerUnreachable)
    assert isinstance(found[clear], ServerAnswered)  # "client sent an HTTP request to HTTPS"
    assert isinstance(found[sealed.bao.address], Look)


def test_what_was_chosen_is_proven_before_it_is_believed(sealed: Site) -> None:
    good = replace(sealed.tls, pin=pin_of(certificates(sealed.issued.certificate)[0]))
    asyncio.run(looking.prove(good, [sealed.bao.address]))
    for bad in (replace(good, pin=f"sha256:{'A' * 43}="), ServerTls()):
        with pytest.raises(WrongServer):
            asyncio.run(looking.prove(bad, [sealed.bao.address]))


def test_a_glance_tells_how_declared_servers_are_and_changes_nothing(sealed: Site) -> None:
    pinned = replace(sealed.tls, pin=pin_of(certificates(sealed.issued.certificate)[0]))
    address, nobody = sealed.bao.address, f"https://127.0.0.1:{free_port()}"
    unseal = KeyPath("homelab", "old-vault")
    nodes = glance(
        [
            named("good", server(address, tls=pinned, unseal=unseal)),
            named("watched", server(address, tls=pinned)),
            named("held", server(address, tls=pinned, unseal=unseal)),
            named("unpinned", server(address, tls=sealed.tls, unseal=unseal)),
            named("stranger", server(address)),
            named("other", server(address, tls=pinned, unseal=unseal, identity=Identity(2, 5))),
            named("nobody", server(nobody, tls=pinned)),
        ],
        {"held": Hold(1.0)},
    )
    assert {name: (node.condition, node.alarm) for name, node in nodes.items()} == {
        "good": (Condition.SEALED, None),
        "watched": (Condition.SEALED, None),
        "held": (Condition.HELD, None),
        "unpinned": (Condition.SEALED, Alarm.UNPINNED),
        "stranger": (Condition.WRONG, Alarm.CERTIFICATE),
        "other": (Condition.WRONG, Alarm.SEAL),
        "nobody": (Condition.UNREACHABLE, None),
    }
    assert all(node.seen and node.next_step for node in nodes.values())
    assert "kluis watch" in nodes["good"].next_step
    assert nodes["good"].version == "2.7.2"
    assert sealed.bao.must("GET", "sys/seal-status")["progress"] == 0


@pytest.fixture
def opened(sealed: Site) -> Iterator[Site]:
    """While it is unsealed."""
    for share in sealed.shares[:3]:
        sealed.bao.unseal(share)
    sealed.bao.wait_active()
    yield sealed
    sealed.bao.kill9()
    sealed.bao.start()
    sealed.bao.wait_sealed()


def test_a_server_that_opens_tells_its_cluster(opened: Site) -> None:
    address, tls = opened.bao.address, opened.tls
    status = seen(server(address)).status
    assert status.sealed is False
    assert (status.cluster_id, status.cluster_name[:14]) == (
        opened.bao.must("GET", "sys/seal-status")["cluster_id"],
        "vault-cluster-",
    )
    right, wrong = Identity(cluster_id=status.cluster_id), Identity(cluster_id="another")
    nodes = glance(
        [
            named("right", server(address, tls=tls, identity=right)),
            named("wrong", server(address, tls=tls, identity=wrong)),
        ],
        {},
    )
    assert (nodes["right"].condition, nodes["right"].active) == (Condition.UNSEALED, True)
    assert (nodes["wrong"].condition, nodes["wrong"].alarm) == (Condition.WRONG, Alarm.CLUSTER)


def named(name: str, declared: Server) -> Server:
    return replace(declared, name=name)


def glance(servers: Sequence[Server], holds: Mapping[str, Hold]) -> Mapping[str, NodeView]:
    """How the only node of each is."""
    views = asyncio.run(glancing.views(servers, holds, time.time()))
    assert [view.name for view in views] == [one.name for one in servers]
    return {view.name: next(iter(view.nodes.values())) for view in views}


@contextmanager
def hanging() -> Iterator[str]:
    """Something that takes connections and never says a word."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"https://127.0.0.1:{listening.getsockname()[1]}"


def test_a_server_that_hangs_costs_one_bounded_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glancing, "TIMEOUT_S", 0.5)
    with hanging() as address:
        assert glance([server(address)], {})["old-vault"].condition is Condition.HUNG


def test_a_name_that_leads_nowhere_is_told_of_the_server() -> None:
    class Nowhere:
        async def addresses(self) -> Sequence[str]:
            raise ServerUnreachable("the name is not known", "why", "what to do")

    (view,) = asyncio.run(glancing.views([server(discovery=Nowhere())], {}, 1.0))
    assert (view.nodes, view.seen, view.next_step) == ({}, "the name is not known", "what to do")


# -- things that only pretend


STRANGE = {
    **UNSEALED,
    "type": "shamir\x1b[2J",
    "version": "\x9b31m2.7",
    "storage_type": "<raft>",
    "cluster_name": "a\nb",
    "cluster_id": '"]\n[servers.x]',
}


def test_whatever_a_stranger_says_nothing_of_it_reaches_a_terminal_or_kluis_toml(
    tmp_path: Path,
) -> None:
    with Pretender(always(STRANGE), self_signed(tmp_path, "vault", *HOSTS)) as stranger:
        found = seen(server(stranger.address))
    status = found.status
    assert (status.seal_type, status.version, status.storage_type) == ("", "", "")
    assert (status.cluster_name, status.cluster_id) == ("", "")
    assert [head.split("\r\n")[0] for head in stranger.heads] == [
        "get /v1/sys/seal-status http/1.1"
    ]
    assert "token:" not in stranger.heads[0]


@pytest.mark.parametrize(
    ("valid", "trust"), [((-2 * DAY, -DAY), Trust.EXPIRED), ((DAY, 2 * DAY), Trust.EARLY)]
)
@pytest.mark.parametrize("vouched", [True, False])
def test_a_certificate_out_of_its_time_is_told_whoever_vouches(
    vouched: bool, valid: tuple[object, object], trust: Trust, tmp_path: Path
) -> None:
    ca = Authority(tmp_path)
    issued = ca.issue("vault", *HOSTS, valid=valid)  # type: ignore[arg-type]
    tls = ServerTls(ca.certificate if vouched else None)
    with Pretender(always(SEALED), issued) as stranger:
        found = seen(server(stranger.address, tls=tls))
    assert (found.trust, found.name_fits) == (trust, True)


def test_plain_http_shows_no_certificate() -> None:
    with Pretender(always(SEALED)) as stranger:
        found = seen(server(stranger.address))
    assert (found.certificate, found.trust) == (None, Trust.PLAIN)
    assert found.user == listener.named(os.getuid())


def test_a_user_whose_name_is_not_told_soon_is_seen_by_his_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = threading.Event()
    monkeypatch.setattr(listener, "NAME_S", 0.05)
    monkeypatch.setattr(listener, "named", lambda uid: told.wait(30) and User(uid, "late"))
    with Pretender(always(SEALED)) as stranger:
        found = seen(server(stranger.address))
    told.set()
    assert found.user == User(os.getuid(), "")


def test_what_answers_otherwise_is_no_server(tmp_path: Path) -> None:
    with Pretender(always({}), self_signed(tmp_path, "vault", *HOSTS)) as stranger:
        (found,) = looked(server(stranger.address)).values()
    assert isinstance(found, ServerError)


def test_authorities_that_can_not_be_read_end_the_look(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        looked(server("https://127.0.0.1:1", tls=ServerTls(tmp_path / "none")))


@pytest.mark.parametrize(
    ("alone", "vouched", "trust"),
    [
        (0, 0, Trust.VOUCHED),
        (62, 0, Trust.VOUCHED),
        (0, 20, Trust.UNKNOWN),
        (64, 18, Trust.UNKNOWN),
        (10, 18, Trust.EXPIRED),
        (0, 10, Trust.EXPIRED),
        (9, 0, Trust.EARLY),
        (26, 26, Trust.REFUSED),
        (26, 18, Trust.REFUSED),
        (0, 26, Trust.REFUSED),
        (0, 7, Trust.REFUSED),
    ],
)
def test_what_openssl_says_in_numbers(alone: int, vouched: int, trust: Trust) -> None:
    assert looking._trust(alone, vouched) is trust


def test_a_server_that_goes_away_between_two_handshakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "TIMEOUT_S", 0.2)
    context = ssl.create_default_context()
    with hanging() as address, pytest.raises(ServerHung):
        asyncio.run(looking._verdict(address, None, context))
    with pytest.raises(ServerUnreachable):
        asyncio.run(looking._verdict(f"https://127.0.0.1:{free_port()}", None, context))
    with pytest.raises(WrongServer):
        looking._read("https://127.0.0.1:8200", b"no certificate")


# -- what follows from a look


STATUS = SealStatus(
    seal_type="shamir",
    initialized=True,
    sealed=True,
    threshold=3,
    shares=5,
    progress=0,
    nonce="",
    version="2.7.2",
    migration=False,
    recovery_seal=False,
    storage_type="raft",
    cluster_name="",
    cluster_id="",
)
CERTIFICATE = Certificate("CN=a", "CN=ca", ("a.example",), 0, 1, "sha256:a", "AA", "pem of a")
OPEN = replace(STATUS, sealed=False, cluster_id="c-1")


def one(pin: str = "a", trust: Trust = Trust.VOUCHED, *authorities: str, **more: object) -> Look:
    certificate = replace(CERTIFICATE, pin=f"sha256:{pin}", pem=f"pem of {pin}")
    made = Look("https://a:8200", STATUS, certificate, trust, True, authorities)
    return replace(made, **more)  # type: ignore[arg-type]


def chosen(
    *looks: Look | KluisError,
    pin: str | None = None,
    ca: bool = False,
    own: bool = False,
    user: str | None = None,
    **more: object,
) -> Choice:
    path = Path("ca.crt") if ca or own else None
    declared = server(tls=ServerTls(path, pin, user=user), **more)
    found = {f"https://{number}:8200": look for number, look in enumerate(looks)}
    return pinning.choose(declared, found, own_file=own, pin_authority=False)


V, U = Trust.VOUCHED, Trust.UNKNOWN


@pytest.mark.parametrize(
    ("looks", "old", "pin"),
    [
        ([one("a")], None, "sha256:a"),
        ([one("a"), one("a")], None, "sha256:a"),
        ([one("a", V, "ca")], None, "sha256:a"),
        ([one("a", V, "ca"), one("b", V, "ca")], None, "ca"),
        ([one("a", V, "x", "ca"), one("b", V, "ca")], None, "ca"),
        # a pin that still holds stays, be it a key's or an authority's
        ([one("a", V, "ca")], "ca", "ca"),
        ([one("b", V, "ca"), one("c", V, "ca")], "sha256:a", "ca"),
        ([one("b", V, "ca")], "sha256:a", "sha256:b"),
        ([one("a", V, "ca"), one("a", V, "x")], "ca", "sha256:a"),
    ],
)
def test_what_is_pinned(looks: list[Look], old: str | None, pin: str) -> None:
    assert chosen(*looks, pin=old, ca=True).pin == pin


def test_an_authority_is_pinned_where_that_is_wished() -> None:
    declared = server(tls=ServerTls(Path("ca.crt"), "sha256:a"))
    found = {"https://a": one("a", V, "ca")}
    made = pinning.choose(declared, found, own_file=False, pin_authority=True)
    assert made.pin == "ca"
    with pytest.raises(WrongServer):
        pinning.choose(declared, {"https://a": one("a")}, own_file=False, pin_authority=True)


@pytest.mark.parametrize(
    ("looks", "written"),
    [
        ([one("a")], ()),
        ([one("a", U)], ("pem of a",)),
        ([one("a", U), one("a", U)], ("pem of a",)),
        (
            [one("a", U), one("a", U, certificate=replace(CERTIFICATE, pem="2nd"))],
            ("pem of a", "2nd"),
        ),
    ],
)
def test_a_certificate_that_nobody_vouches_for_is_written_to_a_file_of_its_own(
    looks: list[Look], written: tuple[str, ...]
) -> None:
    assert chosen(*looks).certificates == written
    assert chosen(*looks, own=True, pin="sha256:old").certificates == written


def test_what_a_server_says_of_its_seal_and_cluster_is_taken_over() -> None:
    made = chosen(one(), one(status=OPEN))
    assert (made.cluster_id, made.threshold, made.shares) == ("c-1", 3, 5)
    assert chosen(one()).cluster_id is None
    empty = replace(STATUS, initialized=False, threshold=0, shares=0)
    made = chosen(one(status=empty))
    assert (made.pin, made.threshold, made.shares) == ("sha256:a", None, None)
    assert chosen(one(status=empty), one()).threshold == 3
    assert chosen(one(status=replace(STATUS, threshold=300, shares=300))).threshold is None
    plain = chosen(Look("http://localhost:8200", OPEN))
    assert (plain.pin, plain.certificates, plain.cluster_id) == (None, (), "c-1")


@pytest.mark.parametrize(
    ("users", "declared", "user"),
    [
        ([User(998, "openbao")], None, "openbao"),
        ([User(998, "openbao")], 998, 998),
        ([User(998, "openbao")], "vault", "openbao"),
        ([User(998, ""), None], None, 998),
        ([User(0, "")], None, 0),
        ([User(998, "open bao")], "vault", 998),
        ([User(998, "a:b")], None, 998),
        ([User(998, "DOMAIN\\bao")], None, "DOMAIN\\bao"),
        ([User(NOBODY, "nobody")], None, None),
        ([None], "openbao", None),
    ],
)
def test_the_user_who_listens_takes_the_place_of_a_key(
    users: list[User | None], declared: str | int | None, user: str | int | None
) -> None:
    found = {f"http://[::1]:{n}": Look("", STATUS, user=one) for n, one in enumerate(users)}
    whom = server(tls=ServerTls(user=declared))
    assert pinning.choose(whom, found, own_file=False, pin_authority=False).user == user
    if user is not None:
        assert ServerSettings(addresses=("http://[::1]:1",), user=user).user == user


UNSEAL = {"unseal": KeyPath("homelab", "old-vault")}
TRANSIT = replace(STATUS, seal_type="transit", recovery_seal=True)


@pytest.mark.parametrize(
    ("looks", "more", "kind", "words"),
    [
        ([], {}, ServerUnreachable, "no node of old-vault was found"),
        ([ServerUnreachable("away")], {}, ServerUnreachable, "away"),
        ([one("a"), one("b")], {}, WrongServer, "2 different keys"),
        ([one(user=User(1, "a")), one(user=User(2, "b"))], {}, WrongServer, "2 different users"),
        (
            [one(user=User(NOBODY, "nobody"))],
            {"user": "bao"},
            WrongServer,
            "is not bao",
        ),
        ([one("a", U), one("b", U)], {}, WrongServer, "2 different keys"),
        ([one("a", U)], {"ca": True}, WrongServer, "ca.crt does not vouch"),
        ([one(name_fits=False)], {}, WrongServer, "does not name that address"),
        ([one("a", Trust.EXPIRED)], {}, WrongServer, "can't be used"),
        ([one("a", Trust.EARLY)], {}, WrongServer, "can't be used"),
        ([one("a", Trust.REFUSED)], {}, WrongServer, "can't be used"),
        ([one(), one(status=replace(STATUS, threshold=2))], {}, WrongServer, "not of one cluster"),
        ([one(), one(status=TRANSIT)], {}, WrongServer, "not of one cluster"),
        (
            [one(status=OPEN), one(status=replace(OPEN, cluster_id="c-2"))],
            {},
            WrongServer,
            "not of one cluster",
        ),
        ([one(status=TRANSIT)], UNSEAL, ChangeRefused, "is of type transit"),
    ],
)
def test_what_is_not_pinned(
    looks: list[Look | KluisError], more: dict[str, object], kind: type[KluisError], words: str
) -> None:
    with pytest.raises(kind) as error:
        chosen(*looks, **more)  # type: ignore[arg-type]
    assert words in error.value.seen
    if kind is WrongServer:
        assert error.value.means
        assert error.value.next_step


def test_a_node_that_is_away_keeps_nobody_from_pinning_the_others() -> None:
    assert chosen(ServerUnreachable("away"), one("a")).pin == "sha256:a"


def test_a_certificate_for_another_name_says_which_option_helps() -> None:
    with pytest.raises(WrongServer) as error:
        chosen(one(name_fits=False))
    assert error.value.next_step.startswith("add --server-name a.example if")
