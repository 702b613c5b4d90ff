"""``kluis bootstrap``: seal a key that is given once, prove it, and say when it may go.

For an init container: it runs again and again, may be killed anywhere, and talks to nobody.

- A keyring is written only when the machine anchors alone open what is to be written. What was
  written is opened afresh from the store: that is the proof.
- A document that rests here is changed in one way only: a key that it lacks is added. One that
  does not open is replaced only when that was asked for (``reseal``), when no anchor that is
  merely away could bring it back, when all that it holds is the given key, and when the record
  says that it is this key. The old document is kept for good.
- What is shown once is in its file before the document is written: a crash in between leaves paper
  of a keyring that never was, never the other way round.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from kluis.engine import change
from kluis.engine.clock import now
from kluis.engine.guard import Guard
from kluis.engine.opening import Opened
from kluis.errors import (
    AnchorError,
    CannotOpen,
    ChangeRefused,
    NotFound,
    StoreError,
    Unreachable,
    UsageError,
)
from kluis.keyring import tokens
from kluis.keyring.document import Token
from kluis.keyring.keys import Key, Version
from kluis.keyring.plan import Wanted
from kluis.keyring.strict import JSON
from kluis.secret import Secret
from kluis.service.bootstrap import paper_file, resealing
from kluis.service.bootstrap.given_record import GivenRecord
from kluis.service.bootstrap.proof import Proof, holds, prove
from kluis.service.house import House
from kluis.service.journal import recorded
from kluis.service.operations import said


@dataclass(frozen=True, slots=True)
class Asked:
    """A key by keyring and name, and what was given. ``paper`` is for what is shown once."""

    keyring: str
    key: str
    given: Secret | None
    paper: Path | None = None
    reseal: bool = False

    @property
    def path(self) -> str:
        """``KEYRING/KEY``."""
        return f"{self.keyring}/{self.key}"


@dataclass(frozen=True, slots=True)
class Done:
    """What was done: ``made``, ``imported``, ``resealed`` or ``nothing``."""

    what: str
    away: Mapping[str, AnchorError]
    paper: Path | None = None
    kept: Path | None = None


async def bootstrap(house: House, asked: Asked) -> dict[str, JSON]:
    """Bring it about that the machine anchors open a keyring with the given key in it.

    The house is alone. Raises KluisError; then no document was changed, unless it is the proof of
    a new one that failed.
    """
    wanted = _declared(house, asked)
    record = GivenRecord(house.blueprint.folders[asked.keyring], asked.keyring)
    async with house.changing:
        guard = house.guards.get(asked.keyring)
        if guard is None:
            done = await _make(house, asked, wanted, record)
        elif await guard.try_open():
            done = _take(house, asked, guard, record)
        elif asked.reseal:
            done = await _reseal(house, asked, guard, record)
        else:
            resealing.refuse_another(record.check(asked.key), asked.given, asked.path)
            return _locked(guard, asked)
        document = house.blueprint.stores[asked.keyring].load(asked.keyring)
        check = record.readable(asked.key)
        proof = await prove(document, house.blueprint.anchors, asked.key, asked.given, check)
    return {**_shown(asked, done), **proof.shown(), "anchors": {}}


def _declared(house: House, asked: Asked) -> Wanted:
    wanted = house.blueprint.wanted.get(asked.keyring)
    if wanted is None or wanted.keys.get(asked.key) != "static-seal":
        raise UsageError(
            f"kluis.toml declares no static-seal key {asked.path}",
            "a key that is given once is for a static seal",
            f"add [keyrings.{asked.keyring}.keys.{asked.key or 'NAME'}] with"
            ' kind = "static-seal" to kluis.toml, or correct --key',
        )
    return wanted


def _given(asked: Asked, why: str) -> Secret:
    if asked.given is None:
        raise NotFound(
            f"{why}, and no key was given",
            "the file that --from names is not there, or --from is missing",
            "mount the Secret that holds the key, and name its file with --from",
        )
    return asked.given


# -- the first run


async def _make(
    house: House, asked: Asked, wanted: Wanted, record: GivenRecord, after: Guard | None = None
) -> Done:
    """A new keyring, in the place of none or of the one that ``after`` guards."""
    given = _given(asked, f"the keyring {asked.keyring} was not made yet")
    paper_file.refuse_unseen(wanted, house.blueprint.anchors, asked.paper)
    issued: dict[str, tuple[str, Token]] = {}

    def tokens_of(client: str) -> tuple[Token, ...]:
        issued[client] = tokens.generate(now())
        return (issued[client][1],)

    others = {name: kind for name, kind in wanted.keys.items() if name != asked.key}
    anchors = house.blueprint.anchors
    made = await change.make(replace(wanted, keys=others), anchors, tokens_of, now())
    _refuse_misconfigured(made.away)
    opened = _with_key(made.opened, asked.key, given, after=after.document.revision if after else 0)
    await _prove_before(house, asked, opened, made.away)
    kept = resealing.keep_aside(house.blueprint.folders[asked.keyring], after) if after else None
    paper = asked.paper if made.paper or issued else None
    if paper is not None:
        shown = {client: token for client, (token, _) in issued.items()}
        paper_file.write(paper, opened.document, made.paper, shown)
    record.remember(asked.key, given)
    with _on_record(house, asked):
        store = house.blueprint.stores[asked.keyring]
        store.save(opened.document, after=opened.document.revision - 1)
    return Done("resealed" if after else "made", made.away, paper, kept)


async def _prove_before(
    house: House, asked: Asked, opened: Opened, away: Mapping[str, AnchorError]
) -> None:
    """Nothing is written that this machine could not open by itself. Raises ChangeRefused."""
    try:
        await prove(opened.document, house.blueprint.anchors, asked.key, asked.given)
    except CannotOpen as error:
        name, cause = min(away.items(), default=("", error))
        raise ChangeRefused(
            f"{name}: {cause.seen}" if name else error.seen,
            f"{asked.keyring} would not open by itself; nothing was written",
            cause.next_step,
        ) from None


def _with_key(opened: Opened, name: str, given: Secret, after: int) -> Opened:
    """The keyring with the given key as version 1, as the revision that follows ``after``."""
    base = replace(opened, document=replace(opened.document, revision=after))
    return change.put_key(base, name, _key(given), now()).opened


def _key(given: Secret) -> Key:
    return Key("static-seal", {1: Version(given.reveal(), now())})


def _refuse_misconfigured(away: Mapping[str, AnchorError]) -> None:
    """An anchor that is away is healed later; one that is set up wrongly is not taken."""
    for name, error in sorted(away.items()):
        if not isinstance(error, Unreachable):
            error.seen = f"anchors.{name}: {error.seen}"
            raise error


def _on_record(house: House, asked: Asked) -> contextlib.AbstractContextManager[None]:
    return recorded(
        house, "key-import", keyring=asked.keyring, key=asked.key, version="1", what="bootstrap"
    )


# -- later runs


def _take(house: House, asked: Asked, guard: Guard, record: GivenRecord) -> Done:
    """The keyring is open: compare the key, or add it where it is not in yet."""
    opened = guard.require_open()
    key = opened.contents.keys.get(asked.key)
    if key is None:
        given = _given(asked, f"{asked.keyring} has no key {asked.key} yet")
        record.remember(asked.key, given)
        with _on_record(house, asked):
            guard.save(change.put_key(opened, asked.key, _key(given), now()).opened)
        return Done("imported", {})
    if key.kind != "static-seal":
        raise ChangeRefused(
            f"{asked.path} is a key of kind {key.kind}",
            "a key's kind never changes: what it sealed would be lost",
            "declare the key under another name",
        )
    if asked.given is not None:
        if not holds(key, asked.given):
            raise resealing.another_key(asked.path)
        with contextlib.suppress(StoreError):  # a full disk keeps nobody from starting
            record.remember(asked.key, asked.given)
    return Done("nothing", {})


async def _reseal(house: House, asked: Asked, guard: Guard, record: GivenRecord) -> Done:
    given = _given(asked, f"the keyring {asked.keyring} does not open")
    resealing.refuse_another(record.check(asked.key), given, asked.path)
    resealing.refuse_loss(guard, asked.key, record.check(asked.key))
    return await _make(house, asked, house.blueprint.wanted[asked.keyring], record, guard)


# -- what is said


def _shown(asked: Asked, done: Done) -> dict[str, JSON]:
    return {
        "keyring": asked.keyring,
        "key": asked.path,
        "done": done.what,
        "away": said(done.away),
        "paper": None if done.paper is None else str(done.paper),
        "kept": None if done.kept is None else str(done.kept),
    }


def _locked(guard: Guard, asked: Asked) -> dict[str, JSON]:
    anchors: dict[str, JSON] = {
        name: {"state": s.state, "seen": s.seen, "means": s.means, "next": s.next_step}
        for name, s in guard.anchor_statuses().items()
    }
    return {**_shown(asked, Done("nothing", {})), **Proof().shown(), "anchors": anchors}
