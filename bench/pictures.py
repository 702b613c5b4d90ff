"""The pictures in the documents: horizontal bars, every axis from zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench import restart, throughput
from bench.processes import BenchFailed
from bench.results import Result, Spread, number

OURS, THEIRS = "#2a6f97", "#b8bec6"
INK: Final = "#30363d"
# The same file for the same results: no dates, no random names; text stays text.
_SETTINGS: Final = {
    "svg.hashsalt": "kluis",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


@dataclass(frozen=True)
class Bar:
    """One bar, with its middle half as a whisker."""

    label: str
    spread: Spread
    ours: bool


@dataclass(frozen=True)
class Chart:
    """One diagram: bars from top to bottom. ``per`` divides the values for the axis."""

    title: str
    axis: str
    bars: Sequence[Bar]
    per: float = 1.0


def draw(results: Mapping[str, Result], folder: Path) -> None:
    """Draw what there are results for. Raises BenchFailed without matplotlib."""
    drawn = {
        name: charts(results[name])
        for name, charts in (("restart", _restart), ("throughput", _throughput))
        if name in results
    }
    if not drawn:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, charts in drawn.items():
        _save(charts, folder / f"{name}.svg")
    if len(drawn) == 2:
        first = drawn["throughput"][0]
        _save([drawn["restart"][0], first], folder / "performance.svg")


def _restart(result: Result) -> list[Chart]:
    bars = [
        Bar(one.what.replace(", ", ",\n", 1), one.spread, one.what.startswith(restart.FACADE))
        for one in result.series
    ]
    return [Chart("Restart of a stock OpenBao", "milliseconds until it is active", bars, 0.001)]


def _throughput(result: Result) -> list[Chart]:
    spreads = {one.what: one.spread for one in result.series}
    charts = []
    for operation in throughput.OPERATIONS:
        for where in ("TLS off", "TLS on"):
            bars = [
                Bar(
                    server.replace(", ", ",\n", 1),
                    spreads[throughput.series_name(f"{operation}, {where}", server, "requests")],
                    server == throughput.KLUIS,
                )
                for server in (throughput.KLUIS, *throughput.PEERS)
            ]
            title = f"Transit {operation}, {where}"
            charts.append(Chart(title, "thousand requests a second", bars, 1000))
    return charts


def _save(charts: Sequence[Chart], path: Path) -> None:
    try:
        import matplotlib as mpl  # noqa: PLC0415 - installed by make bench only
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        raise BenchFailed("matplotlib is missing: make bench installs it") from None
    rows = (len(charts) + 1) // 2
    with mpl.rc_context(_SETTINGS):
        most = max(len(chart.bars) for chart in charts)
        size = (8.6 if len(charts) > 1 else 5.2, rows * (0.9 + 0.42 * most))
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(rows, min(2, len(charts)), squeeze=False)
        for axes, chart in zip(grid.flat, charts, strict=False):
            _bars(axes, chart)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def _bars(axes: Any, chart: Chart) -> None:
    values = [bar.spread.median / chart.per for bar in chart.bars]
    whiskers = (
        [(bar.spread.median - bar.spread.low) / chart.per for bar in chart.bars],
        [(bar.spread.high - bar.spread.median) / chart.per for bar in chart.bars],
    )
    places = range(len(values))
    colours = [OURS if bar.ours else THEIRS for bar in chart.bars]
    axes.barh(places, values, xerr=whiskers, color=colours, ecolor=INK, capsize=2, height=0.66)
    ends = [bar.spread.high / chart.per for bar in chart.bars]
    for place, value, end in zip(places, values, ends, strict=True):
        axes.annotate(
            number(value), (end, place), xytext=(4, 0), textcoords="offset points", va="center"
        )
    axes.set_yticks(places, [bar.label for bar in chart.bars])
    axes.invert_yaxis()
    axes.set_xlim(0, max(ends) * 1.18)
    axes.set_title(chart.title, loc="left", fontweight="bold", fontsize=10)
    axes.set_xlabel(chart.axis)
    axes.spines[["top", "right"]].set_visible(False)
