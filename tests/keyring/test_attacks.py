"""Attacks on a document and its leaves, each stopped by a named class of error.

The attacker may read and change the document at will, and has what the test's name says. The
leaves are sealed by a real static anchor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from shamir_mnemonic import Share

from kluis.anchors.sources import FileSource
from kluis.anchors.static import StaticAnchor
from kluis.errors import Damaged, ForeignShare, Inconsistent, NotAuthentic, WrongShares
from kluis.keyring import body, document, paper, policy, tree
from kluis.keyring.body import Contents
from kluis.keyring.document import Document, KeyEntry, Token
from kluis.keyring.quorum import Quorum, Satisfied
from kluis.secret import Secret
from tests.keyring.strategies import NOW, Made, make, tree_of

EXPRESSION = "2 of (disk, nas, cloud)"


@dataclass(frozen=True)
class Site:
    """A keyring whose leaves are sealed for real, and its anchors."""

    made: Made
    anchors: Mapping[str, StaticAnchor]

    def answer(self, shown: Document, name: str) -> Secret:
        """What the anchor answers for its leaf in the document that it is shown."""
        path, leaf = next((p, x) for p, x in tree.leaves(shown.tree) if x.name == name)
        assert isinstance(leaf, tree.AnchorLeaf)
        assert leaf.sealed is not None
        context = shown.context(path, leaf.kind)
        return asyncio.run(self.anchors[name].open(leaf.sealed, context))

    def open(self, shown: Document, *names: str) -> Contents:
        """Open the document as it is shown, by these anchors."""
        machine = Quorum(shown.tree)
        paths = {leaf.name: path for path, leaf in tree.leaves(shown.tree)}
        for name in names:
            for candidate in machine.answer(paths[name], self.answer(shown, name)):
                return body.open_(shown, candidate)
        raise AssertionError("no quorum")


def site(folder: Path, expression: str = EXPRESSION, **more: int) -> Site:
    """A new site; the anchors of one folder keep their keys."""
    made = make(expression, epoch=more.get("epoch", 1), revision=more.get("revision", 1))
    anchors = {leaf.name: _anchor(folder, leaf.name) for _, leaf in tree.leaves(made.document.tree)}
    node = made.document.tree
    for path, leaf in tree.leaves(node):
        bound = made.document.context(path, "static")
        sealed = asyncio.run(anchors[leaf.name].seal(made.secrets[path], bound))
        node = tree.replace_leaf(node, path, tree.AnchorLeaf(leaf.name, "static", sealed))
    sealed_document = body.seal(replace(made.document, tree=node), made.root, made.contents)
    again = document.from_bytes(document.to_bytes(sealed_document))
    return Site(replace(made, document=again), anchors)


def _anchor(folder: Path, name: str) -> StaticAnchor:
    file = folder / f"{name}.key"
    if not file.exists():
        file.touch(mode=0o600)
        file.write_bytes(Secret.random().reveal())
    return StaticAnchor(name, FileSource(file))


def passes_the_reader(shown: Document) -> Document:
    """A forgery that reading alone does not notice: the test is about what comes after."""
    return document.from_bytes(document.to_bytes(shown))


def test_the_untouched_document_opens(tmp_path: Path) -> None:
    whole = site(tmp_path)
    assert whole.open(whole.made.document, "nas", "cloud") == whole.made.contents


def test_swapped_leaf_is_refused_by_its_anchor(tmp_path: Path) -> None:
    whole = site(tmp_path)
    leaves = dict(tree.leaves(whole.made.document.tree))
    moved = tree.replace_leaf(whole.made.document.tree, (1,), leaves[0,])
    moved = tree.replace_leaf(moved, (0,), leaves[1,])
    shown = passes_the_reader(
        replace(whole.made.document, tree=moved, opens="2 of (nas, disk, cloud)")
    )
    with pytest.raises(Damaged):
        whole.answer(shown, "disk")


def test_swapped_leaf_of_anchors_that_bind_nothing_is_not_authentic() -> None:
    made = make(EXPRESSION)
    node = tree_of(policy.parse("2 of (nas, disk, cloud)"))
    shown = passes_the_reader(replace(made.document, tree=node, opens="2 of (nas, disk, cloud)"))
    with pytest.raises(NotAuthentic):
        body.open_(shown, made.root)


def test_leaf_of_an_older_epoch_is_refused_by_its_anchor(tmp_path: Path) -> None:
    older, newer = site(tmp_path), site(tmp_path, epoch=2)
    leaf = tree.at_leaf(older.made.document.tree, (0,))
    shown = passes_the_reader(
        replace(newer.made.document, tree=tree.replace_leaf(newer.made.document.tree, (0,), leaf))
    )
    with pytest.raises(Damaged):
        newer.answer(shown, "disk")
    with pytest.raises(NotAuthentic):
        newer.open(shown, "nas", "cloud")


def test_tampered_policy_of_opens_alone_is_inconsistent(tmp_path: Path) -> None:
    whole = site(tmp_path)
    with pytest.raises(Inconsistent):
        passes_the_reader(replace(whole.made.document, opens="disk or nas or cloud"))


def test_tampered_policy_of_opens_and_tree_together_is_not_authentic(tmp_path: Path) -> None:
    whole = site(tmp_path)
    leaves = tuple(leaf for _, leaf in tree.leaves(whole.made.document.tree))
    shown = passes_the_reader(
        replace(whole.made.document, opens="disk or nas or cloud", tree=tree.AnyNode(leaves))
    )
    with pytest.raises(NotAuthentic):
        whole.open(shown, "disk")
    with pytest.raises(NotAuthentic):
        body.open_(shown, whole.made.root)


def test_forged_client_is_not_authentic(tmp_path: Path) -> None:
    whole = site(tmp_path)
    client = whole.made.document.clients["bletchley"]
    mine = replace(client, tokens=(*client.tokens, Token("cd" * 32, NOW)))
    shown = passes_the_reader(replace(whole.made.document, clients={"bletchley": mine}))
    with pytest.raises(NotAuthentic):
        whole.open(shown, "disk", "nas")


def test_lowered_key_minimum_is_not_authentic(tmp_path: Path) -> None:
    whole = site(tmp_path)
    entry = whole.made.document.keys["seal"]
    lowered = {"seal": KeyEntry(entry.kind, entry.latest, minimum=1)}
    assert entry.minimum == 2
    shown = passes_the_reader(replace(whole.made.document, keys=lowered))
    with pytest.raises(NotAuthentic):
        whole.open(shown, "disk", "nas")


def test_replayed_older_body_in_a_newer_document_is_not_authentic(tmp_path: Path) -> None:
    older = site(tmp_path).made
    newer = body.seal(replace(older.document, revision=2), older.root, older.contents)
    shown = passes_the_reader(replace(newer, body=older.document.body))
    with pytest.raises(NotAuthentic):
        body.open_(shown, older.root)


@pytest.mark.parametrize("revision", [1, 3, 2**53 - 1])
def test_changed_revision_is_not_authentic(tmp_path: Path, revision: int) -> None:
    whole = site(tmp_path, revision=2)
    shown = passes_the_reader(replace(whole.made.document, revision=revision))
    with pytest.raises(NotAuthentic):
        whole.open(shown, "disk", "nas")


def test_older_document_opens_nothing_of_a_newer_epoch(tmp_path: Path) -> None:
    older, newer = site(tmp_path), site(tmp_path, epoch=2, revision=2)
    assert older.open(older.made.document, "disk", "nas") == older.made.contents
    with pytest.raises(NotAuthentic):
        body.open_(newer.made.document, older.made.root)


def test_two_documents_of_different_keyrings_mixed_are_not_authentic(tmp_path: Path) -> None:
    ours = site(tmp_path)
    theirs = make(EXPRESSION, keyring_id="00000000-0000-4000-8000-000000000000")
    for shown in [
        replace(ours.made.document, body=theirs.document.body),
        replace(ours.made.document, id=theirs.document.id),
        replace(ours.made.document, tree=theirs.document.tree),
        replace(theirs.document, body=ours.made.document.body),
    ]:
        with pytest.raises(NotAuthentic):
            body.open_(passes_the_reader(shown), ours.made.root)


def test_leaves_of_another_keyring_are_refused_by_their_anchors(tmp_path: Path) -> None:
    ours = site(tmp_path)
    shown = replace(ours.made.document, id="00000000-0000-4000-8000-000000000000")
    with pytest.raises(Damaged):
        ours.answer(passes_the_reader(shown), "disk")


@pytest.mark.parametrize("liar", ["disk", "nas", "cloud"])
@pytest.mark.parametrize("first", [True, False])
def test_wrong_answer_among_good_ones_is_named_and_does_not_block(liar: str, first: bool) -> None:
    made = make(EXPRESSION)
    names = ["disk", "nas", "cloud"]
    names.sort(key=lambda name: (name == liar) != first)
    machine = Quorum(made.document.tree)
    opened: list[Contents] = []
    refused = 0
    for name in names:
        secret = Secret.random() if name == liar else made.secret(name)
        for candidate in machine.answer(made.path(name), secret):
            try:
                opened.append(body.open_(made.document, candidate))
            except NotAuthentic:
                refused += 1
    assert opened == [made.contents]
    assert refused > 0
    assert machine.wrong(opened[0].leaves) == (liar,)


def test_wrong_answers_alone_satisfy_the_rule_and_open_nothing() -> None:
    made = make("disk or nas")
    machine = Quorum(made.document.tree)
    for candidate in machine.answer(made.path("disk"), Secret.random()):
        with pytest.raises(NotAuthentic):
            body.open_(made.document, candidate)
    assert machine.state() == Satisfied()
    assert list(machine.answer(made.path("nas"), made.secret("nas"))) == [made.root]


def test_replayed_paper_of_an_older_issue_is_foreign() -> None:
    older = paper.issue("family", Secret.random(), 2, 3)
    newer = paper.issue("family", Secret.random(), 2, 3)
    if older.leaf.identifier == newer.leaf.identifier:  # one in 32768
        newer = paper.issue("family", Secret.random(), 2, 3)
    with pytest.raises(ForeignShare):
        paper.PaperTray(newer.leaf).add(paper.read(older.mnemonics[0]))


def test_replayed_paper_that_claims_the_new_number_opens_nothing() -> None:
    made = make("disk or family", {"family": (2, 3)})
    older = paper.issue("family", Secret.random(), 2, 3)
    newer = paper.issue("family", made.secret("family"), 2, 3)
    renamed = [
        replace(Share.from_mnemonic(m), identifier=newer.leaf.identifier).mnemonic()
        for m in older.mnemonics
    ]
    tray = paper.PaperTray(newer.leaf)
    tray.add(paper.read(renamed[0]))
    tray.add(paper.read(newer.mnemonics[1]))
    with pytest.raises(WrongShares):
        tray.secret()
    tray.add(paper.read(renamed[1]))
    machine = Quorum(made.document.tree)
    for candidate in machine.answer(made.path("family"), tray.secret()):
        with pytest.raises(NotAuthentic):
            body.open_(made.document, candidate)
