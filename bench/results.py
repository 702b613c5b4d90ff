"""What a benchmark found: samples, ratios of adjacent pairs, verdicts; as JSON and as tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles
from typing import Final

from bench.machine import describe

DIRECTORY: Final = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Spread:
    """Several measurements of one thing; half of them lie between ``low`` and ``high``."""

    median: float
    low: float
    high: float
    least: float
    most: float
    count: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """The spread of one or more samples."""
        twice = samples if len(samples) > 1 else [*samples, *samples]
        low, middle, high = (round(cut, 4) for cut in quantiles(twice, method="inclusive"))
        least, most = round(min(samples), 4), round(max(samples), 4)
        return cls(middle, low, high, least, most, len(samples))


@dataclass(frozen=True)
class Series:
    """One thing that was measured: what, in which unit, each sample in order."""

    what: str
    unit: str
    samples: tuple[float, ...]

    @property
    def spread(self) -> Spread:
        """Median and quartiles."""
        return Spread.of(self.samples)

    def as_json(self) -> dict[str, object]:
        """All of it, the samples to four places."""
        samples = [round(sample, 4) for sample in self.samples]
        return asdict(self) | {"samples": samples, "spread": asdict(self.spread)}


@dataclass(frozen=True)
class Ratio:
    """Two series, sample by sample: each sample of one over the other's of the same round."""

    what: str
    spread: Spread

    @classmethod
    def of(cls, what: str, above: Sequence[float], below: Sequence[float]) -> Ratio:
        """The ratios of adjacent pairs."""
        return cls(what, Spread.of([a / b for a, b in zip(above, below, strict=True)]))


@dataclass(frozen=True)
class Target:
    """A promise and how it turned out. ``kind`` is ``at most`` or ``at least``."""

    what: str
    kind: str
    limit: float
    unit: str
    found: float

    @property
    def met(self) -> bool:
        """Whether the promise was kept."""
        return self.found <= self.limit if self.kind == "at most" else self.found >= self.limit


@dataclass(frozen=True)
class Result:
    """All that one benchmark found."""

    name: str
    title: str
    series: tuple[Series, ...]
    ratios: tuple[Ratio, ...] = ()
    targets: tuple[Target, ...] = ()
    conditions: Mapping[str, str | int | float] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    """Where given, each series is named ``thing: column``, and a thing has one row for them."""

    def write(self, folder: Path, *, quick: bool) -> None:
        """Write ``<name>.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        value = {
            "benchmark": self.name,
            "title": self.title,
            "measured": datetime.now(UTC).date().isoformat(),
            "quick": quick,
            "machine": describe(),
            "conditions": dict(self.conditions),
            "columns": list(self.columns),
            "targets": [asdict(target) | {"met": target.met} for target in self.targets],
            "ratios": [asdict(ratio) for ratio in self.ratios],
            "series": [one.as_json() for one in self.series],
        }
        path = folder / f"{self.name}.json"
        path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> tuple[Result, dict[str, object]]:
        """What ``write`` wrote: the result, and the whole of the file."""
        value = json.loads(path.read_text(encoding="utf-8"))
        result = cls(
            name=value["benchmark"],
            title=value["title"],
            series=tuple(
                Series(one["what"], one["unit"], tuple(one["samples"])) for one in value["series"]
            ),
            ratios=tuple(Ratio(r["what"], Spread(**r["spread"])) for r in value["ratios"]),
            targets=tuple(
                Target(*(t[name] for name in ("what", "kind", "limit", "unit", "found")))
                for t in value["targets"]
            ),
            conditions=value["conditions"],
            columns=tuple(value.get("columns", ())),
        )
        return result, value


def tables(result: Result) -> list[tuple[str, ...] | str]:
    """A result as rows of Markdown tables: series, ratios, targets; a text is a line between."""
    rows: list[tuple[str, ...] | str] = []
    if result.columns:
        rows += _grid(result)
    else:
        rows.append(("measured", "unit", "median", "middle half", "rounds"))
        rows += [(one.what, one.unit, *_cells(one.spread)) for one in result.series]
    if result.ratios:
        rows += ["", ("ratio of adjacent pairs", "", "median", "middle half", "rounds")]
        rows += [(ratio.what, "×", *_cells(ratio.spread)) for ratio in result.ratios]
    if result.targets:
        rows += ["", target_heading(), *map(target_row, result.targets)]
    return rows


def _grid(result: Result) -> list[tuple[str, ...]]:
    """One row for each thing: in every column the median, and the middle half in brackets."""
    found = {tuple(one.what.split(": ", 1)): one for one in result.series}
    rows = [("measured", "unit", *result.columns, "rounds")]
    for thing in dict.fromkeys(thing for thing, _ in found):
        series = [found[thing, column] for column in result.columns]
        rounds = dict.fromkeys(str(len(one.samples)) for one in series)
        cells = (_cell(one.spread) for one in series)
        rows.append((thing, series[0].unit, *cells, ", ".join(rounds)))
    return rows


def _cell(spread: Spread) -> str:
    median, half, _ = _cells(spread)
    return f"{median} ({half})" if half else median


def target_heading() -> tuple[str, ...]:
    """The heading over ``target_row``."""
    return ("target", "", "promised", "found", "verdict")


def target_row(target: Target) -> tuple[str, ...]:
    """A target as a row of a table."""
    promised = f"{target.kind} {number(target.limit)}"
    verdict = "met" if target.met else "**short**"
    return (target.what, target.unit, promised, number(target.found), verdict)


def number(value: float) -> str:
    """Three digits that count, and thousands apart."""
    if value == int(value) and abs(value) < 1000:
        return f"{value:.0f}"
    if abs(value) >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return (
        f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"
    )


def _cells(spread: Spread) -> tuple[str, str, str]:
    return (
        number(spread.median),
        f"{number(spread.low)} to {number(spread.high)}" if spread.count > 1 else "",
        str(spread.count),
    )


def markdown(rows: Iterable[tuple[str, ...] | str]) -> str:
    """Tables in Markdown, columns aligned; a row after a text is a heading."""
    text: list[str] = []
    table: list[tuple[str, ...]] = []
    for row in [*rows, ""]:
        if isinstance(row, tuple):
            table.append(row)
            continue
        if table:
            text += [*_aligned(table), ""]
            table = []
        if row:
            text += [row, ""]
    return "\n".join(text).rstrip("\n")


def _aligned(table: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in table
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return lines
