"""``apply``: showing what it would do, and doing just that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kluis.anchors.passphrase import PassphraseAnchor
from kluis.engine import change
from kluis.engine.clock import now
from kluis.engine.guard import Guard
from kluis.errors import AnchorError, ChangeRefused, KluisError, UsageError
from kluis.keyring import tokens
from kluis.keyring.document import Token
from kluis.keyring.plan import Plan
from kluis.keyring.strict import JSON
from kluis.service.house import House, explain_error
from kluis.service.operations import Args, said, text, texts
from kluis.service.planning import Drawn, draw


async def plan(house: House, args: Args) -> dict[str, JSON]:
    """What an apply would do now, in words, with a digest to ask for just that."""
    _refuse_other_file(house, args.get("configuration"))
    async with house.changing:
        drawn = await draw(house, texts(args, "reissue"), texts(args, "replace"))
    shown: dict[str, JSON] = {
        name: [{"words": step.words, "destroys": step.destroys} for step in plan.steps]
        for name, plan in drawn.plans.items()
        if not plan.empty
    }
    passphrases: list[JSON] = [*sorted(drawn.passphrases)]
    as_it_is: dict[str, JSON] = {
        name: _summary(house.guards[name], plan, {})
        for name, plan in drawn.plans.items()
        if plan.empty
    }
    return {
        "plan": shown,
        "digest": drawn.digest,
        "notes": said({**drawn.notes, **house.rolled_back}),
        "passphrases": passphrases,
        "keyrings": as_it_is,
    }


async def apply(house: House, args: Args) -> dict[str, JSON]:
    """Carry out the plan of this digest; paper and tokens are in the answer, once."""
    async with house.changing:
        drawn = await draw(house, texts(args, "reissue"), texts(args, "replace"))
        if drawn.digest != text(args, "digest"):
            raise ChangeRefused(
                "the plan is not the one that was shown",
                "something changed in between",
                "look at the new plan and apply again",
            )
        _refuse_destruction(drawn, allowed=args.get("allow_destroy") is True)
        with _passphrases(drawn, args.get("passphrases")):
            prepared, issued = await _prepare(house, drawn)
        return _write(house, drawn, prepared, issued)


def _refuse_other_file(house: House, configuration: JSON) -> None:
    """A person who edited one file is not told that another one has nothing to change."""
    own = house.blueprint.file
    if own is None or not isinstance(configuration, str):
        return
    if Path(configuration).resolve() != own.resolve():
        raise UsageError(
            f"the running service reads {own}, not {configuration}",
            "it applies its own configuration only",
            f"kluis apply --config {own}, or start the service with the other one",
        )


def _refuse_destruction(drawn: Drawn, *, allowed: bool) -> None:
    lost = [step.words for plan in drawn.plans.values() for step in plan.steps if step.destroys]
    if lost and not allowed:
        raise ChangeRefused(
            f"this would {lost[0]}" + (f", and {len(lost) - 1} more" if len(lost) > 1 else ""),
            "nothing is destroyed without being told to; nothing was changed",
            "kluis apply --allow-destroy does it",
        )


@contextmanager
def _passphrases(drawn: Drawn, given: JSON) -> Iterator[None]:
    entered: list[PassphraseAnchor] = []
    typed = given if isinstance(given, dict) else {}
    try:
        for name in sorted(drawn.passphrases):
            anchor, passphrase = drawn.blueprint.anchors[name], typed.get(name)
            if not isinstance(anchor, PassphraseAnchor) or not isinstance(passphrase, str):
                raise UsageError(
                    f"the passphrase of {name} is needed",
                    "its leaf is sealed anew",
                    "enter it when asked, or give it on standard input",
                )
            anchor.enter(passphrase)
            entered.append(anchor)
        yield
    finally:
        for anchor in entered:
            anchor.forget()


Prepared = dict[str, change.Changed]
Issued = dict[str, tuple[str, Token]]


async def _prepare(house: House, drawn: Drawn) -> tuple[Prepared, Issued]:
    """Every new document, proven, before any is written: one that can't be made stops them all."""
    issued: Issued = {}

    def tokens_of(client: str) -> tuple[Token, ...]:
        known = house.tokens_of(client)
        if not known and client not in issued:
            issued[client] = tokens.generate(now())
        return known or (issued[client][1],)

    prepared: Prepared = {}
    for name, plan in drawn.plans.items():
        wanted, anchors = drawn.blueprint.wanted[name], drawn.blueprint.anchors
        if plan.empty:
            continue
        if name not in house.guards:
            prepared[name] = await change.make(wanted, anchors, tokens_of, now())
        else:
            opened = house.guards[name].require_open()
            prepared[name] = await change.change(opened, wanted, plan, anchors, tokens_of, now())
    return prepared, issued


def _write(house: House, drawn: Drawn, prepared: Prepared, issued: Issued) -> dict[str, JSON]:
    """Write what was prepared, without a pause: a client that goes away stops it before or not.

    When a later one can't be written, the paper of the earlier ones is still in the answer.
    """
    written: Prepared = {}
    failed: JSON = None
    for name, changed in prepared.items():
        try:
            _write_one(house, drawn, changed)
        except KluisError as error:
            if not written:
                raise
            failed = {**explain_error(error)}
            break
        written[name] = changed
    keyrings: dict[str, JSON] = {
        name: _summary(house.guards[name], plan, written[name].away if name in written else {})
        for name, plan in drawn.plans.items()
        if plan.empty or name in written
    }
    paper = {name: changed.paper for name, changed in written.items()}
    shown: dict[str, JSON] = {client: token for client, (token, _) in sorted(issued.items())}
    answer: dict[str, JSON] = {"shares": _by_people(paper), "tokens": shown, "keyrings": keyrings}
    return answer if failed is None else {**answer, "failed": failed}


def _write_one(house: House, drawn: Drawn, changed: change.Changed) -> None:
    document = changed.opened.document
    guard = house.guards.get(document.name)
    if guard is not None:
        guard.save(changed.opened)
        return
    drawn.blueprint.stores[document.name].save(document, after=0)
    guard = house.new_guard(document)
    guard.adopt(changed.opened)
    house.admit(guard)


def _summary(guard: Guard, plan: Plan, away: Mapping[str, AnchorError]) -> JSON:
    steps: list[JSON] = [step.words for step in plan.steps]
    return {
        "changed": not plan.empty,
        "epoch": guard.document.epoch,
        "revision": guard.document.revision,
        "opens": guard.document.opens,
        "steps": steps,
        "away": said(away),
    }


def _by_people(paper: Mapping[str, Mapping[str, tuple[str, ...]]]) -> JSON:
    """Paper by the name of its people; with the keyring's before it where two have the same."""
    names = [name for issued in paper.values() for name in issued]
    shares: dict[str, JSON] = {}
    for keyring, issued in paper.items():
        for name, mnemonics in issued.items():
            shown = name if names.count(name) == 1 else f"{keyring}/{name}"
            shares[shown] = [*mnemonics]
    return shares
