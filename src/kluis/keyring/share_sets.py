"""Whether a server's shares belong together, and how many of them are needed.

A share of a stock server is Shamir's y bytes and then one byte of x. Shares of one key lie on one
polynomial; with one share more than are needed that shows, and with exactly as many it can't.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from kluis.errors import WrongShares
from kluis.keyring import shamir

Point = tuple[int, bytes]


def needed(shares: Sequence[bytes]) -> int | None:
    """How many are needed, if the shares show it: when there are more than that. None if not.

    Raises WrongShares.
    """
    points = _points(shares)
    tells = bisect_left(range(1, len(points)), True, key=lambda n: _next_fits(points, n)) + 1
    if tells >= len(points):
        return None
    require_one_set(shares, tells)
    return tells


def require_one_set(shares: Sequence[bytes], threshold: int) -> bool:
    """Raise WrongShares if these can't be shares of one key of which ``threshold`` are enough.

    The answer is whether they really showed that they are: there are more than ``threshold``.
    """
    points = _points(shares)
    if _fit(points, threshold):
        return len(points) > threshold
    strangers = [
        number
        for number in range(len(points))
        if len(points) > threshold + 1 and _fit(points[:number] + points[number + 1 :], threshold)
    ]
    if len(strangers) == 1:
        raise WrongShares(
            f"share {strangers[0] + 1} does not belong to the others",
            "it is mistyped, or of another server or an older set",
            "correct it, or leave it out",
        )
    raise WrongShares(
        "these shares do not belong together",
        f"no key could be shared so that {threshold} of them are enough",
        "check them, and the threshold; give the shares of one set only",
    )


def _fit(points: Sequence[Point], threshold: int) -> bool:
    """Whether the first ``threshold`` tell all the others."""
    first = dict(points[:threshold])
    return all(shamir.interpolate(first, x) == y for x, y in points[threshold:])


def _next_fits(points: Sequence[Point], count: int) -> bool:
    """Whether the first ``count`` tell the one after them."""
    x, y = points[count]
    return shamir.interpolate(dict(points[:count]), x) == y


def _points(shares: Sequence[bytes]) -> list[Point]:
    points = [(share[-1], share[:-1]) for share in shares]
    numbers = {x for x, _ in points}
    one_length = len({len(y) for _, y in points}) == 1
    if len(points) > 1 and not (one_length and len(numbers) == len(points) and 0 not in numbers):
        raise WrongShares(
            "these shares do not belong together",
            "they differ in length, two have one number, or one has a number that no share has",
            "check them; give the shares of one set only",
        )
    return points
