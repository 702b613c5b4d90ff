"""Every vector under tests/vectors gives what it says; they are made by a second implementation."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from kluis import errors
from kluis.anchors.passphrase import PassphraseAnchor
from kluis.anchors.sources import FileSource
from kluis.anchors.static import StaticAnchor
from kluis.keyring import body, dealing, document, keys, paper, policy, shamir, tree, trust
from kluis.keyring.quorum import Quorum
from kluis.secret import Secret
from tests.vectors import generate

Vector = Mapping[str, Any]

FILES: Final = sorted(generate.on_disk())


def _document_bytes(vector: Vector) -> bytes:
    if "document_base64" in vector:
        return base64.b64decode(vector["document_base64"])
    data: bytes = vector["document"].encode()
    return data.ljust(vector["pad_to_bytes"]) if "pad_to_bytes" in vector else data


def _run_document(vector: Vector, folder: Path) -> None:
    if vector["error"] is None:
        _run_valid(vector, folder)
    elif vector["stage"] == "read":
        document.from_bytes(_document_bytes(vector))
    else:
        read = _not_yet_wrong(lambda: document.from_bytes(_document_bytes(vector)))
        body.open_(read, Secret(bytes.fromhex(vector["root_secret"])))


def _not_yet_wrong(step: Callable[[], document.Document]) -> document.Document:
    try:
        return step()
    except errors.KluisError as error:
        raise AssertionError("the fault must show only at the next step") from error


def _run_valid(vector: Vector, folder: Path) -> None:
    data = _document_bytes(vector)
    read = document.from_bytes(data)
    assert document.to_bytes(read) == data
    quorums = trust.minimal_quorums(tree.to_policy(read.tree))
    assert [list(names) for names in quorums] == vector["quorums"]
    leaves = {leaf.name: path for path, leaf in tree.leaves(read.tree)}
    secrets = {name: _open_leaf(read, path, vector, folder) for name, path in leaves.items()}
    shown = {tree.show_path(leaves[name]): secret for name, secret in secrets.items()}
    assert {p: s.reveal().hex() for p, s in shown.items()} == vector["leaf_secrets"]
    for names in quorums[:40]:
        machine = Quorum(read.tree)
        candidates = [c for name in names for c in machine.answer(leaves[name], secrets[name])]
        assert [c.reveal().hex() for c in candidates] == [vector["root_secret"]]
    contents = body.open_(read, Secret(bytes.fromhex(vector["root_secret"])))
    assert body._to_json(contents) == vector["contents"]
    assert dealing.known(read.tree, candidates[0], contents.leaves).keys() == set(leaves.values())


def _open_leaf(read: document.Document, path: tree.Path, vector: Vector, folder: Path) -> Secret:
    leaf = tree.at_leaf(read.tree, path)
    anchor = vector["anchors"][leaf.name]
    if isinstance(leaf, tree.PeopleLeaf):
        return _combine(leaf, anchor["mnemonics"][-leaf.threshold :])
    if leaf.sealed is None:
        secrets = vector["leaf_secrets"]
        return Secret(bytes.fromhex(secrets[tree.show_path(path)]))
    sealed = {"sealed": leaf.sealed, "context": read.context(path, leaf.kind).decode(), **anchor}
    return _open_anchor(sealed, folder)


def _open_anchor(vector: Vector, folder: Path) -> Secret:
    sealed, bound = vector["sealed"], vector["context"].encode()
    if vector["kind"] == "static":
        file = folder / "anchor.key"
        file.touch(mode=0o600)
        file.write_text(vector["key"])
        return asyncio.run(StaticAnchor("disk", FileSource(file)).open(sealed, bound))
    anchor = PassphraseAnchor("room")
    anchor.enter(vector["passphrase"])
    return asyncio.run(anchor.open(sealed, bound))


def _run_leaf(vector: Vector, folder: Path) -> None:
    assert _open_anchor(vector, folder).reveal().hex() == vector["secret"]


def _run_policy(vector: Vector, folder: Path) -> None:
    parsed = policy.parse(vector["expression"])
    assert policy.show(parsed) == vector["shown"]
    assert policy.parse(policy.show(parsed)) == parsed


def _run_shamir(vector: Vector, folder: Path) -> None:
    shares = {int(x): bytes.fromhex(y) for x, y in vector["shares"].items()}
    if vector["error"] is not None:
        shamir.interpolate(shares)
    threshold = vector["threshold"]
    last = dict(list(shares.items())[-threshold:])
    assert shamir.interpolate(last).hex() == vector["secret"]
    assert {x: shamir.interpolate(last, x) for x in shares} == shares


def _run_transit(vector: Vector, folder: Path) -> None:
    versions = {
        int(number): keys.Version(bytes.fromhex(material), "2025-01-02T03:04:05Z")
        for number, material in vector["material"].items()
    }
    key = keys.TransitKey(keys.Key("transit", versions, vector["minimum"]))
    assert key.decrypt(vector["ciphertext"])[0].hex() == vector["plaintext"]


def _run_paper(vector: Vector, folder: Path) -> None:
    leaf = tree.from_json(vector["leaf"])
    assert isinstance(leaf, tree.PeopleLeaf)
    assert _combine(leaf, vector["lines"]).reveal().hex() == vector["secret"]


def _combine(leaf: tree.PeopleLeaf, lines: list[str]) -> Secret:
    tray = paper.PaperTray(leaf)
    for line in lines:
        tray.add(paper.read(line))
    return tray.secret()


RUN: Final = {
    "document": _run_document,
    "static": _run_leaf,
    "passphrase": _run_leaf,
    "policy": _run_policy,
    "shamir": _run_shamir,
    "transit": _run_transit,
    "paper": _run_paper,
}


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(generate.FOLDER)))
def test_a_vector_gives_what_it_says(file: Path, tmp_path: Path) -> None:
    vector = json.loads(file.read_text())
    run = RUN[vector["kind"]]
    if vector["error"] is None:
        run(vector, tmp_path)
        return
    with pytest.raises(errors.KluisError) as raised:
        run(vector, tmp_path)
    assert type(raised.value).__name__ == vector["error"]
    if "position" in vector:
        assert isinstance(raised.value, errors.PolicyError)
        assert raised.value.position == vector["position"]
    for line in (raised.value.seen, raised.value.means, raised.value.next_step):
        assert line.isprintable()
        assert len(line) < 600


def test_the_vectors_on_disk_are_what_the_generator_makes() -> None:
    assert generate.made() == generate.on_disk()


def test_there_is_a_vector_for_every_class_of_error_that_a_document_can_give() -> None:
    said = {json.loads(file.read_text())["error"] for file in FILES}
    refused = [errors.DocumentError, errors.ShareError, errors.KeyringKeyError]
    classes = {c.__name__ for parent in refused for c in parent.__subclasses__()}
    assert classes - said == {"UnknownKey"}  # the facade's: a key that is not there
