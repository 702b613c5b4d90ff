"""``kluis explain --picture``: the rule as a tree, in one SVG that needs nothing from outside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kluis.cli import layout
from kluis.cli.layout import Box, Layout
from kluis.cli.pen import NAME, SMALL, TITLE, Pen, text_width
from kluis.errors import UsageError
from kluis.keyring import policy
from kluis.keyring.domains import Domain
from kluis.keyring.words import plural
from kluis.service.explain.cautions import single_losses, single_thefts
from kluis.service.explain.explaining import Explained
from kluis.settings.anchors import AnchorSettings
from kluis.store import files

MARGIN: Final = 28.0
HEADER: Final = 52.0
PAD: Final = 16.0
BAND: Final = 7.0
TAG_HEIGHT: Final = 19.0
PAPER: Final = 10.0
LEGEND_GAP: Final = 34.0
LEGEND_ROW: Final = 26.0
SWATCH: Final = 34.0
HEAD_BYTES: Final = 4096

_KINDS: Final[Mapping[str, str]] = {
    "awskms": "AWS KMS",
    "passphrase": "passphrase",
    "pkcs11": "HSM or smart card",
    "static": "static key",
    "tang": "Tang server",
    "tpm2": "TPM 2.0",
    "transit": "Transit engine",
}
_COLOURS: Final = (
    *("#2f81f7", "#2da44e", "#bf8700", "#8250df"),
    *("#d4569f", "#1b8a94", "#8c6d46", "#6e7f00"),
)
_THEFT, _LOSS, _CIRCLE = "opens alone", "may not be lost", "circle"


@dataclass(frozen=True, slots=True)
class Card:
    """What is said of an anchor. ``shares`` are threshold and number of people's paper shares."""

    name: str
    kind: str
    domain: str | None
    colour: str | None
    tags: tuple[str, ...]
    shares: tuple[int, int] | None

    @property
    def risky(self) -> bool:
        """Whether it is a single point of loss or of theft."""
        return _THEFT in self.tags or _LOSS in self.tags

    @property
    def papers(self) -> float:
        """The width of the paper shares."""
        return self.shares[1] * (PAPER + 4) + 6 if self.shares else 0.0

    @property
    def width(self) -> float:
        """A width in which its two lines have room."""
        first = text_width(self.name, NAME) + sum(_tag_width(tag) + 6 for tag in self.tags)
        chip = _tag_width(self.domain) if self.domain else 0.0
        second = self.papers + text_width(self.kind, SMALL) + chip
        return max(first, second) + 2 * PAD + BAND + 10


def draw(explained: Explained, anchors: Mapping[str, AnchorSettings]) -> bytes:
    """The picture of a keyring's rule: SVG, in UTF-8."""
    colours = {
        domain.name: _COLOURS[number % len(_COLOURS)]
        for number, domain in enumerate(explained.places.domains)
    }
    cards = {
        name: _card(explained, name, anchors[name], colours)
        for name in policy.names(explained.rule)
    }
    root_width = max(text_width(words, NAME) for words in ("opens", explained.keyring)) + 2 * PAD
    card_width = max(card.width for card in cards.values())
    lay = layout.lay_out(explained.rule, MARGIN, MARGIN + HEADER, root_width, card_width)
    title, legend = f"Who opens {explained.keyring}", list(_legend(explained, cards, colours))
    top = lay.bottom + LEGEND_GAP
    wide = max(lay.right, MARGIN + text_width(title, TITLE), *(_row_right(row) for row in legend))
    pen = Pen(
        wide + MARGIN, top + LEGEND_ROW * len(legend) + MARGIN, title, policy.show(explained.rule)
    )
    pen.text(title, (MARGIN, MARGIN + TITLE), TITLE, font_weight="600")
    _draw_tree(pen, lay, explained.keyring)
    for name, box in lay.cards.items():
        _draw_card(pen, box, cards[name])
    for number, row in enumerate(legend):
        _draw_row(pen, row, top + LEGEND_ROW * number)
    return pen.svg()


def _card(
    explained: Explained, name: str, anchor: AnchorSettings, colours: Mapping[str, str]
) -> Card:
    shares = explained.people.get(name)
    marks = (
        (_THEFT, name in single_thefts(explained.found, explained.people)),
        (_LOSS, name in single_losses(explained.found, explained.people)),
        (_CIRCLE, any(c.closed and c.anchor == name for c in explained.cold.circles)),
    )
    kind = f"{shares[0]} of {plural(shares[1], 'share')}" if shares else _KINDS[anchor.kind]
    return Card(
        name,
        kind,
        anchor.domain,
        colours.get(anchor.domain or ""),
        tuple(tag for tag, holds in marks if holds),
        shares,
    )


def _tag_width(words: str) -> float:
    return text_width(words, SMALL) + 16


def _draw_tree(pen: Pen, lay: Layout, keyring: str) -> None:
    for line in lay.lines:
        pen.line(line)
    pen.box(lay.root, "root", 10)
    half = lay.root.height / 2
    upper = Box(lay.root.left, lay.root.top + 4, lay.root.width, half)
    lower = Box(lay.root.left, lay.root.top + half - 4, lay.root.width, half)
    pen.centred("opens", upper, SMALL, "root-text")
    pen.centred(keyring, lower, NAME, "root-text")
    for gate in lay.gates:
        pen.box(gate.box, "gate", gate.box.height / 2)
        pen.centred(gate.words, gate.box, NAME)


def _draw_card(pen: Pen, box: Box, card: Card) -> None:
    pen.box(box, "card risk" if card.risky else "card", 8)
    band = Box(box.left + 5, box.top + 7, BAND, box.height - 14)
    _coloured(pen, band, card.colour, BAND / 2)
    left, right = box.left + PAD + BAND, box.left + box.width - 10
    pen.text(card.name, (left, box.top + 26), NAME, font_weight="600")
    for tag in card.tags:
        right -= _tag_width(tag)
        colour = "circle-tag" if tag == _CIRCLE else "risk-tag"
        _draw_tag(pen, tag, (right, box.top + 11), colour)
        right -= 6
    if card.shares is not None:
        _draw_papers(pen, (left, box.top + 36), *card.shares)
    pen.text(card.kind, (left + card.papers, box.top + 47), SMALL, "soft")
    if card.domain is not None:
        width = _tag_width(card.domain)
        chip = Box(box.left + box.width - 10 - width, box.top + 34, width, TAG_HEIGHT)
        _coloured(pen, chip, card.colour, TAG_HEIGHT / 2, fill_opacity="0.2")
        pen.centred(card.domain, chip, SMALL)


def _coloured(pen: Pen, box: Box, colour: str | None, radius: float, **more: str) -> None:
    if colour is None:
        pen.box(box, "none", radius, **more)
    else:
        pen.box(box, "domain", radius, fill=colour, **more)


def _draw_tag(pen: Pen, words: str, at: tuple[float, float], colour: str) -> None:
    box = Box(*at, _tag_width(words), TAG_HEIGHT)
    pen.box(box, colour, TAG_HEIGHT / 2)
    pen.centred(words, box, SMALL, "risk-text")


def _draw_papers(pen: Pen, at: tuple[float, float], needed: int, shares: int) -> None:
    for number in range(shares):
        style = "paper needed" if number < needed else "paper"
        pen.box(Box(at[0] + number * (PAPER + 4), at[1], PAPER, 13), style, 1.5)


# -- the legend

Row = tuple[str, str | None, str]
"""What is shown (gate, risk, circle, shares, domain), its colour, and what it means."""


def _legend(
    explained: Explained, cards: Mapping[str, Card], colours: Mapping[str, str]
) -> Iterator[Row]:
    for domain in explained.places.domains:
        yield "domain", colours[domain.name], _domain(domain)
    if explained.places.domains and explained.places.alone:
        yield "domain", None, "no domain: a place of its own"
    if any(card.shares for card in cards.values()):
        yield "shares", None, "paper shares, one a person; so many as are filled open"
    if any(card.risky for card in cards.values()):
        yield "risk", None, "a single point: one theft opens, or one loss locks for good"
    if any(_CIRCLE in card.tags for card in cards.values()):
        yield "circle", None, "circle: its server is unsealed by this keyring, directly or not"
    if len(cards) > 1:
        yield "gate", None, "any: one is enough; all: every one is needed"


def _domain(domain: Domain) -> str:
    lost = "it locks" if domain.loss_locks else "it still opens"
    stolen = "it opens" if domain.theft_opens else "it is not enough"
    return f"{domain.name}: lost as a whole, {lost}; stolen as a whole, {stolen}"


def _row_right(row: Row) -> float:
    return MARGIN + SWATCH + text_width(row[2], SMALL)


def _draw_row(pen: Pen, row: Row, top: float) -> None:
    shown, colour, words = row
    box = Box(MARGIN, top, 22, 16)
    match shown:
        case "domain":
            _coloured(pen, box, colour, 4)
        case "risk":
            pen.box(box, "card risk", 4)
        case "circle":
            pen.box(box, "circle-tag", 8)
        case "shares":
            _draw_papers(pen, (MARGIN, top + 1), 1, 2)
        case _:
            pen.box(box, "gate", 8)
    pen.text(words, (MARGIN + SWATCH, top + 12.5), SMALL, "soft")


# -- the file


def write(path: Path, picture: bytes) -> None:
    """Write it whole, or leave what was there. Raises UsageError or WriteFailed."""
    if path.suffix.lower() != ".svg":
        raise UsageError(
            f"{path} does not end in .svg", "the picture is an SVG", "name a file like trust.svg"
        )
    if path.exists() and not _is_svg(path):
        raise UsageError(
            f"{path} is there, and is no SVG",
            "only a picture is overwritten by a picture",
            "name another file",
        )
    files.replace(path.resolve(), picture)


def _is_svg(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return b"<svg" in file.read(HEAD_BYTES)
