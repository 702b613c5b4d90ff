"""Random policies, secrets and documents for property tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hypothesis import strategies as st

from kluis.keyring import body, dealing, document, keys, policy, tree
from kluis.keyring.body import Contents
from kluis.keyring.document import Body, Client, Document, Token
from kluis.keyring.policy import Name, Policy, threshold
from kluis.secret import Secret

NOW: Final = "2025-01-02T03:04:05Z"

secrets_of_32_bytes = st.binary(min_size=32, max_size=32).map(Secret)


@st.composite
def policies(draw: st.DrawFn, max_names: int = 7, max_depth: int = 4) -> Policy:
    """A policy in normal form over a, b, c, …, each named once."""
    count = draw(st.integers(1, max_names))
    unused = list(draw(st.permutations([f"a{i}" for i in range(count)])))
    return _group(draw, unused, max_depth)


def _group(draw: st.DrawFn, unused: list[str], depth: int) -> Policy:
    if depth == 0 or len(unused) == 1:
        return Name(unused.pop())
    width = draw(st.integers(1, len(unused)))
    members: list[Policy] = []
    for i in range(width):
        mine = [unused.pop() for _ in range(draw(st.integers(1, len(unused) - (width - i - 1))))]
        members.append(_group(draw, mine, depth - 1))
    return threshold(draw(st.integers(1, width)), members)


def tree_of(rule: Policy, people: Mapping[str, tuple[int, int]] | None = None) -> tree.Node:
    """The tree of a policy, its leaves unsealed; ``people`` have a threshold and shares."""
    leaves: dict[str, tree.Leaf] = {
        name: tree.AnchorLeaf(name, "fake") for name in policy.names(rule)
    }
    for name, (count, shares) in (people or {}).items():
        leaves[name] = tree.PeopleLeaf(name, count, shares, 7)
    return tree.from_policy(rule, leaves)


@dataclass(frozen=True)
class Made:
    """A keyring with all its secrets."""

    document: Document
    root: Secret
    secrets: dict[tree.Path, Secret]
    contents: Contents

    def path(self, name: str) -> tree.Path:
        """Where the leaf of that name is."""
        return next(p for p, leaf in tree.leaves(self.document.tree) if leaf.name == name)

    def secret(self, name: str) -> Secret:
        """What the leaf of that name holds."""
        return self.secrets[self.path(name)]


KEYRING_ID: Final = "8d7f2a64-8f0b-4c39-9d1a-0123456789ab"


def make(
    expression: str,
    people: Mapping[str, tuple[int, int]] | None = None,
    *,
    keyring_id: str = KEYRING_ID,
    epoch: int = 1,
    revision: int = 1,
    node: tree.Node | None = None,
    root: Secret | None = None,
) -> Made:
    """A keyring with one transit key and one client."""
    rule = policy.parse(expression)
    draft = Document(
        id=keyring_id,
        name="homelab",
        epoch=epoch,
        revision=revision,
        written=NOW,
        opens=policy.show(rule),
        tree=node or tree_of(rule, people),
        keys={},
        clients={"bletchley": Client((Token("ab" * 32, NOW),), ("seal",))},
        body=Body(b"", b"", b""),
    )
    root = root or Secret.random()
    dealt = dealing.deal(draft.tree, root)
    machine = {
        path: dealt[path]
        for path, leaf in tree.leaves(draft.tree)
        if isinstance(leaf, tree.AnchorLeaf)
    }
    key = keys.rotate(keys.generate("transit", NOW), NOW)
    contents = Contents({"seal": keys.Key(key.kind, key.versions, minimum=2)}, machine)
    sealed = body.seal(draft, root, contents)
    return Made(document.from_bytes(document.to_bytes(sealed)), root, dealt, contents)
