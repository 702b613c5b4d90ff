"""Which servers are on their way to another seal: what can't be seen by looking at them.

The record lies beside the document of the keyring that keeps the server's shares. It is no secret,
and not proven by anything: where a migration stands is seen from the server wherever that can be.

``source`` and ``target`` are types of seals as a server names them. Times are RFC 3339 in UTC, and
empty while the thing did not happen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from kluis.errors import DocumentError, TooLarge
from kluis.keyring.document import TIME_PATTERN
from kluis.keyring.policy import NAME_PATTERN
from kluis.keyring.strict import (
    JSON,
    Fields,
    as_text,
    canonical,
    read_canonical,
    refuse_too_many,
    sorted_unique,
    wrong_type,
)

FORMAT: Final = "migrations/1"
MAX_MIGRATIONS: Final = 1024
MAX_NODES: Final = 64
MAX_MIGRATIONS_BYTES: Final = 4 * 1024 * 1024

SEAL_PATTERN: Final = r"[a-z][a-z0-9_-]{0,63}"
ADDRESS_PATTERN: Final = r"[\x21-\x7e]{1,512}"
_TIME: Final = f"(?:{TIME_PATTERN})?"
_WORD: Final = r"[\x21-\x7e]{0,256}"
_PATH: Final = r"[^\x00-\x1f\x7f]{0,1024}"

To = Literal["facade", "static", "shamir", "other"]
TARGETS: Final[tuple[To, ...]] = ("facade", "static", "shamir", "other")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it came. Nodes are named by their addresses, each list sorted.

    ``sending`` is being given shares just now, ``carried`` took them. ``away`` were seen sealed, or
    not at all, since then, and ``returned`` came back after it. ``nodes`` are those that were there
    when the server had moved, ``active_time`` is what the active one of them said, and
    ``unsealed`` when the facade had unsealed the client last.
    """

    sending: str = ""
    carried: tuple[str, ...] = ()
    away: tuple[str, ...] = ()
    returned: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    moved: str = ""
    active_time: str = ""
    unsealed: str = ""
    proven: str = ""


@dataclass(frozen=True, slots=True)
class Migration:
    """One server's way from ``source`` to ``target``; ``to`` is the word that a person chose.

    ``key`` and ``client`` are what the facade or a static seal uses, ``shares`` the key that keeps
    the shares, each as KEYRING/KEY. ``snapshot`` and ``folder`` are paths as the person gave them.

    ``restore`` is that it goes back without having moved. ``back`` is that it goes back from where
    it had moved to: ``source`` and ``target`` are the other way round then.
    """

    server: str
    source: str
    target: str
    to: To
    shares: str
    began: str
    repoint: bool = False
    key: str = ""
    client: str = ""
    snapshot: str = ""
    folder: str = ""
    back: bool = False
    restore: bool = False
    progress: Progress = Progress()

    @property
    def same(self) -> bool:
        """Whether both seals have one type: then the type does not tell which one is in use."""
        return self.source == self.target


@dataclass(frozen=True, slots=True)
class Migrations:
    """The last migration of each server, by its name."""

    servers: Mapping[str, Migration] = field(default_factory=dict)

    def of(self, server: str) -> Migration | None:
        """That of one server; None where there is none on record."""
        return self.servers.get(server)

    def noted(self, migration: Migration) -> Migrations:
        """With one more, in the place of that server's last. Raises TooLarge."""
        servers = {**self.servers, migration.server: migration}
        if len(servers) > MAX_MIGRATIONS:
            raise TooLarge(
                f"{MAX_MIGRATIONS} migrations are on record",
                "no more are kept beside one keyring",
                "keep the shares of other servers in another keyring",
            )
        return Migrations(servers)

    def forgotten(self, server: str) -> Migrations:
        """Without that of one server."""
        return Migrations({name: one for name, one in self.servers.items() if name != server})


def to_bytes(migrations: Migrations) -> bytes:
    """The record in canonical JSON. Raises TooLarge for one that could not be read back."""
    servers: dict[str, JSON] = {name: _json(one) for name, one in migrations.servers.items()}
    data = canonical({"kluis": FORMAT, "servers": servers})
    refuse_too_many("the record of migrations, in bytes,", len(data), MAX_MIGRATIONS_BYTES)
    return data


def _json(one: Migration) -> JSON:
    return {
        "source": one.source,
        "target": one.target,
        "to": one.to,
        "shares": one.shares,
        "began": one.began,
        "repoint": one.repoint,
        "key": one.key,
        "client": one.client,
        "snapshot": one.snapshot,
        "folder": one.folder,
        "back": one.back,
        "restore": one.restore,
        "progress": _progress_json(one.progress),
    }


def _progress_json(progress: Progress) -> JSON:
    return {
        "sending": progress.sending,
        "carried": [*progress.carried],
        "away": [*progress.away],
        "returned": [*progress.returned],
        "nodes": [*progress.nodes],
        "moved": progress.moved,
        "active_time": progress.active_time,
        "unsealed": progress.unsealed,
        "proven": progress.proven,
    }


def from_bytes(data: bytes) -> Migrations:
    """The record in some bytes. Raises DocumentError."""
    try:
        return _read(data)
    except DocumentError as error:
        error.means = "somebody changed the file, or the disk did"
        error.next_step = "restore the file; or, while no server is being migrated, remove it"
        raise


def _read(data: bytes) -> Migrations:
    fields = Fields(read_canonical(data, MAX_MIGRATIONS_BYTES), "")
    fields.text("kluis", FORMAT)
    members = fields.members("servers", NAME_PATTERN, MAX_MIGRATIONS)
    fields.done()
    return Migrations({name: _migration(name, value) for name, value in members})


def _migration(server: str, value: JSON) -> Migration:
    fields = Fields(value, f"servers.{server}")
    to = fields.text("to", "|".join(TARGETS))
    one = Migration(
        server=server,
        source=fields.text("source", SEAL_PATTERN),
        target=fields.text("target", SEAL_PATTERN),
        to=next(word for word in TARGETS if word == to),
        shares=fields.text("shares", _WORD),
        began=fields.text("began", TIME_PATTERN),
        repoint=_flag(fields, "repoint"),
        key=fields.text("key", _WORD),
        client=fields.text("client", _WORD),
        snapshot=fields.text("snapshot", _PATH),
        folder=fields.text("folder", _PATH),
        back=_flag(fields, "back"),
        restore=_flag(fields, "restore"),
        progress=_progress(Fields(fields.take("progress"), fields.path("progress"))),
    )
    fields.done()
    return one


def _progress(fields: Fields) -> Progress:
    progress = Progress(
        sending=fields.text("sending", f"(?:{ADDRESS_PATTERN})?"),
        carried=_addresses(fields, "carried"),
        away=_addresses(fields, "away"),
        returned=_addresses(fields, "returned"),
        nodes=_addresses(fields, "nodes"),
        moved=fields.text("moved", _TIME),
        active_time=fields.text("active_time", _WORD),
        unsealed=fields.text("unsealed", _WORD),
        proven=fields.text("proven", _TIME),
    )
    fields.done()
    return progress


def _addresses(fields: Fields, name: str) -> tuple[str, ...]:
    where = fields.path(name)
    found = (as_text(item, where, ADDRESS_PATTERN) for item in fields.items(name, MAX_NODES))
    return sorted_unique(found, where)


def _flag(fields: Fields, name: str) -> bool:
    value = fields.take(name)
    if not isinstance(value, bool):
        raise wrong_type(fields.path(name), "true or false", value)
    return value
