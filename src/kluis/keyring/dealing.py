"""The secrets of a tree's leaves.

Every node has a secret of 32 bytes. The root's is the root secret; a child of ``any`` has its
parent's; the children of a threshold have Shamir shares of it, child i, counted from 1, at x = i.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from kluis.keyring import crypto, shamir
from kluis.keyring.tree import AnyNode, Node, Path, ThresholdNode, leaves
from kluis.secret import Secret

RandomBytes = Callable[[int], bytes]


def deal(
    node: Node,
    root: Secret,
    kept: Mapping[str, Secret] | None = None,
    random_bytes: RandomBytes = crypto.random_bytes,
) -> dict[Path, Secret]:
    """The secret of every leaf under this root secret.

    ``kept`` are secrets that leaves had before, by name. They are kept where the tree allows it:
    a threshold that only grew new members gives the old ones the shares they have.
    """
    by_path = {path: kept[leaf.name] for path, leaf in leaves(node) if kept and leaf.name in kept}
    dealt: dict[Path, Secret] = {}
    _deal(node, root, (), dealt, by_path, random_bytes)
    return dealt


def _deal(
    node: Node,
    secret: Secret,
    path: Path,
    dealt: dict[Path, Secret],
    kept: Mapping[Path, Secret],
    random_bytes: RandomBytes,
) -> None:
    match node:
        case AnyNode(of):
            for i, child in enumerate(of):
                _deal(child, secret, (*path, i), dealt, kept, random_bytes)
        case ThresholdNode(threshold, of):
            points = {0: secret.reveal(), **_points(of, path, kept)}
            shares = _extended(points, threshold, len(of)) or shamir.split(
                secret.reveal(), threshold, len(of), random_bytes
            )
            for i, child in enumerate(of):
                _deal(child, Secret(shares[i + 1]), (*path, i), dealt, kept, random_bytes)
        case _:
            dealt[path] = Secret(secret.reveal())  # its own: wiping one must not wipe another


def _extended(points: Mapping[int, bytes], threshold: int, members: int) -> dict[int, bytes] | None:
    """All shares of the polynomial that the kept ones lie on, if they lie on one."""
    if len(points) <= threshold:  # one point short of telling a polynomial from any other
        return None
    basis = dict(list(points.items())[:threshold])
    if not _lie_on(points, basis):
        return None
    # points of a lower threshold also lie on this polynomial, and fewer of them would open
    if _lie_on(points, dict(list(points.items())[: threshold - 1])):
        return None
    return {x: shamir.interpolate(basis, x) for x in range(1, members + 1)}


def _lie_on(points: Mapping[int, bytes], basis: Mapping[int, bytes]) -> bool:
    return all(shamir.interpolate(basis, x) == y for x, y in points.items())


def known(node: Node, root: Secret, machine: Mapping[Path, Secret]) -> dict[Path, Secret]:
    """The leaf secrets that follow from the root secret and those of the machine leaves.

    So also the secret of a people leaf is found, where it follows, without asking the people.
    """
    found = {path: Secret(secret.reveal()) for path, secret in machine.items()}
    _know(node, root, (), found)
    return found


def _know(node: Node, secret: Secret, path: Path, found: dict[Path, Secret]) -> None:
    match node:
        case AnyNode(of):
            for i, child in enumerate(of):
                _know(child, secret, (*path, i), found)
        case ThresholdNode(threshold, of):
            points = {0: secret.reveal(), **_points(of, path, found)}
            if len(points) >= threshold:
                basis = dict(list(points.items())[:threshold])
                for i, child in enumerate(of):
                    _know(child, Secret(shamir.interpolate(basis, i + 1)), (*path, i), found)
        case _:
            found.setdefault(path, Secret(secret.reveal()))


def _points(of: Sequence[Node], path: Path, found: Mapping[Path, Secret]) -> dict[int, bytes]:
    """The shares of a threshold that follow from the leaves below it."""
    values = {i + 1: _from_below(child, (*path, i), found) for i, child in enumerate(of)}
    return {x: value for x, value in values.items() if value is not None}


def _from_below(node: Node, path: Path, found: Mapping[Path, Secret]) -> bytes | None:
    """The secret of a node by those of its leaves, if it follows from them."""
    match node:
        case AnyNode(of):
            return next(iter(_points(of, path, found).values()), None)
        case ThresholdNode(threshold, of):
            points = list(_points(of, path, found).items())
            return (
                shamir.interpolate(dict(points[:threshold])) if len(points) >= threshold else None
            )
        case _:
            return found[path].reveal() if path in found else None


def by_name(node: Node, secrets: Mapping[Path, Secret]) -> dict[str, Secret]:
    """The same secrets by the names of their leaves."""
    return {leaf.name: secrets[path] for path, leaf in leaves(node) if path in secrets}
