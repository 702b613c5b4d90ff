"""The policy tree of a document: every leaf carries what its anchor sealed.

A leaf's place is its path: the indices, counted from 0, that lead to it from the root.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from kluis.errors import Inconsistent
from kluis.keyring.policy import (
    MAX_ANCHORS,
    MAX_DEPTH,
    NAME_PATTERN,
    AnyOf,
    Name,
    Policy,
    Threshold,
)
from kluis.keyring.strict import JSON, Fields, canonical, refuse_too_many, wrong_type

MAX_SEALED_BYTES: Final = 16 * 1024
MAX_PEOPLE_SHARES: Final = 16  # SLIP-39

Path = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AnchorLeaf:
    """An anchor, and what it sealed; None when it was away and is to be healed."""

    name: str
    kind: str
    sealed: Mapping[str, JSON] | None = None


@dataclass(frozen=True, slots=True)
class PeopleLeaf:
    """People with paper shares; ``identifier`` is that of the SLIP-39 set (15 bits)."""

    name: str
    threshold: int
    shares: int
    identifier: int


@dataclass(frozen=True, slots=True)
class AnyNode:
    """One of the children is enough."""

    of: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class ThresholdNode:
    """``threshold`` of the children are enough."""

    threshold: int
    of: tuple[Node, ...]


Leaf = AnchorLeaf | PeopleLeaf
Node = Leaf | AnyNode | ThresholdNode


def show_path(path: Path) -> str:
    """A path as it stands in contexts and in the body: ``/`` is the root, ``/0/2`` a leaf."""
    return "/" + "/".join(map(str, path))


def from_policy(policy: Policy, leaves: Mapping[str, Leaf]) -> Node:
    """The tree of a policy, with the given leaf for every name."""
    match policy:
        case Name(name):
            return leaves[name]
        case AnyOf(of):
            return AnyNode(tuple(from_policy(member, leaves) for member in of))
        case _:
            members = tuple(from_policy(member, leaves) for member in policy.of)
            return ThresholdNode(policy.threshold, members)


def to_policy(node: Node) -> Policy:
    """The policy that a tree says."""
    match node:
        case AnyNode(of):
            return AnyOf(tuple(to_policy(child) for child in of))
        case ThresholdNode(threshold, of):
            return Threshold(threshold, tuple(to_policy(child) for child in of))
        case _:
            return Name(node.name)


def leaves(node: Node, path: Path = ()) -> Iterator[tuple[Path, Leaf]]:
    """Every leaf with its path, from left to right."""
    match node:
        case AnyNode(of) | ThresholdNode(of=of):
            for i, child in enumerate(of):
                yield from leaves(child, (*path, i))
        case _:
            yield path, node


def machine_leaves(node: Node) -> Iterator[tuple[Path, AnchorLeaf]]:
    """The leaves that anchors open, in order; not those of people."""
    for path, leaf in leaves(node):
        if isinstance(leaf, AnchorLeaf):
            yield path, leaf


def at_leaf(node: Node, path: Path) -> Leaf:
    """The leaf at a path. Raises KeyError when there is none."""
    return dict(leaves(node))[path]


def replace_leaf(node: Node, path: Path, leaf: Leaf) -> Node:
    """The same tree with another leaf at ``path``."""
    match node:
        case AnyNode(of) | ThresholdNode(of=of) if path:
            i = path[0]
            child = replace_leaf(of[i], path[1:], leaf)
            return replace(node, of=(*of[:i], child, *of[i + 1 :]))
        case _:
            return leaf


def to_json(node: Node) -> dict[str, JSON]:
    """The tree in the format of the document."""
    match node:
        case AnyNode(of):
            return {"any": [to_json(child) for child in of]}
        case ThresholdNode(threshold, of):
            return {"threshold": threshold, "of": [to_json(child) for child in of]}
        case AnchorLeaf(name, kind, sealed):
            return {
                "anchor": name,
                "kind": kind,
                "sealed": None if sealed is None else dict(sealed),
            }
        case _:
            return {
                "people": node.name,
                "threshold": node.threshold,
                "shares": node.shares,
                "identifier": node.identifier,
            }


def from_json(value: JSON, where: str = "tree", depth: int = 0) -> Node:
    """The tree of a document. Raises DocumentError."""
    refuse_too_many(f"the depth of {where}", depth, MAX_DEPTH)
    fields = Fields(value, where)
    if fields.has("anchor"):
        node: Node = _anchor_leaf(fields)
    elif fields.has("people"):
        node = _people_leaf(fields)
    elif fields.has("any"):
        node = AnyNode(_children(fields, "any", depth))
    else:
        node = _threshold_node(fields, depth)
    fields.done()
    return node


def _children(fields: Fields, name: str, depth: int) -> tuple[Node, ...]:
    children = fields.items(name, MAX_ANCHORS)
    if len(children) < 2:
        raise Inconsistent(
            f"{fields.path(name)} has {len(children)} members",
            "a group of fewer than two is not in normal form",
            "take the document from a backup or from the store's history",
        )
    where = fields.path(name)
    return tuple(from_json(c, f"{where}[{i}]", depth + 1) for i, c in enumerate(children))


def _threshold_node(fields: Fields, depth: int) -> Node:
    children = _children(fields, "of", depth)
    return ThresholdNode(fields.integer("threshold", 2, len(children)), children)


def _anchor_leaf(fields: Fields) -> Leaf:
    name = fields.text("anchor", NAME_PATTERN)
    kind = fields.text("kind", r"[a-z][a-z0-9]{0,31}")
    sealed = fields.take("sealed")
    if sealed is None:
        return AnchorLeaf(name, kind)
    if not isinstance(sealed, dict):
        raise wrong_type(fields.path("sealed"), "an object or null", sealed)
    refuse_too_many(fields.path("sealed"), len(canonical(sealed)), MAX_SEALED_BYTES)
    return AnchorLeaf(name, kind, sealed)


def _people_leaf(fields: Fields) -> Leaf:
    name = fields.text("people", NAME_PATTERN)
    shares = fields.integer("shares", 1, MAX_PEOPLE_SHARES)
    threshold = fields.integer("threshold", min(shares, 2), shares)  # SLIP-39 has no 1 of 2
    return PeopleLeaf(name, threshold, shares, fields.integer("identifier", 0, 2**15 - 1))
