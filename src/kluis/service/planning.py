"""What an ``apply`` would do: the wish, what rests, and what the anchors say."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

from kluis.engine.guard import Guard
from kluis.errors import AnchorError, Locked, Unreachable, UsageError
from kluis.keyring import plan as plans
from kluis.keyring import tree
from kluis.keyring.crypto import sha256
from kluis.keyring.document import Document
from kluis.keyring.plan import Plan, PolicyChange, Wanted
from kluis.service.blueprint import Blueprint
from kluis.service.house import House


@dataclass(slots=True)
class Drawn:
    """The plans of all keyrings by one blueprint, what was noticed, the passphrases they take.

    ``house.changing`` is held from the drawing until it is carried out.
    """

    blueprint: Blueprint
    plans: dict[str, Plan] = field(default_factory=dict)
    notes: dict[str, AnchorError] = field(default_factory=dict)
    passphrases: set[str] = field(default_factory=set)
    rests: dict[str, str] = field(default_factory=dict)
    """What the plans start from, of every document that there is; see ``_rest``."""

    @property
    def digest(self) -> str:
        """Changes when the wish, a document, or the plan does: what was shown is what is done.

        But for leaves that are sealed anew: the service may have healed them meanwhile.
        """
        drawn = [
            [
                name,
                self.rests.get(name),
                repr(self.blueprint.wanted[name]),
                repr(_but_healing(plan)),
            ]
            for name, plan in sorted(self.plans.items())
        ]
        return sha256(json.dumps(drawn).encode()).hex()


def _rest(document: Document) -> str:
    """All of a document but what healing changes: the revision, the sealed bytes, the body."""
    leaves = [
        (path, leaf.name, leaf.kind if isinstance(leaf, tree.AnchorLeaf) else repr(leaf))
        for path, leaf in tree.leaves(document.tree)
    ]
    return repr(
        (document.id, document.epoch, document.opens, leaves, document.keys, document.clients)
    )


def _but_healing(plan: Plan) -> str:
    steps = plan.steps[: len(plan.steps) - len(plan.heal)]  # those of healing come last
    return repr(replace(plan, heal=(), steps=steps))


async def draw(house: House, reissue: tuple[str, ...], replace: tuple[str, ...]) -> Drawn:
    """Take the configuration as it is now, and plan. Raises KluisError.

    ``reissue`` are people who shall get new paper, ``replace`` anchors that shall count as others
    from now on.
    """
    house.redraw()
    drawn = Drawn(house.blueprint)
    leaves = {n: leaf for w in drawn.blueprint.wanted.values() for n, leaf in w.leaves.items()}
    people = {name for name, leaf in leaves.items() if isinstance(leaf, tree.PeopleLeaf)}
    _refuse_unknown(reissue, people, "has no paper to issue anew")
    _refuse_unknown(replace, leaves, "is an anchor of no keyring")
    replaced = reissue + replace
    if not house.serving:
        await house.open_once()
    for name, wanted in drawn.blueprint.wanted.items():
        guard = house.guards.get(name)
        if guard is None:
            drawn.plans[name] = plans.make(None, wanted)
            await _check_new(drawn.blueprint, wanted.leaves)
        else:
            drawn.rests[name] = _rest(guard.document)
            drawn.plans[name] = await _plan_for(guard, wanted, replaced, drawn)
        drawn.passphrases |= _passphrases_for(drawn.blueprint, guard, wanted, drawn.plans[name])
    return drawn


async def _check_new(blueprint: Blueprint, names: Iterable[str]) -> None:
    """An anchor that is set up wrongly is not taken into a keyring."""
    for name in names:
        anchor = blueprint.anchors.get(name)
        if anchor is None or anchor.needs_person:
            continue
        try:
            await anchor.probe()
        except Unreachable:
            continue  # it may be away for a while; sealing decides whether it can be spared
        except AnchorError as error:
            error.seen = f"anchors.{name}: {error.seen}"
            raise


async def _plan_for(guard: Guard, wanted: Wanted, replaced: tuple[str, ...], drawn: Drawn) -> Plan:
    found = plans.make(guard.document, wanted, (), replaced)
    if not guard.is_open:
        if found.empty:
            return found
        raise Locked(
            f"the keyring {guard.name} is locked, and is to change",
            "only who can open a keyring can change it",
            f"kluis serve, then kluis unlock {guard.name}, then kluis apply again",
        )
    known = {leaf.name for _, leaf in tree.leaves(guard.document.tree)}
    await _check_new(drawn.blueprint, sorted(set(wanted.leaves) - known))
    heal = {
        leaf.name for _, leaf in tree.machine_leaves(guard.document.tree) if leaf.sealed is None
    }
    for name, finding in (await guard.survey()).items():
        if finding.failure is not None:  # also what is healed: a person should know what was found
            drawn.notes[f"{guard.name}/{name}"] = finding.failure
        if finding.ailment:
            heal.add(name)
    return plans.make(guard.document, wanted, heal & set(wanted.leaves), replaced)


def _passphrases_for(
    blueprint: Blueprint, guard: Guard | None, wanted: Wanted, plan: Plan
) -> set[str]:
    """The passphrases that must be typed to carry out a plan."""
    typed = {
        name
        for name in wanted.leaves
        if (anchor := blueprint.anchors.get(name)) is not None and anchor.needs_person
    }
    if guard is None or plan.policy is PolicyChange.SHRINKS:
        return typed
    if plan.policy is PolicyChange.SAME:
        return typed & set(plan.heal)
    places = {leaf.name: path for path, leaf in tree.leaves(guard.document.tree)}
    wanted_tree = tree.from_policy(wanted.opens, wanted.leaves)
    moved = {leaf.name for path, leaf in tree.leaves(wanted_tree) if places.get(leaf.name) != path}
    return typed & (moved | set(plan.heal))


def _refuse_unknown(names: Iterable[str], known: Collection[str], what: str) -> None:
    for name in names:
        if name not in known:
            raise UsageError(
                f"{name} {what}",
                f"those that could be meant are: {', '.join(sorted(known)) or 'none'}",
                "correct the name",
            )
