"""A good document, and copies of it with one thing changed."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import cast

from tests.vectors.keyrings import People, Static, any_of, k_of, make
from tests.vectors.scheme import JSON, Object, b64, canonical

Step = str | int
Case = tuple[str, str, str, bytes]
"""The name of the vector, the class of error, what it is about, the bytes."""

GOOD = make(
    "faults",
    "disk or 2 of (nas, cloud, vault) or family",
    any_of(
        Static("disk"),
        k_of(2, Static("nas"), Static("cloud"), Static("vault")),
        People("family", 2, 3),
    ),
).sealed()
GONE = object()


def edited(value: object, *path: Step, of: Object = GOOD) -> Object:
    """A copy with one member set, appended, or taken out (GONE)."""
    result = copy.deepcopy(of)
    place: object = result
    for step in path[:-1]:
        place = place[step]  # type: ignore[index]
    if value is GONE:
        del place[path[-1]]  # type: ignore[attr-defined]
    else:
        place[path[-1]] = value  # type: ignore[index]
    return result


def member(document: Object, *path: Step) -> JSON:
    """The member at a path."""
    place: object = document
    for step in path:
        place = place[step]  # type: ignore[index]
    return cast(JSON, place)


def case(name: str, error: str, about: str, value: object, *path: Step) -> Case:
    return name, error, about, canonical(edited(value, *path))


def raw(name: str, error: str, about: str, old: str, new: str) -> Case:
    text = canonical(GOOD).decode()
    assert text.count(old) == 1, (name, text.count(old))
    return name, error, about, text.replace(old, new).encode()


def refused(cases: Iterable[Case]) -> Iterator[tuple[str, Object]]:
    """The vectors of documents that reading refuses, each by the name of its file."""
    for name, error, about, content in cases:
        vector: Object = {"about": about, "kind": "document", "error": error, "stage": "read"}
        try:
            vector["document"] = content.decode()
        except UnicodeDecodeError:
            vector["document_base64"] = b64(content)
        yield f"document/refused/{name}", vector
