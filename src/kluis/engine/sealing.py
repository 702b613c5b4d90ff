"""Sealing a tree: every leaf is opened again before anything is written.

An anchor that is away is left unsealed, to be healed later, if the policy can be satisfied
without it; else the seal is refused with that anchor's error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from kluis.anchors.base import Anchor
from kluis.engine.opening import wrong_answer
from kluis.errors import AnchorError, ChangeRefused, Inconsistent, Locked, Misconfigured
from kluis.keyring import body, paper, tree, trust
from kluis.keyring.body import Contents
from kluis.keyring.document import Document, from_bytes, to_bytes
from kluis.secret import SECRET_BYTES, Secret


@dataclass(frozen=True, slots=True)
class SealedTree:
    """A tree whose leaves hold their secrets, the paper that was issued, and who was away."""

    node: tree.Node
    issued: Mapping[str, paper.Issued]
    away: Mapping[str, AnchorError]


async def seal_tree(
    draft: Document,
    secrets: Mapping[tree.Path, Secret],
    anchors: Mapping[str, Anchor],
    kept: Mapping[tree.Path, tree.Leaf],
) -> SealedTree:
    """Seal every leaf of ``draft.tree`` but those in ``kept``, which stay as they are.

    Raises AnchorError or ChangeRefused; nothing was written then.
    """
    node, issued, away = draft.tree, {}, {}
    machine: list[tuple[tree.Path, tree.AnchorLeaf]] = []
    for path, leaf in tree.leaves(draft.tree):
        if path in kept:
            node = tree.replace_leaf(node, path, kept[path])
        elif isinstance(leaf, tree.PeopleLeaf):
            issued[leaf.name] = _issue_apart(leaf, secrets[path], node)
            node = tree.replace_leaf(node, path, issued[leaf.name].leaf)
        else:
            machine.append((path, leaf))
    outcomes = await asyncio.gather(
        *(try_seal_leaf(draft, path, leaf, secrets[path], anchors) for path, leaf in machine)
    )
    for (path, _), outcome in zip(machine, outcomes, strict=True):
        if isinstance(outcome, AnchorError):
            away[tree.at_leaf(node, path).name] = outcome
        else:
            node = tree.replace_leaf(node, path, outcome)
    _refuse_if_stranded(node, away)
    return SealedTree(node, issued, away)


async def try_seal_leaf(
    draft: Document,
    path: tree.Path,
    leaf: tree.AnchorLeaf,
    secret: Secret,
    anchors: Mapping[str, Anchor],
) -> tree.AnchorLeaf | AnchorError:
    """As ``seal_leaf``, by the leaf's name; what the anchor raised, if it did."""
    try:
        return await seal_leaf(draft, path, leaf, secret, anchors.get(leaf.name))
    except AnchorError as error:
        return error


async def seal_leaf(
    document: Document,
    path: tree.Path,
    leaf: tree.AnchorLeaf,
    secret: Secret,
    anchor: Anchor | None,
) -> tree.AnchorLeaf:
    """The leaf with the secret sealed in it, proven by opening. Raises AnchorError."""
    if anchor is None:
        raise Misconfigured(
            f"the configuration has no anchor {leaf.name}",
            "what is not declared can't seal",
            f"declare [anchors.{leaf.name}]",
        )
    context = document.context(path, anchor.kind)
    sealed = await anchor.seal(secret, context)
    if await anchor.open(sealed, context) != secret:
        raise wrong_answer()
    return tree.AnchorLeaf(leaf.name, anchor.kind, dict(sealed))


def _issue_apart(leaf: tree.PeopleLeaf, secret: Secret, node: tree.Node) -> paper.Issued:
    """New paper whose number (15 bits) no other people of the tree have."""
    taken = {
        other.identifier
        for _, other in tree.leaves(node)
        if isinstance(other, tree.PeopleLeaf) and other.name != leaf.name
    }
    while True:
        issued = issue_paper(leaf, secret)
        if issued.leaf.identifier not in taken:
            return issued


def issue_paper(leaf: tree.PeopleLeaf, secret: Secret) -> paper.Issued:
    """A new set of paper shares, proven by putting a threshold of them together."""
    issued = paper.issue(leaf.name, secret, leaf.threshold, leaf.shares)
    tray = paper.PaperTray(issued.leaf)
    for mnemonic in issued.mnemonics[-leaf.threshold :]:
        tray.add(paper.read(mnemonic))
    if tray.secret() != secret:
        raise Inconsistent("the paper shares do not give the secret back", "a fault of kluis", "")
    return issued


def seal_document(draft: Document, root: Secret, contents: Contents) -> Document:
    """The document with its body, proven by reading its bytes as a stranger would.

    Raises Locked when the secrets were wiped meanwhile: zeros must not become a root secret.
    """
    if root == Secret(bytes(SECRET_BYTES)):
        raise Locked(
            f"the keyring {draft.name} was locked meanwhile",
            "its root secret is not in memory; nothing was written",
            f"kluis unlock {draft.name}, then try again",
        )
    document = body.seal(draft, root, contents)
    again = from_bytes(to_bytes(document))
    if again != document or body.open_(again, root) != contents:
        raise Inconsistent("the new document does not read back", "a fault of kluis", "report it")
    return document


def _refuse_if_stranded(node: tree.Node, away: Mapping[str, AnchorError]) -> None:
    policy = tree.to_policy(node)
    present = {leaf.name for _, leaf in tree.leaves(node)} - set(away)
    if trust.opens_with(policy, present):
        return
    name = min(away)
    error = away[name]
    raise ChangeRefused(
        f"{name}: {error.seen}",
        "without it the keyring could not be opened at all; nothing was written",
        error.next_step,
    )
