"""A pen that draws SVG: boxes, lines and words, in light and dark, with nothing from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from xml.etree import ElementTree as ET

from kluis.cli.layout import GAP, Box, Line

TITLE: Final = 20.0
NAME: Final = 15.0
SMALL: Final = 12.0

_STYLE: Final = """
text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif }
.page { fill: #ffffff }
.text { fill: #1f2328 }
.soft { fill: #59636e }
.card { fill: #f6f8fa; stroke: #c4ccd5; stroke-width: 1.2 }
.root { fill: #1f2328 }
.root-text { fill: #ffffff }
.gate { fill: #ffffff; stroke: #59636e; stroke-width: 1.6 }
.line { fill: none; stroke: #9aa4ae; stroke-width: 1.6 }
.risk { stroke: #cf222e; stroke-width: 2.6 }
.risk-tag { fill: #cf222e }
.risk-text { fill: #ffffff }
.circle-tag { fill: #9a6700 }
.paper { fill: none; stroke: #59636e; stroke-width: 1.2 }
.needed { fill: #59636e }
.none { fill: #c4ccd5 }
@media (prefers-color-scheme: dark) {
  .page { fill: #0d1117 }
  .text { fill: #e6edf3 }
  .soft { fill: #a3acb6 }
  .card { fill: #161b22; stroke: #3d444d }
  .root { fill: #e6edf3 }
  .root-text { fill: #0d1117 }
  .gate { fill: #0d1117; stroke: #a3acb6 }
  .line { stroke: #656f7a }
  .risk { stroke: #ff6a63 }
  .risk-tag { fill: #ff6a63 }
  .risk-text { fill: #0d1117 }
  .circle-tag { fill: #e3b341 }
  .paper { stroke: #a3acb6 }
  .needed { fill: #a3acb6 }
  .none { fill: #3d444d }
}
"""

_WIDE: Final[Mapping[str, float]] = {
    **dict.fromkeys("mMW", 1.12),
    **dict.fromkeys("w%@", 1.0),
    **dict.fromkeys("ABCDEFGHKLNOPQRSTUVXYZ", 0.86),
    **dict.fromkeys("ijlI.,:;'|! ", 0.42),
    **dict.fromkeys("ftr-()[]/J", 0.5),
}
_OTHER: Final = 0.74


def text_width(text: str, size: float) -> float:
    """A width that the text stays below in the usual sans-serif fonts, bold or not."""
    return size * sum(_WIDE.get(character, _OTHER) for character in text)


class Pen:
    """Draws on a page of this size. ``title`` and ``description`` are for who can't see it."""

    def __init__(self, width: float, height: float, title: str, description: str) -> None:
        self._svg = ET.Element(
            "svg",
            {
                "xmlns": "http://www.w3.org/2000/svg",
                "width": _number(width),
                "height": _number(height),
                "viewBox": f"0 0 {_number(width)} {_number(height)}",
                "role": "img",
            },
        )
        ET.SubElement(self._svg, "title").text = title
        ET.SubElement(self._svg, "desc").text = description
        ET.SubElement(self._svg, "style").text = _STYLE
        self.box(Box(0, 0, width, height), "page")

    def box(self, box: Box, style: str, radius: float = 0.0, **more: str) -> None:
        """A rectangle; ``style`` names classes."""
        place = {
            "x": _number(box.left),
            "y": _number(box.top),
            "width": _number(box.width),
            "height": _number(box.height),
            "rx": _number(radius),
        }
        ET.SubElement(self._svg, "rect", {**place, "class": style, **_attributes(more)})

    def text(
        self, words: str, at: tuple[float, float], size: float, style: str = "text", **more: str
    ) -> None:
        """Words; ``at`` is the left end of the line they stand on."""
        place = {"x": _number(at[0]), "y": _number(at[1]), "font-size": _number(size)}
        made = ET.SubElement(self._svg, "text", {**place, "class": style, **_attributes(more)})
        made.text = words

    def centred(self, words: str, box: Box, size: float, style: str = "text") -> None:
        """Words in the middle of a box."""
        at = box.left + box.width / 2, box.middle + size * 0.36
        self.text(words, at, size, style, text_anchor="middle", font_weight="600")

    def line(self, line: Line) -> None:
        """A bend of ``GAP``, then straight on."""
        (x, y), (end, to) = line.start, line.end
        half, bent = _number(x + GAP / 2), _number(x + GAP)
        path = f"M{_number(x)} {_number(y)}C{half} {_number(y)} {half} {_number(to)} {bent}"
        ET.SubElement(
            self._svg, "path", {"d": f"{path} {_number(to)}H{_number(end)}", "class": "line"}
        )

    def svg(self) -> bytes:
        """The picture, in UTF-8."""
        ET.indent(self._svg)
        made: bytes = ET.tostring(self._svg, encoding="utf-8", xml_declaration=True)
        return made + b"\n"


def _attributes(named: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in named.items()}


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
