"""What is to be believed of a server from now on, after a look at its nodes. Nothing here has I/O.

The pin is the server's own key where all nodes have one; or that of an authority in the ``ca``
file, where they have several or that is wished. A pin that still holds is kept. A certificate that
nobody vouches for is believed itself, by a file of its own, when a person compared it. Over plain
http within this machine the user who listens takes the place of the key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from kluis.errors import ChangeRefused, KluisError, ServerUnreachable, WrongServer
from kluis.servers.client import SealStatus
from kluis.servers.declared import Listed, Server
from kluis.servers.listener import NOBODY
from kluis.servers.looking import Look, Trust
from kluis.servers.tls import Certificate

Shown = tuple[Look, Certificate]

_USER_NAME: Final = re.compile(r"[^\s:]{1,256}")  # as kluis.toml takes it


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be written of a server; None where it is not known.

    ``certificates`` are those (PEM) that are to be believed by a file of their own.
    """

    pin: str | None
    certificates: tuple[str, ...]
    cluster_id: str | None
    threshold: int | None
    shares: int | None
    user: str | int | None = None


def choose(
    server: Server,
    found: Mapping[str, Look | KluisError],
    *,
    own_file: bool,
    pin_authority: bool,
) -> Choice:
    """What to believe of a server.

    ``own_file``: its ``ca`` is the file that an earlier choice wrote. ``pin_authority``: an
    authority is to be pinned also where one key would do. Raises KluisError.
    """
    looks = [seen for seen in found.values() if isinstance(seen, Look)]
    if not looks:
        raise _nobody(server, found)
    shown = [(seen, seen.certificate) for seen in looks if seen.certificate is not None]
    for seen, certificate in shown:
        _refuse_unusable(server, seen, certificate)
    status = _one_cluster(server, looks)
    unknown = [one for one in shown if one[0].trust is Trust.UNKNOWN]
    if unknown and server.tls.ca is not None and not own_file:
        raise _not_vouched(server, *unknown[0])
    pin = _pin(server, shown, pin_authority) if shown else None
    return Choice(
        pin=pin,
        certificates=_certificates(shown) if unknown else (),
        cluster_id=status.cluster_id or None,
        threshold=status.threshold if 1 <= status.threshold <= status.shares <= 255 else None,
        shares=status.shares if 1 <= status.threshold <= status.shares <= 255 else None,
        user=_user(server, looks),
    )


def _nobody(server: Server, found: Mapping[str, Look | KluisError]) -> KluisError:
    for error in found.values():
        if isinstance(error, KluisError):
            return error
    return ServerUnreachable(
        f"no node of {server.name} was found",
        "the name, or the selector, leads to nothing now",
        "start the server, or name its addresses",
    )


def _refuse_unusable(server: Server, seen: Look, certificate: Certificate) -> None:
    """A certificate that would be refused later is refused now."""
    if not seen.name_fits:
        wanted = server.tls.server_name or "that address"
        names = ", ".join(certificate.names) or "nothing at all"
        raise WrongServer(
            f"the certificate of {seen.address} does not name {wanted}",
            f"it is for {names}",
            f"{_way_to(server, certificate)} if that is the server; or have another one issued",
        )
    reasons = {
        Trust.EXPIRED: "it has expired",
        Trust.EARLY: "it is not valid yet; or a clock is wrong",
        Trust.REFUSED: "its purpose, its key or its algorithm does not do for a server",
    }
    if seen.trust in reasons:
        raise WrongServer(
            f"the certificate of {seen.address} can't be used",
            reasons[seen.trust],
            "renew it, then look again",
        )


def _way_to(server: Server, certificate: Certificate) -> str:
    """The option by which a server has the name in its certificate."""
    fitting = next((name for name in certificate.names if "*" not in name), "NAME")
    by_name = server.tls.server_name is not None and not isinstance(server.discovery, Listed)
    if by_name and _is_address(fitting):  # one for each node: no name fits all of them
        return "name its nodes with --address, once for each,"
    return f"add --server-name {fitting}"


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _one_cluster(server: Server, looks: Sequence[Look]) -> SealStatus:
    """What the nodes agree in; one that was not initialised yet says nothing."""
    made = [seen.status for seen in looks if seen.status.initialized]
    kinds = {(status.seal_type, status.threshold, status.shares) for status in made}
    ids = {status.cluster_id for status in made} - {""}
    if len(kinds) > 1 or len(ids) > 1:
        raise WrongServer(
            f"the nodes of {server.name} are not of one cluster",
            "they differ in cluster id, type of seal, threshold or number of shares",
            "declare each cluster as a server of its own",
        )
    status = next((one for one in made if one.cluster_id), (made or [looks[0].status])[0])
    if (
        server.unseal is not None
        and made
        and (status.seal_type != "shamir" or status.recovery_seal)
    ):
        raise ChangeRefused(
            f"the seal of {server.name} is of type {status.seal_type or 'unknown'}",
            "shares unseal a Shamir seal only; recovery keys unseal nothing",
            "leave unseal out: it is watched all the same",
        )
    return status


def _not_vouched(server: Server, seen: Look, certificate: Certificate) -> WrongServer:
    return WrongServer(
        f"{server.tls.ca} does not vouch for the certificate of {seen.address}",
        f"that was signed by {certificate.issuer or 'nobody who is named'}",
        "name the file with that authority's certificate: --ca FILE",
    )


def _pin(server: Server, shown: Sequence[Shown], pin_authority: bool) -> str:
    keys = {certificate.pin for _, certificate in shown}
    of_first = shown[0][0].authorities
    common = [pin for pin in of_first if all(pin in seen.authorities for seen, _ in shown)]
    fitting = [*common, *(keys if len(keys) == 1 else ())]
    old = server.tls.pin
    if old in fitting and (not pin_authority or old in common):
        return str(old)
    if len(keys) == 1 and not pin_authority:
        return keys.pop()
    if common:
        return common[0]
    raise WrongServer(
        f"no authority was named that all nodes of {server.name} have"
        if pin_authority
        else f"the nodes of {server.name} have {len(keys)} different keys",
        "a pin is one key: that of all nodes, or that of the authority that signed for them",
        "name the file with that authority's certificate: --ca FILE",
    )


def _user(server: Server, looks: Sequence[Look]) -> str | int | None:
    """Who listens, at each node within this machine; as it is declared where that still holds."""
    found = {seen.user for seen in looks if seen.user is not None}
    users = {user for user in found if user.uid != NOBODY}
    if server.tls.user is not None and users != found:
        raise WrongServer(
            f"who listens at a node of {server.name} is not {server.tls.user}: {NOBODY} is nobody",
            "another process may have taken the server's port",
            "find out who has it: ss -ltnp",
        )
    if len(users) > 1:
        raise WrongServer(
            f"the nodes of {server.name} are run by {len(users)} different users",
            "over plain http the user is all that proves who listens, and it is one for all nodes",
            "run them as one user, or give them certificates",
        )
    for uid, name in users:
        old = server.tls.user
        if old in (uid, name):
            return old
        return name if _USER_NAME.fullmatch(name) else uid
    return None


def _certificates(shown: Sequence[Shown]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(certificate.pem for _, certificate in shown))
