"""``apply``: what it would do, and doing it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kluis.anchors.passphrase import PassphraseAnchor
from kluis.engine import change
from kluis.engine.guard import Guard
from kluis.errors import AnchorError, ChangeRefused, Damaged, Locked, Unreachable, UsageError
from kluis.keyring import plan as plans
from kluis.keyring import tokens, tree
from kluis.keyring.crypto import sha256
from kluis.keyring.document import Token
from kluis.keyring.plan import Plan, PolicyChange, Wanted
from kluis.keyring.strict import JSON
from kluis.service.house import House, now
from kluis.service.operations import Args, said, text, texts


@dataclass(slots=True)
class Drawn:
    """The plans of all keyrings, what was noticed on the way, and the passphrases they take."""

    plans: dict[str, Plan] = field(default_factory=dict)
    notes: dict[str, AnchorError] = field(default_factory=dict)
    passphrases: set[str] = field(default_factory=set)

    @property
    def digest(self) -> str:
        """Changes when the plan does: an apply carries out just what was shown."""
        shown = {name: [step.words for step in plan.steps] for name, plan in self.plans.items()}
        return sha256(json.dumps(shown, sort_keys=True).encode()).hex()


async def plan(house: House, args: Args) -> dict[str, JSON]:
    """What an apply would do now, in words, with a digest to ask for just that."""
    _refuse_other_file(house, args.get("configuration"))
    house.redraw()
    drawn = await _draw(house, texts(args, "reissue"))
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
    house.redraw()
    async with house.changing:
        drawn = await _draw(house, texts(args, "reissue"))
        if drawn.digest != text(args, "digest"):
            raise ChangeRefused(
                "the plan is not the one that was shown",
                "something changed in between",
                "look at the new plan and apply again",
            )
        _refuse_destruction(drawn, allowed=args.get("allow_destroy") is True)
        with _passphrases(house, drawn, args.get("passphrases")):
            return await _carry_out(house, drawn)


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


async def _draw(house: House, reissue: tuple[str, ...]) -> Drawn:
    drawn = Drawn()
    if not house.serving:
        await house.open_once()
    for name, wanted in house.blueprint.wanted.items():
        guard = house.guards.get(name)
        if guard is None:
            drawn.plans[name] = plans.make(None, wanted)
            await _check_new(house, wanted.leaves)
        else:
            drawn.plans[name] = await _plan_for(house, guard, wanted, reissue, drawn)
        drawn.passphrases |= _passphrases_for(house, guard, wanted, drawn.plans[name])
    _refuse_unknown_reissue(house, reissue)
    return drawn


async def _check_new(house: House, names: Iterable[str]) -> None:
    """An anchor that is set up wrongly is not taken into a keyring."""
    for name in names:
        anchor = house.blueprint.anchors.get(name)
        if anchor is None or anchor.needs_person:
            continue
        try:
            await anchor.probe()
        except Unreachable:
            continue  # it may be away for a while; sealing decides whether it can be spared
        except AnchorError as error:
            error.seen = f"anchors.{name}: {error.seen}"
            raise


async def _plan_for(
    house: House, guard: Guard, wanted: Wanted, reissue: tuple[str, ...], drawn: Drawn
) -> Plan:
    found = plans.make(guard.document, wanted, (), reissue)
    if not guard.is_open:
        if found.empty:
            return found
        raise Locked(
            f"the keyring {guard.name} is locked, and is to change",
            "only who can open a keyring can change it",
            f"kluis serve, then kluis unlock {guard.name}, then kluis apply again",
        )
    known = {leaf.name for _, leaf in tree.leaves(guard.document.tree)}
    await _check_new(house, sorted(set(wanted.leaves) - known))
    heal: set[str] = set()
    for name, error in (await guard.survey()).items():
        if isinstance(error, Damaged):
            heal.add(name)
        elif error is not None:
            drawn.notes[f"{guard.name}/{name}"] = error
    for _, leaf in tree.leaves(guard.document.tree):
        if isinstance(leaf, tree.AnchorLeaf) and leaf.sealed is None:
            heal.add(leaf.name)
    return plans.make(guard.document, wanted, heal & set(wanted.leaves), reissue)


def _passphrases_for(house: House, guard: Guard | None, wanted: Wanted, plan: Plan) -> set[str]:
    """The passphrases that must be typed to carry out a plan."""
    typed = {
        name
        for name in wanted.leaves
        if (anchor := house.blueprint.anchors.get(name)) is not None and anchor.needs_person
    }
    if guard is None or plan.policy is PolicyChange.SHRINKS:
        return typed
    if plan.policy is PolicyChange.SAME:
        return typed & set(plan.heal)
    places = {leaf.name: path for path, leaf in tree.leaves(guard.document.tree)}
    wanted_tree = tree.from_policy(wanted.opens, wanted.leaves)
    moved = {leaf.name for path, leaf in tree.leaves(wanted_tree) if places.get(leaf.name) != path}
    return typed & (moved | set(plan.heal))


def _refuse_unknown_reissue(house: House, reissue: tuple[str, ...]) -> None:
    people = {
        leaf.name
        for wanted in house.blueprint.wanted.values()
        for leaf in wanted.leaves.values()
        if isinstance(leaf, tree.PeopleLeaf)
    }
    for name in reissue:
        if name not in people:
            raise UsageError(
                f"{name} has no paper to issue anew",
                f"people anchors in use: {', '.join(sorted(people)) or 'none'}",
                "correct the name",
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
def _passphrases(house: House, drawn: Drawn, given: JSON) -> Iterator[None]:
    entered: list[PassphraseAnchor] = []
    typed = given if isinstance(given, dict) else {}
    try:
        for name in sorted(drawn.passphrases):
            anchor, passphrase = house.blueprint.anchors[name], typed.get(name)
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


async def _carry_out(house: House, drawn: Drawn) -> dict[str, JSON]:
    issued: dict[str, tuple[str, Token]] = {}

    def tokens_of(client: str) -> tuple[Token, ...]:
        known = house.tokens_of(client)
        if not known and client not in issued:
            issued[client] = tokens.generate(now())
        return known or (issued[client][1],)

    keyrings: dict[str, JSON] = {}
    paper: dict[str, Mapping[str, tuple[str, ...]]] = {}
    for name, plan in drawn.plans.items():
        if plan.empty:
            keyrings[name] = _summary(house.guards[name], plan, {})
            continue
        changed = await _carry_out_one(house, plan, tokens_of)
        paper[name] = changed.paper
        keyrings[name] = _summary(house.guards[name], plan, changed.away)
    shown: dict[str, JSON] = {client: token for client, (token, _) in sorted(issued.items())}
    return {"shares": _by_people(paper), "tokens": shown, "keyrings": keyrings}


async def _carry_out_one(house: House, plan: Plan, tokens_of: change.TokensOf) -> change.Changed:
    name, anchors = plan.keyring, house.blueprint.anchors
    wanted, guard = house.blueprint.wanted[name], house.guards.get(name)
    if guard is None:
        changed = await change.make(wanted, anchors, tokens_of, now())
        house.blueprint.stores[name].save(changed.opened.document, after=0)
        guard = house.new_guard(name, changed.opened.document)
        guard.adopt(changed.opened)
        house.admit(guard)
        return changed
    opened = guard.require_open()
    changed = await change.change(opened, wanted, plan, anchors, tokens_of, now())
    guard.save(changed.opened)
    return changed


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
