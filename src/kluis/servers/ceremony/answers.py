"""What answers of a server say, read with their types: whatever else came is as if it were not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from kluis.servers.http import Answer

MOST: Final = (1 << 31) - 1
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,512}")


def members(answer: Answer) -> Mapping[str, object]:
    """The members of an answer; endpoints that take a token put them into ``data``."""
    data = answer.body.get("data")
    return data if isinstance(data, dict) else answer.body


def text(said: Mapping[str, object], name: str) -> str:
    """A member that is a text; empty where it is none."""
    value = said.get(name)
    return value if isinstance(value, str) else ""


def number(said: Mapping[str, object], name: str) -> int:
    """A member that is a whole number up to ``MOST``; 0 where it is none.

    A larger one counts nothing: it could be a share, written as a number.
    """
    value = said.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        return 0
    return value if 0 <= value <= MOST else 0


def token_in(value: str) -> str:
    """The text itself if it can be a token, which a terminal prints as it is; else empty."""
    return value if _TOKEN.fullmatch(value) else ""


def texts(said: Mapping[str, object], name: str) -> Sequence[str]:
    """A member that is a list of texts; empty where it is none."""
    value = said.get(name)
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def inner(said: Mapping[str, object], name: str) -> Mapping[str, object]:
    """A member that is an object; empty where it is none."""
    value = said.get(name)
    return value if isinstance(value, dict) else {}
