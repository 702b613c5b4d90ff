"""Making a keyring, and changing an open one. What comes out is proven, and not yet written."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from kluis.anchors.base import Anchor
from kluis.engine.opening import Opened
from kluis.engine.sealing import SealedTree, seal_document, seal_tree
from kluis.errors import AnchorError, ChangeRefused, UnknownKey
from kluis.keyring import dealing, keys, policy, tree
from kluis.keyring.body import Contents
from kluis.keyring.document import Body, Client, Document, Token
from kluis.keyring.plan import Plan, Wanted
from kluis.secret import Secret

TokensOf = Callable[[str], tuple[Token, ...]]
"""The tokens of a new client, by its name: it may have some already, in another keyring."""


@dataclass(frozen=True, slots=True)
class Changed:
    """A new document in the open, the paper to hand out, and the anchors that were away."""

    opened: Opened
    paper: Mapping[str, tuple[str, ...]]
    away: Mapping[str, AnchorError]

    def __repr__(self) -> str:
        return f"Changed({self.opened.document.name}, paper for {sorted(self.paper)})"


async def make(
    wanted: Wanted, anchors: Mapping[str, Anchor], tokens_of: TokensOf, now: str
) -> Changed:
    """A new keyring. Raises AnchorError or ChangeRefused."""
    draft = Document(
        id=str(uuid.uuid4()),
        name=wanted.name,
        epoch=1,
        revision=1,
        written=now,
        opens=policy.show(wanted.opens),
        tree=tree.from_policy(wanted.opens, wanted.leaves),
        keys={},
        clients=_clients(wanted, {}, tokens_of),
        body=Body(b"", b"", b""),
    )
    root = Secret.random()
    secrets = dealing.deal(draft.tree, root)
    sealed = await seal_tree(draft, secrets, anchors, kept={})
    made = {name: keys.generate(kind, now) for name, kind in wanted.keys.items()}
    return _finish(draft, sealed, root, secrets, made)


async def change(
    opened: Opened,
    wanted: Wanted,
    plan: Plan,
    anchors: Mapping[str, Anchor],
    tokens_of: TokensOf,
    now: str,
) -> Changed:
    """The open keyring as ``plan`` says. Raises AnchorError, ChangeRefused or Locked."""
    opened, old = opened.copy(), opened.document
    root = Secret.random() if plan.replaces_root else opened.root
    draft = replace(
        old,
        epoch=old.epoch + plan.replaces_root,
        revision=old.revision + 1,
        written=now,
        opens=policy.show(wanted.opens),
        tree=tree.from_policy(wanted.opens, wanted.leaves),
        clients=_clients(wanted, old.clients, tokens_of),
    )
    secrets, kept = _new_secrets(opened, draft, root, plan)
    sealed = await seal_tree(draft, secrets, anchors, kept)
    made = _new_keys(opened.contents, wanted, plan, now)
    return _finish(draft, sealed, root, secrets, made)


def rotate_key(opened: Opened, name: str, now: str) -> Changed:
    """The open keyring with one more version of a key. Raises UnknownKey or ChangeRefused."""
    key = opened.contents.keys.get(name)
    if key is None:
        raise UnknownKey(
            f"{opened.document.name} has no key {name}", "", "kluis key list shows the keys"
        )
    rotated = keys.rotate(key, now)
    if rotated is key:
        raise ChangeRefused(
            f"{name} is of kind {key.kind}",
            "such a key holds what was imported; kluis can't make another",
            "import the new one",
        )
    return put_key(opened, name, rotated, now)


def put_key(opened: Opened, name: str, key: keys.Key, now: str) -> Changed:
    """The open keyring with a key, new or in the place of the old one of that name.

    Raises TooLarge, or Locked.
    """
    contents = Contents({**opened.contents.keys, name: key}, opened.contents.leaves)
    return rewrite(opened, contents, opened.document.clients, now)


def rewrite(opened: Opened, contents: Contents, clients: Mapping[str, Client], now: str) -> Changed:
    """The same tree with other contents or clients. Raises Locked."""
    old = opened.document
    draft = replace(old, revision=old.revision + 1, written=now, clients=clients)
    document = seal_document(draft, opened.root, contents)
    return Changed(Opened(document, opened.root, contents).copy(), {}, {})


def _new_secrets(
    opened: Opened, draft: Document, root: Secret, plan: Plan
) -> tuple[dict[tree.Path, Secret], dict[tree.Path, tree.Leaf]]:
    """The secrets of the new tree, and the old leaves that can stay as they are.

    A people leaf stays while its secret does; a machine leaf also binds its place in the tree.
    """
    if plan.replaces_root:
        return dealing.deal(draft.tree, root), {}
    old = opened.document
    known = dealing.known(old.tree, root, opened.contents.leaves)
    secrets = dealing.deal(draft.tree, root, dealing.by_name(old.tree, known))
    old_leaves = {leaf.name: (path, leaf) for path, leaf in tree.leaves(old.tree)}
    kept: dict[tree.Path, tree.Leaf] = {}
    for path, leaf in tree.leaves(draft.tree):
        old_path, old_leaf = old_leaves.get(leaf.name, (None, leaf))
        if old_path is None or known.get(old_path) != secrets[path] or leaf.name in plan.heal:
            continue
        if isinstance(old_leaf, tree.PeopleLeaf) or (old_path == path and old_leaf.sealed):
            kept[path] = old_leaf
    return secrets, kept


def _new_keys(contents: Contents, wanted: Wanted, plan: Plan, now: str) -> dict[str, keys.Key]:
    kept = {name: key for name, key in contents.keys.items() if name not in plan.lost_keys}
    if plan.replaces_root:
        kept = {name: keys.rotate(key, now) for name, key in kept.items()}
    return kept | {name: keys.generate(wanted.keys[name], now) for name in plan.new_keys}


def _clients(wanted: Wanted, old: Mapping[str, Client], tokens_of: TokensOf) -> dict[str, Client]:
    return {
        name: Client(
            tokens=old[name].tokens if name in old else tokens_of(name),
            keys=client.keys,
            certificate_san=client.certificate_san,
            networks=client.networks,
        )
        for name, client in wanted.clients.items()
    }


def _finish(
    draft: Document,
    sealed: SealedTree,
    root: Secret,
    secrets: Mapping[tree.Path, Secret],
    made: Mapping[str, keys.Key],
) -> Changed:
    machine = {
        path: secrets[path]
        for path, leaf in tree.leaves(sealed.node)
        if isinstance(leaf, tree.AnchorLeaf)
    }
    contents = Contents(made, machine)
    document = seal_document(replace(draft, tree=sealed.node), root, contents)
    paper = {name: issued.mnemonics for name, issued in sealed.issued.items()}
    return Changed(Opened(document, root, contents), paper, sealed.away)
