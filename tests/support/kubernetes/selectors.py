"""Label selectors (equality and sets) and field selectors, as queries carry them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from tests.support.kubernetes.kinds import Kind, Object
from tests.support.kubernetes.refusals import bad_request

Matches = Callable[[Object], bool]
Labels = Mapping[str, str]

_KEY: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?"
_VALUE: Final = r"[A-Za-z0-9._-]*"
_SET: Final = re.compile(rf"({_KEY})\s+(in|notin)\s*\(([^()]*)\)")
_EQUAL: Final = re.compile(rf"({_KEY})\s*(==|=|!=)\s*({_VALUE})")
_THERE: Final = re.compile(rf"(!?)\s*({_KEY})")


def labels(selector: str) -> Matches:
    """Whether an object's labels fit. Raises Refusal (400)."""
    wanted = [_requirement(part) for part in _parts(selector)]

    def matches(item: Object) -> bool:
        found = item["metadata"].get("labels") or {}
        return all(one(found) for one in wanted)

    return matches


def fields(selector: str, kind: Kind) -> Matches:
    """Whether an object's fields fit: name, namespace, and a pod's phase. Raises Refusal (400)."""
    known = {"metadata.name", "metadata.namespace"}
    if kind.key == "pods":
        known.add("status.phase")
    wanted = []
    for part in filter(None, selector.split(",")):
        match = re.fullmatch(r"([A-Za-z.]+)(==|=|!=)([^=!]*)", part)
        if match is None:
            raise bad_request(f"invalid selector: '{part}'; can't understand '{part}'")
        if match[1] not in known or ("namespace" in match[1] and not kind.namespaced):
            raise bad_request(f"field label not supported: {match[1]}")
        wanted.append((match[1].split("."), match[2] != "!=", match[3]))
    return lambda item: all((_field(item, path) == said) is same for path, same, said in wanted)


def _field(item: Object, path: list[str]) -> str:
    outer = item.get(path[0]) or {}
    return str(outer.get(path[1], ""))


def _parts(selector: str) -> list[str]:
    """Split at the commas that are not within parentheses."""
    return [part.strip() for part in re.split(r",(?![^()]*\))", selector) if part.strip()]


def _requirement(part: str) -> Callable[[Labels], bool]:
    if match := _SET.fullmatch(part):
        key, among = match[1], {one.strip() for one in match[3].split(",")}
        if match[2] == "in":
            return lambda found: key in found and found[key] in among
        return lambda found: key not in found or found[key] not in among
    if match := _EQUAL.fullmatch(part):
        key, said = match[1], match[3]
        if match[2] == "!=":
            return lambda found: found.get(key) != said
        return lambda found: found.get(key) == said
    if match := _THERE.fullmatch(part):
        key, there = match[2], not match[1]
        return lambda found: (key in found) is there
    raise bad_request(f"unable to parse requirement: {part}")
