"""What an apply would do: the document as it is, the wish as declared, the steps between them.

Root secret and epoch
- The policy *grows* when every set of anchors that could open before still can: the root secret
  stays, and so does the paper of all whose place in the rule allows it.
- It *shrinks* when some set no longer should: then the root secret is replaced, the epoch rises,
  every key is rotated and all paper is issued anew, for the old document must not open the new.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from kluis.errors import ChangeRefused, TooManySets
from kluis.keyring import dealing, policy, tree, trust, words
from kluis.keyring.document import Document, KeyEntry
from kluis.keyring.keys import GENERATED_KINDS
from kluis.keyring.policy import Policy
from kluis.secret import Secret


@dataclass(frozen=True, slots=True)
class WantedClient:
    """A client as declared, with its keys in this keyring."""

    keys: tuple[str, ...]
    certificate_san: str | None = None
    networks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """A keyring as declared. ``leaves`` are unsealed, by the names of their anchors."""

    name: str
    opens: Policy
    leaves: Mapping[str, tree.Leaf]
    keys: Mapping[str, str]
    clients: Mapping[str, WantedClient]


class PolicyChange(Enum):
    """How the rule changes."""

    NEW = "new"
    SAME = "same"
    GROWS = "grows"
    SHRINKS = "shrinks"


@dataclass(frozen=True, slots=True)
class Step:
    """One step in words; ``destroys`` when something is lost by it that can't be had back."""

    words: str
    destroys: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """The difference between a document and a wish."""

    keyring: str
    policy: PolicyChange
    replaced: tuple[str, ...] = ()
    new_keys: tuple[str, ...] = ()
    lost_keys: tuple[str, ...] = ()
    new_clients: tuple[str, ...] = ()
    changed_clients: tuple[str, ...] = ()
    lost_clients: tuple[str, ...] = ()
    heal: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.steps

    @property
    def replaces_root(self) -> bool:
        """Whether a new root secret comes, and with it an epoch."""
        return self.policy is PolicyChange.SHRINKS


def make(
    document: Document | None,
    wanted: Wanted,
    heal: Collection[str] = (),
    reissue: Collection[str] = (),
) -> Plan:
    """The steps from ``document`` (None: there is none yet) to ``wanted``.

    ``heal`` are leaves known to be damaged or unsealed; ``reissue`` are people who shall get new
    paper, and other anchors that shall be replaced. Raises ChangeRefused.
    """
    if document is None:
        change = PolicyChange.NEW
        replaced: tuple[str, ...] = ()
        old_keys: Mapping[str, KeyEntry] = {}
        old_clients: Mapping[str, object] = {}
    else:
        replaced = _replaced(document, wanted, reissue)
        change = _policy_change(document, wanted, replaced)
        old_keys, old_clients = document.keys, document.clients
    _refuse_another_kind(old_keys, wanted)
    plan = Plan(
        keyring=wanted.name,
        policy=change,
        replaced=replaced,
        new_keys=_only_in(wanted.keys, old_keys),
        lost_keys=_only_in(_declarable(old_keys), wanted.keys),
        new_clients=_only_in(wanted.clients, old_clients),
        changed_clients=_changed_clients(document, wanted),
        lost_clients=_only_in(old_clients, wanted.clients),
        heal=() if change is PolicyChange.SHRINKS else tuple(sorted(heal)),
    )
    return _with_steps(plan, document, wanted)


def _declarable(keys: Mapping[str, KeyEntry]) -> list[str]:
    """The keys that a configuration declares; imported ones are not missing there."""
    return [name for name, key in keys.items() if key.kind in GENERATED_KINDS]


def _refuse_another_kind(old: Mapping[str, KeyEntry], wanted: Wanted) -> None:
    for name, key in old.items():
        if wanted.keys.get(name, key.kind) != key.kind:
            raise ChangeRefused(
                f"{wanted.name}/{name} is a key of kind {key.kind}, not {wanted.keys[name]}",
                "a key's kind never changes: what it sealed would be lost",
                "declare the new kind under another name",
            )


def _only_in(these: Collection[str], those: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted(set(these) - set(those)))


def _replaced(document: Document, wanted: Wanted, reissue: Collection[str]) -> tuple[str, ...]:
    """Anchors of the same name that are no longer the same anchor."""
    old = {leaf.name: leaf for _, leaf in tree.leaves(document.tree)}
    return tuple(
        sorted(
            name
            for name, leaf in wanted.leaves.items()
            if name in old and (name in reissue or _nature(leaf) != _nature(old[name]))
        )
    )


def _nature(leaf: tree.Leaf) -> tuple[str, int, int]:
    if isinstance(leaf, tree.PeopleLeaf):
        return "people", leaf.threshold, leaf.shares
    return leaf.kind, 1, 1


def _policy_change(document: Document, wanted: Wanted, replaced: Collection[str]) -> PolicyChange:
    old = tree.to_policy(document.tree)
    if replaced:
        return PolicyChange.SHRINKS
    if old == wanted.opens:
        return PolicyChange.SAME
    try:
        quorums = trust.minimal_quorums(old)
    except TooManySets:
        return PolicyChange.SHRINKS  # too many to compare: replacing the root secret is right
    if all(trust.opens_with(wanted.opens, set(names)) for names in quorums):
        return PolicyChange.GROWS
    return PolicyChange.SHRINKS


def _changed_clients(document: Document | None, wanted: Wanted) -> tuple[str, ...]:
    if document is None:
        return ()
    return tuple(
        sorted(
            name
            for name, client in document.clients.items()
            if name in wanted.clients
            and WantedClient(client.keys, client.certificate_san, client.networks)
            != wanted.clients[name]
        )
    )


def _with_steps(plan: Plan, document: Document | None, wanted: Wanted) -> Plan:
    steps = _policy_steps(plan, document, wanted)
    for name in plan.new_keys:
        steps.append(Step(f"make the key {name} ({wanted.keys[name]})"))
    for name in plan.lost_keys:
        steps.append(Step(f"destroy the key {name}: what it sealed is lost for good", True))
    for name in plan.new_clients:
        steps.append(
            Step(f"admit the client {name} to {_terms(wanted.clients[name])}; print its token")
        )
    for name in plan.changed_clients:
        steps.append(Step(f"let the client {name} use {_terms(wanted.clients[name])}"))
    for name in plan.lost_clients:
        steps.append(Step(f"dismiss the client {name}: its token opens nothing any more", True))
    for name in plan.heal:
        steps.append(Step(f"seal the leaf of {name} anew"))
    return replace(plan, steps=tuple(steps))


def _terms(client: WantedClient) -> str:
    """What a client may use, and on which conditions."""
    certificate = f", with a certificate for {client.certificate_san}"
    networks = f", from {_list(client.networks)}"
    return (
        _list(client.keys)
        + (certificate if client.certificate_san else "")
        + (networks if client.networks else "")
    )


def _policy_steps(plan: Plan, document: Document | None, wanted: Wanted) -> list[Step]:
    """What happens to the rule: who could open, who can, what is rotated, what is printed."""
    rule = policy.show(wanted.opens)
    if document is None:
        return [
            Step(f"make the keyring {wanted.name}, opened by: {rule}"),
            *_who(None, wanted),
            *_new_paper(wanted, _people(wanted)),
        ]
    if plan.policy is PolicyChange.SAME:
        return []
    if plan.policy is PolicyChange.GROWS:
        return [
            Step(f"widen the rule from '{document.opens}' to '{rule}'; the root secret stays"),
            *_who(document, wanted),
            *_new_paper(wanted, _paperless(document, wanted)),
        ]
    steps = [
        Step(f"replace the anchor {name}: as it was, it opens nothing any more")
        for name in plan.replaced
    ]
    if rule != document.opens:
        steps.append(Step(f"change the rule from '{document.opens}' to '{rule}'"))
    return [
        *steps,
        *_who(document, wanted),
        Step(f"replace the root secret{_old_paper(document)}"),
        *_rotations(plan, document),
        *_new_paper(wanted, _people(wanted)),
    ]


def _who(document: Document | None, wanted: Wanted) -> list[Step]:
    """Who could open the keyring, and who can from now on."""
    after = _opens_with(wanted.opens, words.people_among(wanted.leaves.values()))
    if document is None:
        return [Step(f"from now on it opens with: {after}")]
    leaves = (leaf for _, leaf in tree.leaves(document.tree))
    before = _opens_with(tree.to_policy(document.tree), words.people_among(leaves))
    if before == after:
        return [Step(f"as before, it opens with: {after}")]
    return [
        Step(f"until now it opened with: {before}"),
        Step(f"from now on it opens with: {after}"),
    ]


def _opens_with(rule: Policy, people: words.People) -> str:
    try:
        return words.ways(trust.minimal_quorums(rule), people)
    except TooManySets:
        return f"{words.together(trust.shortlist(rule, 0)[0], people)}; and many more"


def _old_paper(document: Document) -> str:
    people = words.people_among(leaf for _, leaf in tree.leaves(document.tree))
    return f"; the paper of {words.joined(sorted(people))} opens nothing any more" if people else ""


def _rotations(plan: Plan, document: Document) -> list[Step]:
    """What a new root secret means for the keys that stay."""
    kept = {name: key for name, key in document.keys.items() if name not in plan.lost_keys}
    rotated = sorted(name for name, key in kept.items() if key.kind in GENERATED_KINDS)
    steps = [Step(f"rotate {_keys(rotated)}")] if rotated else []
    steps += [
        Step(f"other nodes that have the key {name} too can't unseal what this one writes with it")
        for name in rotated
        if kept[name].kind == "static-seal"
    ]
    shares = sorted(name for name, key in kept.items() if key.kind == "unseal-shares")
    imported = sorted(set(kept).difference(rotated, shares))
    steps += _known(imported, "what was imported", "") if imported else []
    steps += _known(shares, "the shares", "; kluis server rekey makes new ones") if shares else []
    return steps


def _known(names: Collection[str], what: str, remedy: str) -> list[Step]:
    stay = "stays as it is" if len(names) == 1 else "stay as they are"
    known = f"who could open the keyring until now may know {what}"
    return [Step(f"{_keys(names)} {stay}: {known}{remedy}")]


def _keys(names: Collection[str]) -> str:
    return f"the key{'s' if len(names) > 1 else ''} {words.joined(list(names))}"


def _people(wanted: Wanted) -> list[str]:
    return [
        name
        for name in sorted(policy.names(wanted.opens))
        if isinstance(wanted.leaves[name], tree.PeopleLeaf)
    ]


def _paperless(document: Document, wanted: Wanted) -> list[str]:
    """The people of a rule that grows whose old paper, if they have any, does not fit any more.

    That follows from the two trees alone, so any secrets show it.
    """
    root = Secret.random()
    dealt = dealing.deal(document.tree, root)
    machine = {
        path: dealt[path]
        for path, leaf in tree.leaves(document.tree)
        if isinstance(leaf, tree.AnchorLeaf)
    }
    old = dealing.by_name(document.tree, dealing.known(document.tree, root, machine))
    grown = tree.from_policy(wanted.opens, wanted.leaves)
    new = dealing.by_name(grown, dealing.deal(grown, root, old))
    return [name for name in _people(wanted) if old.get(name) != new[name]]


def _new_paper(wanted: Wanted, names: Collection[str]) -> list[Step]:
    people = words.people_among(wanted.leaves.values())
    return [
        Step(
            f"print new paper for {name}: {words.plural(people[name][1], 'share')},"
            f" {people[name][0]} needed"
        )
        for name in names
    ]


def _list(names: Collection[str]) -> str:
    return ", ".join(names) or "nothing"
