"""The picture of a rule: well-formed, self-contained, nothing over anything else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kluis.cli import picture
from kluis.cli.layout import GAP, Box
from kluis.cli.pen import text_width
from kluis.errors import UsageError, WriteFailed
from kluis.keyring import policy
from kluis.keyring.policy import Policy
from kluis.service.explain import explaining
from tests.cli.test_contracts import README_RULE
from tests.keyring.strategies import policies
from tests.service.installations import home, people, static, transit
from tests.support.house import House

SVG = "{http://www.w3.org/2000/svg}"
SELF = "https://bao.example:8200"
KINDS = (
    static(),
    static(domain="house"),
    static(domain="W" * 64),
    people(2, 3, domain="house"),
    people(9, 16),
    people(1, 1),
    transit(SELF, domain="power line east"),
)


def drawn(rule: str, anchors: dict[str, dict[str, object]], keyring: str = "homelab") -> ET.Element:
    one = home(rules={keyring: rule}, anchors=anchors, clients={"bletchley": ([keyring], SELF)})
    found = explaining.explain([one], keyring)
    return ET.fromstring(picture.draw(found, one.settings.anchors))


@dataclass(frozen=True)
class Drawn:
    """A box of the picture; ``style`` is its class, or the words in it."""

    style: str
    box: Box

    def over(self, other: Drawn) -> bool:
        one, two = self.box, other.box
        return (
            one.left < two.left + two.width
            and two.left < one.left + one.width
            and one.top < two.top + two.height
            and two.top < one.top + one.height
        )

    def within(self, other: Drawn) -> bool:
        one, two = self.box, other.box
        return (
            two.left <= one.left
            and one.left + one.width <= two.left + two.width
            and two.top <= one.top
            and one.top + one.height <= two.top + two.height
        )


def rects(svg: ET.Element, *styles: str) -> list[Drawn]:
    return [
        Drawn(
            rect.attrib["class"],
            Box(*(float(rect.attrib[key]) for key in ("x", "y", "width", "height"))),
        )
        for rect in svg.iter(f"{SVG}rect")
        if rect.attrib["class"].split()[0] in styles
    ]


def texts(svg: ET.Element) -> Iterator[Drawn]:
    for text in svg.iter(f"{SVG}text"):
        size, words = float(text.attrib["font-size"]), text.text or ""
        width = text_width(words, size)
        left = float(text.attrib["x"])
        if text.attrib.get("text-anchor") == "middle":
            left -= width / 2
        yield Drawn(words, Box(left, float(text.attrib["y"]) - size * 0.75, width, size * 0.95))


def words(svg: ET.Element) -> list[str]:
    return [text.style for text in texts(svg)]


@given(policies(max_names=12), st.data())
def test_nothing_lies_over_anything_else_and_all_is_on_the_page(
    rule: Policy, data: st.DataObject
) -> None:
    names = list(policy.names(rule))
    long = data.draw(st.sampled_from(["", "m" * 60, "-w-i" * 15]))
    renamed = {name: f"{name}{long}" if i % 3 == 0 else name for i, name in enumerate(names)}
    expression = re.sub(r"a\d+", lambda found: renamed[found[0]], policy.show(rule))
    anchors = {name: dict(data.draw(st.sampled_from(KINDS))) for name in renamed.values()}
    svg = drawn(expression, anchors, data.draw(st.sampled_from(["k", "k" * 63])))
    (page,) = rects(svg, "page")
    said, cards = list(texts(svg)), rects(svg, "card")
    for one, other in combinations(said, 2):
        assert not one.over(other), (one, other)
    shown = [card for card in cards if card.box.height > 30]
    assert len(shown) == len(names)
    for one, other in combinations([*shown, *rects(svg, "root", "gate")], 2):
        assert not one.over(other), (one, other)
    for thing in [*said, *cards, *rects(svg, "root", "gate", "risk-tag", "circle-tag", "paper")]:
        assert thing.within(page), thing
    parts = rects(svg, "risk-tag", "circle-tag", "paper", "domain", "none")
    for part in parts:
        for card in shown:
            assert part.within(card) or not part.over(card), (part, card)
        for text in said:
            assert text.within(part) or not text.over(part), (part, text)


def lines(svg: ET.Element) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    for path in svg.iter(f"{SVG}path"):
        numbers = [float(number) for number in re.findall(r"[0-9.]+", path.attrib["d"])]
        yield (numbers[0], numbers[1]), (numbers[8], numbers[7])


@given(policies(max_names=12))
def test_a_line_runs_over_no_gate_and_no_anchor(rule: Policy) -> None:
    svg = drawn(policy.show(rule), {name: static() for name in policy.names(rule)})
    things = [*rects(svg, "gate", "root"), *(c for c in rects(svg, "card") if c.box.height > 30)]
    found = list(lines(svg))
    gates = len([gate for gate in rects(svg, "gate") if gate.box.height > 30])
    assert len(found) == len(list(policy.names(rule))) + gates
    for (x, y), (end, to) in found:
        bend = Drawn("", Box(x + 0.1, min(y, to), GAP - 0.2, abs(to - y)))
        straight = Drawn("", Box(x + GAP, to, end - x - GAP - 0.1, 0.1))
        assert not [thing for thing in things if thing.over(bend) or thing.over(straight)]


def test_a_picture_says_kinds_domains_gates_shares_and_single_points() -> None:
    anchors: dict[str, dict[str, object]] = {
        "tpm": {"kind": "tpm2", "domain": "house"},
        "nas": {"kind": "tang", "url": "http://nas", "domain": "house"},
        "cloud": {"kind": "awskms", "key": "k", "domain": "aws"},
        "family": people(3, 5),
        "bao": transit(SELF),
    }
    svg = drawn("tpm or 2 of (nas, cloud, bao and family)", anchors)
    said = words(svg)
    for expected in (
        *("Who opens homelab", "opens", "homelab", "any", "all", "2 of 3"),
        *("tpm", "TPM 2.0", "Tang server", "AWS KMS", "Transit engine", "3 of 5 shares"),
        *("house", "aws", "opens alone", "circle"),
        "house: lost as a whole, it still opens; stolen as a whole, it opens",
        "aws: lost as a whole, it still opens; stolen as a whole, it is not enough",
    ):
        assert expected in said, expected
    assert len(rects(svg, "paper")) == 5 + 2  # and two in the legend
    risky = [card for card in rects(svg, "card") if "risk" in card.style and card.box.height > 30]
    assert len(risky) == 1


def test_an_anchor_that_may_not_be_lost_is_outlined_too() -> None:
    svg = drawn("disk and (nas or cloud)", {n: static() for n in ("disk", "nas", "cloud")})
    assert "may not be lost" in words(svg)
    assert "opens alone" not in words(svg)


def test_a_picture_needs_nothing_from_outside_and_runs_nothing() -> None:
    one = home(rules={"homelab": "disk"}, anchors={"disk": static()})
    found = explaining.explain([one], "homelab")
    text = picture.draw(found, one.settings.anchors).decode()
    assert text.startswith("<?xml")
    assert not re.search(r"<script|href|url\(|@import|<image|on[a-z]+=", text)
    assert re.findall(r"https?://[^\"]*", text) == ["http://www.w3.org/2000/svg"]
    assert "prefers-color-scheme: dark" in text


def test_words_are_escaped() -> None:
    from kluis.cli.pen import Pen

    pen = Pen(10, 10, "<&>", '"</desc>')
    pen.text("<script>&", (0, 0), 12)
    svg = ET.fromstring(pen.svg())
    assert words(svg) == ["<script>&"]
    assert svg.findtext(f"{SVG}title") == "<&>"


# -- the file


def test_the_command_writes_a_picture_and_overwrites_its_own(tmp_path: Path) -> None:
    house = House(tmp_path, README_RULE)
    for _ in range(2):
        done = house.kluis("explain", "homelab", "--picture", "trust.svg")
        assert (done.code, done.err) == (0, "wrote trust.svg\n")
        assert done.out.startswith("homelab opens with: ")
        assert "house-tpm" in words(ET.parse(tmp_path / "trust.svg").getroot())
    assert list(tmp_path.glob("trust.svg*")) == [tmp_path / "trust.svg"]
    assert house.json("explain", "--picture", "other.svg")["homelab"]["opens"]


def test_a_file_that_is_no_picture_is_not_overwritten(tmp_path: Path) -> None:
    house = House(tmp_path, README_RULE)
    assert "does not end in .svg" in house.refuses("explain", "--picture", "kluis.toml")["seen"]
    (tmp_path / "notes.svg").write_text("my notes")
    assert "is no SVG" in house.refuses("explain", "--picture", "notes.svg")["seen"]
    (tmp_path / "folder.svg").mkdir()
    assert "is no SVG" in house.refuses("explain", "--picture", "folder.svg")["seen"]
    assert house.refuses("explain", "--picture", "no/where.svg")["class"] == "WriteFailed"


def test_a_picture_is_of_one_keyring(tmp_path: Path) -> None:
    house = House(tmp_path, README_RULE)
    house.edit(
        more='[keyrings.office]\nstore = { kind = "directory", path = "office" }\nopens = "nas"\n'
    )
    assert "declares 2 keyrings" in house.refuses("explain", "--picture", "trust.svg")["seen"]
    house.text("explain", "office", "--picture", "trust.svg")


def test_a_link_stays_a_link_and_what_can_not_be_written_stays_whole(tmp_path: Path) -> None:
    picture.write(tmp_path / "real.svg", b"<svg/>")
    (tmp_path / "link.SVG").symlink_to("real.svg")
    picture.write(tmp_path / "link.SVG", b"<svg>new</svg>")
    assert (tmp_path / "link.SVG").is_symlink()
    assert (tmp_path / "real.svg").read_bytes() == b"<svg>new</svg>"
    with pytest.raises(UsageError):
        picture.write(tmp_path / "real", b"<svg/>")
    with pytest.raises(WriteFailed):
        picture.write(tmp_path / "nowhere" / "x.svg", b"<svg/>")
