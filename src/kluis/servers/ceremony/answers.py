"""What answers of a server say, read with their types: whatever else came is as if it were not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kluis.servers.http import Answer


def members(answer: Answer) -> Mapping[str, object]:
    """The members of an answer; endpoints that take a token put them into ``data``."""
    data = answer.body.get("data")
    return data if isinstance(data, dict) else answer.body


def text(said: Mapping[str, object], name: str) -> str:
    """A member that is a text; empty where it is none."""
    value = said.get(name)
    return value if isinstance(value, str) else ""


def number(said: Mapping[str, object], name: str) -> int:
    """A member that is a whole number; 0 where it is none."""
    value = said.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def texts(said: Mapping[str, object], name: str) -> Sequence[str]:
    """A member that is a list of texts; empty where it is none."""
    value = said.get(name)
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def inner(said: Mapping[str, object], name: str) -> Mapping[str, object]:
    """A member that is an object; empty where it is none."""
    value = said.get(name)
    return value if isinstance(value, dict) else {}
