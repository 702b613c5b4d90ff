"""What ``kluis server add`` saw of a server, for a person and for a program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from kluis.addresses import is_plain_loopback
from kluis.cli import terminal
from kluis.errors import KluisError

if TYPE_CHECKING:
    from kluis.servers.client import SealStatus
    from kluis.servers.declared import Server
    from kluis.servers.looking import Look
    from kluis.servers.pinning import Choice
    from kluis.servers.tls import Certificate
    from kluis.settings.servers import ServerSettings

_TRUST = {
    "plain-http": "none: plain http",
    "vouched": "vouched for",
    "unknown-authority": "NOBODY WHO IS KNOWN HERE VOUCHES FOR IT",
    "expired": "expired",
    "not-yet-valid": "not valid yet",
    "refused": "refused",
}


def show(server: Server, found: Mapping[str, Look | KluisError]) -> None:
    """Every node, for a person."""
    for address, seen in found.items():
        terminal.line(address)
        if isinstance(seen, KluisError):
            terminal.line(f"  {seen.seen}: {seen.means}")
            continue
        if seen.certificate is not None:
            _show_certificate(server, seen, seen.certificate)
        elif is_plain_loopback(address):
            terminal.line(f"  user         {_listener(seen)}")
        _show_status(seen.status)


def _show_certificate(server: Server, seen: Look, certificate: Certificate) -> None:
    by = "the system's authorities" if server.tls.ca is None else server.tls.ca.name
    vouched = f"{by} vouch{'es' if server.tls.ca else ''} for it"
    name = ", ".join(certificate.names) or "nothing"
    terminal.line(f"  certificate  {certificate.subject}, for {name}")
    terminal.line(f"  signed by    {certificate.issuer}")
    terminal.line(f"  valid        {_day(certificate.starts_s)} to {_day(certificate.ends_s)}")
    terminal.line(f"  key          {certificate.pin}")
    terminal.line(f"  trust        {vouched if seen.trust == 'vouched' else _TRUST[seen.trust]}")
    if seen.trust == "unknown-authority":
        terminal.line(f"  FINGERPRINT  SHA-256 {certificate.fingerprint}")
        terminal.line("  compare it with what the server's own file says, on the server itself:")
        terminal.line("    openssl x509 -in CERTIFICATE.pem -noout -fingerprint -sha256")


def _listener(seen: Look) -> str:
    """Who listens, over plain http within this machine."""
    from kluis.servers import listener

    if seen.user is None:
        return "not known: nothing proves who listens there"
    proves = "" if seen.user.uid != listener.NOBODY else ": that proves nothing"
    return listener.shown(seen.user) + proves


def _show_status(status: SealStatus) -> None:
    state = "sealed" if status.sealed else "open"
    needs = f", {status.threshold} of {status.shares} shares" if status.threshold else ""
    if not status.initialized:
        state, needs = "NOT INITIALISED", ""
    moving = ", being moved to another seal" if status.migration else ""
    terminal.line(f"  seal         {status.seal_type or 'unknown'}{needs}; {state}{moving}")
    terminal.line(
        f"  version      {status.version or 'unknown'}, storage {status.storage_type or 'unknown'}"
    )
    if status.cluster_id:
        terminal.line(f"  cluster      {status.cluster_name} {status.cluster_id}".rstrip())
    elif status.initialized:
        terminal.line("  cluster      a sealed server does not tell its cluster id")


def warnings(
    server: Server, choice: Choice, found: Mapping[str, Look | KluisError]
) -> Iterator[str]:
    """What a person must not overlook, one line each."""
    old = server.tls.pin
    looks = [seen for seen in found.values() if not isinstance(seen, KluisError)]
    if old is not None and choice.pin not in (None, old) and not all(_has(s, old) for s in looks):
        yield f"warning: its key is another one than the pinned: it was {old}, it is {choice.pin}"
        yield "  if nobody renewed it, somebody may stand between here and the server: say no"
    for seen in looks:
        if server.tls.user is not None and seen.user and server.tls.user not in seen.user:
            was, now = server.tls.user, _listener(seen)
            yield f"warning: another user listens than declared: it was {was}, it is {now}"
            yield "  if nobody changed that, another process has taken the server's port: say no"
    known = server.identity
    if known.cluster_id is not None and choice.cluster_id not in (None, known.cluster_id):
        yield (
            f"warning: it is another cluster than before: it was {known.cluster_id},"
            f" it is {choice.cluster_id}"
        )
    numbers = (known.threshold, known.shares)
    if None not in numbers and choice.threshold and numbers != (choice.threshold, choice.shares):
        yield (
            f"warning: it needs {choice.threshold} of {choice.shares} shares now, not"
            f" {known.threshold} of {known.shares}: its keys were changed, or it is another server"
        )
    away = [address for address, seen in found.items() if isinstance(seen, KluisError)]
    if away:
        yield f"warning: not seen: {', '.join(away)}; a node with another key will be refused"


def contested(servers: Mapping[str, ServerSettings], name: str) -> Iterator[str]:
    """That others have the shares of a server, too, unless that is known as one cluster."""
    from kluis.settings import servers as settings

    for key, names in settings.contested(servers).items():
        if name in names:
            others = ", ".join(other for other in names if other != name)
            yield f"warning: {key} is where the shares of {others} are kept"
            yield "  two clusters never have the same shares: say no unless they are one cluster"


def _has(seen: Look, pin: str) -> bool:
    """Whether a pin still holds, of the key or of an authority."""
    own = None if seen.certificate is None else seen.certificate.pin
    return pin == own or pin in seen.authorities


def data(found: Mapping[str, Look | KluisError]) -> dict[str, Any]:
    """Every node, for a program."""
    return {"nodes": {address: _node(seen) for address, seen in found.items()}}


def _node(seen: Look | KluisError) -> dict[str, Any]:
    if isinstance(seen, KluisError):
        said = {"class": type(seen).__name__, "seen": seen.seen, "means": seen.means}
        return {"error": {**said, "next": seen.next_step}}
    status = seen.status
    return {
        "trust": seen.trust.value,
        "name_fits": seen.name_fits,
        "certificate": None if seen.certificate is None else _certificate(seen.certificate),
        "user": None if seen.user is None else seen.user._asdict(),
        "seal": {
            "type": status.seal_type,
            "initialized": status.initialized,
            "sealed": status.sealed,
            "threshold": status.threshold,
            "shares": status.shares,
            "migration": status.migration,
        },
        "version": status.version,
        "storage": status.storage_type,
        "cluster_id": status.cluster_id,
        "cluster_name": status.cluster_name,
    }


def _certificate(certificate: Certificate) -> dict[str, Any]:
    return {
        "subject": certificate.subject,
        "issuer": certificate.issuer,
        "names": list(certificate.names),
        "starts": _moment(certificate.starts_s),
        "ends": _moment(certificate.ends_s),
        "key": certificate.pin,
        "fingerprint": certificate.fingerprint,
    }


def _moment(time_s: float) -> str:
    from kluis.service.servers import moment

    return str(moment(time_s))


def _day(time_s: float) -> str:
    return _moment(time_s)[:10]
