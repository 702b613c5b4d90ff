"""Where the parts of a trust picture lie: a tree from left to right, every anchor in its own row.

Lengths are in SVG's user units, pixels at 100 %. A gate lies between its first and its last member,
and a line to an anchor runs in that anchor's row, so that nothing crosses and nothing overlaps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kluis.keyring import policy
from kluis.keyring.policy import AnyOf, Name, Policy, Threshold

CARD_HEIGHT: Final = 62.0
ROW: Final = 78.0
GATE_WIDTH: Final = 84.0
GATE_HEIGHT: Final = 34.0
GAP: Final = 56.0


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle by its left, its top, its width and its height."""

    left: float
    top: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        """The height of its centre."""
        return self.top + self.height / 2


@dataclass(frozen=True, slots=True)
class Gate:
    """Where some members meet: ``any``, ``all`` or ``2 of 3``."""

    words: str
    box: Box


@dataclass(frozen=True, slots=True)
class Line:
    """From the right edge of a box: a bend of ``GAP``, then straight to the left of another."""

    start: tuple[float, float]
    end: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Layout:
    """The gates, the cards of the anchors by their names, and the lines between them."""

    root: Box
    gates: tuple[Gate, ...]
    cards: Mapping[str, Box]
    lines: tuple[Line, ...]

    @property
    def bottom(self) -> float:
        """Below everything."""
        return max(card.top + card.height for card in self.cards.values())

    @property
    def right(self) -> float:
        """Right of everything."""
        return max(card.left + card.width for card in self.cards.values())


def lay_out(rule: Policy, left: float, top: float, root_width: float, card_width: float) -> Layout:
    """The tree of a rule with its upper left corner there."""
    return _Drafting(rule, left, top, root_width, card_width).layout()


class _Drafting:
    """One pass over the tree, from top to bottom."""

    def __init__(
        self, rule: Policy, left: float, top: float, root_width: float, card_width: float
    ) -> None:
        self._rule = rule
        self._left, self._top = left, top
        self._root_width, self._card_width = root_width, card_width
        self._gates: list[Gate] = []
        self._cards: dict[str, Box] = {}
        self._lines: list[Line] = []

    def layout(self) -> Layout:
        first = self._draft(self._rule, 0)
        root = Box(self._left, first.middle - CARD_HEIGHT / 2, self._root_width, CARD_HEIGHT)
        self._connect(root, first)
        return Layout(root, tuple(self._gates), self._cards, tuple(self._lines))

    def _draft(self, node: Policy, depth: int) -> Box:
        if isinstance(node, Name):
            top = self._top + ROW * len(self._cards)
            left = self._column(policy.depth(self._rule))
            box = self._cards[node.name] = Box(left, top, self._card_width, CARD_HEIGHT)
            return box
        members = [self._draft(member, depth + 1) for member in node.of]
        middle = (members[0].middle + members[-1].middle) / 2
        box = Box(self._column(depth), middle - GATE_HEIGHT / 2, GATE_WIDTH, GATE_HEIGHT)
        self._gates.append(Gate(_words(node), box))
        for member in members:
            self._connect(box, member)
        return box

    def _column(self, depth: int) -> float:
        return self._left + self._root_width + GAP + depth * (GATE_WIDTH + GAP)

    def _connect(self, parent: Box, child: Box) -> None:
        start = parent.left + parent.width, parent.middle
        self._lines.append(Line(start, (child.left, child.middle)))


def _words(gate: AnyOf | Threshold) -> str:
    if isinstance(gate, AnyOf):
        return "any"
    if gate.threshold == len(gate.of):
        return "all"
    return f"{gate.threshold} of {len(gate.of)}"
